#include <memory>
#include <utility>
#include <vector>

#include "blockd/chunk/chunk_volume_store.h"
#include "blockd/chunk/not_found.h"

// What the store of volumes tells of itself.

namespace blockd::chunk {

using base::Result;

VolumeInfo ChunkVolumeStore::InfoOf(const std::string& id, const VolumeRecord& record) const {
  return {id, record.size_bytes, record.thick, InUse(id)};
}

SnapshotInfo ChunkVolumeStore::InfoOf(const std::string& id, const SnapshotRecord& record) const {
  const bool sealed = records_.FindLayer(record.layer)->state == LayerState::kSealed;
  return {id, record.volume, record.size_bytes, sealed};
}

Result<VolumeInfo> ChunkVolumeStore::FindVolume(const std::string& id) {
  base::MutexLock lock(mutex_);
  const VolumeRecord* record = records_.FindVolume(id);
  if (!record) return NoVolume(id);
  return InfoOf(id, *record);
}

Result<SnapshotInfo> ChunkVolumeStore::FindSnapshot(const std::string& id) {
  base::MutexLock lock(mutex_);
  const SnapshotRecord* record = records_.FindSnapshot(id);
  if (!record) return NoSnapshot(id);
  return InfoOf(id, *record);
}

Result<std::vector<VolumeInfo>> ChunkVolumeStore::Volumes() {
  base::MutexLock lock(mutex_);
  std::vector<VolumeInfo> volumes;
  for (const auto& [id, record] : records_.volumes()) volumes.push_back(InfoOf(id, record));
  return volumes;
}

Result<std::vector<SnapshotInfo>> ChunkVolumeStore::Snapshots() {
  base::MutexLock lock(mutex_);
  std::vector<SnapshotInfo> snapshots;
  for (const auto& [id, record] : records_.snapshots()) snapshots.push_back(InfoOf(id, record));
  return snapshots;
}

Result<chunk::ChangedSince::Stacks> ChunkVolumeStore::StacksOf(const std::string& volume_id,
                                                               const std::string& snapshot_id) {
  base::MutexLock lock(mutex_);
  const VolumeRecord* volume = records_.FindVolume(volume_id);
  if (!volume) return NoVolume(volume_id);
  const SnapshotRecord* snapshot = records_.FindSnapshot(snapshot_id);
  if (!snapshot || snapshot->volume != volume_id) return NoSnapshot(snapshot_id);
  chunk::ChangedSince::Stacks stacks;
  ASSIGN_OR_RETURN(stacks.now, StackFrom(volume->head));
  ASSIGN_OR_RETURN(stacks.then, StackFrom(snapshot->layer));
  return stacks;
}

Result<std::shared_ptr<ChangedBlocks>> ChunkVolumeStore::ChangedSince(
    const std::string& volume_id, const std::string& snapshot_id) {
  RETURN_IF_ERROR(StacksOf(volume_id, snapshot_id));
  const auto source = [this, volume_id, snapshot_id] { return StacksOf(volume_id, snapshot_id); };
  return std::shared_ptr<ChangedBlocks>(std::make_shared<chunk::ChangedSince>(source, chunks_));
}

Result<chunk::ChangedSince::Stacks> ChunkVolumeStore::StackAndContent(const std::string& volume_id,
                                                                      const std::string& holder) {
  ASSIGN_OR_RETURN(const chunkstore::ChunkStore::Held held, chunks_.FindHolder(holder));
  if (!held.root.has_value()) return base::Error(base::Code::kNotFound, holder + " holds nothing");
  ASSIGN_OR_RETURN(auto content, chunks_.Open(*held.root));
  chunk::ChangedSince::Stacks stacks;
  stacks.then =
      std::make_shared<const Stack>(std::vector<std::shared_ptr<Layer>>(), std::move(content));
  base::MutexLock lock(mutex_);
  const VolumeRecord* volume = records_.FindVolume(volume_id);
  if (!volume) return NoVolume(volume_id);
  ASSIGN_OR_RETURN(stacks.now, StackFrom(volume->head));
  return stacks;
}

Result<std::shared_ptr<ChangedBlocks>> ChunkVolumeStore::ChangedSinceContent(
    const std::string& volume_id, const std::string& holder) {
  RETURN_IF_ERROR(StackAndContent(volume_id, holder));
  const auto source = [this, volume_id, holder] { return StackAndContent(volume_id, holder); };
  return std::shared_ptr<ChangedBlocks>(std::make_shared<chunk::ChangedSince>(source, chunks_));
}

}  // namespace blockd::chunk
