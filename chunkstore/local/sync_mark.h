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
  static base::Result<SyncMark> Open(const std::string& dir);

  // 0 where nothing was synced yet, or the mark can't be trusted.
  uint64_t synced() const { return synced_; }
  // `reached` is the last commit that the store has now. kCorruption if it had more.
  base::Result<void> Check(uint64_t reached) const;

  // Best effort: a mark that cannot be written leaves the older one.
  void Set(uint64_t synced);

 private:
  SyncMark(std::string path, std::unique_ptr<base::File> file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  std::unique_ptr<base::File> file_;
  uint64_t synced_ = 0;
};

}  // namespace chunkstore::local
