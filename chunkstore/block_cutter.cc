#include <algorithm>

#include "chunkstore/blob_format.h"

// Where blocks end. The rule is part of what makes equal data share blocks, so changing it costs
// sharing with what is stored already; it is not part of the format: a reader takes any cuts on the
// grid.

namespace chunkstore {

namespace {

// One page in seven ends a block that has its minimum: with the maximum of 32 pages that makes 7.9
// on average.
constexpr uint64_t kCutBelow = UINT64_MAX / 7;

}  // namespace

std::vector<uint32_t> CutBlocks(base::ByteView plain) {
  std::vector<uint32_t> ends;
  ends.reserve(plain.size() / kAverageBlockBytes + 8);
  uint32_t start = 0;
  uint64_t previous = 0;
  for (uint32_t page = 0; page + kBlockGridBytes <= plain.size(); page += kBlockGridBytes) {
    uint64_t hash = base::Xxh3(plain.subspan(page, kBlockGridBytes)).low;
    uint32_t end = page + kBlockGridBytes;
    uint32_t length = end - start;
    // A page equal to the one before never cuts: a long run of one page would fall into minimal
    // blocks.
    bool cut = length >= kMinBlockBytes && hash < kCutBelow && (hash != previous || page == 0);
    previous = hash;
    if (cut || length == kMaxBlockBytes) {
      ends.push_back(end);
      start = end;
    }
  }
  if (start < plain.size()) ends.push_back(static_cast<uint32_t>(plain.size()));
  return ends;
}

std::vector<Block> HashBlocks(base::ByteView plain) {
  std::vector<Block> blocks;
  uint32_t start = 0;
  for (uint32_t end : CutBlocks(plain)) {
    Block block;
    block.plain_offset = start;
    block.plain_length = end - start;
    block.hash = base::Xxh3(plain.subspan(start, end - start));
    blocks.push_back(block);
    start = end;
  }
  return blocks;
}

}  // namespace chunkstore
