#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/thread_annotations.h"

namespace blockd::chunk {

// [begin, end) of a volume's blocks.
struct BlockRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool operator==(const BlockRange&) const = default;
};

// A set of blocks, as the fewest ranges. Thread-safe.
class BlockRanges {
 public:
  void Add(BlockRange range) EXCLUDES(mutex_);
  // Takes out what lies in `within`, in order.
  std::vector<BlockRange> Take(BlockRange within) EXCLUDES(mutex_);
  std::optional<uint64_t> First() const EXCLUDES(mutex_);
  // How many ranges there are. Takes no lock.
  size_t size() const { return size_.load(); }

 private:
  mutable base::Mutex mutex_;
  std::map<uint64_t, uint64_t> ranges_ GUARDED_BY(mutex_);  // begin to end; none touch
  std::atomic<size_t> size_ = 0;
};

}  // namespace blockd::chunk
