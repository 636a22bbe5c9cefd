#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "blockd/nbd/protocol.h"

namespace blockd::nbd {

// A server's instruments. Thread-safe.
struct ServerMetrics {
  explicit ServerMetrics(base::Metrics& registry);

  base::Metrics& registry;
  base::Gauge& connections;
  base::Counter& accepted;
  base::Counter& refused;             // a limit: too many
  base::Counter& dropped_handshakes;  // made room for newer ones
  base::Counter& handshakes_failed;
  base::Counter& timed_out;  // requests answered EIO because the back end hangs
  base::Counter& late;       // their results, thrown away
  base::Counter& revoked_connections;
  base::Counter& stalled_connections;  // the client didn't take its answers, or send its data
  base::Gauge& memory_bytes;           // of requests on their way
  base::Counter& memory_waits;
};

// What is counted for one volume, whoever is connected: there while anybody holds one of these.
// Thread-safe.
struct VolumeMetrics {
  VolumeMetrics(base::Metrics& registry, const std::string& volume_id);

  std::shared_ptr<base::Counter> reads;
  std::shared_ptr<base::Counter> writes;
  std::shared_ptr<base::Counter> others;
  std::shared_ptr<base::Counter> errors;
  std::shared_ptr<base::Counter> read_bytes;
  std::shared_ptr<base::Counter> written_bytes;
  std::shared_ptr<base::Histogram> waited_seconds;  // requests that needed the disk
};

// Counts of one connection's reader, added up without a shared write for each request. One thread.
struct Tally {
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t others = 0;
  uint64_t errors = 0;
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;

  void Count(Command command, uint32_t length, WireError error);
  // Moves the counts there.
  void MoveTo(VolumeMetrics& metrics);
};

}  // namespace blockd::nbd
