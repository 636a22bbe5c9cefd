#include <algorithm>

#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_log.h"

// Who has to go. A block is used or not since it entered its queue: one bit, for who reads through
// an image in small steps would fill any counter. README.md tells the whole of it.

namespace chunkstore::layers {

using base::ByteView;
using base::Result;

namespace {

constexpr uint64_t kSmallDivisor = 10;  // the small queue is a tenth
// A segment of which so much stays is kept as it is: nothing is copied.
constexpr double kWholeShare = 0.9;
// So much may be copied for one segment of room; then only what is pinned stays.
constexpr uint64_t kMaxCopiedSegments = 2;
constexpr size_t kCopyBytes = 1 * base::kMiB;

}  // namespace

struct BlockLog::Contents {
  std::vector<Survivor> survivors;
  std::vector<Survivor> others;
  uint64_t surviving_bytes = 0;
};

// A segment to write into. One more is left free, always: what an evicted one keeps has room there.
std::optional<uint32_t> BlockLog::TakeFree() {
  uint64_t copied = 0;
  // Two rounds see each block twice, the second time unused; a third takes whatever is not pinned.
  const uint64_t rounds = 3 * segments_.size() + kMinSegments;
  for (uint64_t round = 0; free_.size() < 2; ++round) {
    if (Grow()) continue;
    if (segments_.size() < kMinSegments || round >= rounds || free_.empty() || !NextToGo())
      return std::nullopt;
    const bool hurry =
        copied >= kMaxCopiedSegments * segment_bytes_ || round >= 2 * segments_.size();
    copied += MakeRoom(hurry ? Keep::kPinned : Keep::kUsedAndPinned);
  }
  return PopFree();
}

std::optional<uint32_t> BlockLog::PopFree() {
  if (free_.empty()) return std::nullopt;
  const uint32_t number = free_.back();
  free_.pop_back();
  return number;
}

std::optional<uint32_t> BlockLog::NextToGo() const {
  const auto& small = sealed_[0];
  const auto& main = sealed_[1];
  const size_t filling = open_[0] ? 1 : 0;
  const bool from_small =
      !small.empty() &&
      ((small.size() + filling) * kSmallDivisor > segments_.size() || main.empty());
  if (from_small) return small.front();
  if (!main.empty()) return main.front();
  return std::nullopt;
}

// The next segment goes, or stays as a whole at the end of the main queue; returns how many bytes
// were copied for that.
uint64_t BlockLog::MakeRoom(Keep keep) {
  const uint32_t number = *NextToGo();
  Segment& segment = segments_[number];
  const Queue queue = segment.head.queue;
  sealed(queue).pop_front();
  const Contents contents = Sort(number, keep);
  const double room = static_cast<double>(segment_bytes_ - TableBytes(segment_bytes_));
  const double slots = static_cast<double>(MaxEntries(segment_bytes_));
  if (static_cast<double>(contents.surviving_bytes) >= kWholeShare * room ||
      static_cast<double>(contents.survivors.size()) >= kWholeShare * slots) {
    KeepWhole(number, contents.survivors);
    return 0;
  }
  for (const Survivor& other : contents.others) {
    if (!index_.Erase(other.key, other.place)) continue;
    evicted_.Add(1);
    if (queue == Queue::kSmall) NoteGhost(other.key);
  }
  MoveToMain(contents.survivors);
  Free(number);
  return contents.surviving_bytes;
}

BlockLog::Contents BlockLog::Sort(uint32_t number, Keep keep) {
  Contents contents;
  for (const BlockKey key : segments_[number].keys) {
    const auto found = index_.Find(key);
    if (!found || SegmentOf(found->place) != number) continue;
    const bool stays = (keep == Keep::kUsedAndPinned && found->used) || pins_.Has(key);
    (stays ? contents.survivors : contents.others).push_back({.key = key, .place = found->place});
    if (stays) contents.surviving_bytes += found->place.length;
  }
  return contents;
}

void BlockLog::KeepWhole(uint32_t number, std::span<const Survivor> survivors) {
  Segment& segment = segments_[number];
  segment.head.queue = Queue::kMain;
  segment.head.order = ++last_order_;
  const std::string bytes = EncodeSegmentHead(segment.head);
  const ByteView piece = base::AsBytes(bytes);
  // If it is not written, a restart finds the segment where it was.
  (void)Write(BaseOf(number), {&piece, 1});
  for (const Survivor& survivor : survivors) index_.SetUsed(survivor.key, survivor.place, false);
  sealed(Queue::kMain).push_back(number);
}

// Copies blocks to the end of the main queue, into the segment that is left free for this if need
// be. What can't be copied is here no more.
void BlockLog::MoveToMain(std::span<const Survivor> survivors) {
  std::vector<uint8_t> copy(std::min<uint64_t>(kCopyBytes, segment_bytes_) + kMaxBlockBytes);
  std::vector<Piece> pieces;
  while (!survivors.empty()) {
    pieces.clear();
    for (size_t used = 0; pieces.size() < survivors.size() && used < kCopyBytes;) {
      const Survivor& survivor = survivors[pieces.size()];
      const auto bytes = base::MutableByteView(copy).subspan(used, survivor.place.length);
      // What can't be read is kept as it is in the buffer, wrong: who wants it finds out.
      (void)ReadAt(survivor.place, bytes);
      used += bytes.size();
      pieces.push_back({.key = survivor.key, .bytes = bytes, .from = survivor.place});
    }
    const size_t moved = AppendTo(Queue::kMain, pieces, Evict::kNo);
    for (const Piece& lost : std::span(pieces).subspan(moved))
      if (index_.Erase(lost.key, *lost.from)) evicted_.Add(1);
    survivors = survivors.subspan(pieces.size());
  }
}

void BlockLog::Free(uint32_t number) {
  Segment& segment = segments_[number];
  // If this is not written, a restart finds blocks here that are wrong by then, and are found out.
  const std::string nothing(kSegmentHeadBytes, '\0');
  const ByteView piece = base::AsBytes(nothing);
  (void)file_->WriteAt(BaseOf(number), {&piece, 1});
  segment = {};
  free_.push_back(number);
}

// --- ghosts

// Where a key has its place: the newest comes first and pushes the oldest out. Small enough to be
// right nearly always, and to be wrong does not matter.
BlockLog::GhostSet& BlockLog::GhostsOf(BlockKey key) {
  return ghosts_[static_cast<size_t>((static_cast<unsigned __int128>(key) * ghosts_.size()) >> 64)];
}

void BlockLog::NoteGhost(BlockKey key) {
  GhostSet& ghosts = GhostsOf(key);
  std::ranges::move_backward(ghosts.begin(), ghosts.end() - 1, ghosts.end());
  ghosts.front() = static_cast<uint16_t>(key);
}

bool BlockLog::TakeGhost(BlockKey key) {
  GhostSet& ghosts = GhostsOf(key);
  const auto it = std::ranges::find(ghosts, static_cast<uint16_t>(key));
  if (it == ghosts.end()) return false;
  *it = 0;
  return true;
}

}  // namespace chunkstore::layers
