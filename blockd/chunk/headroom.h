#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/files.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace blockd::chunk {

// How much is taken off the disk's free space at once, without looking again.
constexpr uint64_t kHeadroomStepBytes = 8 * base::kMiB;

// Keeps writes to thin volumes from filling the disk to its last byte: what is deleted then could
// not be written down, and the index not be opened again. Asked by every write that takes new
// space, so it looks at the disk once every kHeadroomStepBytes only; others who fill the disk
// meanwhile are noticed that much late. Thread-safe.
class Headroom {
 public:
  // Of the disk that `dir` is on. `files` is borrowed.
  Headroom(base::Files& files, std::string dir, uint64_t reserve_bytes)
      : files_(files), dir_(std::move(dir)), reserve_bytes_(reserve_bytes) {}

  // kOutOfSpace if `bytes` more would leave less than the reserve.
  base::Result<void> Take(uint64_t bytes) {
    if (granted_.fetch_sub(static_cast<int64_t>(bytes)) >= static_cast<int64_t>(bytes)) return {};
    return TakeFromDisk(bytes);
  }

 private:
  base::Result<void> TakeFromDisk(uint64_t bytes) EXCLUDES(mutex_);

  base::Files& files_;
  const std::string dir_;
  const uint64_t reserve_bytes_;
  std::atomic<int64_t> granted_ = 0;  // still to be given without looking
  base::Mutex mutex_;
};

}  // namespace blockd::chunk
