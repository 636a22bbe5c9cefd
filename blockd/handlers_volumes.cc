#include <array>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/views.h"
#include "blockd/handler_tools.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/metadata_routes.h"
#include "blockd/policy.h"
#include "blockd/views.h"
#include "blockd/volume_create.h"

namespace blockd {
namespace {

using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr std::array<std::string_view, 11> kSortKeys = {
    "created_at", "updated_at",        "name",     "display_name",   "id",          "status",
    "size",       "availability_zone", "bootable", "volume_type_id", "source_volid"};

Result<Response> Show(const Context& context, const api::Call& call) {
  ASSIGN_OR_RETURN(const VolumeRecord volume,
                   VisibleVolume(context, call, call.Param("volume_id")));
  ASSIGN_OR_RETURN(JsonObject view, VolumeView(context, call, volume, Detail::kFull));
  return Wrapped(200, "volume", std::move(view));
}

// A list's filters, taken apart once.
struct Filters {
  std::vector<std::pair<std::string, std::string>> texts;
  std::optional<Metadata> metadata;
  std::optional<Metadata> image_metadata;
};

Result<Filters> ParseFilters(const api::ListRequest& list) {
  Filters filters;
  for (const auto& [name, value] : list.filters) {
    if (name == "metadata") {
      ASSIGN_OR_RETURN(filters.metadata, ParseMetadataFilter(value));
    } else if (name == "glance_metadata") {
      ASSIGN_OR_RETURN(filters.image_metadata, ParseMetadataFilter(value));
    } else if (name == "bootable") {
      ASSIGN_OR_RETURN(const bool wanted, api::ParseBool(value, name));
      filters.texts.emplace_back(name, wanted ? "true" : "false");
    } else {
      filters.texts.emplace_back(name, value);
    }
  }
  return filters;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Names that are no filter pass everything, as in Cinder.
bool Passes(const VolumeRecord& volume, std::string_view name, std::string_view value) {
  if (name == "name" || name == "display_name") return volume.name.value_or("") == value;
  if (name == "name~" || name == "display_name~") return Contains(volume.name.value_or(""), value);
  if (name == "description~") return Contains(volume.description.value_or(""), value);
  if (name == "status") return VolumeStatusName(volume.status) == value;
  if (name == "id") return volume.id == value;
  if (name == "availability_zone") return volume.availability_zone == value;
  if (name == "bootable") return volume.bootable == (value == "true");
  if (name == "size") return std::to_string(volume.size_gb) == value;
  if (name == "user_id") return volume.user_id == value;
  if (name == "volume_type_id" || name == "type_id") return volume.type_id == value;
  if (name == "source_volid")
    return volume.source_kind == SourceKind::kVolume && volume.source_id == value;
  if (name == "snapshot_id")
    return volume.source_kind == SourceKind::kSnapshot && volume.source_id == value;
  // What no volume here has.
  if (name == "group_id" || name == "migration_status" || name == "encryption_key_id") return false;
  return true;
}

bool Accepts(const Filters& filters, const VolumeRecord& volume) {
  for (const auto& [name, value] : filters.texts)
    if (!Passes(volume, name, value)) return false;
  if (filters.metadata.has_value() && !Includes(volume.metadata, *filters.metadata)) return false;
  return !filters.image_metadata.has_value() ||
         Includes(volume.image_metadata, *filters.image_metadata);
}

Result<Response> List(const Context& context, const api::Call& call, Detail detail) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(const ListQuery query, ToQuery(call, list));
  ASSIGN_OR_RETURN(const Filters filters, ParseFilters(list));
  const auto accept = [&](const VolumeRecord& volume) { return Accepts(filters, volume); };
  ASSIGN_OR_RETURN(const std::vector<VolumeRecord> volumes,
                   context.catalog.ListVolumes(query, accept));
  base::JsonArray array;
  for (const VolumeRecord& volume : volumes) {
    ASSIGN_OR_RETURN(JsonObject view, VolumeView(context, call, volume, detail));
    array.push_back(std::move(view));
  }
  return ListAnswer(call, list, "volumes", std::move(array),
                    volumes.empty() ? "" : volumes.back().id, [&]() -> Result<size_t> {
                      ASSIGN_OR_RETURN(const auto all,
                                       context.catalog.ListVolumes(OnAllPages(query), accept));
                      return all.size();
                    });
}

Result<Response> ListSummary(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kSummary);
}
Result<Response> ListDetail(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kFull);
}

Result<Response> Update(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:update"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "volume"));
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  ASSIGN_OR_RETURN(const auto metadata, ParseMetadata(body, "metadata"));
  ASSIGN_OR_RETURN(const VolumeRecord volume,
                   ChangeVolume(context, call, "volume:update",
                                [&](Transaction&, VolumeRecord& record) -> Result<void> {
                                  if (naming.name.has_value()) record.name = *naming.name;
                                  if (naming.description.has_value())
                                    record.description = *naming.description;
                                  if (metadata.has_value()) record.metadata = *metadata;
                                  return {};
                                }));
  ASSIGN_OR_RETURN(JsonObject view, VolumeView(context, call, volume, Detail::kCreated));
  return Wrapped(200, "volume", std::move(view));
}

bool MayBeDeleted(VolumeStatus status) {
  return status == VolumeStatus::kAvailable || status == VolumeStatus::kError ||
         status == VolumeStatus::kErrorRestoring || status == VolumeStatus::kErrorExtending ||
         status == VolumeStatus::kErrorDeleting;
}

base::Error NotDeletable() {
  return InvalidVolume(
      "Volume status must be available or error or error_restoring or error_extending or "
      "error_managing and must not be migrating, attached, belong to a group, have snapshots, "
      "awaiting a transfer, or be disassociated from snapshots after volume transfer.");
}

Result<bool> IsHeld(Transaction& transaction, const std::string& snapshot_id) {
  const Result<SnapshotRecord> snapshot = transaction.GetSnapshot(snapshot_id);
  if (snapshot.has_value()) return snapshot->holds > 0;
  if (snapshot.error().code() == base::Code::kNotFound) return false;
  return snapshot.error();
}

Result<Response> Delete(const Context& context, const api::Call& call) {
  const auto cascade_text = call.request.Query("cascade");
  bool cascade = false;
  if (cascade_text.has_value()) {
    ASSIGN_OR_RETURN(cascade, api::ParseBool(*cascade_text, "cascade"));
  }
  // Those of which something is being made keep the volume; a new one makes the commit fail, since
  // the volume counts them.
  std::vector<std::string> snapshot_ids;
  bool kept_by_another = false;
  if (cascade) {
    ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> snapshots,
                     context.catalog.SnapshotsOf(call.Param("volume_id")));
    for (const SnapshotRecord& snapshot : snapshots) {
      // One that stayed behind when the volume was given away is another's.
      if (!MaySee(call.caller, snapshot.project_id)) kept_by_another = true;
      snapshot_ids.push_back(snapshot.id);
    }
  }
  RETURN_IF_ERROR(
      ChangeVolumeByJob(context, call, "volume:delete", Lane::kDelete,
                        [&](Transaction& transaction, VolumeRecord& volume) -> Result<void> {
                          if (!MayBeDeleted(volume.status) || !volume.attachment_ids.empty())
                            return NotDeletable();
                          if (volume.snapshots > 0 && !cascade) return NotDeletable();
                          if (kept_by_another) return NotDeletable();
                          RETURN_IF_ERROR(CheckNotHeld(volume));
                          for (const std::string& id : snapshot_ids) {
                            ASSIGN_OR_RETURN(const bool held, IsHeld(transaction, id));
                            if (held) return NotDeletable();
                          }
                          volume.previous_status = volume.status;
                          volume.status = VolumeStatus::kDeleting;
                          return Jobs::Add(transaction, {Op::kDeleteVolume, volume.project_id,
                                                         volume.id, "", call.request.request_id});
                        }));
  context.exports.Forget(call.Param("volume_id"));
  return api::Accepted();
}

MetadataAccess AccessToVolumes() {
  MetadataAccess access;
  access.etags = true;
  access.read = [](const Context& context, const api::Call& call) -> Result<Metadata> {
    ASSIGN_OR_RETURN(VolumeRecord volume, VisibleVolume(context, call, call.Param("volume_id")));
    return std::move(volume.metadata);
  };
  access.change = [](const Context& context, const api::Call& call,
                     const MetadataChange& change) -> Result<Metadata> {
    ASSIGN_OR_RETURN(VolumeRecord volume,
                     ChangeVolume(context, call, "volume:update_volume_metadata",
                                  [&](Transaction&, VolumeRecord& record) -> Result<void> {
                                    return change(record.metadata);
                                  }));
    return std::move(volume.metadata);
  };
  return access;
}

}  // namespace

void AppendVolumeRoutes(const Context& context, Routes* routes) {
  const std::string volume = "/volumes/{volume_id}";
  routes->push_back(MakeRoute(context, "POST", "/volumes", CreateVolume));
  routes->push_back(MakeRoute(context, "GET", "/volumes", ListSummary));
  routes->push_back(MakeRoute(context, "GET", "/volumes/detail", ListDetail));
  routes->push_back(MakeRoute(context, "GET", volume, Show));
  routes->push_back(MakeRoute(context, "PUT", volume, Update));
  routes->push_back(MakeRoute(context, "DELETE", volume, Delete));
  AppendMetadataRoutes(context, volume, AccessToVolumes(), routes);
}

}  // namespace blockd
