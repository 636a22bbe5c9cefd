#include "controlplane/host/control.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace controlplane::host {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

constexpr int kBacklog = 64;
constexpr mode_t kPrivate = 0600;
constexpr size_t kReadBytes = 16 * base::kKiB;

constexpr Code kCodes[] = {Code::kNotFound,        Code::kAlreadyExists,   Code::kConflict,
                           Code::kInvalidArgument, Code::kUnauthenticated, Code::kPermissionDenied,
                           Code::kQuotaExceeded,   Code::kTooLarge,        Code::kUnavailable,
                           Code::kOutOfSpace,      Code::kCorruption,      Code::kIo,
                           Code::kCancelled};

Code CodeOf(std::string_view name) {
  for (const Code code : kCodes)
    if (base::CodeName(code) == name) return code;
  return Code::kIo;
}

// A descriptor that is closed.
class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  int Release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the path of a socket has 1 to {} bytes: \"{}\"",
                             sizeof(address.sun_path) - 1, path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Socket> Connect(const std::string& path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return base::ErrnoError(errno, "socket");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0)
    return socket;
  if (errno == EACCES || errno == EPERM) {
    return Error(Code::kPermissionDenied,
                 "the agent of this host takes orders from its own user and from root: " + path);
  }
  return Error(Code::kUnavailable,
               fmt::format("no agent listens at {} ({}): `quarry host --cache DIR --cache-size "
                           "20GiB` starts one; --socket-dir says where",
                           path, std::strerror(errno)));
}

void SetTimeouts(int descriptor) {
  const timeval time{kControlStallMs / 1000, 0};
  ::setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
}

bool Send(int descriptor, std::string_view left) {
  while (!left.empty()) {
    const ssize_t sent = ::send(descriptor, left.data(), left.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    left.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool SendLine(int descriptor, const Json& value) {
  return Send(descriptor, base::ToText(value) + "\n");
}

bool SendBytes(int descriptor, JsonObject head, base::ByteView bytes) {
  CHECK(bytes.size() <= kMaxControlPieceBytes);
  head["bytes"] = bytes.size();
  return SendLine(descriptor, head) && Send(descriptor, base::AsText(bytes));
}

// Lines of a socket. One thread.
class Lines {
 public:
  Lines(int descriptor, uint64_t limit_bytes)
      : descriptor_(descriptor), limit_bytes_(limit_bytes) {}

  // Nothing: the other side hung up, was too slow, or sent too long a line.
  std::optional<std::string> Next() {
    while (true) {
      const size_t end = text_.find('\n');
      if (end != std::string::npos) {
        std::string line = text_.substr(0, end);
        text_.erase(0, end + 1);
        return line;
      }
      if (text_.size() > limit_bytes_) return std::nullopt;
      char piece[kReadBytes];
      const size_t count = Receive(piece, sizeof(piece));
      if (count == 0) return std::nullopt;
      text_.append(piece, count);
    }
  }

  // What stands behind a line. False as above.
  bool Take(base::MutableByteView into) {
    const size_t there = std::min(into.size(), text_.size());
    std::memcpy(into.data(), text_.data(), there);
    text_.erase(0, there);
    for (into = into.subspan(there); !into.empty();) {
      const size_t count = Receive(into.data(), into.size());
      if (count == 0) return false;
      into = into.subspan(count);
    }
    return true;
  }

 private:
  size_t Receive(void* into, size_t size) {
    ssize_t count = 0;
    do {
      count = ::recv(descriptor_, into, size, 0);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? 0 : static_cast<size_t>(count);
  }

  const int descriptor_;
  const uint64_t limit_bytes_;
  std::string text_;
};

Json AnswerOf(const Result<Json>& outcome) {
  if (outcome.has_value()) return JsonObject{{"ok", *outcome}};
  return JsonObject{
      {"error",
       {{"code", base::CodeName(outcome.error().code())}, {"message", outcome.error().message()}}}};
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::Start(const std::string& path,
                                                            ControlHandler handler) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  if (Connect(path).has_value())
    return Error(Code::kConflict, "an agent listens at " + path + " already");
  struct stat there{};
  if (::lstat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) ::unlink(path.c_str());
  Socket listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (listener.get() < 0) return base::ErrnoError(errno, "socket");
  // The file takes the descriptor's mode, so it is private from its first moment.
  ::fchmod(listener.get(), kPrivate);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener.get(), kBacklog) != 0)
    return base::ErrnoError(errno, "listen on " + path);
  Socket wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0) return base::ErrnoError(errno, "eventfd");
  return std::unique_ptr<ControlServer>(
      new ControlServer(listener.Release(), wake.Release(), std::move(handler)));
}

ControlServer::ControlServer(int listener, int wake, ControlHandler handler)
    : listener_(listener), wake_(wake), handler_(std::move(handler)) {
  accepting_ = std::thread([this] { Accept(); });
}

ControlServer::~ControlServer() {
  Stop();
  ::close(listener_);
  ::close(wake_);
}

void ControlServer::Stop() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    for (const Client& client : clients_)
      if (!client.ended) ::shutdown(client.descriptor, SHUT_RDWR);
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake_, &one, sizeof(one));
  if (accepting_.joinable()) accepting_.join();
  std::list<Client> clients;
  {
    base::MutexLock lock(mutex_);
    clients.swap(clients_);
  }
  for (Client& client : clients) client.thread.join();
}

void ControlServer::Accept() {
  while (true) {
    pollfd waiting[] = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
    ::poll(waiting, 2, -1);
    {
      base::MutexLock lock(mutex_);
      if (stopping_) return;
    }
    Reap();
    const int descriptor = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (descriptor >= 0) Welcome(descriptor);
  }
}

void ControlServer::Reap() {
  std::list<Client> ended;
  {
    base::MutexLock lock(mutex_);
    for (auto client = clients_.begin(); client != clients_.end();) {
      const auto next = std::next(client);
      if (client->ended) ended.splice(ended.end(), clients_, client);
      client = next;
    }
  }
  for (Client& client : ended) client.thread.join();
}

void ControlServer::Welcome(int descriptor) {
  SetTimeouts(descriptor);
  base::MutexLock lock(mutex_);
  if (stopping_ || clients_.size() >= kMaxControlClients) {
    SendLine(descriptor, AnswerOf(Error(Code::kUnavailable,
                                        "the agent is busy with other commands: try again")));
    ::close(descriptor);
    return;
  }
  Client& client = clients_.emplace_back();
  client.descriptor = descriptor;
  client.thread = std::thread([this, &client] { Serve(client); });
}

void ControlServer::Serve(Client& client) {
  const int descriptor = client.descriptor;
  if (const std::optional<std::string> line = Lines(descriptor, kMaxControlLineBytes).Next()) {
    const Result<Json> request = base::ParseJson(*line);
    const ControlOutput output{
        .progress =
            [descriptor](uint64_t done, uint64_t total) {
              return SendLine(descriptor, JsonObject{{"done", done}, {"total", total}});
            },
        .bytes = [descriptor](const JsonObject& head,
                              base::ByteView bytes) { return SendBytes(descriptor, head, bytes); }};
    SendLine(descriptor, AnswerOf(request.has_value() ? handler_(*request, output) : request));
  }
  base::MutexLock lock(mutex_);
  client.ended = true;
  ::close(descriptor);
}

Result<Json> AskAgent(const std::string& path, const Json& request, const ControlOutput& output) {
  ASSIGN_OR_RETURN(const Socket socket, Connect(path));
  if (!SendLine(socket.get(), request))
    return Error(Code::kUnavailable, "the agent at " + path + " hung up");
  Lines lines(socket.get(), kMaxControlAnswerBytes);
  std::vector<uint8_t> piece;
  while (const std::optional<std::string> line = lines.Next()) {
    ASSIGN_OR_RETURN(const Json answer, base::ParseJson(*line));
    if (const Json* ok = base::Find(answer, "ok")) return *ok;
    if (const Json* error = base::Find(answer, "error")) {
      return Error(CodeOf(base::FindString(*error, "code").value_or("")),
                   base::FindString(*error, "message").value_or("the agent did not say why"));
    }
    bool go_on = true;
    if (const auto length = base::FindUint(answer, "bytes")) {
      if (*length > kMaxControlPieceBytes || output.bytes == nullptr)
        return Error(Code::kIo, "the agent sends bytes that were not asked for");
      piece.resize(*length);
      if (!lines.Take(piece)) break;
      go_on = output.bytes(answer.get_object(), piece);
    } else {
      go_on = output.progress(base::FindUint(answer, "done").value_or(0),
                              base::FindUint(answer, "total").value_or(0));
    }
    // Whoever asked may want to stop: the agent notices that we hung up.
    if (!go_on) return Error(Code::kCancelled, "called off");
  }
  return Error(Code::kUnavailable, "the agent at " + path + " ended, or hung up");
}

}  // namespace controlplane::host
