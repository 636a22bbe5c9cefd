#include "blockd/step_tools.h"

// What jobs of backups do; as in job_steps.cc, every step stands being done twice. The bytes go by
// way of a snapshot, sealed into the chunk store, which is taken at once: what is written while the
// backup waits and is copied is not in it, and disturbs nobody.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::jobs::Outcome;
using World = Jobs::World;

// Of the volumes' store; the client's snapshots have other ids.
std::string SnapshotOf(const std::string& backup_id) { return "backup-" + backup_id; }

Error NoService() {
  return Error(Code::kInvalidArgument, "there is no store for backups: set block.backup-dir");
}

// Changes the backup if it still is in `from`; true if so.
using BackupChange = std::function<Result<void>(Transaction&, BackupRecord&)>;
Result<bool> ChangeBackupIn(const World& world, const std::string& id, BackupStatus from,
                            const BackupChange& change) {
  bool changed = false;
  RETURN_IF_ERROR(world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    changed = false;
    Result<void> failed;
    std::optional<BackupRecord> backup = IfThere(transaction.GetBackup(id), &failed);
    RETURN_IF_ERROR(failed);
    if (!backup.has_value() || backup->status != from) return {};
    RETURN_IF_ERROR(change(transaction, *backup));
    changed = true;
    return transaction.Put(*backup);
  }));
  return changed;
}

// The volume is as it was before somebody began to back it up.
Result<void> LetGoOfVolume(Transaction& transaction, const std::string& id) {
  Result<void> failed;
  std::optional<VolumeRecord> volume = IfThere(transaction.GetVolume(id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value() || volume->status != VolumeStatus::kBackingUp) return {};
  volume->status = volume->previous_status;
  return transaction.Put(*volume);
}

// What is there of a backup that is not to be.
Result<void> TakeBackupAway(const World& world, const std::string& id) {
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(SnapshotOf(id))));
  return world.backups == nullptr ? Result<void>() : world.backups->Remove(id);
}

Result<Outcome> GiveUpBackup(const World& world, const JobSpec& spec, const Error& error,
                             BackupStatus from, BackupStatus to) {
  LogGivenUp(spec, error);
  RETURN_IF_ERROR(
      ChangeBackupIn(world, spec.id, from, [&](Transaction& transaction, BackupRecord& backup) {
        backup.status = to;
        backup.fail_reason = GivenUpText(spec.op, error.code());
        // Only this one works on the volume itself.
        const bool has_volume = spec.op == Op::kSnapshotForBackup;
        const Result<void> let_go =
            has_volume ? LetGoOfVolume(transaction, backup.volume_id) : Result<void>();
        return let_go.has_value() ? TellGivenUp(world, transaction, spec, error) : let_go;
      }));
  return kDone;
}

}  // namespace

Result<Outcome> SnapshotForBackup(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto backup = IfThere(world.catalog.GetBackup(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  const bool wanted = backup.has_value() && backup->status == BackupStatus::kCreating;
  if (wanted && backup->data_timestamp_us != 0) return kDone;  // done before
  if (wanted) {
    const Result<void> taken =
        Unless(Code::kAlreadyExists, world.store.Snapshot(spec.argument, SnapshotOf(spec.id)));
    if (!taken.has_value()) {
      if (ComesTooFast(world, taken.error(), backup->created_at_us))
        return Outcome{false, kSnapshotPollMs};
      if (attempt.MayTryAgain(taken.error())) return taken.error();
      return GiveUpBackup(world, spec, taken.error(), BackupStatus::kCreating,
                          BackupStatus::kError);
    }
    ASSIGN_OR_RETURN(
        const bool goes_on,
        ChangeBackupIn(world, spec.id, BackupStatus::kCreating,
                       [&](Transaction& transaction, BackupRecord& record) -> Result<void> {
                         record.data_timestamp_us = world.catalog.NowUs();
                         RETURN_IF_ERROR(LetGoOfVolume(transaction, spec.argument));
                         JobSpec next = spec;
                         next.op = Op::kCreateBackup;
                         return Jobs::Add(transaction, next);
                       }));
    if (goes_on) return kDone;
  }
  // It was deleted meanwhile.
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(SnapshotOf(spec.id))));
  return kDone;
}

namespace {

// The record as it is kept beside the bytes.
Result<BackupRecord> Copy(const World& world, const BackupRecord& backup,
                          const Result<std::string>& holder, const Attempt& attempt) {
  if (!holder.has_value()) return holder.error();
  if (world.backups == nullptr) return NoService();
  RETURN_IF_ERROR(
      world.backups->Save(backup, *holder, [&] { return attempt.control.cancelled(); }));
  return world.backups->Find(backup.id);
}

// True: it is to be; false: it was deleted while it was made.
Result<bool> EndBackup(const World& world, const JobSpec& spec, const BackupRecord& kept) {
  ASSIGN_OR_RETURN(const bool available,
                   ChangeBackupIn(world, spec.id, BackupStatus::kCreating,
                                  [&](Transaction&, BackupRecord& record) -> Result<void> {
                                    record.status = BackupStatus::kAvailable;
                                    record.object_count = kept.object_count;
                                    return {};
                                  }));
  if (available) return true;
  Result<void> failed;
  const auto now = IfThere(world.catalog.GetBackup(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  return now.has_value() && now->status != BackupStatus::kDeleting;
}

}  // namespace

Result<Outcome> CreateBackup(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto backup = IfThere(world.catalog.GetBackup(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  bool is_wanted = backup.has_value();
  std::optional<Error> error;
  if (is_wanted && backup->status == BackupStatus::kCreating) {
    const bool of_volume = backup->snapshot_id.empty();
    const Result<std::string> holder =
        world.store.SnapshotHolder(of_volume ? SnapshotOf(spec.id) : backup->snapshot_id);
    if (!holder.has_value() && holder.error().code() == Code::kUnavailable)
      return Outcome{false, kSealPollMs};
    const Result<BackupRecord> kept = Copy(world, *backup, holder, attempt);
    if (!kept.has_value()) {
      if (attempt.MayTryAgain(kept.error())) return kept.error();
      error = kept.error();
    } else {
      ASSIGN_OR_RETURN(is_wanted, EndBackup(world, spec, *kept));
    }
  }
  // Whoever deletes it may have been at the stores before us.
  if (!is_wanted) RETURN_IF_ERROR(TakeBackupAway(world, spec.id));
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(SnapshotOf(spec.id))));
  if (!error.has_value()) return kDone;
  return GiveUpBackup(world, spec, *error, BackupStatus::kCreating, BackupStatus::kError);
}

Result<Outcome> DeleteBackup(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto backup = IfThere(world.catalog.GetBackup(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!backup.has_value() || backup->status != BackupStatus::kDeleting) return kDone;
  const Result<void> gone = world.backups == nullptr ? NoService() : TakeBackupAway(world, spec.id);
  if (!gone.has_value()) {
    if (attempt.MayTryAgain(gone.error())) return gone.error();
    return GiveUpBackup(world, spec, gone.error(), BackupStatus::kDeleting,
                        BackupStatus::kErrorDeleting);
  }
  RETURN_IF_ERROR(world.catalog.Transact(
      [&](Transaction& transaction) { return transaction.Remove(*backup); }));
  return kDone;
}

namespace {

bool Awaits(const VolumeRecord& volume) {
  return volume.status == VolumeStatus::kRestoringBackup ||
         (volume.status == VolumeStatus::kCreating && volume.source_kind == SourceKind::kBackup);
}

// What is made is made beside the volume, and takes its place in one step at the end: so a restore
// that fails leaves a volume that was there as it was.
Result<void> Restore(const World& world, const JobSpec& spec, const VolumeRecord& volume,
                     const Attempt& attempt) {
  if (world.backups == nullptr) return NoService();
  ASSIGN_OR_RETURN(const std::string holder, world.backups->Fetch(spec.argument, spec.id, [&] {
    return attempt.control.cancelled();
  }));
  if (volume.status == VolumeStatus::kRestoringBackup) return world.store.Refill(spec.id, holder);
  const NewVolume wanted = {spec.id,
                            volume.size_gb * base::kGiB,
                            volume.thick,
                            {VolumeSource::Kind::kContent, holder},
                            volume.back_end};
  return Unless(Code::kAlreadyExists, world.store.Create(wanted));
}

// The volume is what became of it, and its backup may be restored or deleted again.
Result<void> EndRestore(const World& world, const JobSpec& spec, const Error* error) {
  return world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    Result<void> failed;
    std::optional<BackupRecord> backup = IfThere(transaction.GetBackup(spec.argument), &failed);
    RETURN_IF_ERROR(failed);
    if (backup.has_value() && backup->status == BackupStatus::kRestoring &&
        backup->restoring_to == spec.id) {
      backup->status = BackupStatus::kAvailable;
      backup->restoring_to.clear();
      RETURN_IF_ERROR(transaction.Put(*backup));
    }
    std::optional<VolumeRecord> volume = IfThere(transaction.GetVolume(spec.id), &failed);
    RETURN_IF_ERROR(failed);
    if (!volume.has_value() || !Awaits(*volume)) return {};
    const bool was_there = volume->status == VolumeStatus::kRestoringBackup;
    volume->status = VolumeStatus::kAvailable;
    if (error != nullptr) {
      volume->status = was_there ? VolumeStatus::kErrorRestoring : VolumeStatus::kError;
      RETURN_IF_ERROR(TellGivenUp(world, transaction, spec, *error));
    } else if (was_there && backup.has_value()) {
      volume->bootable = backup->bootable;
      volume->metadata = backup->volume_metadata;
      volume->image_metadata = backup->image_metadata;
    }
    return transaction.Put(*volume);
  });
}

}  // namespace

Result<Outcome> RestoreBackup(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (volume.has_value() && Awaits(*volume)) {
    ASSIGN_OR_RETURN(const bool waits, IsStillToBeCopied(world, *volume));
    if (waits) return Outcome{false, kSourcePollMs};
    const Result<void> restored = Restore(world, spec, *volume, attempt);
    if (!restored.has_value() && attempt.MayTryAgain(restored.error())) return restored.error();
    if (!restored.has_value()) LogGivenUp(spec, restored.error());
    RETURN_IF_ERROR(EndRestore(world, spec, restored.has_value() ? nullptr : &restored.error()));
  } else {
    RETURN_IF_ERROR(EndRestore(world, spec, nullptr));
  }
  const auto now = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  // It was deleted while it was made. Whoever deletes it may have been at the store before us.
  if (!now.has_value() || now->status == VolumeStatus::kDeleting)
    RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.Remove(spec.id)));
  if (world.backups != nullptr) RETURN_IF_ERROR(world.backups->DropFetched(spec.id));
  return kDone;
}

}  // namespace blockd
