#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/metrics.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/backup/mover.h"
#include "blockd/backup_target.h"
#include "chunkstore/chunk_store.h"

namespace blockd::backup {

struct ChunkBackupsOptions {
  // Read from one store and written to the other, all copies together, so that disks are left to
  // those who wait for them; 0: no limit.
  uint64_t bytes_per_s = 200 * base::kMiB;
  // How often what deleted backups left is collected in the backups' store; 0: the caller sees to
  // that.
  int64_t collect_interval_ms = 3'600'000;
};

// Backups in a second chunk store. In it, a backup is a content under the holder
// "backup/<id>/<random>", whose attributes are its record; a holder is made anew for each attempt,
// and the first that holds something counts. Contents that are on their way back lie in the
// volumes' store under "restore/<volume>/<random>".
//
// Thread-safe.
class ChunkBackups : public BackupTarget {
 public:
  // Borrowed; they outlive this. `volumes` is the store that volumes are sealed into, `backups`
  // another one, on another disk or host, which nobody else writes to.
  ChunkBackups(ChunkBackupsOptions options, chunkstore::ChunkStore& volumes,
               chunkstore::ChunkStore& backups, base::Metrics& metrics);
  ~ChunkBackups() override;  // stops collecting
  ChunkBackups(const ChunkBackups&) = delete;
  ChunkBackups& operator=(const ChunkBackups&) = delete;

  base::Result<BackupCopy> Save(const BackupRecord& backup, const std::string& holder,
                                const Cancelled& cancelled) override;
  base::Result<std::string> Fetch(const std::string& backup_id, const std::string& volume_id,
                                  const Cancelled& cancelled) override;
  base::Result<void> DropFetched(const std::string& volume_id) override;
  base::Result<void> Remove(const std::string& backup_id) override;
  base::Result<BackupRecord> Find(const std::string& backup_id) override;
  base::Result<std::vector<std::string>> Ids(const std::string& after, size_t limit) override;

 private:
  using Held = chunkstore::ChunkStore::Held;
  base::Result<Held> FindHeld(const std::string& backup_id);
  void Count(const BackupCopy& copy);
  void CollectNowAndThen();

  const ChunkBackupsOptions options_;
  chunkstore::ChunkStore& volumes_;
  chunkstore::ChunkStore& backups_;
  Pacer pacer_;
  base::Counter& moved_bytes_;
  base::Counter& moved_chunks_;
  base::Counter& known_chunks_;

  std::atomic<bool> stopping_ = false;
  base::Mutex mutex_;
  base::CondVar wake_;
  std::thread collector_;
};

}  // namespace blockd::backup
