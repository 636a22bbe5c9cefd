#pragma once

#include <atomic>
#include <cstdint>

#include "base/metrics.h"

namespace chunkstore::layers {

// What a disk cache counts, once for its stats() and once for /metrics. Thread-safe.
class CacheCount {
 public:
  explicit CacheCount(base::Counter& counter) : counter_(counter) {}
  void Add(uint64_t amount) {
    if (amount == 0) return;
    value_.fetch_add(amount, std::memory_order_relaxed);
    counter_.Add(static_cast<double>(amount));
  }
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  base::Counter& counter_;
  std::atomic<uint64_t> value_ = 0;
};

struct CacheCounts {
  explicit CacheCounts(base::Metrics& metrics);

  CacheCount hit_blocks, hit_plain_bytes, ahead_blocks, ahead_plain_bytes;
  CacheCount miss_blocks, miss_plain_bytes;
  CacheCount fetched_blocks, fetched_bytes, ahead_fetched_bytes;
  CacheCount evicted_blocks, damaged_blocks, unkept_blocks;
  base::Gauge &limit_bytes, &disk_bytes, &used_bytes, &blocks, &pinned_bytes;
};

}  // namespace chunkstore::layers
