#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/files.h"
#include "base/metrics.h"
#include "base/result.h"
#include "chunkstore/layers/block_source.h"

namespace chunkstore::layers {

struct BlockDiskCacheOptions {
  // The cache's own: it is made (mode 0700) if it is not there; one with other files is refused.
  std::string directory;
  // What all its files take on disk never exceeds this, not for a moment: kMinLimitBytes ..
  // kMaxLimitBytes. A smaller one than last time drops what lies beyond.
  uint64_t limit_bytes = 0;
  // How long writing rests after the disk was full or failed.
  int64_t retry_write_ms = 30'000;
};

// Blocks of images on the disk of a compute host: what guests read once is not fetched again, by
// none of them, over a restart, and across images as far as these have the same blocks.
//
// Trusts neither the disk nor the source: a block is handed out if the XXH3-128 of its plain bytes
// is the one in the caller's table, and only then. What is found damaged on disk is dropped and
// fetched again; what a source sends wrong is asked for once more, then it is kCorruption. So it
// never syncs: after kill -9 or power loss, what is there is right or is found out. README.md says
// how the space is divided and what has to go first (S3-FIFO), FORMAT.md what lies on disk.
//
// A full or failing disk is no error of a read: blocks come straight from the source, writing rests
// for retry_write_ms, one line is logged.
//
// Thread-safe; calls block (on the disk, and the source's own Fetch). Holds one descriptor, about
// 40 bytes of memory a block, and what reads in flight need: at most 5 MiB each.
class BlockDiskCache {
 public:
  static constexpr uint64_t kMinLimitBytes = 16 * base::kMiB;
  static constexpr uint64_t kMaxLimitBytes = 8 * base::kTiB;
  // Of the limit, what may be pinned: a half.
  static constexpr uint64_t kPinnedDivisor = 2;
  static constexpr size_t kMaxGroupNameBytes = 255;

  // Takes what an earlier process left, without reading the blocks (seconds for 100 GiB). kConflict
  // when another process has the directory, or it holds files of others; kInvalidArgument; kIo,
  // kOutOfSpace if not even an empty cache can be made.
  static base::Result<std::unique_ptr<BlockDiskCache>> Open(const BlockDiskCacheOptions& options,
                                                            base::Metrics& metrics,
                                                            base::Files& files,
                                                            const base::Clock& clock);
  ~BlockDiskCache();
  BlockDiskCache(const BlockDiskCache&) = delete;
  BlockDiskCache& operator=(const BlockDiskCache&) = delete;

  // Plain bytes of chunk `index` of the source, whose blocks are `table` (not empty: a hole is the
  // caller's to know), from `offset` in the chunk on. What is not on disk comes by one Fetch (and a
  // second one for what came wrong), of blocks that nobody else is fetching already; for these it
  // waits. kInvalidArgument past the end of the chunk; kCorruption for a table that can't be, or a
  // source that sent other bytes than its table says, twice; else the source's errors. After an
  // error `into` holds anything. The error of somebody else's fetch is ours only if it was from the
  // same source.
  base::Result<void> Read(BlockSource& source, uint64_t index, std::span<const BlockInfo> table,
                          uint32_t offset, base::MutableByteView into);

  // Fetches those blocks of a chunk that are not here (`numbers` ascending, each below
  // table.size()), in one Fetch, without reading the others. Errors as Read. A read that wants one
  // of them meanwhile waits for that block, not for all.
  base::Result<void> Warm(BlockSource& source, uint64_t index, std::span<const BlockInfo> table,
                          std::span<const size_t> numbers);

  // From now on the blocks stay, those that are here and those that will come, over restarts, under
  // a name that the caller chooses (an image's id). Replaces the group's earlier blocks. Several
  // groups may pin a block. Does not fetch. kTooLarge, and nothing changed, if more than half of
  // the limit would be pinned; kInvalidArgument for an empty or too long name; kIo, kOutOfSpace.
  base::Result<void> Pin(const std::string& group, std::span<const BlockInfo> blocks);
  // kNotFound: no such group.
  base::Result<void> Unpin(const std::string& group);

  struct PinnedGroup {
    std::string name;
    uint64_t blocks = 0;
    uint64_t bytes = 0;  // stored
  };
  std::vector<PinnedGroup> PinnedGroups() const;  // by name

  // Blocks that are not here are passed over, those that are pinned stay. Not undone by a restart.
  struct Dropped {
    uint64_t blocks = 0;
    uint64_t bytes = 0;
    uint64_t pinned_blocks = 0;  // that stay
  };
  base::Result<Dropped> Drop(std::span<const BlockName> names);
  // Everything but what is pinned; gives the space back as far as that goes.
  base::Result<Dropped> DropAll();

  // Counters begin with the process; "bytes" are those stored (compressed) where it does not say
  // plain.
  struct Stats {
    uint64_t limit_bytes = 0;
    uint64_t disk_bytes = 0;     // that the files take now, as counted by us: never above the limit
    uint64_t blocks = 0;         // here now
    uint64_t used_bytes = 0;     // by these
    uint64_t pinned_blocks = 0;  // of all groups, each once, here or not
    uint64_t pinned_bytes = 0;
    uint64_t hit_blocks = 0;  // reads of a block, answered from the disk, but for the next
    uint64_t hit_plain_bytes = 0;
    uint64_t ahead_blocks = 0;  // first reads of a block that Warm fetched before: no saving
    uint64_t ahead_plain_bytes = 0;
    uint64_t miss_blocks = 0;  // reads of a block that had to wait for a fetch, ours or another's
    uint64_t miss_plain_bytes = 0;
    uint64_t fetched_blocks = 0;  // that sources sent, right or wrong; with what Warm fetched
    uint64_t fetched_bytes = 0;
    uint64_t ahead_fetched_bytes = 0;  // of these, by Warm
    uint64_t evicted_blocks = 0;
    uint64_t damaged_blocks = 0;  // found on disk with other bytes than they should have
    uint64_t unkept_blocks = 0;   // handed out, but not written: disk full or failing, no room
    bool writing = true;          // false: it rests
  };
  Stats stats() const;

 private:
  struct Impl;
  explicit BlockDiskCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chunkstore::layers
