#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/result.h"

namespace imaged {

// A server that drips would hold one of the few places for imports until the deadline: it is let go
// once it sent less than this, on average, over one stall timeout of waiting for it.
constexpr int64_t kMinFetchBytesPerSecond = 64 * base::kKiB;

// Whether a fetch comes fast enough; only the time that the server takes counts. One thread.
class FetchPace {
 public:
  FetchPace(int64_t window_ms, int64_t now_ns) : window_ms_(window_ms), since_ns_(now_ns) {}

  // Bytes have come. kUnavailable: too few in the window that ends now.
  base::Result<void> Came(size_t bytes, int64_t now_ns);
  // They are taken in: we wait for the server again.
  void Waiting(int64_t now_ns) { since_ns_ = now_ns; }

 private:
  const int64_t window_ms_;
  int64_t since_ns_;  // when the wait began
  int64_t waited_ns_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace imaged
