#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/http/message.h"
#include "base/http/resolver.h"
#include "base/result.h"

namespace base::http {

struct ClientOptions {
  int64_t connect_timeout_ms = 10'000;
  int64_t stall_timeout_ms = 60'000;      // no byte moved, or an answer's head is not there yet
  int64_t total_timeout_ms = 0;           // of one Do with all its redirects; 0: none
  size_t max_response_bytes = 16 * kMiB;  // of a body that is taken whole
  int max_redirects = 0;                  // 0: a redirect is the answer
  // Asked with every address (as text: "10.0.0.1", "::1") before connecting, at each redirect
  // again; the address that was approved is the one connected to, so a name cannot change its mind
  // in between. Null: all are fine.
  std::function<bool(std::string_view address, uint16_t port)> allow_address;
  // Names are looked up here, within that time; borrowed. Null: the system's way, however long.
  Resolver* resolver = nullptr;
  int64_t resolve_timeout_ms = 10'000;
  // Asked with every URL's scheme, host and port, at each redirect again. Null: all are fine.
  std::function<bool(std::string_view scheme, std::string_view host, uint16_t port)> allow_host;
};

struct ClientRequest {
  std::string method = "GET";
  std::string url;  // http:// or https:// (certificates are verified against the system's store)
  Headers headers;
  std::string body;
  // Instead of body: fills the buffer, returns how much, 0 at the end. Sent with Content-Length if
  // `body_size` is set, else chunked.
  std::function<Result<size_t>(MutableByteView)> body_source;
  std::optional<uint64_t> body_size;
  // How long the peer may work on its answer once it has the body; 0: the stall timeout.
  int64_t answer_timeout_ms = 0;
  // Instead of Response::body: takes the body of a 2xx answer in pieces as it arrives.
  std::function<Result<void>(ByteView)> body_sink;
  // Sees the header fields of that answer before, so that the sink can know what comes. Optional.
  std::function<Result<void>(const Headers&)> head_sink;
  int64_t total_timeout_ms = 0;  // instead of the options', if it is not 0
};

// A blocking HTTP/1.1 client that keeps connections alive. Not thread-safe: one client a thread.
class Client {
 public:
  explicit Client(ClientOptions options = {});
  ~Client();

  // Any status is a Response; kUnavailable when the peer could not be reached or broke off,
  // kPermissionDenied when allow_address or allow_host said no, kTooLarge over max_response_bytes.
  // A refusal (3xx and up) that comes while the body is still being sent is the answer; the rest of
  // the body is not sent then.
  Result<Response> Do(const ClientRequest& request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace base::http
