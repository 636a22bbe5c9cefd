#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace base::http {

// The client's end of one connection, plain or TLS: blocking calls with timeouts. channel.cc is the
// only home of OpenSSL's TLS. Internal to base/http. One thread.
//
// Errors: kUnavailable when the peer can't be reached, stalls, breaks off or shows a certificate
// that does not hold; kPermissionDenied when every address of the name was refused.
class Channel {
 public:
  struct Peer {
    std::string host;  // a name or an address without brackets
    uint16_t port = 0;
    bool tls =
        false;  // the certificate must be for `host`, signed by one of the system's authorities
  };
  using AllowAddress = std::function<bool(std::string_view address, uint16_t port)>;

  // Resolves, asks `allow` (may be null) for each address, and connects to the first that is
  // allowed and answers.
  static Result<std::unique_ptr<Channel>> Connect(const Peer& peer, const AllowAddress& allow,
                                                  int64_t connect_timeout_ms,
                                                  int64_t stall_timeout_ms);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Result<void> Write(ByteView bytes);
  // At least one byte; 0 at the end of what the peer sends.
  Result<size_t> Read(MutableByteView into);
  // True while an idle connection can be used again: the peer has neither closed nor said anything.
  bool Quiet() const;
  // "10.0.0.1": what it is connected to. An IPv4 address in IPv6's clothes ("::ffff:10.0.0.1")
  // counts as IPv4.
  const std::string& address() const { return address_; }

 private:
  struct Tls;
  Channel(int descriptor, std::string address, int64_t stall_timeout_ms);
  Result<void> StartTls(const std::string& host);
  // Waits until the socket is ready for `events` (poll's); kUnavailable after the timeout.
  Result<void> Wait(short events) const;
  // What to do after OpenSSL answered `outcome`: wait, or give up.
  Result<void> WaitTls(int outcome, const char* what) const;

  const int descriptor_;
  const std::string address_;
  const int64_t stall_timeout_ms_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace base::http
