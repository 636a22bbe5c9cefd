#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/metrics.h"
#include "base/result.h"
#include "blockd/nbd/export.h"
#include "blockd/nbd/tls.h"

namespace blockd::nbd {

struct ServerSettings {
  // That reached a volume; beyond it GO is refused. Tenants share them (Export::tenant): one alone
  // has half at most, so that others find some left.
  size_t max_connections = 1024;
  // To one export: 16 are what clients open at most, and a guest that moves has them twice.
  size_t max_connections_per_export = 32;
  // That have not reached a volume yet; one more, and an old one is closed.
  size_t max_handshakes = 256;
  int64_t handshake_timeout_ms = 20'000;
  // How long a request may be at the back end; then it is answered EIO, and what comes of it later
  // is thrown away. Waiting for the limits of a volume (QoS) does not count.
  int64_t request_deadline_ms = 30'000;
  // How long a client may take none of its answers, or send nothing of a long write's data, before
  // it is cut off; and how slow it may be on average, once it took longer than that. What it leaves
  // waiting is memory.
  int64_t stall_ms = 60'000;
  int64_t min_bytes_per_second = 64 * base::kKiB;
  size_t max_threads = 256;  // for requests that wait for a disk, of all volumes
  size_t max_threads_per_volume = 16;
  size_t max_in_flight_requests = 256;             // of a connection; beyond it: not read
  uint64_t max_in_flight_bytes = 64 * base::kMiB;  // of a connection; at least kMaxIoBytes
  // Of all connections, shared by tenants as connections are; at least kMaxIoBytes. Beyond it
  // sockets are not read.
  uint64_t max_memory_bytes = 1 * base::kGiB;
  std::shared_ptr<const TlsContext> tls;    // null: no STARTTLS
  bool plain_text_beyond_loopback = false;  // for a network that is secret by itself
};

// Serves volumes over NBD on any number of sockets. One thread a connection receives and does what
// needs no disk; what does is handed to threads that all connections share. (Elsewhere sockets live
// in coroutines: here a request is a few microseconds of work, and a wake-up costs as much again.)
//
// Thread-safe. `registry` outlives it; the provider is kept while anything still uses it.
class Server {
 public:
  static base::Result<std::unique_ptr<Server>> Create(ServerSettings settings,
                                                      std::shared_ptr<ExportProvider> provider,
                                                      base::Metrics& registry);
  ~Server();  // Stop(0) unless stopped

  // "127.0.0.1", "::1" or a name, and a port (0: any); returns the port. Off loopback clients must
  // use TLS; kInvalidArgument when there is none and plain_text_beyond_loopback doesn't allow it.
  base::Result<uint16_t> ListenTcp(const std::string& host, uint16_t port);
  // A stale socket at `path` is replaced; its mode is 0600. Clear text, TLS for those that ask.
  base::Result<void> ListenUnix(const std::string& path);

  // Cuts every connection that opened `name`, or is about to, and returns when no write of theirs
  // reaches the volume any more. The provider must refuse the name before. kUnavailable when a
  // write is still at the back end after `timeout_ms`: not fenced yet, call again.
  base::Result<void> Revoke(std::string_view name, int64_t timeout_ms);

  // Accepts nobody, lets requests that came in end, then closes; what still hangs after
  // `timeout_ms` is left behind: false.
  bool Stop(int64_t timeout_ms);

  size_t connections() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace blockd::nbd
