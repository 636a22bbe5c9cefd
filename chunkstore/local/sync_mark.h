#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/files.h"

namespace chunkstore::local {

// Remembers, in the file DIR/SYNCED, up to which commit a Sync succeeded. RocksDB replays its log
// up to the first damaged record, and cannot tell a write that power loss cut off (expected) from
// one that rotted later (loss); this number can. It is written after the sync and never synced
// itself: an older number is right as well. One thread at a time.
class SyncMark {
 public:
  // `reached` is the last commit that the store has now. kCorruption if the mark says it had more.
  static base::Result<SyncMark> Open(const std::string& dir, uint64_t reached);

  // Best effort: a mark that cannot be written leaves the older one.
  void Set(uint64_t synced);

 private:
  explicit SyncMark(std::unique_ptr<base::File> file) : file_(std::move(file)) {}
  std::unique_ptr<base::File> file_;
};

}  // namespace chunkstore::local
