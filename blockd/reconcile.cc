#include "blockd/reconcile.h"

#include <set>
#include <string>

#include "base/log.h"
#include "blockd/attach.h"
#include "blockd/project_qos.h"

namespace blockd {
namespace {

using base::Code;
using base::Result;
using World = Jobs::World;

constexpr int64_t kStartLeaseMs = 10 * 60'000;

ListQuery Everything() {
  ListQuery query;
  query.limit = UINT64_MAX;
  return query;
}

// The statuses that only a job ends, and where a volume is left when it has none.
std::optional<VolumeStatus> WithoutJob(const VolumeRecord& volume) {
  switch (volume.status) {
    case VolumeStatus::kCreating:
    case VolumeStatus::kReverting:
    case VolumeStatus::kDownloading:
      return VolumeStatus::kError;
    case VolumeStatus::kDeleting:
      return VolumeStatus::kErrorDeleting;
    case VolumeStatus::kExtending:
      return VolumeStatus::kErrorExtending;
    case VolumeStatus::kUploading:
    case VolumeStatus::kRetyping:
    case VolumeStatus::kBackingUp:
      return volume.previous_status;
    case VolumeStatus::kRestoringBackup:
      return VolumeStatus::kErrorRestoring;
    default:
      return std::nullopt;
  }
}

Result<std::set<std::string>> IdsWithJobs(const World& world) {
  std::set<std::string> ids;
  for (size_t i = 0; i < kLanes; ++i) {
    ASSIGN_OR_RETURN(const auto jobs, world.catalog.journal().List(KindOfLane(Lane(i))));
    for (const auto& job : jobs) {
      const Result<JobSpec> spec = DecodeJob(job.payload);
      if (!spec.has_value()) continue;
      ids.insert(spec->id);
      // A backup's volume, a restore's backup.
      ids.insert(spec->argument);
    }
  }
  return ids;
}

class Pass {
 public:
  Pass(const World& world, Jobs& jobs, int64_t attach_lease_ms)
      : world_(world), jobs_(jobs), attach_lease_ms_(attach_lease_ms) {}

  Result<ReconcileReport> Run() {
    // Records first, jobs after: a job that was there when the record was read and is not now has
    // changed the record, and then Settle finds it changed and lets it be.
    ASSIGN_OR_RETURN(const auto volumes, world_.catalog.ListVolumes(Everything()));
    ASSIGN_OR_RETURN(const auto snapshots, world_.catalog.ListSnapshots(Everything()));
    ASSIGN_OR_RETURN(const auto attachments, world_.catalog.ListAttachments(Everything()));
    ASSIGN_OR_RETURN(const auto backups, world_.catalog.ListBackups(Everything()));
    ASSIGN_OR_RETURN(const std::set<std::string> busy, IdsWithJobs(world_));
    for (const AttachmentRecord& attachment : attachments)
      if (!busy.contains(attachment.id)) RETURN_IF_ERROR(Check(attachment));
    for (const VolumeRecord& volume : volumes)
      if (!busy.contains(volume.id)) RETURN_IF_ERROR(Check(volume));
    for (const SnapshotRecord& snapshot : snapshots)
      if (!busy.contains(snapshot.id)) RETURN_IF_ERROR(Check(snapshot));
    for (const BackupRecord& backup : backups)
      if (!busy.contains(backup.id)) RETURN_IF_ERROR(Check(backup));
    return report_;
  }

 private:
  Result<void> Check(const VolumeRecord& volume) {
    const std::optional<VolumeStatus> stable = WithoutJob(volume);
    const bool leased =
        volume.status == VolumeStatus::kAttaching || volume.status == VolumeStatus::kDetaching;
    if (!stable.has_value() && !(leased && LeaseIsOver(volume))) return {};
    return world_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
      Result<VolumeRecord> present = transaction.GetVolume(volume.id);
      if (!present.has_value() || *present != volume) return Unchanged(present);
      Note("volume", volume.id, VolumeStatusName(volume.status));
      if (!stable.has_value()) return SettleVolumeStatus(transaction, volume.id);
      present->status = *stable;
      present->reserved_size_gb = 0;
      return transaction.Put(*present);
    });
  }

  // Attachments that are on their way have leases of their own.
  bool LeaseIsOver(const VolumeRecord& volume) {
    if (volume.lease_until_us > world_.catalog.NowUs()) return false;
    for (const std::string& id : volume.attachment_ids) {
      const Result<AttachmentRecord> attachment = world_.catalog.GetAttachment(id);
      if (attachment.has_value() && attachment->status != AttachStatus::kAttached) return false;
    }
    return true;
  }

  Result<void> Check(const SnapshotRecord& snapshot) {
    const bool creating = snapshot.status == SnapshotStatus::kCreating;
    if (!creating && snapshot.status != SnapshotStatus::kDeleting) return {};
    // A cascade's snapshots are deleted by their volume's job.
    const Result<VolumeRecord> volume = world_.catalog.GetVolume(snapshot.volume_id);
    if (volume.has_value() && volume->status == VolumeStatus::kDeleting) return {};
    return world_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
      Result<SnapshotRecord> present = transaction.GetSnapshot(snapshot.id);
      if (!present.has_value() || *present != snapshot) return Unchanged(present);
      Note("snapshot", snapshot.id, SnapshotStatusName(snapshot.status));
      present->status = creating ? SnapshotStatus::kError : SnapshotStatus::kErrorDeleting;
      return transaction.Put(*present);
    });
  }

  Result<void> Check(const BackupRecord& backup) {
    std::optional<BackupStatus> stable;
    if (backup.status == BackupStatus::kCreating) stable = BackupStatus::kError;
    if (backup.status == BackupStatus::kRestoring) stable = BackupStatus::kAvailable;
    if (backup.status == BackupStatus::kDeleting) stable = BackupStatus::kErrorDeleting;
    if (!stable.has_value()) return {};
    return world_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
      Result<BackupRecord> present = transaction.GetBackup(backup.id);
      if (!present.has_value() || *present != backup) return Unchanged(present);
      Note("backup", backup.id, BackupStatusName(backup.status));
      present->status = *stable;
      present->restoring_to.clear();
      return transaction.Put(*present);
    });
  }

  Result<void> Check(const AttachmentRecord& attachment) {
    const bool attaching = attachment.status == AttachStatus::kAttaching;
    if (!attaching && attachment.status != AttachStatus::kDetaching) return {};
    if (attaching && attachment.lease_until_us > world_.catalog.NowUs()) return {};
    bool connected = attaching && world_.exports.IsConnected(attachment.id);
    if (attaching && !connected && world_.serving != nullptr) {
      ASSIGN_OR_RETURN(connected, world_.serving->IsServed(attachment));
    }
    return jobs_.Submit(Lane::kDetach, [&](Transaction& transaction) -> Result<void> {
      Result<AttachmentRecord> present = transaction.GetAttachment(attachment.id);
      if (!present.has_value() || *present != attachment) return Unchanged(present);
      if (connected) {
        present->lease_until_us = world_.catalog.NowUs() + attach_lease_ms_ * 1000;
        return transaction.Put(*present);
      }
      Note("attachment", attachment.id, AttachStatusName(attachment.status));
      if (attaching) return BeginDetach(transaction, *present);
      return Jobs::Add(transaction, {Op::kDetach, attachment.project_id, attachment.id, ""});
    });
  }

  // Gone or changed meanwhile: nothing to do.
  template <typename Record>
  static Result<void> Unchanged(const Result<Record>& present) {
    if (present.has_value() || present.error().code() == Code::kNotFound) return {};
    return present.error();
  }

  void Note(std::string_view what, std::string_view id, std::string_view status) {
    ++report_.settled;
    LOG(kWarn, "blockd", "{} {} was {} with nothing behind it: it is put right", what, id, status);
  }

  const World& world_;
  Jobs& jobs_;
  const int64_t attach_lease_ms_;
  ReconcileReport report_;
};

Result<void> PublishAgain(const World& world, ReconcileReport* report) {
  ASSIGN_OR_RETURN(const auto attachments, world.catalog.ListAttachments(Everything()));
  for (const AttachmentRecord& attachment : attachments) {
    const bool open = attachment.status == AttachStatus::kAttaching ||
                      attachment.status == AttachStatus::kAttached;
    if (!open || attachment.secret.empty()) continue;
    const Result<VolumeRecord> volume = world.catalog.GetVolume(attachment.volume_id);
    if (!volume.has_value()) continue;
    const auto published = PublishAttachment(*volume, attachment, world.types, world.exports);
    if (published.has_value()) {
      ++report->published;
    } else {
      LOG(kError, "blockd", "the export of attachment {} is not there again: {}", attachment.id,
          published.error().ToString());
    }
  }
  return {};
}

// What other processes were told, and changed in their own exports alone.
Result<void> FollowOthers(const World& world) {
  RETURN_IF_ERROR(WithdrawGone(world.catalog, world.exports));
  RETURN_IF_ERROR(ApplyAllProjectQos(world.catalog, world.exports));
  for (const std::string& id : world.exports.Published()) {
    const Result<AttachmentRecord> attachment = world.catalog.GetAttachment(id);
    if (!attachment.has_value()) continue;
    const Result<VolumeRecord> volume = world.catalog.GetVolume(attachment->volume_id);
    if (!volume.has_value()) continue;
    ASSIGN_OR_RETURN(const TypeFacts type, world.types.Find(volume->type_id));
    RETURN_IF_ERROR(world.exports.SetLimits(volume->id, volume->size_gb, type.qos));
  }
  return {};
}

// Jobs remove what they made for a record that went meanwhile, so there is nothing like this; if
// there is, records were lost, and then the bytes are the last thing to take away.
Result<void> CountUnnamed(const World& world, ReconcileReport* report) {
  ASSIGN_OR_RETURN(const auto volumes, world.store.Volumes());
  for (const VolumeInfo& info : volumes) {
    const auto record = world.catalog.GetVolume(info.id);
    if (record.has_value() || record.error().code() != Code::kNotFound) continue;
    LOG(kWarn, "blockd", "volume {} of the store has no record: it is left alone", info.id);
    ++report->unnamed;
  }
  return {};
}

}  // namespace

Result<ReconcileReport> Reconcile(const World& world, Jobs& jobs, int64_t attach_lease_ms) {
  if (world.serving != nullptr) RETURN_IF_ERROR(FollowOthers(world));
  return Pass(world, jobs, attach_lease_ms).Run();
}

Result<ReconcileReport> ReconcileAtStart(const World& world, Jobs& jobs) {
  if (world.serving == nullptr) RETURN_IF_ERROR(world.catalog.journal().BreakLeases());
  RETURN_IF_ERROR(jobs.Measure());
  RETURN_IF_ERROR(ApplyAllProjectQos(world.catalog, world.exports));
  ReconcileReport start;
  RETURN_IF_ERROR(PublishAgain(world, &start));
  RETURN_IF_ERROR(CountUnnamed(world, &start));
  ASSIGN_OR_RETURN(ReconcileReport report, Reconcile(world, jobs, kStartLeaseMs));
  report.published = start.published;
  report.unnamed = start.unnamed;
  return report;
}

}  // namespace blockd
