#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/async/pool.h"
#include "base/clock.h"
#include "base/http/router.h"
#include "base/metrics.h"
#include "base/result.h"

namespace base::http {

// Of all request bodies that are read whole, together. A streamed one has its reader's limits.
constexpr uint64_t kBodyMemoryBytes = 64 * kMiB;

struct ServerOptions {
  std::string listen = "127.0.0.1:0";  // HOST:PORT; [::1]:0 for IPv6
  size_t io_threads = 2;
  size_t max_connections = kMaxConnections;
  int64_t header_timeout_ms = kHeaderTimeoutMs;
  int64_t idle_timeout_ms = kIdleTimeoutMs;
  int64_t body_stall_timeout_ms = kBodyStallTimeoutMs;
  int64_t drain_timeout_ms = kDrainTimeoutMs;
  // The identity service that a 401 names in WWW-Authenticate; empty: the one beside us, at
  // /identity/v3.
  std::string identity_url;
  // Of bodies, both ways, counted while we wait for the client; 0: however slow. Beyond
  // body_stall_timeout_ms of waiting, whoever is below is cut off.
  int64_t min_bytes_per_second = kMinBodyBytesPerSecond;
  // All bodies that are read whole, together; one more than fits is answered 503.
  uint64_t body_memory_bytes = kBodyMemoryBytes;
  // What links begin with (Request::base_url): "https://cloud.example". Empty: as the client
  // addressed us.
  std::string public_url;
  // Networks ("10.1.0.0/16") of the proxies that set X-Forwarded-Proto and X-Forwarded-Host
  // themselves: only from these peers they count for links.
  std::vector<std::string> trusted_proxies;
};

// What a client may still be sending of a body that nobody wants, so that it reads the answer: more
// than this, and the answer goes out at once and the connection ends.
constexpr uint64_t kMaxDrainBytes = 16 * kMiB;
// How long a connection that ends in such a way is read before it is closed (a close with unread
// bytes resets the connection, and the answer is lost on the way).
constexpr int64_t kLingerTimeoutMs = 5'000;
// A body up to this size is read before the token is looked at: both are then one job.
constexpr size_t kMaxUnverifiedBodyBytes = 64 * kKiB;

// An HTTP/1.1 server over a Router. For each request: id, route, token (Access), body or stream,
// handler, response with x-openstack-request-id, one access-log line with the duration, metrics.
// Handlers run on `pool`, sockets on the server's own io threads. Thread-safe.
//
// The job of a Handler logs with the request's id (ScopedLogContext); a StreamHandler sets it in
// its own jobs.
//
// Hostile clients: headers over kMaxHeaderBytes 431, bodies over the route's limit 413, a
// connection too many 503 with Retry-After, slow headers 408, a stalled or dripping body cut off,
// and so is a reader who takes an answer so slowly, Content-Length together with Transfer-Encoding
// 400.
class Server {
 public:
  // `router`, `pool` and `metrics` are borrowed and outlive the server.
  static Result<std::unique_ptr<Server>> Start(ServerOptions options, const Router& router,
                                               async::Pool& pool, Metrics& metrics);
  virtual ~Server() = default;

  // "127.0.0.1:34567": what was really bound.
  virtual std::string address() const = 0;
  // Stops to accept, lets requests in flight end (drain_timeout_ms), closes. Blocks; idempotent.
  virtual void Stop() = 0;
};

}  // namespace base::http
