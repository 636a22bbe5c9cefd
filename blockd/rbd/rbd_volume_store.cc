#include "blockd/rbd/rbd_volume_store.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include <fmt/format.h>

#include "base/log.h"
#include "blockd/rbd/errors.h"
#include "blockd/rbd/image.h"

namespace blockd::rbd {

using base::Code;
using base::Error;
using base::Result;

namespace {

std::string PartitionOf(const ClusterOptions& options) {
  return "rbd-volumes/" + options.pool + (options.space.empty() ? "" : "/" + options.space);
}

Result<void> CheckSize(uint64_t size_bytes) {
  if (size_bytes > 0 && size_bytes <= kMaxVolumeBytes && size_bytes % kBlockBytes == 0) return {};
  return Error(Code::kInvalidArgument,
               fmt::format("{} is no size of a volume: whole blocks of {} bytes, at most {} bytes",
                           size_bytes, kBlockBytes, kMaxVolumeBytes));
}

}  // namespace

// ---- open and close

RbdVolumeStore::RbdVolumeStore(const Options& options, chunkstore::ChunkStore& chunks,
                               chunkstore::MetaStore& meta, const base::Clock& clock,
                               base::Metrics& metrics)
    : options_(options),
      chunks_(chunks),
      clock_(clock),
      ledger_(meta, PartitionOf(options.cluster)),
      sessions_(ledger_, clock, options.lease_ms),
      sealed_bytes_(metrics.GetCounter("quarry_rbd_sealed_bytes_total",
                                       "Bytes of RBD objects that the sealer put into the store")),
      filled_bytes_(
          metrics.GetCounter("quarry_rbd_filled_bytes_total",
                             "Bytes of contents that parents of volumes were filled with")),
      snapshot_seconds_(metrics.GetHistogram("quarry_rbd_snapshot_seconds",
                                             "RBD's part of a snapshot, in which writes wait",
                                             base::DurationBuckets())) {}

Result<std::unique_ptr<RbdVolumeStore>> RbdVolumeStore::Open(const Options& options,
                                                             chunkstore::ChunkStore& chunks,
                                                             chunkstore::MetaStore& meta,
                                                             const base::Clock& clock,
                                                             base::Metrics& metrics) {
  std::unique_ptr<RbdVolumeStore> store(new RbdVolumeStore(options, chunks, meta, clock, metrics));
  RETURN_IF_ERROR(store->Connection());
  RETURN_IF_ERROR(store->sessions_.Beat());
  store->closer_ = std::thread([&s = *store] { s.RunCloser(); });
  if (options.background) {
    store->beats_ = std::thread([&s = *store] { s.RunBeats(); });
    store->thread_ = std::thread([&s = *store] { s.Run(); });
  }
  return store;
}

RbdVolumeStore::~RbdVolumeStore() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    wake_.NotifyAll();
    wake_beats_.NotifyAll();
    wake_closer_.NotifyAll();
  }
  for (std::thread* thread : {&thread_, &beats_, &closer_}) {
    if (thread->joinable()) thread->join();
  }
  sessions_.End();
}

// ---- volumes

Result<void> RbdVolumeStore::Create(const NewVolume& volume) {
  const bool fine_id = std::all_of(volume.id.begin(), volume.id.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (!fine_id || volume.id.empty() || volume.id.size() > kMaxIdBytes)
    return Error(Code::kInvalidArgument, "an id is 1 to 64 of [A-Za-z0-9._-]");
  RETURN_IF_ERROR(CheckSize(volume.size_bytes));
  if (volume.thick) {
    return Error(Code::kInvalidArgument,
                 "volumes on RBD take their space as they are written: there are no thick ones");
  }
  ASSIGN_OR_RETURN(const auto known, ledger_.Find<VolumeRecord>(volume.id));
  if (known) return Error(Code::kAlreadyExists, "there is a volume " + volume.id);
  return MakeVolume(volume);
}

Result<void> RbdVolumeStore::Remove(const std::string& id) {
  const Turns::Turn turn = turns_.Take(id);
  RETURN_IF_ERROR(ClaimAlone(id));
  Result<void> removed = ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto volume, change.Find<VolumeRecord>(id));
    if (!volume) return NoVolume(id);
    change.Delete<VolumeRecord>(id);
    change.Delete<ClaimRecord>(id);
    return change.LeaveImage(volume->image);
  });
  if (!removed) ReleaseClaim(id);
  wake_.NotifyAll();
  return removed;
}

Result<void> RbdVolumeStore::Resize(const std::string& id, uint64_t size_bytes) {
  RETURN_IF_ERROR(CheckSize(size_bytes));
  const Turns::Turn turn = turns_.Take(id);
  ASSIGN_OR_RETURN(Lease lease, Borrow(id));
  Result<void> resized;
  if (size_bytes < lease.image->size_bytes()) {
    resized = Error(Code::kInvalidArgument, "a volume can only become larger");
  } else {
    resized = lease.image->Resize(size_bytes);
  }
  if (resized) {
    resized = ledger_.Update([&](Change& change) -> Result<void> {
      ASSIGN_OR_RETURN(auto volume, change.Get<VolumeRecord>(id));
      volume.size_bytes = std::max(volume.size_bytes, size_bytes);
      change.Put(id, volume);
      return {};
    });
  }
  Return(id, lease);
  return resized;
}

// ---- snapshots

Result<void> RbdVolumeStore::Snapshot(const std::string& volume_id,
                                      const std::string& snapshot_id) {
  const auto exists = [&] {
    return Error(Code::kAlreadyExists, "there is a snapshot " + snapshot_id);
  };
  const Turns::Turn turn = turns_.Take(volume_id);
  ASSIGN_OR_RETURN(const auto known, ledger_.Find<SnapshotRecord>(snapshot_id));
  if (known) return exists();
  const auto keep = [&](Change& change, const std::string& point,
                        PointRecord& record) -> Result<void> {
    ASSIGN_OR_RETURN(const auto other, change.Find<SnapshotRecord>(snapshot_id));
    if (other) return exists();
    change.Put(snapshot_id, SnapshotRecord{volume_id, point, record.size_bytes});
    record.session.clear();  // its use is the snapshot's now
    change.Unmark("t/", point);
    return {};
  };
  RETURN_IF_ERROR(TakePoint(volume_id, keep));
  wake_.NotifyAll();
  return {};
}

Result<void> RbdVolumeStore::RemoveSnapshot(const std::string& id) {
  RETURN_IF_ERROR(ledger_.Update([&](Change& change) -> Result<void> {
    ASSIGN_OR_RETURN(const auto snapshot, change.Find<SnapshotRecord>(id));
    if (!snapshot) return NoSnapshot(id);
    change.Delete<SnapshotRecord>(id);
    return change.DropUse(snapshot->point);
  }));
  wake_.NotifyAll();
  return {};
}

Result<void> RbdVolumeStore::Revert(const std::string& volume_id, const std::string& snapshot_id) {
  const Turns::Turn turn = turns_.Take(volume_id);
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(volume_id));
  if (!volume) return NoVolume(volume_id);
  ASSIGN_OR_RETURN(const auto snapshot, ledger_.Find<SnapshotRecord>(snapshot_id));
  if (!snapshot) return NoSnapshot(snapshot_id);
  if (snapshot->volume != volume_id)
    return Error(Code::kConflict, snapshot_id + " is no snapshot of volume " + volume_id);
  RETURN_IF_ERROR(ClaimAlone(volume_id));
  const Result<void> switched = SwitchTo(volume_id, [&]() -> Result<std::string> {
    return PointToClone(snapshot->point, volume->size_bytes);
  });
  ReleaseClaim(volume_id);
  return switched;
}

Result<void> RbdVolumeStore::Refill(const std::string& volume_id, const std::string& holder) {
  const Turns::Turn turn = turns_.Take(volume_id);
  ASSIGN_OR_RETURN(const auto volume, ledger_.Find<VolumeRecord>(volume_id));
  if (!volume) return NoVolume(volume_id);
  RETURN_IF_ERROR(ClaimAlone(volume_id));
  const Result<void> switched = SwitchTo(
      volume_id, [&]() -> Result<std::string> { return ParentOf(holder, volume->size_bytes); });
  ReleaseClaim(volume_id);
  return switched;
}

}  // namespace blockd::rbd
