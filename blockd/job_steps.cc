#include "blockd/attach.h"
#include "blockd/step_tools.h"

// The operations. Each reads the record, does nothing unless the status still announces this very
// work, then does the work in the store (where "it is so already" is success), then commits the new
// status. So whatever step a crash or a second worker cuts in at, doing it again ends in the same
// state.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;
using chunkstore::jobs::Outcome;
using World = Jobs::World;

constexpr int64_t kImagePollMs = 200;

Result<bool> SetVolumeStatus(Catalog& catalog, const std::string& id, VolumeStatus from,
                             VolumeStatus to) {
  return ChangeVolumeIn(catalog, id, from,
                        [to](Transaction&, VolumeRecord& volume) -> Result<void> {
                          volume.status = to;
                          return {};
                        });
}

// The status that the work was for is not to be: `to` is, and the project is told why.
Result<Outcome> GiveUpVolume(const World& world, const JobSpec& spec, const Error& error,
                             VolumeStatus from, VolumeStatus to) {
  LogGivenUp(spec, error);
  RETURN_IF_ERROR(ChangeVolumeIn(world.catalog, spec.id, from,
                                 [&](Transaction& transaction, VolumeRecord& volume) {
                                   volume.status = to;
                                   return TellGivenUp(world, transaction, spec, error);
                                 }));
  return kDone;
}

// With an `error`: told with it.
Result<bool> SetSnapshotStatus(const World& world, const JobSpec& spec, SnapshotStatus from,
                               SnapshotStatus to, const Error* error = nullptr) {
  bool changed = false;
  RETURN_IF_ERROR(world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    changed = false;
    Result<void> failed;
    std::optional<SnapshotRecord> snapshot = IfThere(transaction.GetSnapshot(spec.id), &failed);
    RETURN_IF_ERROR(failed);
    if (!snapshot.has_value() || snapshot->status != from) return {};
    if (error != nullptr) RETURN_IF_ERROR(TellGivenUp(world, transaction, spec, *error));
    snapshot->status = to;
    snapshot->progress_percent = to == SnapshotStatus::kAvailable ? 100 : 0;
    changed = true;
    return transaction.Put(*snapshot);
  }));
  return changed;
}

// Nobody serves the attachment, which was withdrawn here, any more.
Result<bool> HasEnded(const World& world, const AttachmentRecord& attachment) {
  if (world.serving == nullptr) return true;
  return world.serving->HasEnded(attachment);
}

// What became of the last commit of a creation. Nothing also where the job was taken over
// meanwhile: then, too, what was made may be nobody's.
Result<bool> IfStillHeld(Result<bool> changed) {
  if (!changed.has_value() && changed.error().code() == Code::kCancelled) return false;
  return changed;
}

// What the image service says while it converts or takes over: no failure, however often.
template <typename Value>
bool IsOnItsWay(const Result<Value>& answer) {
  return !answer.has_value() && answer.error().code() == Code::kUnavailable;
}

Result<VolumeSource> SourceOf(const World& world, const VolumeRecord& volume) {
  switch (volume.source_kind) {
    case SourceKind::kImage: {
      ASSIGN_OR_RETURN(std::string holder, world.images.RawHolder(volume.source_id));
      return VolumeSource{VolumeSource::Kind::kContent, std::move(holder)};
    }
    case SourceKind::kSnapshot:
      return VolumeSource{VolumeSource::Kind::kSnapshot, volume.source_id};
    case SourceKind::kVolume:
      return VolumeSource{VolumeSource::Kind::kVolume, volume.source_id};
    case SourceKind::kBackup:
      return Error(Code::kInvalidArgument, "a volume of a backup is made by restore-backup");
    case SourceKind::kNothing:
      break;
  }
  return VolumeSource();
}

Result<void> MakeVolume(const World& world, const VolumeRecord& volume, VolumeSource source) {
  const NewVolume wanted = {volume.id, volume.size_gb * base::kGiB, volume.thick, std::move(source),
                            volume.back_end};
  return Unless(Code::kAlreadyExists, world.store.Create(wanted));
}

// A snapshot of another back end is on its way into the chunk store: no failure, however often.
bool IsBeingSealed(const VolumeRecord& volume, const Result<void>& made) {
  return volume.source_kind == SourceKind::kSnapshot && !made.has_value() &&
         made.error().code() == Code::kUnavailable;
}

Result<Outcome> CreateVolume(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value()) {
    // A forced delete went past us, and a crash kept us from clearing up.
    RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.Remove(spec.id)));
    return kDone;
  }
  if (volume->status != VolumeStatus::kCreating) return kDone;
  ASSIGN_OR_RETURN(const TypeFacts type, world.types.Find(volume->type_id));
  if (!type.unfit.empty()) {
    const Error elsewhere(Code::kInvalidArgument, "the extra spec " + type.unfit + " of type " +
                                                      type.name + " asks for another back end");
    return GiveUpVolume(world, spec, elsewhere, VolumeStatus::kCreating, VolumeStatus::kError);
  }
  Result<VolumeSource> source = SourceOf(world, *volume);
  if (IsOnItsWay(source)) return Outcome{false, kImagePollMs};
  const Result<void> made = source.has_value() ? MakeVolume(world, *volume, *std::move(source))
                                               : Result<void>(source.error());
  if (IsBeingSealed(*volume, made)) return Outcome{false, kSealPollMs};
  if (!made.has_value()) {
    if (attempt.MayTryAgain(made.error())) return made.error();
    return GiveUpVolume(world, spec, made.error(), VolumeStatus::kCreating, VolumeStatus::kError);
  }
  ASSIGN_OR_RETURN(const bool available,
                   IfStillHeld(SetVolumeStatus(world.catalog, spec.id, VolumeStatus::kCreating,
                                               VolumeStatus::kAvailable)));
  if (available) return kDone;
  // It was deleted while it was made. Whoever deletes it may have been at the store before us.
  const auto now = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (now.has_value() && now->status != VolumeStatus::kDeleting) return kDone;
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.Remove(spec.id)));
  return kDone;
}

// Of a volume that goes. kUnavailable while another process serves it.
Result<void> RemoveAttachment(const World& world, const std::string& id) {
  Result<void> failed;
  std::optional<AttachmentRecord> attachment;
  // From here on no process begins to serve it.
  RETURN_IF_ERROR(world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    attachment = IfThere(transaction.GetAttachment(id), &failed);
    if (!attachment.has_value()) return failed;
    if (attachment->status == AttachStatus::kDetaching) return {};
    attachment->status = AttachStatus::kDetaching;
    Serving::AskToEnd(transaction, *attachment);
    return transaction.Put(*attachment);
  }));
  RETURN_IF_ERROR(world.exports.Withdraw(id));
  if (!attachment.has_value()) return {};
  ASSIGN_OR_RETURN(const bool ended, HasEnded(world, *attachment));
  if (!ended) return Error(Code::kUnavailable, "attachment " + id + " is served elsewhere");
  return world.catalog.Transact(
      [&](Transaction& transaction) { return transaction.Remove(*attachment); });
}

// What stands on a volume that goes: a cascade's snapshots, a forced delete's attachments.
Result<void> RemoveWhatStandsOn(const World& world, const VolumeRecord& volume) {
  ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> snapshots,
                   world.catalog.SnapshotsOf(volume.id));
  for (const SnapshotRecord& snapshot : snapshots) {
    RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(snapshot.id)));
    RETURN_IF_ERROR(world.catalog.Transact(
        [&](Transaction& transaction) { return transaction.Remove(snapshot); }));
  }
  for (const std::string& id : volume.attachment_ids) RETURN_IF_ERROR(RemoveAttachment(world, id));
  return {};
}

Result<void> TakeVolumeAway(const World& world, const VolumeRecord& volume) {
  RETURN_IF_ERROR(RemoveWhatStandsOn(world, volume));
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.Remove(volume.id)));
  return world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    Result<void> failed;
    const auto present = IfThere(transaction.GetVolume(volume.id), &failed);
    RETURN_IF_ERROR(failed);
    if (!present.has_value() || present->status != VolumeStatus::kDeleting) return {};
    if (present->snapshots > 0 || !present->attachment_ids.empty())
      return Error(Code::kUnavailable, "something new stands on volume " + volume.id);
    return transaction.Remove(*present);
  });
}

Result<Outcome> DeleteVolume(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value() || volume->status != VolumeStatus::kDeleting) return kDone;
  const Result<void> gone = TakeVolumeAway(world, *volume);
  if (gone.has_value()) return kDone;
  if (attempt.MayTryAgain(gone.error())) return gone.error();
  return GiveUpVolume(world, spec, gone.error(), VolumeStatus::kDeleting,
                      VolumeStatus::kErrorDeleting);
}

Result<void> Grow(const World& world, const VolumeRecord& volume) {
  const uint64_t wanted_bytes = volume.reserved_size_gb * base::kGiB;
  ASSIGN_OR_RETURN(const VolumeInfo info, world.store.FindVolume(volume.id));
  if (info.size_bytes < wanted_bytes) RETURN_IF_ERROR(world.store.Resize(volume.id, wanted_bytes));
  ASSIGN_OR_RETURN(const TypeFacts type, world.types.Find(volume.type_id));
  return world.exports.SetLimits(volume.id, volume.reserved_size_gb, type.qos);
}

Result<Outcome> Extend(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  // Whatever an administrator says meanwhile that the status is: what the store has, what the
  // record says and what counts against the quota are to be one.
  if (!volume.has_value() || volume->reserved_size_gb == 0) return kDone;
  if (volume->status == VolumeStatus::kDeleting) return kDone;
  ASSIGN_OR_RETURN(const bool waits, IsStillToBeCopied(world, *volume));
  if (waits) return Outcome{false, kSourcePollMs};
  const Result<void> grown = Grow(world, *volume);
  if (!grown.has_value() && attempt.MayTryAgain(grown.error())) return grown.error();
  if (!grown.has_value()) LogGivenUp(spec, grown.error());
  const auto end = [&](Transaction& transaction, VolumeRecord& record) -> Result<void> {
    if (record.reserved_size_gb != volume->reserved_size_gb) return {};
    if (grown.has_value()) record.size_gb = record.reserved_size_gb;
    record.reserved_size_gb = 0;
    if (record.status != VolumeStatus::kExtending) return {};
    record.status = grown.has_value() ? record.previous_status : VolumeStatus::kErrorExtending;
    if (grown.has_value()) return {};
    return TellGivenUp(world, transaction, spec, grown.error());
  };
  RETURN_IF_ERROR(world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    std::optional<VolumeRecord> record = IfThere(transaction.GetVolume(spec.id), &failed);
    RETURN_IF_ERROR(failed);
    if (!record.has_value()) return {};
    RETURN_IF_ERROR(end(transaction, *record));
    return transaction.Put(*record);
  }));
  return kDone;
}

Result<Outcome> Revert(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value() || volume->status != VolumeStatus::kReverting) return kDone;
  ASSIGN_OR_RETURN(const bool waits, IsStillToBeCopied(world, *volume));
  if (waits) return Outcome{false, kSourcePollMs};
  const Result<void> reverted = world.store.Revert(spec.id, spec.argument);
  if (!reverted.has_value()) {
    if (attempt.MayTryAgain(reverted.error())) return reverted.error();
    return GiveUpVolume(world, spec, reverted.error(), VolumeStatus::kReverting,
                        VolumeStatus::kError);
  }
  RETURN_IF_ERROR(
      SetVolumeStatus(world.catalog, spec.id, VolumeStatus::kReverting, VolumeStatus::kAvailable));
  return kDone;
}

// The volume becomes the image. Nobody has it open: it was available.
Result<Outcome> Reimage(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value() || volume->status != VolumeStatus::kDownloading) return kDone;
  ASSIGN_OR_RETURN(const bool waits, IsStillToBeCopied(world, *volume));
  if (waits) return Outcome{false, kSourcePollMs};
  const Result<std::string> holder = world.images.RawHolder(spec.argument);
  if (IsOnItsWay(holder)) return Outcome{false, kImagePollMs};
  const Result<void> made =
      holder.has_value() ? world.store.Refill(spec.id, *holder) : Result<void>(holder.error());
  if (!made.has_value()) {
    if (attempt.MayTryAgain(made.error())) return made.error();
    return GiveUpVolume(world, spec, made.error(), VolumeStatus::kDownloading,
                        VolumeStatus::kError);
  }
  RETURN_IF_ERROR(ChangeVolumeIn(world.catalog, spec.id, VolumeStatus::kDownloading,
                                 [](Transaction&, VolumeRecord& record) -> Result<void> {
                                   record.status = record.previous_status;
                                   return {};
                                 }));
  return kDone;
}

// By way of a snapshot, which is sealed into the chunk store; its root is the image.
Result<Outcome> UploadImage(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  const std::string snapshot_id = "upload-" + spec.argument;
  Result<void> filled;
  if (volume.has_value() && volume->status == VolumeStatus::kUploading) {
    filled = Unless(Code::kAlreadyExists, world.store.Snapshot(spec.id, snapshot_id));
    if (filled.has_value()) {
      const Result<std::string> holder = world.store.SnapshotHolder(snapshot_id);
      if (holder.has_value()) {
        filled = world.images.Fill({spec.argument, *holder});
        if (IsOnItsWay(filled)) return Outcome{false, kImagePollMs};
      } else if (holder.error().code() == Code::kUnavailable) {
        return Outcome{false, kSealPollMs};
      } else {
        filled = holder.error();
      }
    }
    if (!filled.has_value() && attempt.MayTryAgain(filled.error())) return filled.error();
    if (!filled.has_value()) {
      LogGivenUp(spec, filled.error());
      RETURN_IF_ERROR(world.catalog.CheckHeld());
      RETURN_IF_ERROR(Unless(Code::kNotFound, world.images.Abandon(spec.argument)));
    }
    RETURN_IF_ERROR(
        ChangeVolumeIn(world.catalog, spec.id, VolumeStatus::kUploading,
                       [&](Transaction& transaction, VolumeRecord& record) -> Result<void> {
                         record.status = record.previous_status;
                         if (filled.has_value()) return {};
                         return TellGivenUp(world, transaction, spec, filled.error());
                       }));
  } else if (!volume.has_value()) {
    RETURN_IF_ERROR(Unless(Code::kNotFound, world.images.Abandon(spec.argument)));
  }
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(snapshot_id)));
  return kDone;
}

// The volume is moved, and is of the new type then.
Result<Outcome> Retype(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto volume = IfThere(world.catalog.GetVolume(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!volume.has_value() || volume->status != VolumeStatus::kRetyping) return kDone;
  ASSIGN_OR_RETURN(const bool waits, IsStillToBeCopied(world, *volume));
  if (waits) return Outcome{false, kSourcePollMs};
  const Result<TypeFacts> type = world.types.Find(spec.argument);
  RETURN_IF_ERROR(world.catalog.CheckHeld());
  Result<void> moved;
  if (!type.has_value()) {
    moved = type.error();
  } else {
    moved = world.back_ends->Move(
        {volume->id, volume->size_gb * base::kGiB, type->thick, {}, type->back_end});
  }
  if (!moved.has_value()) {
    if (moved.error().code() == Code::kUnavailable) return Outcome{false, kSealPollMs};
    if (attempt.MayTryAgain(moved.error())) return moved.error();
    RETURN_IF_ERROR(world.catalog.CheckHeld());
    RETURN_IF_ERROR(world.back_ends->GiveUpMove(volume->id));
    return GiveUpVolume(world, spec, moved.error(), VolumeStatus::kRetyping,
                        volume->previous_status);
  }
  RETURN_IF_ERROR(ChangeVolumeIn(world.catalog, spec.id, VolumeStatus::kRetyping,
                                 [&](Transaction&, VolumeRecord& record) -> Result<void> {
                                   record.status = record.previous_status;
                                   record.type_id = type->id;
                                   record.back_end = type->back_end;
                                   record.thick = type->thick;
                                   record.multi_attach = type->multi_attach;
                                   return {};
                                 }));
  RETURN_IF_ERROR(world.exports.SetLimits(volume->id, volume->size_gb, type->qos));
  return kDone;
}

Result<Outcome> CreateSnapshot(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto snapshot = IfThere(world.catalog.GetSnapshot(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!snapshot.has_value()) {
    RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(spec.id)));
    return kDone;
  }
  if (snapshot->status != SnapshotStatus::kCreating) return kDone;
  const Result<void> taken =
      Unless(Code::kAlreadyExists, world.store.Snapshot(snapshot->volume_id, spec.id));
  if (!taken.has_value()) {
    if (ComesTooFast(world, taken.error(), snapshot->created_at_us))
      return Outcome{false, kSnapshotPollMs};
    if (attempt.MayTryAgain(taken.error())) return taken.error();
    LogGivenUp(spec, taken.error());
    RETURN_IF_ERROR(SetSnapshotStatus(world, spec, SnapshotStatus::kCreating,
                                      SnapshotStatus::kError, &taken.error()));
    return kDone;
  }
  ASSIGN_OR_RETURN(const bool available,
                   IfStillHeld(SetSnapshotStatus(world, spec, SnapshotStatus::kCreating,
                                                 SnapshotStatus::kAvailable)));
  if (available) return kDone;
  const auto now = IfThere(world.catalog.GetSnapshot(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (now.has_value() && now->status != SnapshotStatus::kDeleting) return kDone;
  RETURN_IF_ERROR(Unless(Code::kNotFound, world.store.RemoveSnapshot(spec.id)));
  return kDone;
}

Result<Outcome> DeleteSnapshot(const World& world, const JobSpec& spec, const Attempt& attempt) {
  Result<void> failed;
  const auto snapshot = IfThere(world.catalog.GetSnapshot(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!snapshot.has_value() || snapshot->status != SnapshotStatus::kDeleting) return kDone;
  const Result<void> gone = Unless(Code::kNotFound, world.store.RemoveSnapshot(spec.id));
  if (!gone.has_value()) {
    if (attempt.MayTryAgain(gone.error())) return gone.error();
    LogGivenUp(spec, gone.error());
    RETURN_IF_ERROR(SetSnapshotStatus(world, spec, SnapshotStatus::kDeleting,
                                      SnapshotStatus::kErrorDeleting, &gone.error()));
    return kDone;
  }
  RETURN_IF_ERROR(world.catalog.Transact(
      [&](Transaction& transaction) { return transaction.Remove(*snapshot); }));
  return kDone;
}

// Never given up: while the export stands, nobody else may have the volume.
Result<Outcome> Detach(const World& world, const JobSpec& spec) {
  Result<void> failed;
  const auto attachment = IfThere(world.catalog.GetAttachment(spec.id), &failed);
  RETURN_IF_ERROR(failed);
  if (!attachment.has_value() || attachment->status != AttachStatus::kDetaching) return kDone;
  RETURN_IF_ERROR(world.exports.Withdraw(spec.id));
  ASSIGN_OR_RETURN(const bool ended, HasEnded(world, *attachment));
  if (!ended) return Outcome{false, kServedPollMs};
  RETURN_IF_ERROR(world.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    RETURN_IF_ERROR(transaction.Remove(*attachment));
    return SettleVolumeStatus(transaction, attachment->volume_id);
  }));
  return kDone;
}

}  // namespace

Result<Outcome> RunStep(const World& world, const JobSpec& spec, const Attempt& attempt) {
  switch (spec.op) {
    case Op::kCreateVolume:
      return CreateVolume(world, spec, attempt);
    case Op::kDeleteVolume:
      return DeleteVolume(world, spec, attempt);
    case Op::kExtend:
      return Extend(world, spec, attempt);
    case Op::kRevert:
      return Revert(world, spec, attempt);
    case Op::kReimage:
      return Reimage(world, spec, attempt);
    case Op::kUploadImage:
      return UploadImage(world, spec, attempt);
    case Op::kCreateSnapshot:
      return CreateSnapshot(world, spec, attempt);
    case Op::kDeleteSnapshot:
      return DeleteSnapshot(world, spec, attempt);
    case Op::kSnapshotForBackup:
      return SnapshotForBackup(world, spec, attempt);
    case Op::kCreateBackup:
      return CreateBackup(world, spec, attempt);
    case Op::kDeleteBackup:
      return DeleteBackup(world, spec, attempt);
    case Op::kRestoreBackup:
      return RestoreBackup(world, spec, attempt);
    case Op::kRetype:
      return Retype(world, spec, attempt);
    case Op::kDetach:
      break;
  }
  return Detach(world, spec);
}

}  // namespace blockd
