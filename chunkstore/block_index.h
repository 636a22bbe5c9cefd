#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/meta_store.h"

namespace chunkstore {

// Which chunk may have a block of this hash: proposals for sharing (sharing.cc), and nothing that
// anything rests on. It may forget, be late, and name what is gone or something else; whoever asks
// looks for himself. So it is written in large batches and never synced.
//
// In the MetaStore, partitions "b/<xx>" by the first byte of the key: 8 bytes of the block's
// XXH3-128 -> 32 bytes id of the chunk, 2 bytes where the block begins in it, in kBlockGridBytes.
// A block takes about 60 bytes of disk, 0.2 % of its plain bytes. A later block of the same hash
// takes the place of an earlier one. In memory are only notes not yet written, kNotesTogether of
// them twice at most, and what the MetaStore caches. Thread-safe.
class BlockIndex {
 public:
  explicit BlockIndex(MetaStore& meta);

  struct Place {
    base::Digest256 chunk;
    uint32_t offset = 0;
  };

  // One answer a hash.
  base::Result<std::vector<std::optional<Place>>> Find(std::span<const Block> blocks);

  // Remembers the blocks of a blob that lie in it; writes when enough came together. What fails is
  // forgotten.
  void Note(const BlobTable& table);
  void Flush();

  // Forgets entries whose chunk `is_there` denies: one partition, in batches.
  using ChunkCheck = std::function<base::Result<bool>(const base::Digest256& chunk)>;
  base::Result<uint64_t> Sweep(size_t partition, const ChunkCheck& is_there);

  static constexpr size_t kPartitions = 256;
  static std::string PartitionName(size_t number);

 private:
  static constexpr size_t kNotesTogether = 8192;  // about 1 MiB of memory, 256 MiB of plain bytes

  using Notes = std::unordered_map<uint64_t, Place>;
  void Write(const Notes& notes);

  MetaStore& meta_;
  base::Mutex mutex_;
  Notes notes_ GUARDED_BY(mutex_);    // not written yet
  Notes writing_ GUARDED_BY(mutex_);  // being written
};

}  // namespace chunkstore
