#include "controlplane/host/http_block_source.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/coding.h"
#include "chunkstore/map.h"
#include "controlplane/service_error.h"
#include "imaged/block_wire.h"
#include "imaged/chunk_wire.h"

namespace controlplane::host {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;
using base::http::Client;
using base::http::ClientRequest;
using base::http::Headers;
using base::http::Response;
using chunkstore::layers::BlockInfo;
using imaged::BlockAnswerHead;
using imaged::BlockItem;
using imaged::BlockReceiver;

namespace {

constexpr int kNoContent = 204;
constexpr int kUnauthorized = 401;
constexpr int kServiceUnavailable = 503;
// Of one request: its answer has at most 5.6 MiB.
constexpr size_t kTablesAtOnce = 256;

std::string WithoutSlash(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  return url;
}

// The catalog may name the version, or leave it to the client.
std::string ImageUrl(const ServiceAccess& access) {
  const std::string url = WithoutSlash(access.image_url);
  return url.ends_with("/v2") ? url : url + "/v2";
}

Result<void> ToVoid(const Result<Response>& response) {
  if (response.has_value()) return {};
  return response.error();
}

Error NotSpoken(std::string_view type, std::string_view wanted) {
  return Error(Code::kInvalidArgument,
               fmt::format("the service answers with \"{}\" where {} was asked for: it does not "
                           "speak this",
                           type, wanted));
}

}  // namespace

// --- the session

// One of the connections, for the time of a call.
class ServiceSession::Lease {
 public:
  explicit Lease(ServiceSession& session) : session_(session), client_(session.Take()) {}
  ~Lease() { session_.Give(std::move(client_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Client& client() { return *client_; }

 private:
  ServiceSession& session_;
  std::unique_ptr<Client> client_;
};

ServiceSession::ServiceSession(Login login, const HttpSourceOptions& options)
    : login_(std::move(login)), options_(options) {}

ServiceSession::~ServiceSession() = default;

Result<std::shared_ptr<ServiceSession>> ServiceSession::Open(Login login,
                                                             const HttpSourceOptions& options) {
  std::shared_ptr<ServiceSession> session(new ServiceSession(std::move(login), options));
  RETURN_IF_ERROR(session->LogInAgain({}));
  return session;
}

ServiceAccess ServiceSession::Access() {
  MutexLock lock(access_mutex_);
  return access_;
}

Result<void> ServiceSession::LogInAgain(const std::string& refused_token) {
  MutexLock one_at_a_time(login_mutex_);
  // Somebody else has done it meanwhile.
  if (Access().token != refused_token) return {};
  ASSIGN_OR_RETURN(ServiceAccess access, login_());
  MutexLock lock(access_mutex_);
  access_ = std::move(access);
  return {};
}

std::unique_ptr<Client> ServiceSession::Take() {
  MutexLock lock(mutex_);
  while (in_use_ == options_.max_connections) returned_.Wait(mutex_);
  ++in_use_;
  if (!idle_.empty()) {
    std::unique_ptr<Client> client = std::move(idle_.back());
    idle_.pop_back();
    return client;
  }
  base::http::ClientOptions options;
  options.connect_timeout_ms = options_.connect_timeout_ms;
  options.stall_timeout_ms = options_.stall_timeout_ms;
  return std::make_unique<Client>(options);
}

void ServiceSession::Give(std::unique_ptr<Client> client) {
  MutexLock lock(mutex_);
  --in_use_;
  idle_.push_back(std::move(client));
  returned_.NotifyOne();
}

Result<Response> ServiceSession::Try(const Target& target, const Begin& begin,
                                     const ServiceAccess& access) {
  if (target.api == Api::kVolume && access.volume_url.empty()) {
    return Error(Code::kNotFound, "the cloud has no Block Storage API: there are no snapshots");
  }
  ClientRequest request = begin();
  request.url = (target.api == Api::kVolume ? WithoutSlash(access.volume_url) : ImageUrl(access)) +
                target.path;
  request.headers.Set("X-Auth-Token", access.token);
  request.total_timeout_ms = options_.try_timeout_ms;
  Lease lease(*this);
  return lease.client().Do(request);
}

Result<Response> ServiceSession::Call(const Target& target, const Begin& begin) {
  bool logged_in = false;
  int64_t pause_ms = options_.pause_ms;
  for (int tried = 1;; ++tried) {
    const ServiceAccess access = Access();
    Result<Response> response = Try(target, begin, access);
    if (response.has_value() && response->status == kUnauthorized && !logged_in) {
      logged_in = true;
      RETURN_IF_ERROR(LogInAgain(access.token));
      --tried;
      continue;
    }
    const bool again = response.has_value() ? response->status == kServiceUnavailable
                                            : response.error().code() == Code::kUnavailable;
    if (again && tried < options_.tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
      pause_ms *= 2;
      continue;
    }
    if (response.has_value() && response->status >= 300) return ServiceError(*response);
    return response;
  }
}

// --- the source

struct HttpBlockSource::Impl {
  Impl(std::shared_ptr<ServiceSession> session_to_use, ServiceSession::Api api_of_it,
       std::string path_of_it)
      : session(std::move(session_to_use)), api(api_of_it), path(std::move(path_of_it)) {}

  ServiceSession::Target TargetOf(std::string_view last) const {
    return {api, fmt::format("{}/{}", path, last)};
  }

  // Asks for these items; `items` and the sinks are made anew for each try.
  using Items = std::function<std::vector<BlockItem>()>;
  Result<void> Ask(const Items& make_items, const BlockReceiver::Sinks& sinks);
  // The image's size and the name of its bytes, asked for if no answer has told them yet.
  Result<BlockAnswerHead> Head();
  Result<imaged::ChunkList> List(uint64_t from);

  const std::shared_ptr<ServiceSession> session;
  const ServiceSession::Api api;
  const std::string path;
  base::Mutex mutex;
  std::optional<BlockAnswerHead> head GUARDED_BY(mutex);
};

Result<void> HttpBlockSource::Impl::Ask(const Items& make_items,
                                        const BlockReceiver::Sinks& sinks) {
  std::optional<uint64_t> size_bytes;
  {
    MutexLock lock(mutex);
    if (head.has_value()) size_bytes = head->size_bytes;
  }
  std::vector<BlockItem> items;
  std::optional<BlockReceiver> receiver;
  const auto begin = [&] {
    items = make_items();
    receiver.emplace(items, size_bytes, sinks);
    ClientRequest request;
    request.method = "POST";
    request.body = imaged::EncodeBlockRequest(items);
    request.headers.Set("Content-Type", imaged::kBlocksType);
    request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kBlocksType));
    request.head_sink = [](const Headers& headers) -> Result<void> {
      const std::string_view type = headers.Get("Content-Type");
      if (type == imaged::kBlocksType) return {};
      return NotSpoken(type, imaged::kBlocksType);
    };
    request.body_sink = [&receiver](ByteView bytes) { return receiver->Take(bytes); };
    return request;
  };
  ASSIGN_OR_RETURN(const Response response, session->Call(TargetOf("blocks"), begin));
  if (response.status == kNoContent) return Error(Code::kConflict, "there are no bytes yet");
  RETURN_IF_ERROR(receiver->End());
  MutexLock lock(mutex);
  if (head.has_value() && *head != receiver->head()) {
    return Error(Code::kCorruption, "the service answers with other bytes than before");
  }
  head = receiver->head();
  return {};
}

Result<BlockAnswerHead> HttpBlockSource::Impl::Head() {
  {
    MutexLock lock(mutex);
    if (head.has_value()) return *head;
  }
  RETURN_IF_ERROR(Ask([] { return std::vector<BlockItem>(); }, {}));
  MutexLock lock(mutex);
  return *head;
}

Result<imaged::ChunkList> HttpBlockSource::Impl::List(uint64_t from) {
  const auto begin = [] {
    ClientRequest request;
    request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kChunkListType));
    return request;
  };
  ASSIGN_OR_RETURN(const Response response,
                   session->Call(TargetOf(fmt::format("chunks?from={}", from)), begin));
  if (response.status == kNoContent) return Error(Code::kConflict, "there are no bytes yet");
  const std::string_view type = response.headers.Get("Content-Type");
  if (type != imaged::kChunkListType) return NotSpoken(type, imaged::kChunkListType);
  Result<imaged::ChunkList> list = imaged::DecodeChunkList(response.body);
  if (list.has_value()) return list;
  return Error(Code::kCorruption, "the service's list of chunks: " + list.error().message());
}

HttpBlockSource::HttpBlockSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpBlockSource::~HttpBlockSource() = default;

std::shared_ptr<HttpBlockSource> HttpBlockSource::OfImage(std::shared_ptr<ServiceSession> session,
                                                          std::string_view image_id) {
  return std::shared_ptr<HttpBlockSource>(
      new HttpBlockSource(std::make_unique<Impl>(std::move(session), ServiceSession::Api::kImage,
                                                 fmt::format("/quarry/images/{}", image_id))));
}

std::shared_ptr<HttpBlockSource> HttpBlockSource::OfSnapshot(
    std::shared_ptr<ServiceSession> session, std::string_view snapshot_id) {
  return std::shared_ptr<HttpBlockSource>(new HttpBlockSource(
      std::make_unique<Impl>(std::move(session), ServiceSession::Api::kVolume,
                             fmt::format("/quarry/snapshots/{}", snapshot_id))));
}

Result<std::vector<BlockInfo>> HttpBlockSource::Table(uint64_t index) {
  ASSIGN_OR_RETURN(std::vector<RemoteImage::Table> tables, Tables(std::span(&index, 1)));
  return std::move(tables.front());
}

Result<std::vector<RemoteImage::Table>> HttpBlockSource::Tables(std::span<const uint64_t> chunks) {
  std::vector<RemoteImage::Table> tables(chunks.size());
  for (size_t first = 0; first < chunks.size(); first += kTablesAtOnce) {
    std::vector<BlockItem> items;
    for (const uint64_t chunk :
         chunks.subspan(first, std::min(kTablesAtOnce, chunks.size() - first))) {
      if (chunk > UINT32_MAX) {
        return Error(Code::kInvalidArgument, fmt::format("there is no chunk {}", chunk));
      }
      items.push_back({static_cast<uint32_t>(chunk), {}});
    }
    BlockReceiver::Sinks sinks;
    sinks.table = [&](size_t item, std::vector<BlockInfo> table) -> Result<void> {
      tables[first + item] = std::move(table);
      return {};
    };
    RETURN_IF_ERROR(impl_->Ask([&items] { return items; }, sinks));
  }
  return tables;
}

Result<void> HttpBlockSource::Fetch(uint64_t index, std::span<const size_t> numbers,
                                    const Sink& sink) {
  if (numbers.empty()) return {};
  if (index > UINT32_MAX || numbers.back() >= chunkstore::kMaxBlocks ||
      numbers.size() > chunkstore::kMaxBlocks) {
    return Error(Code::kInvalidArgument,
                 fmt::format("there are no such blocks in chunk {}", index));
  }
  size_t came = 0;
  const auto missing = [&]() -> std::vector<BlockItem> {
    if (came == numbers.size()) return {};  // it broke behind the last one
    BlockItem item{static_cast<uint32_t>(index), {}};
    for (const size_t number : numbers.subspan(came)) {
      item.numbers.push_back(static_cast<uint16_t>(number));
    }
    return {std::move(item)};
  };
  // What the sink says ends the call: it is no reason to try again.
  std::optional<Error> refused;
  BlockReceiver::Sinks sinks;
  sinks.block = [&](size_t, size_t number, const BlockInfo&, ByteView stored) -> Result<void> {
    const Result<void> taken = sink(number, stored);
    ++came;
    if (taken.has_value()) return {};
    refused = taken.error();
    return Error(Code::kCancelled, taken.error().message());
  };
  const Result<void> asked = impl_->Ask(missing, sinks);
  if (refused.has_value()) return *refused;
  return asked;
}

Result<Shape> HttpBlockSource::ReadShape() {
  // A list does not say of which bytes it is: of those that have this name before it and after it.
  ASSIGN_OR_RETURN(const BlockAnswerHead head, impl_->Head());
  const std::string_view name(reinterpret_cast<const char*>(head.data.bytes.data()),
                              head.data.bytes.size());
  Shape shape{.size_bytes = head.size_bytes, .holes = {}, .data_name = base::ToHex(name)};
  const uint64_t chunks = chunkstore::ChunkCount(shape.size_bytes);
  while (shape.holes.size() < chunks) {
    ASSIGN_OR_RETURN(const imaged::ChunkList list, impl_->List(shape.holes.size()));
    if (list.size_bytes != shape.size_bytes || list.first != shape.holes.size() ||
        list.ids.empty()) {
      return Error(Code::kCorruption, "the service's list of chunks is not the one asked for");
    }
    for (const base::Digest256& id : list.ids) shape.holes.push_back(imaged::IsHole(id));
  }
  RETURN_IF_ERROR(impl_->Ask([] { return std::vector<BlockItem>(); }, {}));
  return shape;
}

Result<std::optional<BootTrace>> HttpBlockSource::ReadTrace() {
  if (impl_->api != ServiceSession::Api::kImage) return std::optional<BootTrace>();
  ASSIGN_OR_RETURN(const BlockAnswerHead head, impl_->Head());
  const auto begin = [] {
    ClientRequest request;
    request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kTraceType));
    return request;
  };
  const Result<Response> response = impl_->session->Call(impl_->TargetOf("trace"), begin);
  if (!response.has_value()) {
    if (response.error().code() == Code::kNotFound) return std::optional<BootTrace>();
    return response.error();
  }
  const std::string_view type = response->headers.Get("Content-Type");
  if (type != imaged::kTraceType) return NotSpoken(type, imaged::kTraceType);
  const Result<imaged::BootTrace> trace =
      imaged::DecodeTrace(response->body, chunkstore::ChunkCount(head.size_bytes));
  if (!trace.has_value()) return Error(Code::kCorruption, trace.error().message());
  if (trace->data != head.data) return std::optional<BootTrace>();
  BootTrace runs;
  for (const imaged::BlockRun& run : trace->runs) runs.push_back({run.chunk, run.first, run.count});
  return std::optional(std::move(runs));
}

Result<void> HttpBlockSource::WriteTrace(const BootTrace& runs) {
  if (impl_->api != ServiceSession::Api::kImage) {
    return Error(Code::kInvalidArgument, "a snapshot has no boot trace: images have");
  }
  ASSIGN_OR_RETURN(const BlockAnswerHead head, impl_->Head());
  imaged::BootTrace trace{head.data, {}};
  constexpr size_t kMaxRuns =
      (imaged::kMaxTraceBytes - imaged::kTraceHeadBytes) / imaged::kTraceRunBytes;
  for (const BlockRun& run : runs) {
    if (run.chunk > UINT32_MAX || run.first > UINT16_MAX || run.count > UINT16_MAX ||
        trace.runs.size() == kMaxRuns) {
      return Error(Code::kTooLarge, "the boot trace is longer than a service keeps");
    }
    trace.runs.push_back({static_cast<uint32_t>(run.chunk), static_cast<uint16_t>(run.first),
                          static_cast<uint16_t>(run.count)});
  }
  const auto begin = [&trace] {
    ClientRequest request;
    request.method = "PUT";
    request.headers.Set("Content-Type", imaged::kTraceType);
    request.headers.Set("Accept", "application/json");
    request.body = imaged::EncodeTrace(trace);
    return request;
  };
  return ToVoid(impl_->session->Call(impl_->TargetOf("trace"), begin));
}

Result<void> HttpBlockSource::DropTrace() {
  const auto begin = [] {
    ClientRequest request;
    request.method = "DELETE";
    request.headers.Set("Accept", "application/json");
    return request;
  };
  return ToVoid(impl_->session->Call(impl_->TargetOf("trace"), begin));
}

}  // namespace controlplane::host
