#include "blockd/chunk/block_ranges.h"

#include <algorithm>
#include <iterator>

namespace blockd::chunk {

void BlockRanges::Add(BlockRange range) {
  if (range.begin >= range.end) return;
  base::MutexLock lock(mutex_);
  auto at = ranges_.upper_bound(range.begin);
  if (at != ranges_.begin() && std::prev(at)->second >= range.begin) --at;
  while (at != ranges_.end() && at->first <= range.end) {
    range.begin = std::min(range.begin, at->first);
    range.end = std::max(range.end, at->second);
    at = ranges_.erase(at);
  }
  ranges_.emplace_hint(at, range.begin, range.end);
  size_.store(ranges_.size());
}

std::vector<BlockRange> BlockRanges::Take(BlockRange within) {
  std::vector<BlockRange> taken;
  base::MutexLock lock(mutex_);
  auto at = ranges_.upper_bound(within.begin);
  if (at != ranges_.begin() && std::prev(at)->second > within.begin) --at;
  while (at != ranges_.end() && at->first < within.end) {
    const BlockRange range = {at->first, at->second};
    at = ranges_.erase(at);
    if (range.begin < within.begin) ranges_.emplace_hint(at, range.begin, within.begin);
    if (range.end > within.end) at = ranges_.emplace_hint(at, within.end, range.end);
    taken.push_back({std::max(range.begin, within.begin), std::min(range.end, within.end)});
  }
  size_.store(ranges_.size());
  return taken;
}

std::optional<uint64_t> BlockRanges::First() const {
  base::MutexLock lock(mutex_);
  if (ranges_.empty()) return std::nullopt;
  return ranges_.begin()->first;
}

}  // namespace blockd::chunk
