#include "base/http/channel.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace base::http {
namespace {

Error Unavailable(std::string message) { return Error(Code::kUnavailable, std::move(message)); }

std::string AddressText(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text,
              sizeof(text));
    return text;
  }
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    inet_ntop(AF_INET, &v6.s6_addr[12], text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &v6, text, sizeof(text));
  }
  return text;
}

// What is left of `timeout_ms` when nothing may last beyond `deadline`; 0: nothing.
int64_t LeftMs(Channel::Time deadline, int64_t timeout_ms) {
  using std::chrono::milliseconds;
  if (deadline == Channel::Time::max()) return timeout_ms;
  const auto left = deadline - std::chrono::steady_clock::now();
  return std::clamp<int64_t>(std::chrono::ceil<milliseconds>(left).count(), 0, timeout_ms);
}

Result<void> WaitFor(int descriptor, short events, int64_t timeout_ms, const char* what) {
  pollfd waiting{descriptor, events, 0};
  while (true) {
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::min<int64_t>(timeout_ms, INT_MAX)));
    if (ready > 0) return {};
    if (ready == 0) return Unavailable(std::string(what) + ": no answer in time");
    if (errno != EINTR) return ErrnoError(errno, what);
  }
}

// A connected non-blocking socket.
Result<int> ConnectTo(const addrinfo& address, int64_t timeout_ms) {
  const int descriptor =
      ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
  if (descriptor < 0) return ErrnoError(errno, "socket");
  int failure = 0;
  if (::connect(descriptor, address.ai_addr, address.ai_addrlen) != 0) failure = errno;
  if (failure == EINPROGRESS) {
    Result<void> ready = WaitFor(descriptor, POLLOUT, timeout_ms, "connect");
    if (!ready.has_value()) {
      ::close(descriptor);
      return std::move(ready).error();
    }
    socklen_t size = sizeof(failure);
    ::getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size);
  }
  if (failure != 0) {
    ::close(descriptor);
    return Unavailable(std::string("connect: ") + std::strerror(failure));
  }
  const int on = 1;
  ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return descriptor;
}

// The process's one TLS context; lives for ever. Null when the library can't make one.
SSL_CTX* TlsContext() {
  static SSL_CTX* const context = [] {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
    SSL_CTX* made = SSL_CTX_new(TLS_client_method());
    if (made == nullptr) return made;
    SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION);
    SSL_CTX_set_default_verify_paths(made);
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return made;
  }();
  return context;
}

bool IsAddress(const std::string& host) {
  in6_addr ignored;
  return inet_pton(AF_INET, host.c_str(), &ignored) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

using FoundAddresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Result<FoundAddresses> Find(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) {
    return Unavailable("can't resolve \"" + host + "\": " + ::gai_strerror(failure));
  }
  return FoundAddresses(found, ::freeaddrinfo);
}

}  // namespace

struct Channel::Tls {
  struct Free {
    void operator()(SSL* held) const { SSL_free(held); }
  };
  std::unique_ptr<SSL, Free> ssl;
};

Result<std::unique_ptr<Channel>> Channel::Connect(const Peer& peer, const Options& options) {
  // With a resolver of its own: the name's addresses, which take no time to read.
  std::vector<std::string> names = {peer.host};
  if (options.resolver != nullptr && !IsAddress(peer.host)) {
    const int64_t left_ms = LeftMs(options.deadline, options.resolve_timeout_ms);
    ASSIGN_OR_RETURN(names, options.resolver->Resolve(peer.host, left_ms));
  }
  Error last(Code::kPermissionDenied, "connecting to \"" + peer.host + "\" is not allowed");
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const FoundAddresses found, Find(name, peer.port));
    for (const addrinfo* address = found.get(); address != nullptr; address = address->ai_next) {
      const std::string text = AddressText(address->ai_addr);
      if (options.allow && !options.allow(text, peer.port)) continue;
      Result<int> descriptor =
          ConnectTo(*address, LeftMs(options.deadline, options.connect_timeout_ms));
      if (!descriptor.has_value()) {
        last = descriptor.error().Annotate(peer.host);
        continue;
      }
      std::unique_ptr<Channel> channel(
          new Channel(*descriptor, text, options.stall_timeout_ms, options.deadline));
      if (peer.tls) RETURN_IF_ERROR(channel->StartTls(peer.host));
      return Result<std::unique_ptr<Channel>>(std::move(channel));
    }
  }
  return last;
}

Channel::Channel(int descriptor, std::string address, int64_t stall_timeout_ms, Time deadline)
    : descriptor_(descriptor),
      address_(std::move(address)),
      stall_timeout_ms_(stall_timeout_ms),
      deadline_(deadline) {}

Channel::~Channel() {
  tls_.reset();
  ::close(descriptor_);
}

Result<void> Channel::Wait(short events) const {
  return WaitFor(descriptor_, events, LeftMs(deadline_, stall_timeout_ms_), "waiting for the peer");
}

Result<void> Channel::WaitTls(int outcome, const char* what, short events) const {
  SSL* const ssl = tls_->ssl.get();
  switch (SSL_get_error(ssl, outcome)) {
    case SSL_ERROR_WANT_READ:
      return Wait(static_cast<short>(POLLIN | events));
    case SSL_ERROR_WANT_WRITE:
      return Wait(static_cast<short>(POLLOUT | events));
    default:
      break;
  }
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) {
    return Unavailable(std::string(what) +
                       ": certificate: " + X509_verify_cert_error_string(verified));
  }
  char reason[256];
  ERR_error_string_n(ERR_get_error(), reason, sizeof(reason));
  return Unavailable(std::string(what) + ": " + reason);
}

Result<void> Channel::StartTls(const std::string& host) {
  if (TlsContext() == nullptr) return Unavailable("TLS can't be set up");
  tls_ = std::make_unique<Tls>();
  tls_->ssl.reset(SSL_new(TlsContext()));
  SSL* const ssl = tls_->ssl.get();
  if (ssl == nullptr || SSL_set_fd(ssl, descriptor_) != 1)
    return Unavailable("TLS can't be set up");
  const bool named = IsAddress(host)
                         ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1
                         : SSL_set1_host(ssl, host.c_str()) == 1 &&
                               SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
  if (!named) return Unavailable("\"" + host + "\" is no name that a certificate can be for");
  while (true) {
    ERR_clear_error();
    const int outcome = SSL_connect(ssl);
    if (outcome == 1) return {};
    RETURN_IF_ERROR(WaitTls(outcome, "TLS handshake"));
  }
}

Result<size_t> Channel::WriteSome(ByteView bytes, short events) {
  if (tls_ != nullptr) {
    ERR_clear_error();
    size_t sent = 0;
    const int outcome = SSL_write_ex(tls_->ssl.get(), bytes.data(), bytes.size(), &sent);
    if (outcome != 1) RETURN_IF_ERROR(WaitTls(outcome, "send", events));
    return sent;
  }
  const ssize_t count = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (count >= 0) return static_cast<size_t>(count);
  if (errno == EAGAIN) {
    RETURN_IF_ERROR(Wait(static_cast<short>(POLLOUT | events)));
  } else if (errno != EINTR) {
    return Unavailable(std::string("send: ") + std::strerror(errno));
  }
  return 0;
}

Result<void> Channel::Write(ByteView bytes) {
  while (!bytes.empty()) {
    ASSIGN_OR_RETURN(const size_t sent, WriteSome(bytes, 0));
    bytes = bytes.subspan(sent);
  }
  return {};
}

Result<size_t> Channel::WriteUnlessTold(ByteView bytes) {
  size_t total = 0;
  while (total < bytes.size() && !HasInput()) {
    ASSIGN_OR_RETURN(const size_t sent, WriteSome(bytes.subspan(total), POLLIN));
    total += sent;
  }
  return total;
}

// What can be read of the socket need not be what the peer says: TLS has messages of its own.
bool Channel::HasInput() {
  if (tls_ == nullptr) return !Quiet();
  ERR_clear_error();
  char byte;
  size_t count = 0;
  SSL* const ssl = tls_->ssl.get();
  const int outcome = SSL_peek_ex(ssl, &byte, 1, &count);
  if (outcome == 1) return true;
  const int error = SSL_get_error(ssl, outcome);
  return error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

Result<size_t> Channel::Read(MutableByteView into) {
  // A peer that always has something to send is never waited for.
  if (deadline_ != Time::max() && LeftMs(deadline_, 1) == 0) {
    return Unavailable("receive: the time is over");
  }
  while (true) {
    if (tls_ != nullptr) {
      ERR_clear_error();
      size_t count = 0;
      const int outcome = SSL_read_ex(tls_->ssl.get(), into.data(), into.size(), &count);
      if (outcome == 1) return count;
      if (SSL_get_error(tls_->ssl.get(), outcome) == SSL_ERROR_ZERO_RETURN) return 0;
      RETURN_IF_ERROR(WaitTls(outcome, "receive"));
      continue;
    }
    const ssize_t count = ::recv(descriptor_, into.data(), into.size(), 0);
    if (count >= 0) return static_cast<size_t>(count);
    if (errno == EAGAIN) {
      RETURN_IF_ERROR(Wait(POLLIN));
    } else if (errno != EINTR) {
      return Unavailable(std::string("receive: ") + std::strerror(errno));
    }
  }
}

bool Channel::Quiet() const {
  pollfd now{descriptor_, POLLIN, 0};
  return ::poll(&now, 1, 0) == 0;
}

}  // namespace base::http
