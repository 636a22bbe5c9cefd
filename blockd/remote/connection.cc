#include "blockd/remote/connection.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

namespace blockd::remote {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr int64_t kMsNs = 1'000'000;
// Between attempts to connect; doubled each time.
constexpr int64_t kFirstPauseMs = 20;
constexpr int64_t kMaxPauseMs = 1'000;
// How long a peer may take no packet, and when a silent one is asked whether it is still there.
constexpr int kTcpTimeoutMs = 20'000;
constexpr int kKeepAliveS = 10;
constexpr int kKeepAliveEveryS = 5;
// Where the server does not say what it takes: what all of them do.
constexpr uint64_t kDefaultMaxIoBytes = 32 * base::kMiB;

int64_t NowNs() { return base::SystemClock().MonotonicNs(); }

struct CloseHandle {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using Handle = std::unique_ptr<nbd_handle, CloseHandle>;

Code CodeOfConnect(int number) {
  switch (number) {
    case ENOENT:
      return Code::kNotFound;
    case EPERM:
    case EACCES:
      return Code::kPermissionDenied;
    case EINVAL:
    case ENOTSUP:
      return Code::kInvalidArgument;
    default:
      return Code::kUnavailable;
  }
}

// What libnbd says of its last failure in this thread. It names the export, which is a secret.
Error LastError(nbd_handle* handle, Code code) {
  const char* text = nbd_get_error();
  std::string message = text != nullptr ? text : "the connection broke";
  char* name = nbd_get_export_name(handle);
  const std::string secret = name != nullptr ? name : "";
  std::free(name);
  for (size_t at = 0; !secret.empty() && (at = message.find(secret, at)) != std::string::npos;)
    message.replace(at, secret.size(), "...");
  return Error(code, message);
}

// Lets libnbd use the socket in a direction that it is ready for; in one of them at a time.
int Notify(nbd_handle* handle, unsigned ready) {
  if ((ready & LIBNBD_AIO_DIRECTION_READ) != 0) return nbd_aio_notify_read(handle);
  if ((ready & LIBNBD_AIO_DIRECTION_WRITE) != 0) return nbd_aio_notify_write(handle);
  return 0;
}

// As for a dead peer: what waits for an answer has a time limit besides.
void NoticeDeadPeer(int descriptor) {
  const int on = 1;
  (void)::setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  (void)::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepAliveS, sizeof(kKeepAliveS));
  (void)::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepAliveEveryS,
                     sizeof(kKeepAliveEveryS));
  (void)::setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &kTcpTimeoutMs,
                     sizeof(kTcpTimeoutMs));
}

}  // namespace

void Waiter::Add() {
  base::MutexLock lock(mutex_);
  ++under_way_;
}

// Notifies with the mutex held: who waits may be gone with this right after.
void Waiter::Done() {
  base::MutexLock lock(mutex_);
  if (--under_way_ == 0) changed_.NotifyAll();
}

void Waiter::Wait() {
  base::MutexLock lock(mutex_);
  while (under_way_ > 0) changed_.Wait(mutex_);
}

Connection::Connection(const RemoteSettings& settings, ConnectionEvents& events)
    : settings_(settings), events_(events), kick_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(kick_ >= 0);
}

Connection::~Connection() {
  Stop();
  Drop();
  ::close(kick_);
}

void Connection::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Connection::Stop() {
  stopping_.store(true);
  Kick();
  if (thread_.joinable()) thread_.join();
}

void Connection::Kick() const {
  const uint64_t one = 1;
  (void)!::write(kick_, &one, sizeof(one));
}

// --- connecting

Result<nbd_handle*> Connection::NewHandle() const {
  Handle handle(nbd_create());
  if (handle == nullptr) return Error(Code::kUnavailable, "libnbd gives no handle");
  nbd_handle* const h = handle.get();
  const auto set = [](const std::string& value, auto&& how) {
    return value.empty() || how(value.c_str()) == 0;
  };
  const auto certificates = [h](const char* dir) { return nbd_set_tls_certificates(h, dir); };
  const auto psk = [h](const char* file) { return nbd_set_tls_psk_file(h, file); };
  const auto user = [h](const char* name) { return nbd_set_tls_username(h, name); };
  const auto context = [h](const char* name) { return nbd_add_meta_context(h, name); };
  const bool done = set(settings_.tls_certificates_dir, certificates) &&
                    set(settings_.tls_psk_file, psk) && set(settings_.tls_username, user) &&
                    nbd_set_uri_allow_local_file(h, false) == 0 &&
                    // A volume that grew takes requests that this connection was not told of.
                    nbd_set_strict_mode(h, nbd_get_strict_mode(h) & ~LIBNBD_STRICT_BOUNDS) == 0 &&
                    nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
                    set(settings_.context, context);
  if (!done) return LastError(h, Code::kInvalidArgument);
  return handle.release();
}

// One wait for the socket or for Kick. `ready`: the directions that it is ready for.
bool Connection::WaitFor(nbd_handle* handle, unsigned direction, int64_t timeout_ms,
                         unsigned* ready) {
  pollfd polled[2] = {{kick_, POLLIN, 0}, {-1, 0, 0}};
  if (handle != nullptr) polled[1].fd = nbd_aio_get_fd(handle);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) polled[1].events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) polled[1].events |= POLLOUT;
  (void)::poll(polled, 2, static_cast<int>(timeout_ms));
  uint64_t kicks = 0;
  (void)!::read(kick_, &kicks, sizeof(kicks));
  *ready = 0;
  constexpr short kBroken = POLLHUP | POLLERR | POLLNVAL;
  if ((polled[1].revents & (POLLIN | kBroken)) != 0) *ready |= LIBNBD_AIO_DIRECTION_READ;
  if ((polled[1].revents & (POLLOUT | kBroken)) != 0) *ready |= LIBNBD_AIO_DIRECTION_WRITE;
  *ready &= direction;
  return !stopping_.load();
}

Result<void> Connection::Handshake(nbd_handle* handle) {
  const int64_t deadline_ns = NowNs() + settings_.connect_timeout_ms * kMsNs;
  if (nbd_aio_connect_uri(handle, settings_.uri.c_str()) < 0) {
    const int number = nbd_get_errno();  // ENOENT: of the socket, no word of the export yet
    return LastError(handle, number == ENOENT ? Code::kUnavailable : CodeOfConnect(number));
  }
  while (nbd_aio_is_ready(handle) != 1) {
    if (nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1)
      return LastError(handle, CodeOfConnect(nbd_get_errno()));
    const int64_t left_ms = (deadline_ns - NowNs()) / kMsNs;
    if (left_ms <= 0) return Error(Code::kUnavailable, "the server does not answer");
    const unsigned direction = nbd_aio_get_direction(handle);
    unsigned ready = 0;
    if (!WaitFor(handle, direction, left_ms, &ready))
      return Error(Code::kCancelled, "the volume is being closed");
    if (Notify(handle, ready) < 0) return LastError(handle, CodeOfConnect(nbd_get_errno()));
  }
  return {};
}

Result<ExportFacts> Connection::FactsOf(nbd_handle* handle) const {
  const int64_t size = nbd_get_size(handle);
  if (size < 0) return LastError(handle, Code::kUnavailable);
  const int64_t minimum = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  if (minimum > static_cast<int64_t>(kSectorBytes)) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the server takes blocks of {} bytes and more; a volume is read and "
                             "written by sectors of {}",
                             minimum, kSectorBytes));
  }
  const int64_t maximum = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  ExportFacts facts;
  facts.size_bytes = static_cast<uint64_t>(size) / kSectorBytes * kSectorBytes;
  facts.max_io_bytes = kDefaultMaxIoBytes;
  if (maximum > 0) {
    facts.max_io_bytes = std::max<uint64_t>(
        kSectorBytes, static_cast<uint64_t>(maximum) / kSectorBytes * kSectorBytes);
  }
  facts.read_only = nbd_is_read_only(handle) == 1;
  facts.can_flush = nbd_can_flush(handle) == 1;
  facts.can_zero = nbd_can_zero(handle) == 1;
  facts.can_multi_conn = nbd_can_multi_conn(handle) == 1;
  facts.has_allocation = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  facts.has_context =
      !settings_.context.empty() && nbd_can_meta_context(handle, settings_.context.c_str()) == 1;
  return facts;
}

Result<ExportFacts> Connection::Connect() {
  ASSIGN_OR_RETURN(nbd_handle* const made, NewHandle());
  Handle handle(made);
  RETURN_IF_ERROR(Handshake(made));
  NoticeDeadPeer(nbd_aio_get_fd(made));
  ASSIGN_OR_RETURN(const ExportFacts facts, FactsOf(made));
  base::MutexLock lock(mutex_);
  handle_ = handle.release();
  answered_.store(false);
  live_.store(true);
  return facts;
}

// --- requests

bool Connection::Send(Operation& operation, Waiter& waiter) {
  base::MutexLock lock(mutex_);
  if (handle_ == nullptr || !live_.load()) return false;
  operation.error = kConnectionLost;
  operation.runs.clear();
  operation.waiter = &waiter;
  operation.connection = this;
  operation.sent_ns = NowNs();
  operation.place = under_way_.insert(under_way_.end(), &operation);
  in_flight_.fetch_add(1);
  waiter.Add();
  if (Issue(operation) < 0) {
    const int number = nbd_get_errno();
    const bool over = nbd_aio_is_ready(handle_) != 1 && nbd_aio_is_processing(handle_) != 1;
    End(operation, over ? kConnectionLost : std::max(number, 1));
    Kick();
    return true;
  }
  // The thread waits to receive only.
  if ((nbd_aio_get_direction(handle_) & LIBNBD_AIO_DIRECTION_WRITE) != 0) Kick();
  return true;
}

int64_t Connection::Issue(Operation& operation) {
  nbd_completion_callback done = {};
  done.callback = &Connection::OnCompleted;
  done.user_data = &operation;
  switch (operation.kind) {
    case Operation::Kind::kRead:
      return nbd_aio_pread(handle_, operation.into, operation.length, operation.offset, done, 0);
    case Operation::Kind::kWrite:
      return nbd_aio_pwrite(handle_, operation.from, operation.length, operation.offset, done, 0);
    case Operation::Kind::kZero:
      return nbd_aio_zero(handle_, operation.length, operation.offset, done,
                          operation.free_space ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
    case Operation::Kind::kFlush:
      return nbd_aio_flush(handle_, done, 0);
    case Operation::Kind::kStatus: {
      nbd_extent_callback status = {};
      status.callback = &Connection::OnStatus;
      status.user_data = &operation;
      return nbd_aio_block_status(handle_, operation.length, operation.offset, status, done, 0);
    }
  }
  return -1;
}

// Called by libnbd from a call of ours with the handle, so with the mutex held.
int Connection::OnCompleted(void* user_data, int* error) {
  Operation& operation = *static_cast<Operation*>(user_data);
  Connection& connection = *operation.connection;
  // The first is libnbd's own, for what was under way when the connection broke.
  const bool lost = *error == ENOTCONN || *error == ESHUTDOWN;
  if (!lost) connection.answered_.store(true);
  connection.End(operation, lost ? kConnectionLost : *error);
  return 1;  // done with it
}

int Connection::OnStatus(void* user_data, const char* context, uint64_t offset, uint32_t* entries,
                         size_t count, int* error) {
  Operation& operation = *static_cast<Operation*>(user_data);
  if (operation.context != context) return 0;
  operation.runs.clear();
  for (size_t i = 0; i + 1 < count; i += 2) operation.runs.emplace_back(entries[i], entries[i + 1]);
  return 0;
}

// Its memory may be gone when this returns.
void Connection::End(Operation& operation, int error) {
  operation.error = error;
  under_way_.erase(operation.place);
  in_flight_.fetch_sub(1);
  operation.waiter->Done();
}

// --- the thread

void Connection::Run() {
  int64_t pause_ms = 0;
  while (!stopping_.load()) {
    if (!live()) {
      unsigned ready = 0;
      if (pause_ms > 0 && !WaitFor(nullptr, 0, pause_ms, &ready)) break;
      pause_ms = std::clamp(pause_ms * 2, kFirstPauseMs, kMaxPauseMs);
      const Result<ExportFacts> facts = Connect();
      if (!facts.has_value()) {
        events_.Failed(facts.error());
        continue;
      }
      events_.Connected(*facts);
    }
    const Error why = Serve();
    Drop();
    if (stopping_.load()) break;
    events_.Lost(why);
    if (answered_.load()) pause_ms = 0;
  }
}

int64_t Connection::MsUntilTooLate() {
  if (under_way_.empty()) return settings_.request_timeout_ms;
  const int64_t waited_ms = (NowNs() - under_way_.front()->sent_ns) / kMsNs;
  return std::max<int64_t>(0, settings_.request_timeout_ms - waited_ms);
}

// Until it is over; says why.
Error Connection::Serve() {
  nbd_handle* handle = nullptr;
  while (true) {
    int64_t timeout_ms = 0;
    unsigned direction = 0;
    {
      base::MutexLock lock(mutex_);
      handle = handle_;
      direction = nbd_aio_get_direction(handle);
      timeout_ms = MsUntilTooLate();
      if (timeout_ms == 0)
        return Error(Code::kUnavailable, fmt::format("a request was not answered in {} ms",
                                                     settings_.request_timeout_ms));
    }
    // Nobody closes the handle but this thread.
    unsigned ready = 0;
    if (!WaitFor(handle, direction, timeout_ms, &ready))
      return Error(Code::kCancelled, "the volume is being closed");
    base::MutexLock lock(mutex_);
    // Somebody may have sent meanwhile.
    const int done = Notify(handle, ready & nbd_aio_get_direction(handle));
    if (done < 0 || nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1)
      return done < 0 ? LastError(handle, Code::kUnavailable)
                      : Error(Code::kUnavailable, "the server closed the connection");
  }
}

// Closes it; what is under way then is lost.
void Connection::Drop() {
  base::MutexLock lock(mutex_);
  live_.store(false);
  if (handle_ == nullptr) return;
  nbd_close(handle_);
  handle_ = nullptr;
  while (!under_way_.empty()) End(*under_way_.front(), kConnectionLost);
}

}  // namespace blockd::remote
