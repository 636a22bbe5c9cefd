#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_log.h"

// What an earlier process left: tables are read, blocks are not.

namespace chunkstore::layers {

using base::ByteView;
using base::MutableByteView;
using base::MutexLock;
using base::Result;

namespace {

constexpr uint64_t kSegmentsOfLimit = 64;  // in a new file, if the length of segments allows
// A file with fewer, or longer ones than that, is made anew: a limit that changed by far.
constexpr uint64_t kMinKeptSegments = 8;
constexpr uint64_t kMaxKeptSegments = 1 << 18;
constexpr uint64_t kTableReadBytes = 64 * base::kKiB;
constexpr uint64_t kBytesPerGhostSet = 64 * base::kKiB;  // 2 to 3 bytes a block
constexpr uint64_t kGridBytes = 4 * base::kKiB;

uint64_t SegmentBytesFor(uint64_t limit_bytes) {
  const uint64_t wanted = limit_bytes / kSegmentsOfLimit / kGridBytes * kGridBytes;
  return std::clamp(wanted, kMinSegmentBytes, kMaxSegmentBytes);
}

uint64_t SegmentsIn(uint64_t file_bytes, uint64_t segment_bytes) {
  return file_bytes < kCacheHeadBytes ? 0 : (file_bytes - kCacheHeadBytes) / segment_bytes;
}

}  // namespace

BlockLog::BlockLog(const Options& options, const base::Clock& clock, PlaceIndex& index,
                   const Pins& pins, CacheCount& evicted)
    : options_(options), clock_(clock), index_(index), pins_(pins), evicted_(evicted) {}

Result<std::unique_ptr<BlockLog>> BlockLog::Open(const Options& options, base::Files& files,
                                                 const base::Clock& clock, PlaceIndex& index,
                                                 const Pins& pins, CacheCount& evicted) {
  std::unique_ptr<BlockLog> log(new BlockLog(options, clock, index, pins, evicted));
  MutexLock lock(log->mutex_);
  RETURN_IF_ERROR(log->Load(files));
  return log;
}

Result<void> BlockLog::Load(base::Files& files) {
  ghosts_.resize(options_.limit_bytes / kBytesPerGhostSet);
  ASSIGN_OR_RETURN(file_, files.Open(options_.path, base::Files::Mode::kCreateOrOpen));
  RETURN_IF_ERROR(LoadHead());
  max_segments_ = SegmentsIn(options_.max_file_bytes, segment_bytes_);
  CHECK(max_segments_ >= kMinSegments);
  RETURN_IF_ERROR(LoadSegments());
  for (const Queue queue : {Queue::kSmall, Queue::kMain}) Reopen(queue);
  LeaveOneFree();
  return {};
}

Result<void> BlockLog::LoadHead() {
  ASSIGN_OR_RETURN(const uint64_t size, file_->Size());
  if (size >= kCacheHeadBytes) {
    std::vector<uint8_t> head(kCacheHeadBytes);
    RETURN_IF_ERROR(file_->ReadAt(0, head));
    const auto segment_bytes = DecodeCacheHead(head);
    const uint64_t count = segment_bytes ? SegmentsIn(options_.max_file_bytes, *segment_bytes) : 0;
    if (count >= kMinKeptSegments && count <= kMaxKeptSegments) {
      segment_bytes_ = *segment_bytes;
      return {};
    }
    LOG(kWarn, "chunkstore",
        "{} is begun anew: it is damaged, of another version, or was made for a very different "
        "limit",
        options_.path);
  }
  segment_bytes_ = SegmentBytesFor(options_.limit_bytes);
  RETURN_IF_ERROR(file_->Truncate(0));
  const std::string head = EncodeCacheHead(segment_bytes_);
  const ByteView piece = base::AsBytes(head);
  return file_->WriteAt(0, {&piece, 1});
}

Result<void> BlockLog::LoadSegments() {
  ASSIGN_OR_RETURN(const uint64_t size, file_->Size());
  const uint64_t count = std::min(SegmentsIn(size, segment_bytes_), max_segments_);
  file_bytes_ = BaseOf(static_cast<uint32_t>(count));
  if (size > file_bytes()) RETURN_IF_ERROR(file_->Truncate(file_bytes()));
  segments_.resize(count);
  std::vector<uint32_t> found;
  for (uint32_t number = 0; number < count; ++number)
    (LoadSegmentHead(number) ? found : free_).push_back(number);
  // Of a block that was copied when a process died, the later one counts.
  std::ranges::sort(found, {},
                    [&](uint32_t number) REQUIRES(mutex_) { return segments_[number].head.order; });
  for (const uint32_t number : found) {
    LoadEntries(number);
    sealed(segments_[number].head.queue).push_back(number);
    last_order_ = segments_[number].head.order;
  }
  return {};
}

bool BlockLog::LoadSegmentHead(uint32_t number) {
  std::array<uint8_t, kSegmentHeadBytes> bytes;
  if (!file_->ReadAt(BaseOf(number), bytes)) return false;
  const auto head = DecodeSegmentHead(bytes);
  if (!head) return false;
  segments_[number] = {
      .state = State::kSealed, .head = *head, .end = TableBytes(segment_bytes_), .keys = {}};
  return true;
}

// Up to the first that was not written.
void BlockLog::LoadEntries(uint32_t number) {
  Segment& segment = segments_[number];
  std::vector<uint8_t> bytes;
  const uint64_t end = MaxEntries(segment_bytes_);
  constexpr uint64_t kTogether = kTableReadBytes / kEntryBytes;
  for (uint64_t slot = 0; slot < end; ++slot) {
    if (slot % kTogether == 0) {
      bytes.resize(std::min(kTogether, end - slot) * kEntryBytes);
      if (!file_->ReadAt(BaseOf(number) + kSegmentHeadBytes + slot * kEntryBytes, bytes)) break;
    }
    const ByteView entry_bytes =
        ByteView(bytes).subspan(slot % kTogether * kEntryBytes, kEntryBytes);
    const auto entry = DecodeEntry(entry_bytes, segment.head.generation, slot, segment_bytes_);
    if (!entry) break;
    segment.keys.push_back(entry->key);
    if (entry->length == 0) continue;
    segment.end = std::max(segment.end, uint64_t{entry->offset} + entry->length);
    index_.Put(entry->key, {.offset = BaseOf(number) + entry->offset, .length = entry->length});
  }
  segment.keys.shrink_to_fit();
}

// The emptiest segment of a queue is filled on, if there is one with room.
void BlockLog::Reopen(Queue queue) {
  std::deque<uint32_t>& all = sealed(queue);
  const auto emptiest = std::ranges::min_element(
      all, {}, [&](uint32_t number) REQUIRES(mutex_) { return segments_[number].end; });
  if (emptiest == all.end() || !HasRoom(segments_[*emptiest], kMaxBlockBytes)) return;
  open(queue) = *emptiest;
  segments_[*emptiest].state = State::kOpen;
  all.erase(emptiest);
  SetYoung();
}

// If none is: a process died while it moved blocks, or the limit was lowered.
void BlockLog::LeaveOneFree() {
  if (!free_.empty() || segments_.size() < max_segments_) return;
  const std::optional<uint32_t> number = NextToGo();
  CHECK(number);  // two are being filled, all others stand in a queue
  for (const BlockKey key : segments_[*number].keys) {
    const auto found = index_.Find(key);
    if (found && SegmentOf(found->place) == *number) index_.Erase(key, found->place);
  }
  Release(*number);
}

}  // namespace chunkstore::layers
