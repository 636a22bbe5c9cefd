#include "tests/base/http/test_server.h"

#include <algorithm>
#include <stdexcept>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"

namespace base::http {
namespace {

// Pattern(size) in pieces of 1000 bytes, from memory or, every second one if there is a file, by
// sendfile.
class PatternSource final : public BodySource {
 public:
  PatternSource(size_t size, std::optional<uint64_t> announced, int descriptor = -1)
      : text_(std::make_shared<const std::string>(TestServer::Pattern(size))),
        announced_(announced),
        descriptor_(descriptor) {}

  std::optional<uint64_t> size_bytes() const override { return announced_; }
  async::Task<Result<Piece>> Next() override {
    Piece piece;
    const size_t length = std::min<size_t>(1000, text_->size() - done_);
    if (descriptor_ >= 0 && (done_ / 1000) % 2 == 1) {
      piece.descriptor = descriptor_;
      piece.offset = done_;
      piece.length = length;
    } else {
      piece.bytes = AsBytes(std::string_view(*text_).substr(done_, length));
    }
    piece.owner = text_;
    done_ += length;
    co_return piece;
  }

 private:
  const std::shared_ptr<const std::string> text_;
  const std::optional<uint64_t> announced_;
  const int descriptor_;
  size_t done_ = 0;
};

class FailingSource final : public BodySource {
 public:
  std::optional<uint64_t> size_bytes() const override { return 10; }
  async::Task<Result<Piece>> Next() override {
    co_return Error(Code::kCorruption, "the disk has lost it");
  }
};

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : value(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    CHECK(value >= 0);
  }
  ~Descriptor() { ::close(value); }
  const int value;
};

size_t SizeParam(const Request& request) { return std::stoull(request.Param("size")); }

Result<Response> OfSource(std::unique_ptr<BodySource> source) {
  Response response;
  response.source = std::move(source);
  return response;
}

}  // namespace

Result<std::shared_ptr<const auth::Caller>> FakeVerifier::Verify(std::string_view token) {
  if (token == "down-token") return Error(Code::kUnavailable, "identity is away");
  if (token != "member-token" && token != "admin-token" && token != "ruled-token")
    return Error(Code::kUnauthenticated, "unknown token");
  auto caller = std::make_shared<auth::Caller>();
  caller->user_id = "user-1";
  caller->roles = {"member"};
  if (token == "admin-token") caller->roles.push_back("admin");
  if (token == "ruled-token") caller->access_rules = {{"test", "DELETE", "/things/*/tags/*"}};
  return std::shared_ptr<const auth::Caller>(std::move(caller));
}

void Door::Open() {
  MutexLock lock(mutex_);
  open_ = true;
  changed_.NotifyAll();
}

void Door::Pass() {
  MutexLock lock(mutex_);
  ++waiting_;
  changed_.NotifyAll();
  while (!open_) changed_.Wait(mutex_);
}

void Door::AwaitWaiting(int count) {
  MutexLock lock(mutex_);
  while (waiting_ < count) changed_.Wait(mutex_);
}

std::string TestServer::Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 31 + i / 997) % 26);
  return text;
}

TestServer::TestServer(ServerOptions options, size_t pool_queue) : pool_("test", 2, pool_queue) {
  Service service;
  service.name = "test";
  service.prefix = "/t";
  service.type = "test";
  service.routes = Routes();
  service.verifier = &verifier_;
  service.render_error = [](const Request& request, int status, const Error& error) {
    return Response::Text(status, "rendered: " + error.message(), "text/plain");
  };
  router_.Mount(std::move(service));
  Result<std::unique_ptr<Server>> server =
      Server::Start(std::move(options), router_, pool_, metrics_);
  CHECK(server.has_value());
  server_ = std::move(*server);
}

TestServer::~TestServer() { door_.Open(); }

std::vector<Route> TestServer::Routes() {
  std::vector<Route> routes;
  const auto handle = [&routes](const char* method, const char* pattern, Handler handler,
                                Access access = Access::kPublic) {
    routes.push_back(
        {.method = method, .pattern = pattern, .access = access, .handler = std::move(handler)});
  };
  const auto stream = [&routes](const char* method, const char* pattern, StreamHandler handler,
                                Access access = Access::kPublic) {
    routes.push_back(
        {.method = method, .pattern = pattern, .access = access, .stream = std::move(handler)});
  };
  const auto ok = [](const Request& request) -> Result<Response> {
    return Response::Text(200, "ok", "text/plain");
  };

  handle("GET", "/hello/{name}", [](const Request& request) -> Result<Response> {
    return Response::Text(200, "hello " + request.Param("name"), "text/plain");
  });
  handle("GET", "/private", ok, Access::kToken);
  handle("POST", "/private", ok, Access::kToken);
  handle("GET", "/admin", ok, Access::kAdmin);
  handle("POST", "/echo", [](const Request& request) -> Result<Response> {
    return Response::Text(200, request.body, "text/plain");
  });
  handle("GET", "/describe", [](const Request& request) -> Result<Response> {
    std::string text = request.base_url + "|" + request.path + "|" + request.request_id;
    for (const auto& [key, value] : request.query) text += "|" + key + "=" + value;
    return Response::Text(200, text, "text/plain");
  });
  handle("GET", "/inject", [](const Request& request) -> Result<Response> {
    Response response = Response::Text(200, "ok", "text/plain");
    response.headers.Add("X-Name", std::string(*request.Query("name")));
    return response;
  });
  for (const char* thing : {"/things/{id}", "/things/{id}/tags/{tag}"})
    handle("DELETE", thing, ok, Access::kToken);
  handle("DELETE", "/nothing",
         [](const Request& request) -> Result<Response> { return Response::Empty(204); });
  handle("GET", "/broken", [](const Request& request) -> Result<Response> {
    return Error(Code::kIo, "the disk is on fire");
  });
  handle("GET", "/throw", [](const Request& request) -> Result<Response> {
    throw std::runtime_error("a library lost its temper");
  });
  for (const char* method : {"GET", "POST"}) {
    handle(method, "/wait", [this](const Request& request) -> Result<Response> {
      door_.Pass();
      return Response::Text(200, "waited", "text/plain");
    });
  }

  handle("GET", "/sized/{size}", [](const Request& request) -> Result<Response> {
    const size_t size = SizeParam(request);
    return OfSource(std::make_unique<PatternSource>(size, size));
  });
  handle("GET", "/chunked/{size}", [](const Request& request) -> Result<Response> {
    return OfSource(std::make_unique<PatternSource>(SizeParam(request), std::nullopt));
  });
  handle("GET", "/shorter/{size}", [](const Request& request) -> Result<Response> {
    return OfSource(std::make_unique<PatternSource>(SizeParam(request), SizeParam(request) + 1));
  });
  handle("GET", "/longer/{size}", [](const Request& request) -> Result<Response> {
    return OfSource(std::make_unique<PatternSource>(SizeParam(request), SizeParam(request) - 1));
  });
  handle("GET", "/lost", [](const Request& request) -> Result<Response> {
    return OfSource(std::make_unique<FailingSource>());
  });
  const std::string path = dir_ / "pattern";
  CHECK(WriteFileDurably(path, Pattern(3'000'000)).has_value());
  const auto file = std::make_shared<Descriptor>(path);
  handle("GET", "/mixed/{size}", [file](const Request& request) -> Result<Response> {
    const size_t size = SizeParam(request);
    return OfSource(std::make_unique<PatternSource>(size, size, file->value));
  });
  handle("GET", "/file/{size}", [file](const Request& request) -> Result<Response> {
    class Whole final : public BodySource {
     public:
      Whole(std::shared_ptr<Descriptor> from, uint64_t size)
          : file_(std::move(from)), size_(size) {}
      std::optional<uint64_t> size_bytes() const override { return size_; }
      async::Task<Result<Piece>> Next() override {
        Piece piece;
        piece.descriptor = file_->value;
        piece.length = std::exchange(left_, 0);
        piece.owner = file_;
        co_return piece;
      }

     private:
      const std::shared_ptr<Descriptor> file_;
      const uint64_t size_;
      uint64_t left_ = size_;
    };
    return OfSource(std::make_unique<Whole>(file, SizeParam(request)));
  });

  // Answers with the body's size and SHA-256.
  const auto upload = [this](std::shared_ptr<const Request> request,
                             BodyReader& body) -> async::Task<Result<Response>> {
    std::string whole;
    Buffer buffer(100'000);
    while (true) {
      Result<size_t> count = co_await body.Read(buffer.view());
      if (!count.has_value()) co_return std::move(count).error();
      whole.append(AsText(buffer.view().first(*count)));
      uploaded_ += *count;
      if (*count < buffer.size()) break;
    }
    co_return Response::Text(200, fmt::format("{} {}", whole.size(), Sha256(AsBytes(whole)).hex()),
                             "text/plain");
  };
  stream("PUT", "/upload", upload);
  stream("PUT", "/private-upload", upload, Access::kToken);
  stream("PUT", "/ignore",
         [](std::shared_ptr<const Request> request, BodyReader& body)
             -> async::Task<Result<Response>> { co_return Error(Code::kConflict, "not now"); });
  stream("PUT", "/throw",
         [](std::shared_ptr<const Request> request,
            BodyReader& body) -> async::Task<Result<Response>> {
           throw std::runtime_error("a library lost its temper");
           co_return Response::Empty(200);
         });
  return routes;
}

}  // namespace base::http
