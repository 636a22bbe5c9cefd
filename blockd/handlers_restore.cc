#include <optional>
#include <utility>

#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/uuid.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/backups.h"
#include "blockd/handler_tools.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"
#include "blockd/volume_create.h"

// Back from a backup: to a volume, and to a service that has no record of it. A record that is
// handed in proves no more than that whoever has it was given it; all that it stands for is read
// from what is kept beside the bytes.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr std::string_view kService = "quarry.chunkstore";
constexpr uint64_t kExportVersion = 1;
constexpr size_t kMaxExportCharacters = 4096;
constexpr size_t kIdsAtOnce = 256;

std::string SizeText(uint64_t gb) { return std::to_string(gb); }

// POST restore of a volume that is there.
Result<VolumeRecord> RestoreTo(const Context& context, const api::Call& call,
                               const std::string& volume_id) {
  VolumeRecord volume;
  RETURN_IF_ERROR(context.jobs.Submit(Lane::kBackup, [&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(BackupRecord backup,
                     BackupToRestore(transaction, call, call.Param("backup_id")));
    ASSIGN_OR_RETURN(volume, OwnVolume(transaction, call, volume_id));
    const bool idle = volume.status == VolumeStatus::kAvailable && volume.attachment_ids.empty();
    if (!idle) return InvalidVolume("Volume to be restored to must be available");
    if (volume.size_gb < backup.size_gb)
      return InvalidVolume("volume size " + SizeText(volume.size_gb) +
                           " is too small to restore backup of size " + SizeText(backup.size_gb) +
                           ".");
    volume.previous_status = volume.status;
    volume.status = VolumeStatus::kRestoringBackup;
    RETURN_IF_ERROR(transaction.Put(volume));
    return BeginRestore(transaction, call, std::move(backup), volume);
  }));
  return volume;
}

Result<VolumeRecord> RestoreToNew(const Context& context, const api::Call& call,
                                  const std::optional<std::string>& name) {
  ASSIGN_OR_RETURN(const BackupRecord backup, VisibleBackup(context, call));
  const JsonObject body = {{"backup_id", backup.id},
                           {"size", static_cast<int64_t>(backup.size_gb)},
                           {"name", name.value_or("restore_backup_" + backup.id)}};
  return MakeVolume(context, call, body);
}

Result<Response> Restore(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "backup:restore"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "restore"));
  ASSIGN_OR_RETURN(const auto volume_id,
                   api::OptionalText(body, "volume_id", api::kMaxIdCharacters));
  ASSIGN_OR_RETURN(const auto name, api::OptionalText(body, "name", api::kMaxNameCharacters));
  RETURN_IF_ERROR(VisibleBackup(context, call));
  RETURN_IF_ERROR(CheckBackupService(context));
  Result<VolumeRecord> volume = volume_id.has_value() ? RestoreTo(context, call, *volume_id)
                                                      : RestoreToNew(context, call, name);
  if (!volume.has_value()) return volume.error();
  return Wrapped(
      202, "restore",
      {{"backup_id", call.Param("backup_id")},
       {"volume_id", volume->id},
       {"volume_name", volume->name.has_value() ? base::Json(*volume->name) : base::Json()}});
}

Result<Response> ExportRecord(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "backup:export-import"));
  ASSIGN_OR_RETURN(const BackupRecord backup, VisibleBackup(context, call));
  RETURN_IF_ERROR(CheckBackupService(context));
  if (backup.status != BackupStatus::kAvailable)
    return InvalidBackup("Backup status must be available and not " +
                         std::string(BackupStatusName(backup.status)) + ".");
  const JsonObject record = {{"version", kExportVersion}, {"id", backup.id}, {"key", backup.key}};
  return Wrapped(
      200, "backup-record",
      {{"backup_service", kService}, {"backup_url", base::ToBase64Url(base::ToText(record))}});
}

// Says the same of what is malformed, forged, of another store or gone.
Error ForeignRecord() {
  return InvalidBackup(
      "the record is of no backup that is kept in this service's block.backup-dir. Use one that "
      "was exported, whole, by a service with the same directory.");
}

struct Exported {
  std::string id;
  std::string key;
};
Result<Exported> ParseExported(const std::string& url) {
  const Result<std::string> text = base::FromBase64Url(url);
  if (!text.has_value()) return ForeignRecord();
  const Result<base::Json> json = base::ParseJson(*text);
  if (!json.has_value() || base::FindUint(*json, "version") != kExportVersion)
    return ForeignRecord();
  const auto id = base::FindString(*json, "id");
  const auto key = base::FindString(*json, "key");
  if (!id.has_value() || !base::IsUuid(*id) || !key.has_value() || key->empty())
    return ForeignRecord();
  return Exported{*id, *key};
}

// A record of the caller's, who pays for it. kAlreadyExists.
Result<void> Adopt(const Context& context, const api::Call& call, BackupRecord* backup) {
  backup->project_id = call.caller.project_id;
  backup->user_id = call.caller.user_id;
  backup->updated_at_us = 0;
  return context.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    const Result<BackupRecord> present = transaction.GetBackup(backup->id);
    if (present.has_value())
      return Error(Code::kAlreadyExists, "Backup already exists in database.");
    if (present.error().code() != Code::kNotFound) return present.error();
    return transaction.Put(*backup);
  });
}

Result<Response> ImportRecord(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "backup:backup-import"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "backup-record"));
  ASSIGN_OR_RETURN(const std::string service, api::RequiredName(body, "backup_service"));
  ASSIGN_OR_RETURN(const std::string url,
                   api::RequiredName(body, "backup_url", kMaxExportCharacters));
  RETURN_IF_ERROR(CheckBackupService(context));
  if (service != kService) return ForeignRecord();
  ASSIGN_OR_RETURN(const Exported exported, ParseExported(url));
  Result<BackupRecord> backup = context.backups->Find(exported.id);
  if (!backup.has_value() && backup.error().code() == Code::kNotFound) return ForeignRecord();
  if (!backup.has_value()) return backup.error();
  if (!base::SecretsEqual(backup->key, exported.key)) return ForeignRecord();
  const Result<void> adopted = Adopt(context, call, &*backup);
  if (!adopted.has_value() && adopted.error().code() == Code::kAlreadyExists)
    return InvalidBackup(adopted.error().message());
  RETURN_IF_ERROR(adopted);
  return Wrapped(201, "backup", BackupSummary(call, *backup));
}

// For a service that has lost its records: all that is kept and not known here, of one of the
// projects that there were, or of all. What can't be read is passed over, and logged.
Result<Response> ImportAll(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "backup:backup-import"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  ASSIGN_OR_RETURN(const auto of_project,
                   api::OptionalText(body, "project_id", api::kMaxNameCharacters));
  RETURN_IF_ERROR(CheckBackupService(context));
  base::JsonArray imported;
  for (std::string after;;) {
    ASSIGN_OR_RETURN(const auto ids, context.backups->Ids(after, kIdsAtOnce));
    for (const std::string& id : ids) {
      if (context.catalog.GetBackup(id).has_value()) continue;
      Result<BackupRecord> backup = context.backups->Find(id);
      if (!backup.has_value()) {
        LOG(kWarn, "blockd", "backup {} is not imported: {}", id, backup.error().ToString());
        continue;
      }
      if (of_project.has_value() && backup->project_id != *of_project) continue;
      const Result<void> adopted = Adopt(context, call, &*backup);
      if (!adopted.has_value() && adopted.error().code() == Code::kAlreadyExists) continue;
      RETURN_IF_ERROR(adopted);
      imported.push_back(BackupSummary(call, *backup));
    }
    if (ids.size() < kIdsAtOnce) break;
    after = ids.back();
  }
  JsonObject answer;
  answer.emplace("backups", std::move(imported));
  return Response::OfJson(201, std::move(answer));
}

}  // namespace

void AppendRestoreRoutes(const Context& context, Routes* routes) {
  const std::string backup = "/backups/{backup_id}";
  routes->push_back(MakeRoute(context, "POST", backup + "/restore", Restore));
  routes->push_back(MakeRoute(context, "GET", backup + "/export_record", ExportRecord));
  routes->push_back(MakeRoute(context, "POST", "/backups/import_record", ImportRecord));
  routes->push_back(MakeRoute(context, "POST", "/backups/import_all", ImportAll));
}

}  // namespace blockd
