#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "blockd/volume.h"

namespace blockd::remote {

// Which blocks of the first bytes of a volume may have changed: bits that are only ever set. All
// that lies beyond them counts as changed. Thread-safe, without a lock: a mark is seen by every
// look that begins after it returned.
class ChangedMap {
 public:
  // For the whole blocks in `size_bytes`; of 4 KiB, or as many times twice that as it takes to
  // stay below `max_memory_bytes`.
  ChangedMap(uint64_t size_bytes, size_t max_memory_bytes);

  // Every block that the range touches.
  void Mark(uint64_t offset, uint64_t length);

  struct Run {
    uint64_t length = 0;
    bool changed = false;
  };
  // The longest run that begins at `offset`, at most `length` bytes.
  Run RunAt(uint64_t offset, uint64_t length) const;

  uint64_t block_bytes() const { return block_bytes_; }
  uint64_t size_bytes() const { return blocks_ * block_bytes_; }
  uint64_t CountChangedBytes() const;

 private:
  static constexpr uint64_t kWordBits = 64;

  uint64_t block_bytes_ = kBlockBytes;
  uint64_t blocks_ = 0;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

}  // namespace blockd::remote
