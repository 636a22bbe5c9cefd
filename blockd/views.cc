#include "blockd/views.h"

#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/views.h"
#include "blockd/policy.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

namespace {

// The microversions that brought fields.
constexpr int kGroups = 13;
constexpr int kGroupSnapshots = 14;
constexpr int kProviderId = 21;
constexpr int kSnapshotUser = 41;
constexpr int kSharedTargets = 48;
constexpr int kClusterName = 61;
constexpr int kTypeId = 63;
constexpr int kConsumesQuota = 65;

constexpr std::string_view kDriver = "nbd";

Json OrNull(const std::optional<std::string>& text) {
  return text.has_value() ? Json(*text) : Json();
}

Json IdIf(bool is_it, const std::string& id) { return is_it ? Json(id) : Json(); }

Result<base::JsonArray> AttachmentsOf(const Context& context, const api::Call& call,
                                      const VolumeRecord& volume) {
  base::JsonArray array;
  for (const std::string& id : volume.attachment_ids) {
    const Result<AttachmentRecord> attachment = context.catalog.GetAttachment(id);
    if (!attachment.has_value()) {
      if (attachment.error().code() == Code::kNotFound) continue;
      return attachment.error();
    }
    if (attachment->status != AttachStatus::kAttached) continue;
    const bool admin = call.caller.IsAdmin();
    array.push_back(
        JsonObject{{"id", volume.id},
                   {"attachment_id", attachment->id},
                   {"volume_id", volume.id},
                   {"server_id", api::TextOrNull(attachment->instance_id)},
                   {"host_name", admin ? api::TextOrNull(attachment->host_name) : Json()},
                   {"device", api::TextOrNull(attachment->mount_point)},
                   {"attached_at", api::TimeOrNull(attachment->attached_at_us)}});
  }
  return array;
}

void AddByVersion(const Context& context, const api::Call& call, const VolumeRecord& volume,
                  JsonObject* view) {
  const bool admin = call.caller.IsAdmin();
  if (call.version.AtLeast(kGroups)) view->emplace("group_id", nullptr);
  if (admin && call.version.AtLeast(kProviderId)) view->emplace("provider_id", nullptr);
  if (call.version.AtLeast(kSharedTargets)) {
    view->emplace("shared_targets", false);
    view->emplace("service_uuid", api::TextOrNull(context.options.service_id));
  }
  if (admin && call.version.AtLeast(kClusterName)) view->emplace("cluster_name", nullptr);
  if (call.version.AtLeast(kTypeId)) view->emplace("volume_type_id", volume.type_id);
  if (call.version.AtLeast(kConsumesQuota)) view->emplace("consumes_quota", true);
}

void AddExtended(const Context& context, const api::Call& call, const VolumeRecord& volume,
                 JsonObject* view) {
  view->emplace("os-vol-tenant-attr:tenant_id", volume.project_id);
  if (call.caller.IsAdmin()) {
    view->emplace("os-vol-mig-status-attr:migstat", nullptr);
    view->emplace("os-vol-mig-status-attr:name_id", nullptr);
    view->emplace("os-vol-host-attr:host", HostOf(context.options, BackEndOf(volume)));
  }
  if (!volume.image_metadata.empty())
    view->emplace("volume_image_metadata", api::ToJson(volume.image_metadata));
}

// The type's name as it is now. A type is not removed while volumes have it.
Result<std::string> TypeNameOf(const Context& context, const VolumeRecord& volume) {
  const Result<TypeFacts> type = context.types.Find(volume.type_id);
  if (type.has_value()) return type->name;
  if (type.error().code() == Code::kNotFound) return std::string();
  return type.error();
}

}  // namespace

Result<void> CheckMayWrite(const base::auth::Caller& caller, std::string_view action) {
  if (caller.IsAdmin() || caller.HasRole("member")) return {};
  return Error(Code::kPermissionDenied,
               "Policy doesn't allow " + std::string(action) + " to be performed.");
}

Result<void> CheckAdmin(const base::auth::Caller& caller, std::string_view action) {
  if (caller.IsAdmin()) return {};
  return Error(Code::kPermissionDenied,
               "Policy doesn't allow " + std::string(action) + " to be performed.");
}

Result<JsonObject> VolumeView(const Context& context, const api::Call& call,
                              const VolumeRecord& volume, Detail detail) {
  if (detail == Detail::kSummary)
    return JsonObject{{"id", volume.id},
                      {"name", OrNull(volume.name)},
                      {"links", api::LinksOf(call, "volumes", volume.id)}};
  ASSIGN_OR_RETURN(base::JsonArray attachments, AttachmentsOf(context, call, volume));
  ASSIGN_OR_RETURN(const std::string type_name, TypeNameOf(context, volume));
  JsonObject view = {
      {"id", volume.id},
      {"status", VolumeStatusName(volume.status)},
      {"size", volume.size_gb},
      {"availability_zone", volume.availability_zone},
      {"created_at", api::TimeOrNull(volume.created_at_us)},
      {"updated_at", api::TimeOrNull(volume.updated_at_us)},
      {"name", OrNull(volume.name)},
      {"description", OrNull(volume.description)},
      {"volume_type", api::TextOrNull(type_name)},
      {"snapshot_id", IdIf(volume.source_kind == SourceKind::kSnapshot, volume.source_id)},
      {"source_volid", IdIf(volume.source_kind == SourceKind::kVolume, volume.source_id)},
      {"metadata", api::ToJson(volume.metadata)},
      {"links", api::LinksOf(call, "volumes", volume.id)},
      {"user_id", volume.user_id},
      {"bootable", volume.bootable ? "true" : "false"},
      {"encrypted", false},
      {"replication_status", nullptr},
      {"consistencygroup_id", nullptr},
      {"multiattach", volume.multi_attach},
      {"attachments", std::move(attachments)},
      {"migration_status", nullptr}};
  AddByVersion(context, call, volume, &view);
  if (detail == Detail::kFull) AddExtended(context, call, volume, &view);
  return view;
}

JsonObject SnapshotView(const api::Call& call, const SnapshotRecord& snapshot, Detail detail) {
  JsonObject view = {{"id", snapshot.id},
                     {"created_at", api::TimeOrNull(snapshot.created_at_us)},
                     {"updated_at", api::TimeOrNull(snapshot.updated_at_us)},
                     {"name", OrNull(snapshot.name)},
                     {"description", OrNull(snapshot.description)},
                     {"volume_id", snapshot.volume_id},
                     {"status", SnapshotStatusName(snapshot.status)},
                     {"size", snapshot.size_gb},
                     {"metadata", api::ToJson(snapshot.metadata)}};
  if (detail == Detail::kSummary) return view;
  if (call.version.AtLeast(kGroupSnapshots)) view.emplace("group_snapshot_id", nullptr);
  if (call.version.AtLeast(kSnapshotUser)) view.emplace("user_id", snapshot.user_id);
  if (call.version.AtLeast(kConsumesQuota)) view.emplace("consumes_quota", true);
  if (detail == Detail::kCreated) return view;
  view.emplace("os-extended-snapshot-attributes:project_id", snapshot.project_id);
  view.emplace("os-extended-snapshot-attributes:progress",
               std::to_string(snapshot.progress_percent) + "%");
  return view;
}

JsonObject ConnectionInfo(const AttachmentRecord& attachment, JsonObject data) {
  data.insert_or_assign("driver_volume_type", kDriver);
  data.insert_or_assign("attachment_id", attachment.id);
  data.insert_or_assign("access_mode", attachment.read_only ? "ro" : "rw");
  data.insert_or_assign("encrypted", false);
  data.insert_or_assign("cacheable", false);
  data.insert_or_assign("qos_specs", nullptr);  // held by the server, not by the hypervisor
  return data;
}

JsonObject AttachmentView(const AttachmentRecord& attachment, JsonObject connection_info) {
  const bool attached = attachment.status == AttachStatus::kAttached;
  const std::string mode = attachment.read_only ? "ro" : "rw";
  return {
      {"id", attachment.id},
      {"status", AttachStatusName(attachment.status)},
      {"instance", api::TextOrNull(attachment.instance_id)},
      {"volume_id", attachment.volume_id},
      {"attached_at",
       attachment.attached_at_us == 0 ? std::string() : api::FormatTime(attachment.attached_at_us)},
      {"detached_at", ""},
      {"attach_mode", attached ? mode : "null"},
      {"connection_info", std::move(connection_info)}};
}

base::http::Response Wrapped(int status, std::string_view name, JsonObject object) {
  JsonObject body;
  body.emplace(name, std::move(object));
  return base::http::Response::OfJson(status, std::move(body));
}

}  // namespace blockd
