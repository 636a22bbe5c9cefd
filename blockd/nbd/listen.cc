#include "blockd/nbd/listen.h"

#include <cerrno>
#include <cstring>
#include <memory>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"

namespace blockd::nbd {
namespace {

// What a unix socket takes without a wait (the kernel doubles it, for its own use): long answers go
// in a call or two, where its 208 KiB took as many as ten, with a poll between any two.
constexpr int kUnixSendBytes = 512 * base::kKiB;
constexpr int kBacklog = 256;
constexpr int kKeepAliveSeconds = 60;  // a host that vanished is noticed

base::Error Failed(int descriptor, std::string_view what) {
  const int failure = errno;
  ::close(descriptor);
  return base::ErrnoError(failure, what);
}

bool IsLoopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return (ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24) == 127;
  }
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

std::string PeerName(const sockaddr_storage& address, socklen_t size) {
  char host[NI_MAXHOST] = "";
  char port[NI_MAXSERV] = "";
  if (address.ss_family == AF_UNIX ||
      ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unix";
  }
  return fmt::format("{}:{}", host, port);
}

}  // namespace

base::Result<Listener> OpenTcp(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) {
    return base::Error(base::Code::kInvalidArgument,
                       fmt::format("can't listen on \"{}\": {}", host, ::gai_strerror(failure)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  const int descriptor =
      ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (descriptor < 0) return base::ErrnoError(errno, "socket");
  const int on = 1;
  ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const std::string what = fmt::format("listen on {}:{}", host, port);
  if (::bind(descriptor, found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(descriptor, kBacklog) != 0) {
    return Failed(descriptor, what);
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return Failed(descriptor, what);
  }
  // IPv4 and IPv6 keep their port at the same place.
  const uint16_t chosen = ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
  return Listener{descriptor, chosen, IsLoopback(found->ai_addr)};
}

base::Result<Listener> OpenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return base::Error(base::Code::kInvalidArgument,
                       fmt::format("the path of a socket has 1 to {} bytes: \"{}\"",
                                   sizeof(address.sun_path) - 1, path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat there{};
  if (::lstat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) ::unlink(path.c_str());
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return base::ErrnoError(errno, "socket");
  // The file takes the descriptor's mode, so it is private from its first moment.
  ::fchmod(descriptor, 0600);
  if (::bind(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(descriptor, kBacklog) != 0) {
    return Failed(descriptor, "listen on " + path);
  }
  return Listener{descriptor, 0, true};
}

int AcceptFrom(int listener, std::string* peer) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  const int descriptor = ::accept4(listener, reinterpret_cast<sockaddr*>(&address), &size,
                                   SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor < 0) return descriptor;
  *peer = PeerName(address, size);
  if (address.ss_family == AF_INET || address.ss_family == AF_INET6) {
    const int on = 1;
    const int seconds = kKeepAliveSeconds;
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    ::setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    ::setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
  } else {
    // TCP's buffers grow by themselves.
    const int bytes = kUnixSendBytes;
    ::setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  }
  return descriptor;
}

}  // namespace blockd::nbd
