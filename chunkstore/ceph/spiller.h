#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "chunkstore/ceph/ceph_meta_store.h"
#include "chunkstore/ceph/heads.h"
#include "chunkstore/ceph/objects.h"

namespace chunkstore::ceph {

// Empties one head into the partition's shards, and splits shards that have grown. For one
// partition once; one thread. It may stop at any step, for ever: what it leaves is right, and the
// next one goes on and removes what it left over.
//
// Only one is in office at a time. Taking office changes the head's epoch, which every write of the
// spiller to the head asserts; and it writes the epoch of its taking office into each shard before
// it touches it, which every write to a shard asserts. So one that was stopped for long and wakes
// up can't write old values over newer ones.
class Spiller {
 public:
  // Borrows all.
  Spiller(Objects& objects, Heads& heads, const base::Clock& clock, const CephMetaOptions& options,
          std::string_view partition);

  // Does what there is to do. Nothing if the head is small, or another is in office; kConflict if
  // another took over meanwhile. `stop` is asked between steps.
  base::Result<void> Run(const std::function<bool()>& stop);

 private:
  using Entry = std::pair<std::string, std::string>;  // as stored
  struct Shard {
    uint64_t keys = 0;  // at least
  };

  base::Result<bool> HeadIsLarge();
  base::Result<bool> TakeOffice();
  // Writes the directory, and renews the lease.
  base::Result<void> WriteDirectory(Directory directory);
  base::Result<void> RemovePending();
  base::Result<void> MakeShard(const Directory::Shard& shard, uint64_t keys);
  base::Result<void> MakeFirstShard();

  base::Result<void> MoveAll(const std::function<bool()>& stop);
  base::Result<void> Move(const Directory::Shard& to, const std::vector<Entry>& entries);
  base::Result<void> RemoveFromHead(std::vector<Entry> entries);
  // The spiller's mark in the shard, and what an earlier split left undone.
  base::Result<void> Enter(const Directory::Shard& shard);

  base::Result<void> SplitIfLarge(const std::string& object);
  // Counts exactly; `middle` is the key before which half of them are.
  base::Result<uint64_t> Count(const std::string& object, std::string* middle);
  base::Result<void> Split(size_t index, const std::string& middle, uint64_t keys);
  base::Result<void> Copy(const std::string& from, const std::string& after, const std::string& to);

  // A write to an object that only the spiller in office may write to: kConflict if we are not it
  // any more.
  base::Result<void> WriteMine(const std::string& object, const ObjectWrite& write);
  ObjectWrite ToShard() const;

  Objects& objects_;
  Heads& heads_;
  const base::Clock& clock_;
  const CephMetaOptions options_;
  const std::string partition_;
  const std::string head_;
  const std::string owner_;
  uint64_t epoch_ = 0;                    // the head's, as we wrote it last
  std::string mark_;                      // the epoch of taking office
  uint64_t moves_ = 0;                    // of the head
  Directory directory_;                   // as we wrote it last
  std::map<std::string, Shard> entered_;  // by object
};

}  // namespace chunkstore::ceph
