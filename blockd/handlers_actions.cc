#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/views.h"
#include "blockd/attach.h"
#include "blockd/catalog_keys.h"
#include "blockd/handler_tools.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/policy.h"
#include "blockd/views.h"
#include "blockd/volume_create.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr int kRevert = 40;
constexpr int kExtendInUse = 42;
constexpr int kReimage = 68;
constexpr size_t kMaxStatusCharacters = 64;

Result<std::string> RequiredId(const Json& argument, std::string_view name) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(auto id, api::OptionalText(body, name, api::kMaxIdCharacters));
  if (!id.has_value()) return api::Missing(name);
  return *std::move(id);
}

std::string StatusOf(const VolumeRecord& volume) {
  return std::string(VolumeStatusName(volume.status));
}

Result<Response> Extend(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto size,
                   api::OptionalInt(body, "new_size", 1, static_cast<int64_t>(kMaxVolumeGb)));
  if (!size.has_value())
    return api::BadField("new_size", nullptr, "None is not of type 'integer', 'string'");
  const uint64_t size_gb = static_cast<uint64_t>(*size);
  const bool in_use_too = call.version.AtLeast(kExtendInUse);
  RETURN_IF_ERROR(ChangeVolumeByJob(
      context, call, "volume:extend", Lane::kCreate,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        const bool may = volume.status == VolumeStatus::kAvailable ||
                         (in_use_too && volume.status == VolumeStatus::kInUse);
        if (!may)
          return InvalidVolume("Volume " + volume.id + " status must be available" +
                               (in_use_too ? " or in-use" : "") +
                               " to extend, but the current status is " + StatusOf(volume) + ".");
        if (size_gb <= volume.size_gb)
          return InvalidInput("New size for extend must be greater than current size. (current: " +
                              std::to_string(volume.size_gb) +
                              ", extended: " + std::to_string(size_gb) + ").");
        RETURN_IF_ERROR(CheckVolumeSize(context, volume.project_id, size_gb));
        volume.reserved_size_gb = size_gb;
        volume.previous_status = volume.status;
        volume.status = VolumeStatus::kExtending;
        return Jobs::Add(transaction,
                         {Op::kExtend, volume.project_id, volume.id, "", call.request.request_id});
      }));
  return api::Accepted();
}

// What an administrator may say that a volume is.
Result<VolumeStatus> ResettableStatus(std::string_view name) {
  constexpr std::array kAllowed = {
      VolumeStatus::kCreating,      VolumeStatus::kAvailable,     VolumeStatus::kDeleting,
      VolumeStatus::kError,         VolumeStatus::kAttaching,     VolumeStatus::kDetaching,
      VolumeStatus::kErrorDeleting, VolumeStatus::kInUse,         VolumeStatus::kMaintenance,
      VolumeStatus::kReserved,      VolumeStatus::kErrorExtending};
  const std::optional<VolumeStatus> status = ParseVolumeStatus(name);
  if (status.has_value() && std::find(kAllowed.begin(), kAllowed.end(), *status) != kAllowed.end())
    return *status;
  return InvalidInput("'" + api::Echo(name) + "' is no status that a volume can be reset to");
}

Result<Response> ResetStatus(const Context& context, const api::Call& call, const Json& argument) {
  const std::string_view policy = "volume_extension:volume_admin_actions:reset_status";
  RETURN_IF_ERROR(CheckAdmin(call.caller, policy));
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto name, api::OptionalText(body, "status", kMaxStatusCharacters));
  ASSIGN_OR_RETURN(const auto attach_status,
                   api::OptionalText(body, "attach_status", kMaxStatusCharacters));
  // Nothing migrates.
  RETURN_IF_ERROR(api::OptionalText(body, "migration_status", kMaxStatusCharacters));
  if (!name.has_value() && !attach_status.has_value() && !body.contains("migration_status"))
    return InvalidInput("one of status, attach_status and migration_status is required");
  std::optional<VolumeStatus> status;
  if (name.has_value()) {
    ASSIGN_OR_RETURN(status, ResettableStatus(*name));
  }
  const bool detach = attach_status == "detached";
  if (attach_status.has_value() && !detach && *attach_status != "attached")
    return InvalidInput("'" + api::Echo(*attach_status) +
                        "' is no attach_status that a volume can be reset to");
  RETURN_IF_ERROR(ChangeVolumeByJob(
      context, call, policy, Lane::kDetach,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        // By the way that cuts off whoever is connected.
        for (const std::string& id : detach ? volume.attachment_ids : std::vector<std::string>()) {
          ASSIGN_OR_RETURN(AttachmentRecord attachment, transaction.GetAttachment(id));
          RETURN_IF_ERROR(BeginDetach(transaction, std::move(attachment)));
        }
        if (detach) {
          ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
        }
        if (status.has_value()) volume.status = *status;
        return {};
      }));
  return api::Accepted();
}

Result<Response> ForceDelete(const Context& context, const api::Call& call, const Json&) {
  const std::string_view policy = "volume_extension:volume_admin_actions:force_delete";
  RETURN_IF_ERROR(CheckAdmin(call.caller, policy));
  RETURN_IF_ERROR(ChangeVolumeByJob(
      context, call, policy, Lane::kDelete,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        if (volume.snapshots > 0)
          return InvalidVolume("Volume " + volume.id + " has snapshots: delete these first.");
        volume.status = VolumeStatus::kDeleting;
        return Jobs::Add(transaction, {Op::kDeleteVolume, volume.project_id, volume.id, "",
                                       call.request.request_id});
      }));
  context.exports.Forget(call.Param("volume_id"));
  return api::Accepted();
}

Result<Response> SetBootable(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto bootable, api::OptionalBool(body, "bootable"));
  if (!bootable.has_value()) return api::Missing("bootable");
  RETURN_IF_ERROR(ChangeVolume(context, call, "volume_extension:volume_actions:set_bootable",
                               [&](Transaction&, VolumeRecord& volume) -> Result<void> {
                                 volume.bootable = *bootable;
                                 return {};
                               }));
  return Response::Empty(200);
}

Result<Response> SetReadOnly(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto read_only, api::OptionalBool(body, "readonly"));
  if (!read_only.has_value()) return api::Missing("readonly");
  RETURN_IF_ERROR(ChangeVolume(
      context, call, "volume:update_readonly_flag",
      [&](Transaction&, VolumeRecord& volume) -> Result<void> {
        if (volume.status != VolumeStatus::kAvailable)
          return InvalidVolume("Volume " + volume.id +
                               " status must be available to update readonly flag, but current "
                               "status is: " +
                               StatusOf(volume) + ".");
        volume.read_only = *read_only;
        volume.metadata["readonly"] = *read_only ? "True" : "False";
        return {};
      }));
  return api::Accepted();
}

// Cinder's "migration_policy": whether the volume may be moved for it.
Result<bool> MayMove(const JsonObject& body) {
  ASSIGN_OR_RETURN(const auto policy,
                   api::OptionalText(body, "migration_policy", api::kMaxNameCharacters));
  if (!policy.has_value() || *policy == "never") return false;
  if (*policy == "on-demand") return true;
  return InvalidInput("migration_policy must be 'never' or 'on-demand'");
}

Result<void> CheckRetype(const VolumeRecord& volume, const TypeFacts& type, bool may_move) {
  const bool in_use = volume.status == VolumeStatus::kInUse;
  if (volume.status != VolumeStatus::kAvailable && !in_use)
    return InvalidVolume("Volume " + volume.id +
                         " status must be available or in-use to retype, but the current status "
                         "is " +
                         StatusOf(volume) + ".");
  if (volume.type_id == type.id)
    return InvalidInput("New volume_type same as original: " + type.name + ".");
  if (in_use && volume.multi_attach != type.multi_attach)
    return InvalidInput("a volume that is attached can't change whether several may attach it");
  const std::string from = BackEndOf(volume);
  if (from == type.back_end) {
    if (volume.thick == type.thick) return {};
    return InvalidInput("a volume can't be retyped between thin and thick");
  }
  if (!may_move)
    return InvalidInput("type " + type.name + " is of the back end " + type.back_end +
                        ", and the volume is on " + from +
                        ": retype it with the migration policy on-demand");
  if (in_use)
    return InvalidVolume("Volume " + volume.id + " is attached: to move it from " + from + " to " +
                         type.back_end + ", detach it first.");
  if (volume.snapshots > 0)
    return InvalidVolume("Volume " + volume.id +
                         " has snapshots: these stay where they are, so delete them first, or "
                         "make a volume of the new type of one of them.");
  return {};
}

// Within a back end a type is a matter of the record; to another one a job moves the volume.
Result<Response> Retype(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const std::string wanted, api::RequiredName(body, "new_type"));
  ASSIGN_OR_RETURN(const bool may_move, MayMove(body));
  ASSIGN_OR_RETURN(const TypeFacts type, context.types.Resolve(call.caller, wanted));
  if (!type.unfit.empty())
    return InvalidInput("No valid backend was found: type " + type.name +
                        " asks for another one by its extra spec " + type.unfit + ".");
  bool moves = false;
  const auto change = [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
    RETURN_IF_ERROR(CheckRetype(volume, type, may_move));
    RETURN_IF_ERROR(context.types.Use(transaction, type.id));
    moves = BackEndOf(volume) != type.back_end;
    if (!moves) {
      volume.type_id = type.id;
      volume.multi_attach = type.multi_attach;
      return {};
    }
    volume.previous_status = volume.status;
    volume.status = VolumeStatus::kRetyping;
    return Jobs::Add(transaction,
                     {Op::kRetype, volume.project_id, volume.id, type.id, call.request.request_id});
  };
  ASSIGN_OR_RETURN(const VolumeRecord changed,
                   ChangeVolumeByJob(context, call, "volume:retype", Lane::kCreate, change));
  if (!moves) RETURN_IF_ERROR(context.exports.SetLimits(changed.id, changed.size_gb, type.qos));
  return api::Accepted();
}

Result<Response> Revert(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const std::string snapshot_id, RequiredId(argument, "snapshot_id"));
  RETURN_IF_ERROR(ChangeVolumeByJob(
      context, call, "volume:revert_to_snapshot", Lane::kCreate,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        ASSIGN_OR_RETURN(const SnapshotRecord snapshot, transaction.GetSnapshot(snapshot_id));
        if (!MaySee(call.caller, snapshot.project_id)) return NotThere<SnapshotRecord>(snapshot_id);
        if (snapshot.volume_id != volume.id)
          return InvalidSnapshot("Specified snapshot " + snapshot.id + " is not of volume " +
                                 volume.id + ".");
        if (snapshot.status != SnapshotStatus::kAvailable)
          return InvalidSnapshot("Snapshot status must be available to revert to it.");
        if (volume.status != VolumeStatus::kAvailable)
          return InvalidVolume("Can't revert volume " + volume.id +
                               " to a snapshot: its status must be available, but is " +
                               StatusOf(volume) + ".");
        if (snapshot.size_gb != volume.size_gb)
          return InvalidInput("the volume was extended after the snapshot was taken");
        volume.previous_status = volume.status;
        volume.status = VolumeStatus::kReverting;
        return Jobs::Add(transaction, {Op::kRevert, volume.project_id, volume.id, snapshot.id,
                                       call.request.request_id});
      }));
  return api::Accepted();
}

Result<Response> Reimage(const Context& context, const api::Call& call, const Json& argument) {
  ASSIGN_OR_RETURN(const std::string image_id, RequiredId(argument, "image_id"));
  ASSIGN_OR_RETURN(const ImageFacts image, context.images.Find(call.caller, image_id));
  RETURN_IF_ERROR(ChangeVolumeByJob(
      context, call, "volume:reimage", Lane::kCreate,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        if (volume.status != VolumeStatus::kAvailable && volume.status != VolumeStatus::kError)
          return InvalidVolume(
              "status must be available or error to reimage, but current status "
              "is: " +
              StatusOf(volume) + ".");
        // Snapshots stand on what the volume was.
        if (volume.snapshots > 0) return InvalidVolume("a volume with snapshots can't be reimaged");
        if (image.size_bytes > volume.size_gb * base::kGiB)
          return InvalidInput("the image is larger than the volume");
        volume.previous_status = VolumeStatus::kAvailable;
        volume.status = VolumeStatus::kDownloading;
        volume.bootable = true;
        volume.image_metadata = Metadata(image.metadata.begin(), image.metadata.end());
        return Jobs::Add(transaction, {Op::kReimage, volume.project_id, volume.id, image_id,
                                       call.request.request_id});
      }));
  return api::Accepted();
}

struct UploadRequest {
  std::string name;
  std::string disk_format;
  std::string container_format;
  std::string visibility;
  bool is_protected = false;
  bool force = false;
};

Result<UploadRequest> ParseUpload(const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  UploadRequest upload;
  ASSIGN_OR_RETURN(upload.name, api::RequiredName(body, "image_name"));
  ASSIGN_OR_RETURN(const auto disk, api::OptionalText(body, "disk_format", 32));
  ASSIGN_OR_RETURN(const auto container, api::OptionalText(body, "container_format", 32));
  ASSIGN_OR_RETURN(const auto visibility, api::OptionalText(body, "visibility", 32));
  ASSIGN_OR_RETURN(const auto is_protected, api::OptionalBool(body, "protected"));
  ASSIGN_OR_RETURN(const auto force, api::OptionalBool(body, "force"));
  upload.disk_format = disk.value_or("raw");
  upload.container_format = container.value_or("bare");
  upload.visibility = visibility.value_or("private");
  upload.is_protected = is_protected.value_or(false);
  upload.force = force.value_or(false);
  return upload;
}

Result<Response> Upload(const Context& context, const api::Call& call, const Json& argument) {
  constexpr std::string_view kPolicy = "volume_extension:volume_actions:upload_image";
  RETURN_IF_ERROR(CheckMayWrite(call.caller, kPolicy));
  ASSIGN_OR_RETURN(const UploadRequest upload, ParseUpload(argument));
  const auto may = [&](const VolumeRecord& volume) -> Result<void> {
    if (volume.status == VolumeStatus::kAvailable ||
        (volume.status == VolumeStatus::kInUse && upload.force))
      return {};
    return InvalidVolume(
        "Volume " + volume.id +
        " status must be available to upload, but current status is: " + StatusOf(volume) + ".");
  };
  ASSIGN_OR_RETURN(const VolumeRecord seen, VisibleVolume(context, call, call.Param("volume_id")));
  RETURN_IF_ERROR(may(seen));
  ASSIGN_OR_RETURN(
      const std::string image_id,
      context.images.NewImage(call.caller, upload.name, upload.disk_format, upload.container_format,
                              upload.visibility, upload.is_protected));
  const Result<VolumeRecord> changed = ChangeVolumeByJob(
      context, call, kPolicy, Lane::kCreate,
      [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
        RETURN_IF_ERROR(may(volume));
        volume.previous_status = volume.status;
        volume.status = VolumeStatus::kUploading;
        return Jobs::Add(transaction, {Op::kUploadImage, volume.project_id, volume.id, image_id,
                                       call.request.request_id});
      });
  if (!changed.has_value()) {
    RETURN_IF_ERROR(context.images.Abandon(image_id));
    return changed.error();
  }
  JsonObject view = {{"id", changed->id},
                     {"updated_at", api::TimeOrNull(changed->updated_at_us)},
                     {"status", StatusOf(*changed)},
                     {"display_description",
                      changed->description.has_value() ? Json(*changed->description) : Json()},
                     {"size", changed->size_gb},
                     {"volume_type", nullptr},
                     {"image_id", image_id},
                     {"container_format", upload.container_format},
                     {"disk_format", upload.disk_format},
                     {"image_name", upload.name}};
  if (call.version.AtLeast(1)) {
    view.emplace("visibility", upload.visibility);
    view.emplace("protected", upload.is_protected);
  }
  return Wrapped(202, "os-volume_upload_image", std::move(view));
}

Result<Response> SetImageMetadata(const Context& context, const api::Call& call,
                                  const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto metadata, ParseMetadata(body, "metadata"));
  if (!metadata.has_value()) return api::Missing("metadata");
  ASSIGN_OR_RETURN(const VolumeRecord changed,
                   ChangeVolume(context, call, "volume_extension:volume_image_metadata:set",
                                [&](Transaction&, VolumeRecord& volume) -> Result<void> {
                                  for (const auto& [key, value] : *metadata)
                                    volume.image_metadata[key] = value;
                                  if (volume.image_metadata.size() <= api::kMaxPairs) return {};
                                  return InvalidInput("too many image metadata items");
                                }));
  return Wrapped(200, "metadata", api::ToJson(changed.image_metadata));
}

Result<Response> UnsetImageMetadata(const Context& context, const api::Call& call,
                                    const Json& argument) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ObjectOf(argument));
  ASSIGN_OR_RETURN(const auto key, api::OptionalText(body, "key", api::kMaxKeyCharacters));
  if (!key.has_value()) return api::Missing("key");
  RETURN_IF_ERROR(ChangeVolume(context, call, "volume_extension:volume_image_metadata:remove",
                               [&](Transaction&, VolumeRecord& volume) -> Result<void> {
                                 if (volume.image_metadata.erase(*key) > 0) return {};
                                 return Error(Code::kNotFound, "Metadata item was not found");
                               }));
  return Response::Empty(200);
}

Result<Response> ShowImageMetadata(const Context& context, const api::Call& call, const Json&) {
  ASSIGN_OR_RETURN(const VolumeRecord volume,
                   VisibleVolume(context, call, call.Param("volume_id")));
  return Wrapped(200, "metadata", api::ToJson(volume.image_metadata));
}

constexpr std::array<Action, 12> kVolumeActions = {{{"os-extend", Extend},
                                                    {"os-reset_status", ResetStatus},
                                                    {"os-force_delete", ForceDelete},
                                                    {"os-set_bootable", SetBootable},
                                                    {"os-update_readonly_flag", SetReadOnly},
                                                    {"os-retype", Retype},
                                                    {"revert", Revert, kRevert},
                                                    {"os-reimage", Reimage, kReimage},
                                                    {"os-volume_upload_image", Upload},
                                                    {"os-set_image_metadata", SetImageMetadata},
                                                    {"os-unset_image_metadata", UnsetImageMetadata},
                                                    {"os-show_image_metadata", ShowImageMetadata}}};

Result<Response> Act(const Context& context, const api::Call& call) {
  // One that is not there has no actions: 404 comes before anything that is wrong with the body.
  RETURN_IF_ERROR(VisibleVolume(context, call, call.Param("volume_id")));
  std::vector<Action> all(kVolumeActions.begin(), kVolumeActions.end());
  for (const std::span<const Action> more : {ConnectionActions(), MoveActions()})
    all.insert(all.end(), more.begin(), more.end());
  return RunAction(context, call, all);
}

}  // namespace

Result<Response> RunAction(const Context& context, const api::Call& call,
                           std::span<const Action> actions) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  for (const auto& [name, argument] : body) {
    for (const Action& action : actions)
      if (action.name == std::string_view(name) && call.version.AtLeast(action.since))
        return action.run(context, call, argument);
  }
  const std::string name = body.empty() ? "None" : std::string(body.begin()->key());
  return Error(Code::kInvalidArgument,
               "There is no such action: " + api::Echo(name) +
                   ". Verify the request body and Content-Type header and try again.");
}

void AppendActionRoutes(const Context& context, Routes* routes) {
  routes->push_back(MakeRoute(context, "POST", "/volumes/{volume_id}/action", Act));
}

}  // namespace blockd
