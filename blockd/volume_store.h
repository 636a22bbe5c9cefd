#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "blockd/volume.h"

// The volumes and snapshots of a pool: what the Block Storage API and the attachments stand on. A
// seam: on the chunk store (blockd/chunk) and, at scale, on Ceph RBD.

namespace blockd {

// What a new volume begins as.
struct VolumeSource {
  enum class Kind {
    kNothing,  // zeros
    kContent,  // what a holder of the chunk store holds: an image, a backup
    kSnapshot,
    kVolume,  // another volume as it is now
  };
  Kind kind = Kind::kNothing;
  std::string name;  // of the holder, or the id
};

struct NewVolume {
  std::string id;           // 1 to 64 of [A-Za-z0-9._-]; the caller's
  uint64_t size_bytes = 0;  // whole blocks, and at least the source's
  bool thick = false;       // its space is taken now, and stays taken
  VolumeSource source;
  std::string back_end;  // for BackEnds (back_ends.h); a store that is one has no use for it
};

struct VolumeInfo {
  std::string id;
  uint64_t size_bytes = 0;
  bool thick = false;
  bool open = false;
};

struct SnapshotInfo {
  std::string id;
  std::string volume_id;  // which may be gone
  uint64_t size_bytes = 0;
  bool sealed = false;  // is a content of the chunk store
};

// Thread-safe, blocking. Every change is durable when its call returns, and happened wholly or not
// at all, whatever crashes; after kIo of a change it may be either once the service starts again,
// until then it did not happen.
//
// No call copies the bytes of a volume, however large. Snapshots, volumes and what was made of them
// are independent: to remove or write to one never changes another.
//
// Errors besides those that are named: kNotFound, kAlreadyExists for ids; kInvalidArgument;
// kOutOfSpace; kIo; kUnavailable when snapshots come faster than they can be put away.
class VolumeStore {
 public:
  virtual ~VolumeStore() = default;

  virtual base::Result<void> Create(const NewVolume& volume) = 0;

  // All openings of a volume are one: what is written through one is read through the others. In
  // use while the pointer lives.
  virtual base::Result<std::shared_ptr<Volume>> Open(const std::string& id) = 0;

  // What another process has opened of it can write no more, whatever becomes of that process: for
  // one that was not heard of for long. Nothing to do for a back end that one process alone uses.
  virtual base::Result<void> Fence(const std::string& id) {
    (void)id;
    return {};
  }

  // kConflict while it is in use.
  virtual base::Result<void> Remove(const std::string& id) = 0;

  // To a larger size, also while in use.
  virtual base::Result<void> Resize(const std::string& id, uint64_t size_bytes) = 0;

  // Keeps the volume as it is at one moment between call and return, across all connections: every
  // write that was acknowledged before that moment is in it, none that began after. Writes wait for
  // that moment only. Takes as long as a flush.
  virtual base::Result<void> Snapshot(const std::string& volume_id,
                                      const std::string& snapshot_id) = 0;
  virtual base::Result<void> RemoveSnapshot(const std::string& id) = 0;

  // Makes the volume what the snapshot is (zeros beyond its size). kConflict while it is in use, or
  // where the snapshot is not one of this volume.
  virtual base::Result<void> Revert(const std::string& volume_id,
                                    const std::string& snapshot_id) = 0;

  // Makes the volume what a holder of the chunk store holds (zeros beyond its size). kConflict
  // while it is in use.
  virtual base::Result<void> Refill(const std::string& volume_id, const std::string& holder) = 0;

  // The holder of a snapshot's content in the chunk store, to make an image or a backup of:
  // ChunkStore::HoldAgain. kUnavailable while it is still being put there: it comes first now.
  virtual base::Result<std::string> SnapshotHolder(const std::string& id) = 0;

  // What became different in a volume since one of its snapshots, whatever happened since: writes,
  // reverts, other snapshots that came and went. kNotFound where it is not a snapshot of this one.
  // The store outlives what it returns, which keeps neither of the two.
  virtual base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) = 0;

  // The same for what a holder of the chunk store holds, an image: whatever the volume was made of.
  // kNotFound for a holder that is not there; once it is gone, of every visit.
  virtual base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) = 0;

  virtual base::Result<VolumeInfo> FindVolume(const std::string& id) = 0;
  virtual base::Result<SnapshotInfo> FindSnapshot(const std::string& id) = 0;
  // By id.
  virtual base::Result<std::vector<VolumeInfo>> Volumes() = 0;
  virtual base::Result<std::vector<SnapshotInfo>> Snapshots() = 0;
};

}  // namespace blockd
