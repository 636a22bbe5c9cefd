#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/http/resolver.h"
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
  using Time = std::chrono::steady_clock::time_point;

  struct Options {
    AllowAddress allow;  // null: all are
    int64_t connect_timeout_ms = 0;
    int64_t stall_timeout_ms = 0;
    Time deadline = Time::max();   // of everything, until LimitTo says something else
    Resolver* resolver = nullptr;  // borrowed; null: the system's, for as long as it takes
    int64_t resolve_timeout_ms = 0;
  };

  // Resolves, asks `allow` for each address, and connects to the first that is allowed and answers.
  static Result<std::unique_ptr<Channel>> Connect(const Peer& peer, const Options& options);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Result<void> Write(ByteView bytes);
  // As Write, but ends early once the peer has something to say, as it may while we still send: how
  // many bytes went out.
  Result<size_t> WriteUnlessTold(ByteView bytes);
  // Something can be read without waiting: bytes, the end, or an error.
  bool HasInput();
  // From then on nothing is waited for: kUnavailable.
  void LimitTo(Time deadline) { deadline_ = deadline; }
  // How long it waits for a byte to move, either way.
  void StallAfter(int64_t timeout_ms) { stall_timeout_ms_ = timeout_ms; }
  // At least one byte; 0 at the end of what the peer sends.
  Result<size_t> Read(MutableByteView into);
  // True while an idle connection can be used again: the peer has neither closed nor said anything.
  bool Quiet() const;
  // "10.0.0.1": what it is connected to. An IPv4 address in IPv6's clothes ("::ffff:10.0.0.1")
  // counts as IPv4.
  const std::string& address() const { return address_; }

 private:
  struct Tls;
  Channel(int descriptor, std::string address, int64_t stall_timeout_ms, Time deadline);
  Result<void> StartTls(const std::string& host);
  // At least one byte, or 0 where it waited for the peer for as long as `events` (poll's, added to
  // what the write itself needs) say.
  Result<size_t> WriteSome(ByteView bytes, short events);
  // Waits until the socket is ready for `events` (poll's); kUnavailable after the timeout.
  Result<void> Wait(short events) const;
  // What to do after OpenSSL answered `outcome`: wait (for `events` as well), or give up.
  Result<void> WaitTls(int outcome, const char* what, short events = 0) const;

  const int descriptor_;
  const std::string address_;
  int64_t stall_timeout_ms_;
  Time deadline_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace base::http
