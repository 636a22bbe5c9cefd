#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "blockd/records.h"

namespace blockd {

// What one copy cost.
struct BackupCopy {
  uint64_t chunks = 0;  // that were looked at: of a full copy all, else those that differ
  uint64_t moved_chunks = 0;
  uint64_t moved_bytes = 0;
};

// Where backups are kept, away from the volumes: what the jobs and the handlers of backups stand
// on. A seam; blockd/backup has it on a second chunk store.
//
// Every backup is whole: none needs another, whatever they share. Thread-safe, blocking. A call
// that fails or is cut off leaves nothing that is seen, and may be made again. kIo, kOutOfSpace,
// kCorruption, kCancelled besides what is named.
class BackupTarget {
 public:
  virtual ~BackupTarget() = default;

  // Asked now and then by what takes long; true: give up, with kCancelled.
  using Cancelled = std::function<bool()>;

  // Keeps what `holder` of the volumes' chunk store holds as this backup, with the record beside
  // it. Only what is not there yet crosses; with a parent_id that is kept here, only what differs
  // from it is looked at. Every chunk is verified on its way, and so is the whole. Does nothing if
  // the backup is kept already. kNotFound for the holder.
  virtual base::Result<BackupCopy> Save(const BackupRecord& backup, const std::string& holder,
                                        const Cancelled& cancelled) = 0;

  // Brings a backup's content back into the volumes' chunk store and returns the holder that keeps
  // it there for this volume, until DropFetched; verified as in Save. kNotFound.
  virtual base::Result<std::string> Fetch(const std::string& backup_id,
                                          const std::string& volume_id,
                                          const Cancelled& cancelled) = 0;
  virtual base::Result<void> DropFetched(const std::string& volume_id) = 0;

  // Fine if it is not kept.
  virtual base::Result<void> Remove(const std::string& backup_id) = 0;

  // The record as it was saved: available, with object_count. kNotFound; kCorruption where the
  // record does not fit the content.
  virtual base::Result<BackupRecord> Find(const std::string& backup_id) = 0;
  // The ids of what is kept, in order, after `after`.
  virtual base::Result<std::vector<std::string>> Ids(const std::string& after, size_t limit) = 0;
};

}  // namespace blockd
