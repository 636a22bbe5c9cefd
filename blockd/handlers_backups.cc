#include <array>
#include <optional>
#include <utility>

#include "base/coding.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/views.h"
#include "blockd/backups.h"
#include "blockd/catalog_keys.h"
#include "blockd/handler_tools.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Response;

// The microversions that brought calls and fields.
constexpr int kUpdate = 9;
constexpr int kProject = 18;
constexpr int kMetadata = 43;
constexpr int kZone = 51;
constexpr int kUser = 56;
constexpr size_t kKeyBytes = 32;
constexpr std::array<std::string_view, 8> kSortKeys = {
    "created_at", "updated_at", "name", "display_name", "id", "status", "volume_id", "size"};

// The path of a change: looks the record up, changes it, puts it.
using BackupChange = std::function<Result<void>(Transaction&, BackupRecord&)>;
Catalog::Body BodyOf(const api::Call& call, const BackupChange& change, BackupRecord* changed) {
  return [&call, &change, changed](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(BackupRecord backup, OwnBackup(transaction, call, call.Param("backup_id")));
    RETURN_IF_ERROR(change(transaction, backup));
    RETURN_IF_ERROR(transaction.Put(backup));
    ASSIGN_OR_RETURN(*changed, transaction.GetBackup(backup.id));
    return {};
  };
}

// What POST says, before anything is looked up.
struct Wanted {
  BackupRecord backup;
  bool incremental = false;
  bool force = false;
};

Result<Wanted> ParseWanted(const Context& context, const api::Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "backup"));
  Wanted wanted;
  BackupRecord& backup = wanted.backup;
  ASSIGN_OR_RETURN(const auto volume_id,
                   api::OptionalText(body, "volume_id", api::kMaxIdCharacters));
  if (!volume_id.has_value()) return api::Missing("volume_id");
  ASSIGN_OR_RETURN(const auto snapshot_id,
                   api::OptionalText(body, "snapshot_id", api::kMaxIdCharacters));
  ASSIGN_OR_RETURN(const auto container,
                   api::OptionalText(body, "container", api::kMaxNameCharacters));
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  ASSIGN_OR_RETURN(const auto incremental, api::OptionalBool(body, "incremental"));
  ASSIGN_OR_RETURN(const auto force, api::OptionalBool(body, "force"));
  wanted.incremental = incremental.value_or(false);
  wanted.force = force.value_or(false);
  if (call.version.AtLeast(kMetadata)) {
    ASSIGN_OR_RETURN(const auto metadata, ParseMetadata(body, "metadata"));
    backup.metadata = metadata.value_or(Metadata());
  }
  backup.availability_zone = context.options.availability_zone;
  if (call.version.AtLeast(kZone)) {
    ASSIGN_OR_RETURN(const auto zone,
                     api::OptionalText(body, "availability_zone", api::kMaxNameCharacters));
    if (zone.value_or(backup.availability_zone) != backup.availability_zone)
      return InvalidInput("Availability zone '" + *zone + "' is invalid.");
  }
  backup.id = base::NewUuid();
  backup.project_id = call.caller.project_id;
  backup.user_id = call.caller.user_id;
  backup.volume_id = *volume_id;
  backup.snapshot_id = snapshot_id.value_or("");
  backup.container = container.value_or("");
  backup.name = naming.name.value_or(std::nullopt);
  backup.description = naming.description.value_or(std::nullopt);
  backup.key = base::ToHex(base::RandomBytes(kKeyBytes));
  return wanted;
}

Result<void> CheckMayBackUp(const VolumeRecord& volume, const Wanted& wanted) {
  const bool in_use = volume.status == VolumeStatus::kInUse;
  if (!in_use && volume.status != VolumeStatus::kAvailable)
    return InvalidVolume(
        "Volume to be backed up must be available or in-use, but the current status is \"" +
        std::string(VolumeStatusName(volume.status)) + "\".");
  if (in_use && wanted.backup.snapshot_id.empty() && !wanted.force)
    return InvalidVolume("Backing up an in-use volume must use the force flag.");
  return {};
}

Result<void> UseSnapshot(Transaction& transaction, const api::Call& call, BackupRecord* backup) {
  Result<SnapshotRecord> snapshot = transaction.GetSnapshot(backup->snapshot_id);
  if (!snapshot.has_value()) return snapshot.error();
  if (!MaySee(call.caller, snapshot->project_id))
    return NotThere<SnapshotRecord>(backup->snapshot_id);
  if (snapshot->volume_id != backup->volume_id)
    return InvalidSnapshot("Snapshot " + snapshot->id + " is not one of volume " +
                           backup->volume_id + ".");
  if (snapshot->status != SnapshotStatus::kAvailable)
    return InvalidSnapshot(
        "Snapshot to be backed up must be available, but the current status is \"" +
        std::string(SnapshotStatusName(snapshot->status)) + "\".");
  backup->size_gb = snapshot->size_gb;
  backup->data_timestamp_us = snapshot->created_at_us;
  return {};
}

// The newest one of the volume that is whole. What it is compared with can go at any time: then the
// backup that is being made looks at everything.
Result<std::string> ParentFor(const Context& context, const api::Call& call,
                              const BackupRecord& backup) {
  ListQuery query;
  query.project_id = call.caller.project_id;
  query.limit = UINT64_MAX;
  ASSIGN_OR_RETURN(
      const auto candidates, context.catalog.ListBackups(query, [&](const BackupRecord& other) {
        const bool whole =
            other.status == BackupStatus::kAvailable || other.status == BackupStatus::kRestoring;
        return whole && other.volume_id == backup.volume_id;
      }));
  const BackupRecord* newest = nullptr;
  for (const BackupRecord& other : candidates)
    if (newest == nullptr || other.data_timestamp_us > newest->data_timestamp_us) newest = &other;
  if (newest == nullptr) return InvalidBackup("No backups available to do an incremental backup.");
  return newest->id;
}

Result<Response> Create(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "backup:create"));
  ASSIGN_OR_RETURN(Wanted wanted, ParseWanted(context, call));
  RETURN_IF_ERROR(VisibleVolume(context, call, wanted.backup.volume_id));
  RETURN_IF_ERROR(CheckBackupService(context));
  if (wanted.incremental) {
    ASSIGN_OR_RETURN(wanted.backup.parent_id, ParentFor(context, call, wanted.backup));
  }
  BackupRecord backup;
  const bool of_snapshot = !wanted.backup.snapshot_id.empty();
  const Lane lane = of_snapshot ? Lane::kBackup : Lane::kSnapshot;
  RETURN_IF_ERROR(context.jobs.Submit(lane, [&](Transaction& transaction) -> Result<void> {
    backup = wanted.backup;
    ASSIGN_OR_RETURN(VolumeRecord volume, OwnVolume(transaction, call, backup.volume_id));
    RETURN_IF_ERROR(CheckMayBackUp(volume, wanted));
    backup.size_gb = volume.size_gb;
    backup.bootable = volume.bootable;
    backup.volume_metadata = volume.metadata;
    backup.image_metadata = volume.image_metadata;
    if (of_snapshot) {
      RETURN_IF_ERROR(UseSnapshot(transaction, call, &backup));
    } else {
      volume.previous_status = volume.status;
      volume.status = VolumeStatus::kBackingUp;
      RETURN_IF_ERROR(transaction.Put(volume));
    }
    RETURN_IF_ERROR(transaction.Put(backup));
    return Jobs::Add(transaction,
                     {of_snapshot ? Op::kCreateBackup : Op::kSnapshotForBackup, backup.project_id,
                      backup.id, backup.volume_id, call.request.request_id});
  }));
  return Wrapped(202, "backup", BackupSummary(call, backup));
}

Result<Response> Show(const Context& context, const api::Call& call) {
  ASSIGN_OR_RETURN(const BackupRecord backup, VisibleBackup(context, call));
  return Wrapped(200, "backup", BackupView(call, backup));
}

bool Passes(const BackupRecord& backup, std::string_view name, std::string_view value) {
  if (name == "name" || name == "display_name") return backup.name.value_or("") == value;
  if (name == "name~" || name == "display_name~")
    return backup.name.value_or("").find(value) != std::string::npos;
  if (name == "status") return BackupStatusName(backup.status) == value;
  if (name == "volume_id") return backup.volume_id == value;
  if (name == "snapshot_id") return backup.snapshot_id == value;
  if (name == "id") return backup.id == value;
  return true;
}

Result<Response> List(const Context& context, const api::Call& call, Detail detail) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(const ListQuery query, ToQuery(call, list));
  const auto accept = [&](const BackupRecord& backup) {
    for (const auto& [name, value] : list.filters)
      if (!Passes(backup, name, value)) return false;
    return true;
  };
  ASSIGN_OR_RETURN(const std::vector<BackupRecord> backups,
                   context.catalog.ListBackups(query, accept));
  base::JsonArray array;
  for (const BackupRecord& backup : backups)
    array.push_back(detail == Detail::kFull ? BackupView(call, backup)
                                            : BackupSummary(call, backup));
  return ListAnswer(call, list, "backups", std::move(array),
                    backups.empty() ? "" : backups.back().id, [&]() -> Result<size_t> {
                      ASSIGN_OR_RETURN(const auto all,
                                       context.catalog.ListBackups(OnAllPages(query), accept));
                      return all.size();
                    });
}

Result<Response> ListSummary(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kSummary);
}
Result<Response> ListDetail(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kFull);
}

// What is kept beside the bytes stays as it was when the backup was made.
Result<Response> Update(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "backup:update"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "backup"));
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  std::optional<Metadata> metadata;
  if (call.version.AtLeast(kMetadata)) {
    ASSIGN_OR_RETURN(metadata, ParseMetadata(body, "metadata"));
  }
  if (!naming.name.has_value() && !naming.description.has_value() && !metadata.has_value())
    return InvalidInput("name, description or metadata is required to update a backup");
  BackupRecord changed;
  RETURN_IF_ERROR(context.catalog.Transact(BodyOf(
      call,
      [&](Transaction&, BackupRecord& backup) -> Result<void> {
        if (naming.name.has_value()) backup.name = *naming.name;
        if (naming.description.has_value()) backup.description = *naming.description;
        if (metadata.has_value()) backup.metadata = *metadata;
        return {};
      },
      &changed)));
  return Wrapped(200, "backup", BackupSummary(call, changed));
}

bool MayBeDeleted(BackupStatus status) {
  return status == BackupStatus::kAvailable || status == BackupStatus::kError ||
         status == BackupStatus::kErrorDeleting;
}

Result<Response> DeleteIn(const Context& context, const api::Call& call, bool force) {
  RETURN_IF_ERROR(VisibleBackup(context, call));
  RETURN_IF_ERROR(CheckBackupService(context));
  BackupRecord changed;
  const BackupChange change = [&](Transaction& transaction, BackupRecord& backup) -> Result<void> {
    if (!force && !MayBeDeleted(backup.status))
      return InvalidBackup("Backup status must be available or error");
    backup.status = BackupStatus::kDeleting;
    return Jobs::Add(transaction, {Op::kDeleteBackup, backup.project_id, backup.id, "",
                                   call.request.request_id});
  };
  RETURN_IF_ERROR(context.jobs.Submit(Lane::kDelete, BodyOf(call, change, &changed)));
  return api::Accepted();
}

Result<Response> Delete(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "backup:delete"));
  return DeleteIn(context, call, false);
}

Result<Response> ForceDelete(const Context& context, const api::Call& call, const Json&) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "volume_extension:backup_admin_actions:force_delete"));
  return DeleteIn(context, call, true);
}

Result<Response> ResetStatus(const Context& context, const api::Call& call, const Json& body) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "volume_extension:backup_admin_actions:reset_status"));
  const auto name = base::FindString(body, "status");
  if (name != "available" && name != "error")
    return InvalidInput("a backup's status can be reset to available and error");
  const BackupStatus status =
      *name == "available" ? BackupStatus::kAvailable : BackupStatus::kError;
  BackupRecord changed;
  RETURN_IF_ERROR(context.catalog.Transact(BodyOf(
      call,
      [&](Transaction&, BackupRecord& backup) -> Result<void> {
        backup.status = status;
        backup.restoring_to.clear();
        return {};
      },
      &changed)));
  return api::Accepted();
}

Result<Response> Act(const Context& context, const api::Call& call) {
  static constexpr std::array<Action, 2> kActions = {
      {{"os-reset_status", ResetStatus}, {"os-force_delete", ForceDelete}}};
  return RunAction(context, call, kActions);
}

Json OrNull(const std::optional<std::string>& text) {
  return text.has_value() ? Json(*text) : Json();
}

}  // namespace

Result<void> CheckBackupService(const Context& context) {
  if (context.backups != nullptr) return {};
  if (context.options.backup_service == BackupService::kDown)
    return Error(Code::kUnavailable,
                 "Service cinder-backup is down: the store that backups are kept in could not be "
                 "opened when the service was started. Its log tells the operator what to do.");
  return Error(Code::kUnavailable,
               "Service cinder-backup could not be found. The operator sets block.backup-dir to "
               "the directory that backups are kept in.");
}

Error InvalidBackup(std::string_view text) {
  return Error(Code::kInvalidArgument, "Invalid backup: " + std::string(text));
}

Result<BackupRecord> VisibleBackup(const Context& context, const api::Call& call) {
  const std::string& id = call.Param("backup_id");
  Result<BackupRecord> backup = context.catalog.GetBackup(id);
  if (backup.has_value() && !MaySee(call.caller, backup->project_id))
    return NotThere<BackupRecord>(id);
  return backup;
}

Result<BackupRecord> OwnBackup(Transaction& transaction, const api::Call& call,
                               std::string_view id) {
  Result<BackupRecord> backup = transaction.GetBackup(id);
  if (backup.has_value() && !MaySee(call.caller, backup->project_id))
    return NotThere<BackupRecord>(id);
  return backup;
}

JsonObject BackupSummary(const api::Call& call, const BackupRecord& backup) {
  return {{"id", backup.id},
          {"name", OrNull(backup.name)},
          {"links", api::LinksOf(call, "backups", backup.id)}};
}

JsonObject BackupView(const api::Call& call, const BackupRecord& backup) {
  JsonObject view = BackupSummary(call, backup);
  view.emplace("status", BackupStatusName(backup.status));
  view.emplace("size", backup.size_gb);
  view.emplace("object_count", backup.object_count);
  view.emplace("availability_zone", api::TextOrNull(backup.availability_zone));
  view.emplace("container", api::TextOrNull(backup.container));
  view.emplace("created_at", api::TimeOrNull(backup.created_at_us));
  view.emplace("updated_at", api::TimeOrNull(backup.updated_at_us));
  view.emplace("description", OrNull(backup.description));
  view.emplace("fail_reason", api::TextOrNull(backup.fail_reason));
  view.emplace("volume_id", backup.volume_id);
  view.emplace("is_incremental", !backup.parent_id.empty());
  view.emplace("has_dependent_backups", false);  // each is whole
  view.emplace("snapshot_id", api::TextOrNull(backup.snapshot_id));
  view.emplace("data_timestamp",
               api::TimeOrNull(backup.data_timestamp_us != 0 ? backup.data_timestamp_us
                                                             : backup.created_at_us));
  if (call.version.AtLeast(kProject))
    view.emplace("os-backup-project-attr:project_id", backup.project_id);
  if (call.version.AtLeast(kMetadata)) view.emplace("metadata", api::ToJson(backup.metadata));
  if (call.version.AtLeast(kUser)) view.emplace("user_id", backup.user_id);
  return view;
}

void AppendBackupRoutes(const Context& context, Routes* routes) {
  const std::string backup = "/backups/{backup_id}";
  routes->push_back(MakeRoute(context, "POST", "/backups", Create));
  routes->push_back(MakeRoute(context, "GET", "/backups", ListSummary));
  routes->push_back(MakeRoute(context, "GET", "/backups/detail", ListDetail));
  routes->push_back(MakeRoute(context, "GET", backup, Show));
  routes->push_back(MakeRoute(context, "PUT", backup, Update, base::http::Access::kToken, kUpdate));
  routes->push_back(MakeRoute(context, "DELETE", backup, Delete));
  routes->push_back(MakeRoute(context, "POST", backup + "/action", Act));
  AppendRestoreRoutes(context, routes);
}

}  // namespace blockd
