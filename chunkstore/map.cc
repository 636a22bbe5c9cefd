#include "chunkstore/map.h"

#include <algorithm>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/chunk_store.h"

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

constexpr uint8_t kPageVersion = 1;
constexpr uint8_t kRootFlag = 1;

Error Bad(std::string_view what) {
  return Error(Code::kCorruption, "map page: " + std::string(what));
}

// Slots in use as runs: {absent slots before it, slots in it}.
std::vector<std::pair<uint32_t, uint32_t>> Runs(const MapPage& page) {
  std::vector<std::pair<uint32_t, uint32_t>> runs;
  uint32_t end = 0;
  for (const MapPage::Entry& entry : page.entries) {
    if (runs.empty() || entry.slot != end)
      runs.emplace_back(entry.slot - end, 1);
    else
      ++runs.back().second;
    end = entry.slot + 1u;
  }
  return runs;
}

Result<void> DecodeEntries(base::Decoder& in, MapPage* page) {
  ASSIGN_OR_RETURN(const uint64_t runs, in.Varint());
  if (runs > kFanOut / 2) return Bad("too many runs");
  uint64_t slot = 0;
  for (uint64_t i = 0; i < runs; ++i) {
    ASSIGN_OR_RETURN(const uint64_t gap, in.Varint());
    ASSIGN_OR_RETURN(const uint64_t length, in.Varint());
    if (gap > kFanOut || length == 0 || length > kFanOut || (i > 0 && gap == 0) ||
        slot + gap + length > kFanOut)
      return Bad("a run out of bounds");
    slot += gap;
    for (uint64_t k = 0; k < length; ++k)
      page->entries.push_back({static_cast<uint16_t>(slot++), Digest256{}});
  }
  for (MapPage::Entry& entry : page->entries) {
    ASSIGN_OR_RETURN(const std::string_view raw, in.Bytes(32));
    ASSIGN_OR_RETURN(entry.id, Digest256::FromBytes(raw));
  }
  return in.ExpectEnd();
}

Result<void> CheckRoot(const MapPage& page) {
  if (*page.size_bytes > kMaxContentBytes) return Bad("the size is beyond the limit");
  if (page.level != RootLevel(*page.size_bytes)) return Bad("the level does not fit the size");
  if (page.entries.empty()) return {};
  const uint64_t first_chunk = page.entries.back().slot * SlotSpan(page.level);
  if (first_chunk >= ChunkCount(*page.size_bytes)) return Bad("a slot beyond the size");
  return {};
}

}  // namespace

const Digest256* MapPage::Find(uint32_t slot) const {
  // Of a slot's entry, as many lie before it as slots do at most, and the same behind it: a page
  // without gaps leaves one place.
  if (entries.empty() || slot >= kFanOut) return nullptr;
  const size_t behind = kFanOut - 1 - slot;
  const size_t count = entries.size();
  const auto first = entries.begin() + static_cast<ptrdiff_t>(count - std::min(count, behind + 1));
  const auto last = entries.begin() + static_cast<ptrdiff_t>(std::min<size_t>(count, slot + 1));
  const auto it = std::lower_bound(
      first, last, slot, [](const Entry& entry, uint32_t wanted) { return entry.slot < wanted; });
  return it != last && it->slot == slot ? &it->id : nullptr;
}

std::vector<Digest256> MapPage::Children() const {
  std::vector<Digest256> ids;
  ids.reserve(entries.size());
  for (const Entry& entry : entries) ids.push_back(entry.id);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::string EncodePage(const MapPage& page) {
  std::string out;
  out.push_back(static_cast<char>(kPageVersion));
  out.push_back(static_cast<char>(page.size_bytes ? kRootFlag : 0));
  out.push_back(static_cast<char>(page.level));
  if (page.size_bytes) base::PutFixed(&out, *page.size_bytes);
  const auto runs = Runs(page);
  base::PutVarint(&out, runs.size());
  for (const auto& [gap, length] : runs) {
    base::PutVarint(&out, gap);
    base::PutVarint(&out, length);
  }
  for (const MapPage::Entry& entry : page.entries) out += entry.id.view();
  return out;
}

Result<MapPage> DecodePage(base::ByteView plain) {
  base::Decoder in(base::AsText(plain));
  MapPage page;
  ASSIGN_OR_RETURN(const uint8_t version, in.Fixed<uint8_t>());
  if (version != kPageVersion) return Bad("unknown version " + std::to_string(version));
  ASSIGN_OR_RETURN(const uint8_t flags, in.Fixed<uint8_t>());
  if (flags & ~kRootFlag) return Bad("unknown flags");
  ASSIGN_OR_RETURN(page.level, in.Fixed<uint8_t>());
  if (page.level > kMaxLevel) return Bad("the level is beyond the limit");
  if (flags & kRootFlag) {
    ASSIGN_OR_RETURN(page.size_bytes, in.Fixed<uint64_t>());
  }
  RETURN_IF_ERROR(DecodeEntries(in, &page));
  if (page.size_bytes) {
    RETURN_IF_ERROR(CheckRoot(page));
  } else if (page.entries.empty()) {
    return Bad("a page without entries that is no root");
  }
  // One encoding for one page: a varint that is longer than it needs to be is refused as well.
  if (EncodePage(page) != base::AsText(plain)) return Bad("not in its canonical form");
  return page;
}

uint64_t ChunkCount(uint64_t size_bytes) { return (size_bytes + kChunkBytes - 1) / kChunkBytes; }

uint8_t RootLevel(uint64_t size_bytes) {
  const uint64_t chunks = ChunkCount(size_bytes);
  uint8_t level = 0;
  while (level < kMaxLevel && chunks > SlotSpan(level) * kFanOut) ++level;
  return level;
}

uint32_t ChunkLength(uint64_t index, uint64_t size_bytes) {
  const uint64_t begin = index * kChunkBytes;
  CHECK(begin < size_bytes);
  return static_cast<uint32_t>(std::min<uint64_t>(kChunkBytes, size_bytes - begin));
}

}  // namespace chunkstore
