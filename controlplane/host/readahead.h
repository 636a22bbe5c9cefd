#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/thread_annotations.h"

namespace controlplane::host {

// Sees the reads of a disk, and says what will be read next: whoever reads on where a read ended,
// reads on further. Several do so at once in one image. The longer it goes on, the further ahead:
// kMaxAheadBytes keep a link of 3 Gbit/s with 20 ms of delay full. Thread-safe, instant.
class Readahead {
 public:
  static constexpr uint64_t kMinAheadBytes = 256 * base::kKiB;
  static constexpr uint64_t kMaxAheadBytes = 8 * base::kMiB;
  // Reads of one reader may come that much out of order: there are several on their way.
  static constexpr uint64_t kSlackBytes = 4 * base::kMiB;
  static constexpr size_t kStreams = 32;

  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool operator==(const Range&) const = default;
  };
  // A read begins. What to bring now, if anything; each byte is named once as long as the reader
  // goes on. May reach beyond the end of the disk.
  std::optional<Range> Note(uint64_t offset, uint64_t length);

 private:
  struct Stream {
    uint64_t next = 0;   // where it reads on
    uint64_t run = 0;    // bytes, in sequence
    uint64_t ahead = 0;  // the end of what was named
    uint64_t used = 0;   // when, by turn_
  };
  Stream* StreamOf(uint64_t offset) REQUIRES(mutex_);

  base::Mutex mutex_;
  std::array<Stream, kStreams> streams_ GUARDED_BY(mutex_);
  uint64_t turn_ GUARDED_BY(mutex_) = 0;
};

}  // namespace controlplane::host
