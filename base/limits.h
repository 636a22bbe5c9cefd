#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"

// Limits that more than one room needs; a limit that one room owns stands in that room's header.
// Exceeding one is a clear error (413, 431, 503 with Retry-After, ...), never a crash and never
// unbounded memory.

namespace base {

constexpr size_t kMaxHeaderBytes = 64 * kKiB;   // request line and all headers
constexpr size_t kMaxJsonBodyBytes = 1 * kMiB;  // a body that is read whole
constexpr size_t kMaxConnections = 4096;        // beyond it: 503 and close
constexpr int64_t kHeaderTimeoutMs =
    20'000;  // from the first byte of a request to the end of its headers
constexpr int64_t kIdleTimeoutMs = 75'000;       // keep-alive
constexpr int64_t kBodyStallTimeoutMs = 60'000;  // no byte of a body moved, either way
// How fast a body must move on average, either way, counted over the time that we wait for the
// client, once that is longer than the stall timeout: a client that sends, or reads, a byte now and
// then holds memory for ever.
constexpr int64_t kMinBodyBytesPerSecond = 1024;
constexpr int64_t kDrainTimeoutMs = 30'000;  // how long a stop waits for requests in flight
constexpr size_t kMaxQueuedJobs = 1024;      // waiting for a thread of the pool; beyond it: 503

}  // namespace base
