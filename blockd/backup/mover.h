#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/backup_target.h"
#include "chunkstore/chunk_store.h"

namespace blockd::backup {

// Keeps a stream of bytes to a rate, over all who share it. Thread-safe.
class Pacer {
 public:
  explicit Pacer(uint64_t bytes_per_s) : bytes_per_s_(bytes_per_s) {}  // 0: no limit
  // Waits until `bytes` more are due; not longer than a moment after `cancelled` says so.
  void Wait(uint64_t bytes, const BackupTarget::Cancelled& cancelled);

 private:
  const uint64_t bytes_per_s_;
  base::Mutex mutex_;
  int64_t due_ns_ GUARDED_BY(mutex_) = 0;  // when what was let through is through
};

// A content that is to be in another store as well. Both stores are borrowed.
struct Move {
  chunkstore::ChunkStore& from;
  chunkstore::Root root;  // held there meanwhile
  chunkstore::ChunkStore& to;
  std::string holder;  // in `to`, new
  std::string attributes;
  // A holder in `to` that is likely to hold much the same; empty, or gone: none.
  std::string like;
};

// Makes `holder` hold the content: what `to` has stored is taken over unseen, the rest is read,
// verified, and put. At the end the root must be the same: so every chunk is, and is in its place.
// kCorruption, kCancelled, and what the stores say; then nothing is held.
base::Result<BackupCopy> MoveContent(const Move& move, Pacer& pacer,
                                     const BackupTarget::Cancelled& cancelled);

}  // namespace blockd::backup
