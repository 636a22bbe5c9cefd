#include <utility>

#include "blockd/rbd/errors.h"
#include "blockd/rbd/rbd_volume_store.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

Result<std::string> RbdVolumeStore::SnapshotHolder(const std::string& id) {
  ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(id));
  if (!snapshot) return NoSnapshot(id);
  ASSIGN_OR_RETURN(const auto point, ledger_.Find<PointRecord>(snapshot->point));
  if (!point) return NoSnapshot(id);
  if (!point->holder.empty()) return point->holder;
  base::MutexLock lock(mutex_);
  wanted_.insert(snapshot->point);
  wake_.NotifyAll();
  return Error(Code::kUnavailable,
               "snapshot " + id + " is still being put into the chunk store: try again");
}

Result<std::shared_ptr<ChangedBlocks>> RbdVolumeStore::ChangedSince(
    const std::string& volume_id, const std::string& snapshot_id) {
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(volume_id));
  if (!volume) return NoVolume(volume_id);
  ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(snapshot_id));
  if (!snapshot || snapshot->volume != volume_id) return NoSnapshot(snapshot_id);
  return std::shared_ptr<ChangedBlocks>(std::make_shared<rbd::ChangedSince>(
      ledger_, chunks_, [this] { return Connection(); }, volume_id,
      rbd::ChangedSince::Then{.snapshot = snapshot_id, .holder = ""}));
}

Result<std::shared_ptr<ChangedBlocks>> RbdVolumeStore::ChangedSinceContent(
    const std::string& volume_id, const std::string& holder) {
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(volume_id));
  if (!volume) return NoVolume(volume_id);
  RETURN_IF_ERROR(chunks_.FindHolder(holder));
  return std::shared_ptr<ChangedBlocks>(std::make_shared<rbd::ChangedSince>(
      ledger_, chunks_, [this] { return Connection(); }, volume_id,
      rbd::ChangedSince::Then{.snapshot = "", .holder = holder}));
}

Result<VolumeInfo> RbdVolumeStore::FindVolume(const std::string& id) {
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(id));
  if (!volume) return NoVolume(id);
  ASSIGN_OR_RETURN(const auto claim, ledger_.Find<ClaimRecord>(id));
  bool open = claim && claim->open;
  if (open && claim->session == sessions_.mine()) {
    open = IsInUseHere(id);
  } else if (open) {
    ASSIGN_OR_RETURN(open, sessions_.Lives(claim->session));
  }
  return VolumeInfo{.id = id, .size_bytes = volume->size_bytes, .thick = false, .open = open};
}

Result<SnapshotInfo> RbdVolumeStore::FindSnapshot(const std::string& id) {
  ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(id));
  if (!snapshot) return NoSnapshot(id);
  ASSIGN_OR_RETURN(const auto point, ledger_.Find<PointRecord>(snapshot->point));
  const bool sealed = point && !point->holder.empty();
  return SnapshotInfo{id, snapshot->volume, snapshot->size_bytes, sealed};
}

Result<std::vector<VolumeInfo>> RbdVolumeStore::Volumes() {
  ASSIGN_OR_RETURN(const auto volumes, ledger_.All<VolumeRecord>());
  ASSIGN_OR_RETURN(const auto claims, ledger_.All<ClaimRecord>());
  std::map<std::string, bool> lives;  // of sessions
  std::vector<VolumeInfo> infos;
  for (const auto& [id, volume] : volumes) {
    VolumeInfo info{.id = id, .size_bytes = volume.size_bytes, .thick = false, .open = false};
    const auto claim = claims.find(id);
    if (claim != claims.end() && claim->second.session == sessions_.mine()) {
      info.open = IsInUseHere(id);
    } else if (claim != claims.end() && claim->second.open) {
      const auto [known, is_new] = lives.try_emplace(claim->second.session);
      if (is_new) {
        ASSIGN_OR_RETURN(known->second, sessions_.Lives(claim->second.session));
      }
      info.open = known->second;
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

Result<std::vector<SnapshotInfo>> RbdVolumeStore::Snapshots() {
  ASSIGN_OR_RETURN(const auto snapshots, ledger_.All<SnapshotRecord>());
  ASSIGN_OR_RETURN(const auto points, ledger_.All<PointRecord>());
  std::vector<SnapshotInfo> infos;
  for (const auto& [id, snapshot] : snapshots) {
    const auto point = points.find(snapshot.point);
    const bool sealed = point != points.end() && !point->second.holder.empty();
    infos.push_back({id, snapshot.volume, snapshot.size_bytes, sealed});
  }
  return infos;
}

}  // namespace blockd::rbd
