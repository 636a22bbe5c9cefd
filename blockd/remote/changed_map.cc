#include "blockd/remote/changed_map.h"

#include <algorithm>
#include <bit>

namespace blockd::remote {

ChangedMap::ChangedMap(uint64_t size_bytes, size_t max_memory_bytes) {
  while (size_bytes / block_bytes_ / 8 > max_memory_bytes) block_bytes_ *= 2;
  blocks_ = size_bytes / block_bytes_;
  words_ = std::make_unique<std::atomic<uint64_t>[]>((blocks_ + kWordBits - 1) / kWordBits);
}

void ChangedMap::Mark(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  uint64_t block = offset / block_bytes_;
  const uint64_t end = std::min(blocks_, (offset + length - 1) / block_bytes_ + 1);
  while (block < end) {
    const uint64_t bit = block % kWordBits;
    const uint64_t count = std::min(kWordBits - bit, end - block);
    const uint64_t mask = (count == kWordBits ? ~0ULL : (1ULL << count) - 1) << bit;
    std::atomic<uint64_t>& word = words_[block / kWordBits];
    if ((word.load() & mask) != mask) word.fetch_or(mask);
    block += count;
  }
}

ChangedMap::Run ChangedMap::RunAt(uint64_t offset, uint64_t length) const {
  const uint64_t first = offset / block_bytes_;
  if (first >= blocks_) return {length, true};
  const uint64_t end = (offset + length + block_bytes_ - 1) / block_bytes_;
  Run run;
  uint64_t block = first;
  while (block < std::min(end, blocks_)) {
    const uint64_t bit = block % kWordBits;
    const uint64_t word = words_[block / kWordBits].load() >> bit;
    if (block == first) run.changed = (word & 1) != 0;
    const int same = run.changed ? std::countr_one(word) : std::countr_zero(word);
    // Bits shifted in are zeros, so a run of them may seem longer than the word.
    const uint64_t here = std::min<uint64_t>(static_cast<uint64_t>(same), kWordBits - bit);
    block += here;
    if (here < kWordBits - bit) break;
  }
  if (block >= blocks_) block = run.changed ? end : blocks_;
  run.length = std::min(length, block * block_bytes_ - offset);
  return run;
}

uint64_t ChangedMap::CountChangedBytes() const {
  uint64_t blocks = 0;
  for (uint64_t i = 0; i < (blocks_ + kWordBits - 1) / kWordBits; ++i)
    blocks += static_cast<uint64_t>(std::popcount(words_[i].load()));
  return blocks * block_bytes_;
}

}  // namespace blockd::remote
