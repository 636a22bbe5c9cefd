#include "chunkstore/layers/block_log.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "base/hash.h"
#include "base/log.h"
#include "chunkstore/blob_format.h"

namespace chunkstore::layers {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

constexpr int64_t kNsPerMs = 1'000'000;

uint64_t RandomWord() {
  uint64_t word;
  base::FillRandom({reinterpret_cast<uint8_t*>(&word), sizeof(word)});
  return word;
}

}  // namespace

uint32_t BlockLog::SegmentOf(const Place& place) const {
  return static_cast<uint32_t>((place.offset - kCacheHeadBytes) / segment_bytes_);
}

// --- reading

Result<void> BlockLog::ReadAt(const Place& place, base::MutableByteView into) const {
  CHECK(into.size() == place.length);
  return file_->ReadAt(place.offset, into);
}

void BlockLog::NoteUse(BlockKey key, const PlaceIndex::Found& found) {
  if (found.used) return;
  const uint64_t young = young_begin_.load(std::memory_order_relaxed);
  if (found.place.offset >= young && found.place.offset - young < segment_bytes_) return;
  index_.SetUsed(key, found.place, true);
}

void BlockLog::SetYoung() {
  const std::optional<uint32_t> number = open(Queue::kSmall);
  young_begin_.store(number ? BaseOf(*number) : UINT64_MAX, std::memory_order_relaxed);
}

// --- writing

size_t BlockLog::Append(std::span<const Stored> blocks) {
  MutexLock lock(mutex_);
  if (resting() && clock_.MonotonicNs() < rest_until_ns_) return 0;
  // Who is pinned, or left the small queue not long ago, has its place in the main one.
  std::vector<Piece> small, main;
  for (const Stored& block : blocks) {
    CHECK(!block.bytes.empty() && block.bytes.size() <= kMaxBlockBytes);
    const bool known = TakeGhost(block.key);
    std::vector<Piece>& queue = known || pins_.Has(block.key) ? main : small;
    queue.push_back({.key = block.key, .bytes = block.bytes, .ahead = block.ahead});
  }
  const size_t in_main = AppendTo(Queue::kMain, main, Evict::kYes);
  return in_main + AppendTo(Queue::kSmall, small, Evict::kYes);
}

bool BlockLog::HasRoom(const Segment& segment, uint64_t length) const {
  return segment.end + length <= segment_bytes_ && segment.keys.size() < MaxEntries(segment_bytes_);
}

size_t BlockLog::AppendTo(Queue queue, std::span<const Piece> pieces, Evict evict) {
  size_t done = 0;
  while (done < pieces.size()) {
    if (open(queue) && !HasRoom(segments_[*open(queue)], pieces[done].bytes.size())) Seal(queue);
    if (!open(queue) && !OpenNext(queue, evict)) break;
    if (!HasRoom(segments_[*open(queue)], pieces[done].bytes.size())) continue;
    const size_t filled = Fill(*open(queue), pieces.subspan(done));
    if (filled == 0) break;
    done += filled;
  }
  return done;
}

bool BlockLog::OpenNext(Queue queue, Evict evict) {
  const std::optional<uint32_t> number = evict == Evict::kYes ? TakeFree() : PopFree();
  if (!number) return false;
  if (!open(queue)) return Start(queue, *number);
  free_.push_back(*number);  // what was moved for the room has opened one
  return true;
}

// As many as have room: one write for their bytes, and one for their entries.
size_t BlockLog::Fill(uint32_t number, std::span<const Piece> pieces) {
  Segment& segment = segments_[number];
  std::vector<ByteView> bytes;
  std::string entries;
  uint64_t end = segment.end;
  for (const Piece& piece : pieces) {
    const uint64_t slot = segment.keys.size() + bytes.size();
    if (end + piece.bytes.size() > segment_bytes_ || slot >= MaxEntries(segment_bytes_)) break;
    entries += EncodeEntry({.key = piece.key,
                            .offset = static_cast<uint32_t>(end),
                            .length = static_cast<uint32_t>(piece.bytes.size())},
                           segment.head.generation, slot);
    bytes.push_back(piece.bytes);
    end += piece.bytes.size();
  }
  const uint64_t table = BaseOf(number) + kSegmentHeadBytes + segment.keys.size() * kEntryBytes;
  const ByteView table_bytes = base::AsBytes(entries);
  if (!Write(BaseOf(number) + segment.end, bytes) || !Write(table, {&table_bytes, 1})) return 0;
  for (const Piece& piece : pieces.first(bytes.size())) {
    const Place place{.offset = BaseOf(number) + segment.end,
                      .length = static_cast<uint32_t>(piece.bytes.size())};
    if (!piece.from) {
      index_.Put(piece.key, place, piece.ahead);
    } else {
      index_.Move(piece.key, *piece.from, place);  // unless it was dropped meanwhile
    }
    segment.keys.push_back(piece.key);
    segment.end += piece.bytes.size();
  }
  return bytes.size();
}

Result<void> BlockLog::Write(uint64_t offset, std::span<const ByteView> pieces) {
  Result<void> written = file_->WriteAt(offset, pieces);
  if (!written) {
    Rest(written.error());
    return written;
  }
  if (resting_.exchange(false)) LOG(kInfo, "chunkstore", "{} is written again", options_.path);
  return {};
}

void BlockLog::Rest(const Error& why) {
  rest_until_ns_ = clock_.MonotonicNs() + options_.retry_write_ms * kNsPerMs;
  if (resting_.exchange(true)) return;
  LOG(kWarn, "chunkstore",
      "{} is not written for now: {}; reads go on, from the service where the cache has nothing",
      options_.path, why.message());
}

bool BlockLog::Start(Queue queue, uint32_t number) {
  Segment& segment = segments_[number];
  CHECK(segment.state == State::kFree && !open(queue));
  const SegmentHead head{.queue = queue, .generation = RandomWord(), .order = last_order_ + 1};
  const std::string bytes = EncodeSegmentHead(head);
  const ByteView piece = base::AsBytes(bytes);
  if (!Write(BaseOf(number), {&piece, 1})) {
    free_.push_back(number);
    return false;
  }
  ++last_order_;
  segment.state = State::kOpen;
  segment.head = head;
  segment.end = TableBytes(segment_bytes_);
  open(queue) = number;
  SetYoung();
  return true;
}

void BlockLog::Seal(Queue queue) {
  Segment& segment = segments_[*open(queue)];
  segment.state = State::kSealed;
  segment.keys.shrink_to_fit();
  sealed(queue).push_back(*open(queue));
  open(queue).reset();
  SetYoung();
}

// The file gets one segment more, whose space is ours from then on. Where the disk has no more, the
// cache goes on with what it has, and asks again later.
bool BlockLog::Grow() {
  const uint64_t count = segments_.size();
  if (count >= max_segments_ || clock_.MonotonicNs() < grow_again_ns_) return false;
  const uint64_t before = BaseOf(static_cast<uint32_t>(count));
  const uint64_t after = before + segment_bytes_;
  Result<void> grown = file_->Allocate(after);
  if (!grown) {
    (void)file_->Truncate(before);  // it may have taken a part
    grow_again_ns_ = clock_.MonotonicNs() + options_.retry_write_ms * kNsPerMs;
    if (count < kMinSegments) {
      Rest(grown.error());
    } else if (!growth_refused_) {
      LOG(kWarn, "chunkstore", "{} stays at {} bytes for now: {}", options_.path, before,
          grown.error().message());
    }
    growth_refused_ = true;
    return false;
  }
  growth_refused_ = false;
  file_bytes_.store(after, std::memory_order_relaxed);
  segments_.emplace_back();
  free_.push_back(static_cast<uint32_t>(count));
  return true;
}

// --- dropping

Result<void> BlockLog::WriteTombstone(uint32_t number, uint64_t slot) {
  const std::string entry = EncodeEntry({}, segments_[number].head.generation, slot);
  const ByteView piece = base::AsBytes(entry);
  return file_->WriteAt(BaseOf(number) + kSegmentHeadBytes + slot * kEntryBytes, {&piece, 1});
}

void BlockLog::DropDamaged(BlockKey key, const Place& place) {
  MutexLock lock(mutex_);
  if (!index_.Erase(key, place)) return;
  const uint32_t number = SegmentOf(place);
  const std::vector<BlockKey>& keys = segments_[number].keys;
  // If it can't be written, the damage is found again after a restart.
  for (uint64_t slot = 0; slot < keys.size(); ++slot)
    if (keys[slot] == key) (void)WriteTombstone(number, slot);
}

Result<BlockLog::Dropped> BlockLog::Drop(std::span<const BlockKey> keys) {
  Dropped dropped;
  std::unordered_map<uint32_t, std::unordered_set<BlockKey>> by_segment;
  MutexLock lock(mutex_);
  for (const BlockKey key : keys) {
    const auto found = index_.Find(key);
    if (found) by_segment[SegmentOf(found->place)].insert(key);
  }
  for (auto& [number, there] : by_segment) {
    for (const uint64_t slot : Forget(number, std::move(there), &dropped))
      RETURN_IF_ERROR(WriteTombstone(number, slot).Annotate("what was dropped may come back"));
  }
  RETURN_IF_ERROR(file_->Sync());
  return dropped;
}

// Takes blocks of a segment out of the index, but for those that are pinned; returns their slots.
std::vector<uint64_t> BlockLog::Forget(uint32_t number, std::unordered_set<BlockKey> keys,
                                       Dropped* dropped) {
  std::erase_if(keys, [&](BlockKey key) REQUIRES(mutex_) {
    const auto found = index_.Find(key);
    if (!found || SegmentOf(found->place) != number) return true;
    if (pins_.Has(key)) {
      ++dropped->pinned_blocks;
      return true;
    }
    if (!index_.Erase(key, found->place)) return true;
    ++dropped->blocks;
    dropped->bytes += found->place.length;
    return false;
  });
  std::vector<uint64_t> slots;
  const std::vector<BlockKey>& all = segments_[number].keys;
  for (uint64_t slot = 0; slot < all.size(); ++slot)
    if (keys.contains(all[slot])) slots.push_back(slot);
  return slots;
}

Result<BlockLog::Dropped> BlockLog::DropAll() {
  Dropped dropped;
  MutexLock lock(mutex_);
  for (uint32_t number = 0; number < segments_.size(); ++number) {
    if (segments_[number].state == State::kFree) continue;
    const std::vector<BlockKey>& keys = segments_[number].keys;
    const uint64_t pinned_before = dropped.pinned_blocks;
    const std::vector<uint64_t> slots = Forget(number, {keys.begin(), keys.end()}, &dropped);
    if (dropped.pinned_blocks == pinned_before) {
      Release(number);
      continue;
    }
    for (const uint64_t slot : slots)
      RETURN_IF_ERROR(WriteTombstone(number, slot).Annotate("what was dropped may come back"));
  }
  GiveBackEnd();
  RETURN_IF_ERROR(file_->Sync());
  return dropped;
}

// Out of its queue: nothing here is in the index any more.
void BlockLog::Release(uint32_t number) {
  const Queue queue = segments_[number].head.queue;
  if (open(queue) == number) Seal(queue);
  std::erase(sealed(queue), number);
  Free(number);
}

void BlockLog::GiveBackEnd() {
  while (!segments_.empty() && segments_.back().state == State::kFree) {
    std::erase(free_, static_cast<uint32_t>(segments_.size() - 1));
    segments_.pop_back();
  }
  const uint64_t end = BaseOf(static_cast<uint32_t>(segments_.size()));
  if (end < file_bytes() && file_->Truncate(end)) file_bytes_.store(end, std::memory_order_relaxed);
}

}  // namespace chunkstore::layers
