#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"

// The map of a content: a radix tree from chunk number to chunk id, fan-out 1024. Pages are
// content-addressed: a page's id is the SHA-256 of its encoding, and a parent names its children by
// id, so the root's id names the whole content, equal subtrees are one page, and two maps differ
// only where ids differ. A subtree without chunks is absent. The encoding is written down in
// FORMAT.md, "Map page", and kept by a golden file.

namespace chunkstore {

constexpr uint32_t kFanOut = 1024;
constexpr uint8_t kMaxLevel = 2;  // 1024^3 chunks are 4 PiB

// Value type.
struct MapPage {
  struct Entry {
    uint16_t slot = 0;   // < kFanOut
    base::Digest256 id;  // of a chunk (level 0) or a page of the level below
    bool operator==(const Entry&) const = default;
  };
  uint8_t level = 0;
  std::optional<uint64_t> size_bytes;  // of the content: the root page only
  std::vector<Entry> entries;          // slots ascending

  const base::Digest256* Find(uint32_t slot) const;  // null: absent
  std::vector<base::Digest256> Children() const;     // each id once, ascending
  bool operator==(const MapPage&) const = default;
};

std::string EncodePage(const MapPage& page);

// Input is hostile. Accepts exactly what EncodePage makes. kCorruption.
base::Result<MapPage> DecodePage(base::ByteView plain);

// Chunks of a content of this size, and the level of its root page: the lowest that reaches them
// all.
uint64_t ChunkCount(uint64_t size_bytes);
uint8_t RootLevel(uint64_t size_bytes);
// How many chunks lie under one slot of a page of this level.
constexpr uint64_t SlotSpan(uint8_t level) { return uint64_t{1} << (10 * level); }
// Plain bytes of chunk `index`. REQUIRES: index < ChunkCount(size_bytes).
uint32_t ChunkLength(uint64_t index, uint64_t size_bytes);

}  // namespace chunkstore
