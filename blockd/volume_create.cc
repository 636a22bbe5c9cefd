#include "blockd/volume_create.h"

#include <optional>
#include <utility>

#include "base/uuid.h"
#include "blockd/api/body.h"
#include "blockd/backups.h"
#include "blockd/handler_tools.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr int kBackups = 47;

// What a request says, before anything is looked up.
struct Wanted {
  std::optional<uint64_t> size_gb;
  SourceKind source = SourceKind::kNothing;
  std::string source_id;
  std::string type;  // id or name
};

Result<void> TakeSource(const JsonObject& body, std::string_view member, SourceKind kind,
                        Wanted* wanted) {
  ASSIGN_OR_RETURN(const auto id, api::OptionalText(body, member, api::kMaxIdCharacters));
  if (!id.has_value() || id->empty()) return {};
  if (wanted->source != SourceKind::kNothing)
    return InvalidInput(
        "a volume is made of one of snapshot_id, source_volid, imageRef and backup_id");
  wanted->source = kind;
  wanted->source_id = *id;
  return {};
}

Result<Wanted> ParseWanted(const JsonObject& body) {
  Wanted wanted;
  RETURN_IF_ERROR(TakeSource(body, "snapshot_id", SourceKind::kSnapshot, &wanted));
  RETURN_IF_ERROR(TakeSource(body, "source_volid", SourceKind::kVolume, &wanted));
  RETURN_IF_ERROR(TakeSource(body, "imageRef", SourceKind::kImage, &wanted));
  RETURN_IF_ERROR(TakeSource(body, "backup_id", SourceKind::kBackup, &wanted));
  ASSIGN_OR_RETURN(const auto size,
                   api::OptionalInt(body, "size", 1, static_cast<int64_t>(kMaxVolumeGb)));
  if (size.has_value()) wanted.size_gb = static_cast<uint64_t>(*size);
  ASSIGN_OR_RETURN(const auto type,
                   api::OptionalText(body, "volume_type", api::kMaxNameCharacters));
  wanted.type = type.value_or("");
  const bool has_own_size = wanted.source == SourceKind::kSnapshot ||
                            wanted.source == SourceKind::kVolume ||
                            wanted.source == SourceKind::kBackup;
  if (!wanted.size_gb.has_value() && !has_own_size)
    return Error(Code::kInvalidArgument,
                 "The server could not comply with the request since it is either malformed or "
                 "otherwise incorrect.");
  return wanted;
}

Result<std::string> ZoneOf(const Context& context, const JsonObject& body) {
  ASSIGN_OR_RETURN(const auto zone,
                   api::OptionalText(body, "availability_zone", api::kMaxNameCharacters));
  if (!zone.has_value() || zone->empty() || *zone == context.options.availability_zone)
    return context.options.availability_zone;
  return InvalidInput("Availability zone '" + *zone + "' is invalid.");
}

// The source as it is now; within the transaction that makes the volume.
struct Origin {
  uint64_t size_gb = 0;
  std::string type_id;
  std::string back_end;  // of a volume
  bool bootable = false;
  Metadata metadata;  // of a backup only: a copy of a volume has its own
  Metadata image_metadata;
};
Result<Origin> OriginOf(Transaction& transaction, const api::Call& call, const Wanted& wanted) {
  std::string volume_id = wanted.source_id;
  Origin origin;
  if (wanted.source == SourceKind::kSnapshot) {
    Result<SnapshotRecord> snapshot = transaction.GetSnapshot(wanted.source_id);
    if (!snapshot.has_value()) return snapshot.error();
    if (!MaySee(call.caller, snapshot->project_id))
      return Error(Code::kNotFound, "Snapshot " + wanted.source_id + " could not be found.");
    if (snapshot->status != SnapshotStatus::kAvailable)
      return InvalidSnapshot("Originating snapshot status must be one of 'available' values");
    origin.size_gb = snapshot->size_gb;
    origin.type_id = snapshot->type_id;
    volume_id = snapshot->volume_id;
    const Result<VolumeRecord> volume = transaction.GetVolume(volume_id);
    if (volume.has_value()) {
      // Its snapshots may be going with it.
      if (volume->status == VolumeStatus::kDeleting)
        return InvalidSnapshot("Originating snapshot status must be one of 'available' values");
      origin.bootable = volume->bootable;
      origin.image_metadata = volume->image_metadata;
    }
    return origin;
  }
  if (wanted.source == SourceKind::kBackup) {
    ASSIGN_OR_RETURN(const BackupRecord backup,
                     BackupToRestore(transaction, call, wanted.source_id));
    origin.size_gb = backup.size_gb;
    origin.bootable = backup.bootable;
    origin.metadata = backup.volume_metadata;
    origin.image_metadata = backup.image_metadata;
    return origin;
  }
  ASSIGN_OR_RETURN(const VolumeRecord volume, OwnVolume(transaction, call, volume_id));
  if (volume.status != VolumeStatus::kAvailable && volume.status != VolumeStatus::kInUse)
    return InvalidVolume("Source volume status must be available or in-use, but is " +
                         std::string(VolumeStatusName(volume.status)) + ".");
  return Origin{volume.size_gb,       volume.type_id, BackEndOf(volume), volume.bootable, {},
                volume.image_metadata};
}

Result<void> CheckSize(const Wanted& wanted, uint64_t size_gb, uint64_t origin_gb) {
  if (size_gb >= origin_gb) return {};
  const std::string size = std::to_string(size_gb);
  const std::string origin = std::to_string(origin_gb);
  if (wanted.source == SourceKind::kSnapshot)
    return InvalidInput("Volume size '" + size + "'GB cannot be smaller than the snapshot size " +
                        origin + "GB. They must be >= original snapshot size.");
  if (wanted.source == SourceKind::kBackup)
    return InvalidInput("Volume size " + size + " GB cannot be smaller than the backup size " +
                        origin + " GB. It must be >= backup size.");
  return InvalidInput("Volume size '" + size + "'GB cannot be smaller than original volume size  " +
                      origin + "GB. They must be >= original volume size.");
}

Result<void> UseImage(const Context& context, const api::Call& call, const Wanted& wanted,
                      VolumeRecord* volume) {
  ASSIGN_OR_RETURN(const ImageFacts image, context.images.Find(call.caller, wanted.source_id));
  const uint64_t image_gb = (image.size_bytes + base::kGiB - 1) / base::kGiB;
  if (image_gb > volume->size_gb)
    return InvalidInput("Size of specified image " + std::to_string(image_gb) +
                        "GB is larger than volume size " + std::to_string(volume->size_gb) + "GB.");
  if (image.min_disk_gb > volume->size_gb)
    return InvalidInput("Volume size " + std::to_string(volume->size_gb) +
                        "GB cannot be smaller than the image minDisk size " +
                        std::to_string(image.min_disk_gb) + "GB.");
  volume->bootable = true;
  volume->image_metadata = Metadata(image.metadata.begin(), image.metadata.end());
  return {};
}

// With what a backup brings along; else every restore of a restore could add to it.
Result<void> CheckMetadataCount(const Metadata& metadata) {
  constexpr size_t kMost = api::kMaxPairs + 1;  // src_backup_id is ours
  if (metadata.size() <= kMost) return {};
  return base::Error(base::Code::kQuotaExceeded,
                     "MetadataLimitExceeded: Maximum number of metadata items (" +
                         std::to_string(api::kMaxPairs) +
                         ") exceeded, with those of the backup. Restore it with fewer.");
}

Result<VolumeRecord> NewRecord(const Context& context, const api::Call& call,
                               const JsonObject& body, const Wanted& wanted) {
  VolumeRecord volume;
  volume.id = base::NewUuid();
  volume.project_id = call.caller.project_id;
  volume.user_id = call.caller.user_id;
  volume.size_gb = wanted.size_gb.value_or(0);
  volume.source_kind = wanted.source;
  volume.source_id = wanted.source_id;
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  volume.name = naming.name.value_or(std::nullopt);
  volume.description = naming.description.value_or(std::nullopt);
  ASSIGN_OR_RETURN(volume.availability_zone, ZoneOf(context, body));
  ASSIGN_OR_RETURN(const auto metadata, ParseMetadata(body, "metadata"));
  volume.metadata = metadata.value_or(Metadata());
  if (wanted.source == SourceKind::kBackup) volume.metadata["src_backup_id"] = wanted.source_id;
  // Passed over since 3.50's types declare it; what is no boolean is refused all the same.
  RETURN_IF_ERROR(api::OptionalBool(body, "multiattach"));
  return volume;
}

void SetType(const TypeFacts& type, VolumeRecord* volume) {
  volume->type_id = type.id;
  volume->multi_attach = type.multi_attach;
  volume->thick = type.thick;
  volume->back_end = type.back_end;
}

// A snapshot can become a volume of any back end, by way of the chunk store.
Result<void> CheckBackEnd(const Wanted& wanted, const Origin& origin, const TypeFacts& type) {
  if (wanted.source != SourceKind::kVolume || type.back_end == origin.back_end) return {};
  return InvalidInput("Type " + type.name + " is of the back end " + type.back_end +
                      ", and source volume " + wanted.source_id + " is on " + origin.back_end +
                      ": make the volume of a snapshot of it.");
}

}  // namespace

Result<void> CheckVolumeSize(const Context& context, std::string_view project_id,
                             uint64_t size_gb) {
  ASSIGN_OR_RETURN(const int64_t limit,
                   context.catalog.LimitOf(project_id, kPerVolumeGigabytesResource));
  if (limit == kUnlimited || size_gb <= static_cast<uint64_t>(limit)) return {};
  return Error(Code::kQuotaExceeded,
               "VolumeSizeExceedsLimit: Requested volume size " + std::to_string(size_gb) +
                   "G is larger than maximum allowed limit " + std::to_string(limit) + "G.");
}

Result<BackupRecord> BackupToRestore(Transaction& transaction, const api::Call& call,
                                     std::string_view id) {
  ASSIGN_OR_RETURN(BackupRecord backup, OwnBackup(transaction, call, id));
  if (backup.status != BackupStatus::kAvailable)
    return InvalidBackup("Backup status must be available");
  return backup;
}

Result<void> BeginRestore(Transaction& transaction, const api::Call& call, BackupRecord backup,
                          const VolumeRecord& volume) {
  backup.status = BackupStatus::kRestoring;
  backup.restoring_to = volume.id;
  RETURN_IF_ERROR(transaction.Put(backup));
  return Jobs::Add(transaction, {Op::kRestoreBackup, volume.project_id, volume.id, backup.id,
                                 call.request.request_id});
}

Result<VolumeRecord> MakeVolume(const Context& context, const api::Call& call,
                                const JsonObject& body) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:create"));
  ASSIGN_OR_RETURN(const Wanted wanted, ParseWanted(body));
  ASSIGN_OR_RETURN(const VolumeRecord asked, NewRecord(context, call, body, wanted));
  const bool of_backup = wanted.source == SourceKind::kBackup;
  if (of_backup) RETURN_IF_ERROR(CheckBackupService(context));
  std::optional<TypeFacts> asked_type;
  const bool has_type =
      wanted.source == SourceKind::kSnapshot || wanted.source == SourceKind::kVolume;
  if (!has_type || !wanted.type.empty()) {
    ASSIGN_OR_RETURN(asked_type, context.types.Resolve(call.caller, wanted.type));
  }
  VolumeRecord volume = asked;
  if (wanted.source == SourceKind::kImage)
    RETURN_IF_ERROR(UseImage(context, call, wanted, &volume));
  const VolumeRecord prepared = volume;
  const auto body_of = [&](Transaction& transaction) -> Result<void> {
    volume = prepared;
    TypeFacts type = asked_type.value_or(TypeFacts());
    if (has_type || of_backup) {
      ASSIGN_OR_RETURN(const Origin origin, OriginOf(transaction, call, wanted));
      if (volume.size_gb == 0) volume.size_gb = origin.size_gb;
      RETURN_IF_ERROR(CheckSize(wanted, volume.size_gb, origin.size_gb));
      volume.bootable = origin.bootable;
      volume.metadata.insert(origin.metadata.begin(), origin.metadata.end());
      RETURN_IF_ERROR(CheckMetadataCount(volume.metadata));
      volume.image_metadata = origin.image_metadata;
      if (!asked_type.has_value()) {
        ASSIGN_OR_RETURN(type, context.types.Find(origin.type_id));
      }
      RETURN_IF_ERROR(CheckBackEnd(wanted, origin, type));
    }
    SetType(type, &volume);
    RETURN_IF_ERROR(context.types.Use(transaction, type.id));
    RETURN_IF_ERROR(CheckVolumeSize(context, volume.project_id, volume.size_gb));
    RETURN_IF_ERROR(transaction.Put(volume));
    ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
    if (of_backup) {
      ASSIGN_OR_RETURN(BackupRecord backup, transaction.GetBackup(wanted.source_id));
      return BeginRestore(transaction, call, std::move(backup), volume);
    }
    return Jobs::Add(transaction, {Op::kCreateVolume, volume.project_id, volume.id, "",
                                   call.request.request_id});
  };
  RETURN_IF_ERROR(context.jobs.Submit(of_backup ? Lane::kBackup : Lane::kCreate, body_of));
  return volume;
}

Result<Response> CreateVolume(const Context& context, const api::Call& call) {
  ASSIGN_OR_RETURN(JsonObject body, api::ParseBody(call, "volume"));
  if (!call.version.AtLeast(kBackups)) body.erase("backup_id");
  ASSIGN_OR_RETURN(const VolumeRecord volume, MakeVolume(context, call, body));
  ASSIGN_OR_RETURN(JsonObject view, VolumeView(context, call, volume, Detail::kCreated));
  return Wrapped(202, "volume", std::move(view));
}

}  // namespace blockd
