#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/files.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/layers/cache_counts.h"
#include "chunkstore/layers/cache_format.h"
#include "chunkstore/layers/pins.h"
#include "chunkstore/layers/place_index.h"

namespace chunkstore::layers {

// The file of blocks: segments of one length, written from their beginning to their end and given
// up as a whole, and who of them has to go (S3-FIFO, README.md). The file grows by a segment at a
// time, never beyond max_file_bytes, and takes the space before anything is written there.
//
// Knows where blocks lie, not whether they are right: who reads one checks it. Thread-safe; reads
// don't wait for writes, and so may read a place that was just given to something else.
class BlockLog {
 public:
  struct Options {
    std::string path;
    uint64_t limit_bytes = 0;     // the cache's: says how long segments are in a new file
    uint64_t max_file_bytes = 0;  // at least kMinSegments segments
    int64_t retry_write_ms = 0;
  };
  // Below this there is no caching: one to fill in each queue, and one to move into.
  static constexpr uint64_t kMinSegments = 3;

  // Takes what the file has, by the tables of its segments. Borrows all, for its life.
  static base::Result<std::unique_ptr<BlockLog>> Open(const Options& options, base::Files& files,
                                                      const base::Clock& clock, PlaceIndex& index,
                                                      const Pins& pins, CacheCount& evicted);

  // The index says where. Any error: the block can't be read.
  base::Result<void> ReadAt(const Place& place, base::MutableByteView into) const;
  // A use of the block counts, unless it was written just now: who reads through an image in small
  // steps comes several times for each block.
  void NoteUse(BlockKey key, const PlaceIndex::Found& found);

  struct Stored {
    BlockKey key = 0;
    base::ByteView bytes;  // 1 .. kMaxBlockBytes
    bool ahead = false;    // nobody has read it
  };
  // Writes blocks; returns how many, all unless the disk is full or fails, or all is pinned.
  size_t Append(std::span<const Stored> blocks);

  // A block that was found damaged at `place` is forgotten, also by the file.
  void DropDamaged(BlockKey key, const Place& place);
  struct Dropped {
    uint64_t blocks = 0;
    uint64_t bytes = 0;
    uint64_t pinned_blocks = 0;
  };
  base::Result<Dropped> Drop(std::span<const BlockKey> keys);
  base::Result<Dropped> DropAll();

  uint64_t file_bytes() const { return file_bytes_.load(std::memory_order_relaxed); }
  bool resting() const { return resting_.load(std::memory_order_relaxed); }
  uint64_t segment_bytes() const { return segment_bytes_; }

 private:
  enum class State : uint8_t { kFree, kOpen, kSealed };
  struct Segment {
    State state = State::kFree;
    SegmentHead head;
    uint64_t end = 0;            // of what was written, in the segment
    std::vector<BlockKey> keys;  // by slot; a block lies here if the index says so
  };
  struct Survivor {
    BlockKey key = 0;
    Place place;
  };
  // On its way into the file: new, or from another place of it.
  struct Piece {
    BlockKey key = 0;
    base::ByteView bytes;
    bool ahead = false;
    std::optional<Place> from = {};
  };
  struct Contents;
  // Ends of keys that left the small queue not long ago.
  using GhostSet = std::array<uint16_t, 8>;
  enum class Keep { kUsedAndPinned, kPinned };

  BlockLog(const Options& options, const base::Clock& clock, PlaceIndex& index, const Pins& pins,
           CacheCount& evicted);

  // block_log_open.cc
  base::Result<void> Load(base::Files& files) REQUIRES(mutex_);
  base::Result<void> LoadHead() REQUIRES(mutex_);
  base::Result<void> LoadSegments() REQUIRES(mutex_);
  bool LoadSegmentHead(uint32_t number) REQUIRES(mutex_);
  void LoadEntries(uint32_t number) REQUIRES(mutex_);
  void Reopen(Queue queue) REQUIRES(mutex_);
  void LeaveOneFree() REQUIRES(mutex_);

  // block_log.cc
  uint64_t BaseOf(uint32_t number) const { return kCacheHeadBytes + number * segment_bytes_; }
  uint32_t SegmentOf(const Place& place) const;
  bool HasRoom(const Segment& segment, uint64_t length) const;
  enum class Evict { kYes, kNo };
  size_t AppendTo(Queue queue, std::span<const Piece> pieces, Evict evict) REQUIRES(mutex_);
  bool OpenNext(Queue queue, Evict evict) REQUIRES(mutex_);
  size_t Fill(uint32_t number, std::span<const Piece> pieces) REQUIRES(mutex_);
  base::Result<void> Write(uint64_t offset, std::span<const base::ByteView> pieces)
      REQUIRES(mutex_);
  bool Start(Queue queue, uint32_t number) REQUIRES(mutex_);
  void Seal(Queue queue) REQUIRES(mutex_);
  void SetYoung() REQUIRES(mutex_);
  bool Grow() REQUIRES(mutex_);
  void Rest(const base::Error& why) REQUIRES(mutex_);
  base::Result<void> WriteTombstone(uint32_t number, uint64_t slot) REQUIRES(mutex_);
  std::vector<uint64_t> Forget(uint32_t number, std::unordered_set<BlockKey> keys, Dropped* dropped)
      REQUIRES(mutex_);
  void Release(uint32_t number) REQUIRES(mutex_);
  void GiveBackEnd() REQUIRES(mutex_);

  // block_log_evict.cc
  std::optional<uint32_t> TakeFree() REQUIRES(mutex_);
  std::optional<uint32_t> PopFree() REQUIRES(mutex_);
  std::optional<uint32_t> NextToGo() const REQUIRES(mutex_);
  uint64_t MakeRoom(Keep keep) REQUIRES(mutex_);
  Contents Sort(uint32_t number, Keep keep) REQUIRES(mutex_);
  void MoveToMain(std::span<const Survivor> survivors) REQUIRES(mutex_);
  void KeepWhole(uint32_t number, std::span<const Survivor> survivors) REQUIRES(mutex_);
  void Free(uint32_t number) REQUIRES(mutex_);
  GhostSet& GhostsOf(BlockKey key) REQUIRES(mutex_);
  void NoteGhost(BlockKey key) REQUIRES(mutex_);
  bool TakeGhost(BlockKey key) REQUIRES(mutex_);

  std::optional<uint32_t>& open(Queue queue) REQUIRES(mutex_) {
    return open_[queue == Queue::kMain];
  }
  std::deque<uint32_t>& sealed(Queue queue) REQUIRES(mutex_) {
    return sealed_[queue == Queue::kMain];
  }

  const Options options_;
  const base::Clock& clock_;
  PlaceIndex& index_;
  const Pins& pins_;
  CacheCount& evicted_;
  std::unique_ptr<base::File> file_;  // set once, by Open
  uint64_t segment_bytes_ = 0;        // likewise
  uint64_t max_segments_ = 0;         // likewise

  base::Mutex mutex_;  // whoever writes
  std::vector<Segment> segments_ GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ GUARDED_BY(mutex_);
  std::array<std::optional<uint32_t>, 2> open_ GUARDED_BY(mutex_);
  std::array<std::deque<uint32_t>, 2> sealed_ GUARDED_BY(mutex_);  // oldest first
  uint64_t last_order_ GUARDED_BY(mutex_) = 0;
  std::vector<GhostSet> ghosts_ GUARDED_BY(mutex_);
  int64_t rest_until_ns_ GUARDED_BY(mutex_) = 0;
  int64_t grow_again_ns_ GUARDED_BY(mutex_) = 0;
  bool growth_refused_ GUARDED_BY(mutex_) = false;

  std::atomic<uint64_t> young_begin_ = UINT64_MAX;  // of the segment that the small queue fills
  std::atomic<uint64_t> file_bytes_ = 0;
  std::atomic<bool> resting_ = false;
};

}  // namespace chunkstore::layers
