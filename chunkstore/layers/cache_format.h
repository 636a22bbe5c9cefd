#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "chunkstore/layers/block_source.h"

// What the disk cache of a compute host keeps on disk: version 1, written down byte by byte in
// FORMAT.md and kept by golden bytes in a test. Values and pure functions; input is hostile. What
// does not read is no error of a cache but nothing: hence the optionals.

namespace chunkstore::layers {

// The first eight bytes of a block's name: what the cache knows blocks by. Names are the output of
// a keyed hash, so these are as good as random; two blocks that share them, once in a few hundred
// thousand full caches, only keep pushing each other out, for hashes tell them apart.
using BlockKey = uint64_t;
BlockKey KeyOf(const BlockName& name);

// What comes first in the file of blocks.
constexpr uint64_t kCacheHeadBytes = 4 * base::kKiB;
constexpr uint64_t kMinSegmentBytes = 1 * base::kMiB;
constexpr uint64_t kMaxSegmentBytes = 64 * base::kMiB;

std::string EncodeCacheHead(uint64_t segment_bytes);
// The length of a segment: kMinSegmentBytes .. kMaxSegmentBytes, on the grid of 4 KiB. None: not a
// file of this version.
std::optional<uint64_t> DecodeCacheHead(base::ByteView head);

// A segment: its head, a table of entries, and at table_bytes the stored bytes of the blocks.
enum class Queue : uint8_t { kSmall = 1, kMain = 2 };
struct SegmentHead {
  Queue queue = Queue::kSmall;
  uint64_t generation = 0;  // random: entries of an earlier use of the place do not count
  uint64_t order = 0;       // who entered a queue later has a larger one
};
constexpr uint64_t kSegmentHeadBytes = 64;
constexpr uint64_t kEntryBytes = 24;
constexpr uint64_t TableBytes(uint64_t segment_bytes) {
  return segment_bytes / 128 / (4 * base::kKiB) * (4 * base::kKiB);
}
constexpr uint64_t MaxEntries(uint64_t segment_bytes) {
  return (TableBytes(segment_bytes) - kSegmentHeadBytes) / kEntryBytes;
}

std::string EncodeSegmentHead(const SegmentHead& head);
std::optional<SegmentHead> DecodeSegmentHead(base::ByteView bytes);

struct SegmentEntry {
  BlockKey key = 0;
  uint32_t offset = 0;  // in the segment
  uint32_t length = 0;  // 1 .. kMaxBlockBytes; 0: the block was dropped
};
std::string EncodeEntry(const SegmentEntry& entry, uint64_t generation, uint64_t slot);
// None: nothing was written to this slot in this generation, or not all of it.
std::optional<SegmentEntry> DecodeEntry(base::ByteView bytes, uint64_t generation, uint64_t slot,
                                        uint64_t segment_bytes);

// A group of blocks that is to stay: a file of its own.
struct PinnedBlock {
  BlockKey key = 0;
  uint32_t stored_length = 0;
};
struct PinGroup {
  std::string name;
  std::vector<PinnedBlock> blocks;
};
std::string EncodePins(const PinGroup& group);
base::Result<PinGroup> DecodePins(std::string_view bytes);

}  // namespace chunkstore::layers
