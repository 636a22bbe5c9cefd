#include "blockd/chunk/headroom.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/config.h"

namespace blockd::chunk {

base::Result<void> Headroom::TakeFromDisk(uint64_t bytes) {
  base::MutexLock lock(mutex_);
  ASSIGN_OR_RETURN(const base::SpaceInfo space, files_.Space(dir_));
  const uint64_t free = space.available_bytes;
  if (free < reserve_bytes_ || free - reserve_bytes_ < bytes) {
    granted_.store(0);
    return base::Error(
        base::Code::kOutOfSpace,
        fmt::format("the disk of {} is full: {} are left, and {} are kept for deletions", dir_,
                    base::FormatBytes(free), base::FormatBytes(reserve_bytes_)));
  }
  granted_.store(static_cast<int64_t>(std::min(free - reserve_bytes_ - bytes, kHeadroomStepBytes)));
  return {};
}

}  // namespace blockd::chunk
