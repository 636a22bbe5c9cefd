#include "tests/imaged/data/fixture.h"

#include <chrono>
#include <cstring>
#include <random>
#include <thread>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/support/results.h"

namespace imaged {

using base::Code;
using base::Error;
using base::Result;
using base::auth::Caller;

Result<void> FaultyBlobs::Put(std::string_view name, std::span<const base::ByteView> pieces) {
  int64_t left = left_.load();
  if (left == 0) return Error(Code::kOutOfSpace, "the disk is full");
  if (left > 0) left_.fetch_sub(1);
  return blobs_.Put(name, pieces);
}

std::string Answer::Field(std::string_view name) const {
  std::string wanted = fmt::format("\r\n{}: ", name);
  auto lower = [](char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c); };
  auto same = [&](char a, char b) { return lower(a) == lower(b); };
  auto at = std::search(head.begin(), head.end(), wanted.begin(), wanted.end(), same);
  if (at == head.end()) return {};
  size_t from = static_cast<size_t>(at - head.begin()) + wanted.size();
  return head.substr(from, head.find("\r\n", from) - from);
}

RawClient::RawClient(const std::string& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  size_t colon = address.find(':');
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0);
}

RawClient::~RawClient() { Close(); }

void RawClient::Close() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

void RawClient::Reset() {
  linger abort{1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  Close();
}

bool RawClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

Answer RawClient::ReadAnswer() {
  std::string all;
  std::string part(1 << 20, '\0');
  for (;;) {
    ssize_t got = ::recv(socket_, part.data(), part.size(), 0);
    if (got <= 0) break;
    all.append(part.data(), static_cast<size_t>(got));
  }
  Answer answer;
  size_t end = all.find("\r\n\r\n");
  if (end == std::string::npos || all.size() < 12) return answer;
  answer.head = all.substr(0, end + 2);
  answer.body = all.substr(end + 4);
  answer.status = std::stoi(all.substr(9, 3));
  return answer;
}

// Tokens are what they say: "admin", or a project.
class Service::Tokens : public base::auth::TokenVerifier {
 public:
  Result<std::shared_ptr<const Caller>> Verify(std::string_view token) override {
    auto caller = std::make_shared<Caller>();
    caller->user_id = "u";
    caller->project_id = token;
    caller->roles = {"member", "reader"};
    if (token == "admin" || token == "service") caller->roles.push_back(caller->project_id);
    return std::shared_ptr<const Caller>(caller);
  }
};

Service::Options Service::Defaults() {
  Options options;
  options.data.sweep_ms = 20;
  options.data.checksum = ChecksumPolicy::kOff;
  options.data.web.allowed_ports.clear();
  options.chunks.reserve_bytes = 0;
  return options;
}

namespace {

Service::Options WithStores(Service::Options options) {
  if (options.stores == nullptr) options.stores = std::make_shared<Stores>();
  return options;
}

}  // namespace

Service::Service(Options options)
    : options_(WithStores(std::move(options))), meta_(options_.stores->meta) {
  Start();
}

Service::~Service() {
  StopServer();
  path_.reset();
}

void Service::Start() {
  metrics_ = std::make_unique<base::Metrics>();
  pool_ = std::make_unique<base::async::Pool>("test", 4, 1024);
  auto store =
      chunkstore::ChunkStore::Open(options_.chunks, blobs(), meta_, base::SystemClock(), *metrics_);
  CHECK(store.has_value());
  store_ = std::move(*store);
  catalog_ = std::make_unique<Catalog>(meta_, base::SystemClock(), options_.quota);
  metadefs_ = std::make_unique<Metadefs>(meta_, base::SystemClock());
  tokens_ = std::make_unique<Tokens>();
  path_ = std::make_unique<DataPath>(options_.data, *store_, meta_, *catalog_, *pool_,
                                     base::SystemClock(), *metrics_);
  auto started = path_->Start();
  CHECK(started.has_value());
  ServiceOptions service;
  service.import_methods = options_.data.import_methods;
  service.stores = {{options_.data.store_id, "", true}};
  service_ =
      std::make_unique<ImageService>(service, *catalog_, *metadefs_, *tokens_, path_->Routes());
  router_ = std::make_unique<base::http::Router>();
  router_->Mount(service_->service());
  base::http::ServerOptions server;
  server.drain_timeout_ms = 2000;
  auto listening = base::http::Server::Start(server, *router_, *pool_, *metrics_);
  CHECK(listening.has_value());
  server_ = std::move(*listening);
  address_ = server_->address();
}

void Service::StopServer() {
  if (server_ != nullptr) server_->Stop();
}

void Service::Restart() {
  StopServer();
  path_.reset();
  server_.reset();
  router_.reset();
  service_.reset();
  catalog_.reset();
  store_.reset();
  pool_.reset();
  Start();
}

std::string Service::Head(std::string_view who, std::string_view method, std::string_view path,
                          std::string_view fields) {
  return fmt::format(
      "{} /image{} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX-Auth-Token: {}\r\n"
      "Accept: application/json\r\n{}\r\n",
      method, path, who, fields);
}

Answer Service::Call(std::string_view who, std::string_view method, std::string_view path,
                     std::string_view body, std::string_view type, std::string_view more_fields) {
  std::string fields(more_fields);
  bool has_body = method != "GET" && method != "DELETE" && method != "HEAD";
  if (has_body) {
    fields += fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", type, body.size());
  }
  RawClient client(address_);
  client.Send(Head(who, method, path, fields));
  client.Send(body);
  return client.ReadAnswer();
}

std::string Service::CreateImage(std::string_view who, std::string_view disk_format,
                                 std::string_view container_format) {
  Answer made = Call(who, "POST", "/v2/images",
                     fmt::format(R"({{"name":"i","disk_format":"{}","container_format":"{}"}})",
                                 disk_format, container_format));
  EXPECT_EQ(made.status, 201) << made.body;
  auto json = base::ParseJson(made.body);
  return json.has_value() ? base::FindString(*json, "id").value_or("") : "";
}

Answer Service::Upload(const std::string& id, std::string_view bytes, std::string_view who) {
  return Call(who, "PUT", "/v2/images/" + id + "/file", bytes, "application/octet-stream");
}

Answer Service::Download(const std::string& id, std::string_view fields, std::string_view who) {
  return Call(who, "GET", "/v2/images/" + id + "/file", {}, {}, fields);
}

Image Service::ImageOf(const std::string& id) {
  auto image = catalog_->Get(id);
  EXPECT_OK(image);
  return image.value_or(Image());
}

base::Json Service::Show(const std::string& id) {
  auto json = base::ParseJson(Call("admin", "GET", "/v2/images/" + id).body);
  EXPECT_OK(json);
  return json.value_or(base::Json());
}

uint64_t Service::BytesAfterCollect() {
  EXPECT_TRUE(Eventually([&] {
    EXPECT_OK(path_->ReleasePending());
    auto pending = catalog_->PendingReleases(10);
    return pending.has_value() && pending->empty();
  }));
  EXPECT_OK(store_->Collect(true, nullptr));
  uint64_t total = 0;
  EXPECT_OK(blobs().List([&](std::string_view, uint64_t size) {
    total += size;
    return true;
  }));
  return total;
}

std::string RandomBytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < size; at += 8) {
    uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min<size_t>(8, size - at));
  }
  return bytes;
}

void ShortPause() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

}  // namespace imaged
