#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockd/catalog.h"
#include "blockd/volume_store.h"

namespace blockd {

// The volume store as the steps of one job see it: what makes or changes something is begun only
// while the job is held (kCancelled otherwise), so that a process that stood still and wakes does
// not revert a volume that was given back to its user long ago. What lies between the look and the
// change is the back end's to fence. Removals are let pass: ids are never used twice, and to clear
// up is right whoever does it. Borrows both. Thread-safe.
class HeldStore : public VolumeStore {
 public:
  // `catalog` is the job's (Catalog::ForJob).
  HeldStore(VolumeStore& store, Catalog& catalog) : store_(store), catalog_(catalog) {}

  base::Result<void> Create(const NewVolume& volume) override {
    RETURN_IF_ERROR(catalog_.CheckHeld());
    return store_.Create(volume);
  }
  base::Result<void> Resize(const std::string& id, uint64_t size_bytes) override {
    RETURN_IF_ERROR(catalog_.CheckHeld());
    return store_.Resize(id, size_bytes);
  }
  base::Result<void> Snapshot(const std::string& volume_id,
                              const std::string& snapshot_id) override {
    RETURN_IF_ERROR(catalog_.CheckHeld());
    return store_.Snapshot(volume_id, snapshot_id);
  }
  base::Result<void> Revert(const std::string& volume_id, const std::string& snapshot_id) override {
    RETURN_IF_ERROR(catalog_.CheckHeld());
    return store_.Revert(volume_id, snapshot_id);
  }
  base::Result<void> Refill(const std::string& volume_id, const std::string& holder) override {
    RETURN_IF_ERROR(catalog_.CheckHeld());
    return store_.Refill(volume_id, holder);
  }

  base::Result<void> Fence(const std::string& id) override { return store_.Fence(id); }
  base::Result<std::shared_ptr<Volume>> Open(const std::string& id) override {
    return store_.Open(id);
  }
  base::Result<void> Remove(const std::string& id) override { return store_.Remove(id); }
  base::Result<void> RemoveSnapshot(const std::string& id) override {
    return store_.RemoveSnapshot(id);
  }
  base::Result<std::string> SnapshotHolder(const std::string& id) override {
    return store_.SnapshotHolder(id);
  }
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) override {
    return store_.ChangedSince(volume_id, snapshot_id);
  }
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) override {
    return store_.ChangedSinceContent(volume_id, holder);
  }
  base::Result<VolumeInfo> FindVolume(const std::string& id) override {
    return store_.FindVolume(id);
  }
  base::Result<SnapshotInfo> FindSnapshot(const std::string& id) override {
    return store_.FindSnapshot(id);
  }
  base::Result<std::vector<VolumeInfo>> Volumes() override { return store_.Volumes(); }
  base::Result<std::vector<SnapshotInfo>> Snapshots() override { return store_.Snapshots(); }

 private:
  VolumeStore& store_;
  Catalog& catalog_;
};

}  // namespace blockd
