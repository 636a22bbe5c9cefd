#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "blockd/volume_store.h"

namespace blockd {

// Several stores of volumes behind one service, as one: volume types choose by name where a volume
// is made (NewVolume::back_end). Ids are unique across them, so all other calls find their own way.
// A snapshot is where its volume is, or was. Thread-safe; errors as of VolumeStore.
class BackEnds : public VolumeStore {
 public:
  struct BackEnd {
    std::string name;    // volume_backend_name of types: "store", "rbd"
    VolumeStore* store;  // borrowed
  };
  // At least one. The first is where a volume is made of which nothing is said.
  explicit BackEnds(std::vector<BackEnd> back_ends);

  // Brings a volume that nobody has open, and that has no snapshots, to another back end, as it is.
  // In steps that stand being done twice: kUnavailable while it is on its way, then call again,
  // also after a crash. Until it returns success the volume is where it was, and GiveUpMove leaves
  // it there. kNotFound; kInvalidArgument for a back end that there is not.
  base::Result<void> Move(const NewVolume& volume);
  base::Result<void> GiveUpMove(const std::string& volume_id);

  // --- VolumeStore ---
  // A snapshot of another back end becomes a volume once it is sealed: kUnavailable before. A
  // volume of another one never does: kInvalidArgument.
  base::Result<void> Create(const NewVolume& volume) override;
  base::Result<std::shared_ptr<Volume>> Open(const std::string& id) override;
  base::Result<void> Fence(const std::string& id) override;
  base::Result<void> Remove(const std::string& id) override;
  base::Result<void> Resize(const std::string& id, uint64_t size_bytes) override;
  base::Result<void> Snapshot(const std::string& volume_id,
                              const std::string& snapshot_id) override;
  base::Result<void> RemoveSnapshot(const std::string& id) override;
  base::Result<void> Revert(const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<void> Refill(const std::string& volume_id, const std::string& holder) override;
  base::Result<std::string> SnapshotHolder(const std::string& id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) override;
  base::Result<VolumeInfo> FindVolume(const std::string& id) override;
  base::Result<SnapshotInfo> FindSnapshot(const std::string& id) override;
  base::Result<std::vector<VolumeInfo>> Volumes() override;
  base::Result<std::vector<SnapshotInfo>> Snapshots() override;

 private:
  base::Result<VolumeStore*> Named(std::string_view name) const;
  // Where the volume or the snapshot is. kNotFound.
  base::Result<VolumeStore*> StoreOf(const std::string& volume_id) const;
  base::Result<VolumeStore*> StoreOfSnapshot(const std::string& id) const;
  base::Result<VolumeSource> SourceFor(VolumeStore& target, const VolumeSource& source) const;

  const std::vector<BackEnd> back_ends_;
};

}  // namespace blockd
