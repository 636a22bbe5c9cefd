#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "base/uuid.h"
#include "blockd/actions.h"
#include "blockd/api/body.h"
#include "blockd/api/views.h"
#include "blockd/catalog_keys.h"
#include "blockd/handler_tools.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/metadata_routes.h"
#include "blockd/policy.h"
#include "blockd/views.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::http::Response;

constexpr int kForceIsDefault = 66;  // a snapshot of an attached volume needs no "force"
constexpr std::array<std::string_view, 9> kSortKeys = {
    "created_at", "updated_at", "name",        "display_name",     "id",
    "status",     "volume_id",  "volume_size", "availability_zone"};

using SnapshotChange = std::function<Result<void>(Transaction&, SnapshotRecord&)>;
Catalog::Body BodyOf(const api::Call& call, const SnapshotChange& change, SnapshotRecord* changed) {
  return [&call, &change, changed](Transaction& transaction) -> Result<void> {
    const std::string& id = call.Param("snapshot_id");
    ASSIGN_OR_RETURN(SnapshotRecord snapshot, transaction.GetSnapshot(id));
    if (!MaySee(call.caller, snapshot.project_id)) return NotThere<SnapshotRecord>(id);
    RETURN_IF_ERROR(change(transaction, snapshot));
    RETURN_IF_ERROR(transaction.Put(snapshot));
    ASSIGN_OR_RETURN(*changed, transaction.GetSnapshot(id));
    return {};
  };
}
Result<SnapshotRecord> ChangeSnapshot(const Context& context, const api::Call& call,
                                      std::string_view action, const SnapshotChange& change) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, action));
  SnapshotRecord changed;
  RETURN_IF_ERROR(context.catalog.Transact(BodyOf(call, change, &changed)));
  return changed;
}

Result<void> CheckMaySnapshot(const VolumeRecord& volume, bool force) {
  if (volume.status == VolumeStatus::kAvailable) return {};
  if (volume.status == VolumeStatus::kInUse && force) return {};
  return InvalidVolume(
      "Volume " + volume.id + " status must be available" + (force ? " or in-use" : "") +
      ", but current status is: " + std::string(VolumeStatusName(volume.status)) + ".");
}

Result<Response> Create(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:create_snapshot"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "snapshot"));
  ASSIGN_OR_RETURN(const auto volume_id, api::OptionalText(body, "volume_id", 64));
  ASSIGN_OR_RETURN(const auto force_asked, api::OptionalBool(body, "force"));
  const bool always = call.version.AtLeast(kForceIsDefault);
  if (always && force_asked.has_value() && !*force_asked)
    return InvalidInput("'force' is not to be false from 3.66 on");
  const bool force = always || force_asked.value_or(false);
  SnapshotRecord snapshot;
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  ASSIGN_OR_RETURN(const auto metadata, ParseMetadata(body, "metadata"));
  snapshot.id = base::NewUuid();
  snapshot.user_id = call.caller.user_id;
  snapshot.name = naming.name.value_or(std::nullopt);
  snapshot.description = naming.description.value_or(std::nullopt);
  snapshot.metadata = metadata.value_or(Metadata());
  RETURN_IF_ERROR(
      context.jobs.Submit(Lane::kSnapshot, [&](Transaction& transaction) -> Result<void> {
        ASSIGN_OR_RETURN(const VolumeRecord volume,
                         OwnVolume(transaction, call, volume_id.value_or("None")));
        RETURN_IF_ERROR(CheckMaySnapshot(volume, force));
        snapshot.volume_id = volume.id;
        snapshot.project_id = volume.project_id;
        snapshot.size_gb = volume.size_gb;
        snapshot.type_id = volume.type_id;
        RETURN_IF_ERROR(transaction.Put(snapshot));
        return Jobs::Add(transaction, {Op::kCreateSnapshot, volume.project_id, snapshot.id, "",
                                       call.request.request_id});
      }));
  snapshot.created_at_us = context.catalog.NowUs();
  return Wrapped(202, "snapshot", SnapshotView(call, snapshot, Detail::kSummary));
}

Result<Response> Show(const Context& context, const api::Call& call) {
  ASSIGN_OR_RETURN(const SnapshotRecord snapshot,
                   VisibleSnapshot(context, call, call.Param("snapshot_id")));
  return Wrapped(200, "snapshot", SnapshotView(call, snapshot, Detail::kFull));
}

bool Passes(const SnapshotRecord& snapshot, std::string_view name, std::string_view value) {
  if (name == "name" || name == "display_name") return snapshot.name.value_or("") == value;
  if (name == "name~" || name == "display_name~")
    return snapshot.name.value_or("").find(value) != std::string::npos;
  if (name == "status") return SnapshotStatusName(snapshot.status) == value;
  if (name == "volume_id") return snapshot.volume_id == value;
  if (name == "id") return snapshot.id == value;
  if (name == "user_id") return snapshot.user_id == value;
  return true;
}

Result<Response> List(const Context& context, const api::Call& call, Detail detail) {
  ASSIGN_OR_RETURN(const api::ListRequest list, api::ParseList(call, kSortKeys));
  ASSIGN_OR_RETURN(const ListQuery query, ToQuery(call, list));
  std::optional<Metadata> metadata;
  if (const auto wanted = list.Filter("metadata"); wanted.has_value()) {
    ASSIGN_OR_RETURN(metadata, ParseMetadataFilter(*wanted));
  }
  const auto accept = [&](const SnapshotRecord& snapshot) {
    for (const auto& [name, value] : list.filters)
      if (!Passes(snapshot, name, value)) return false;
    return !metadata.has_value() || Includes(snapshot.metadata, *metadata);
  };
  ASSIGN_OR_RETURN(const std::vector<SnapshotRecord> snapshots,
                   context.catalog.ListSnapshots(query, accept));
  base::JsonArray array;
  for (const SnapshotRecord& snapshot : snapshots)
    array.push_back(SnapshotView(call, snapshot, detail));
  return ListAnswer(call, list, "snapshots", std::move(array),
                    snapshots.empty() ? "" : snapshots.back().id, [&]() -> Result<size_t> {
                      ASSIGN_OR_RETURN(const auto all,
                                       context.catalog.ListSnapshots(OnAllPages(query), accept));
                      return all.size();
                    });
}

Result<Response> ListSummary(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kCreated);
}
Result<Response> ListDetail(const Context& context, const api::Call& call) {
  return List(context, call, Detail::kFull);
}

Result<Response> Update(const Context& context, const api::Call& call) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:update_snapshot"));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "snapshot"));
  ASSIGN_OR_RETURN(const Naming naming, ParseNaming(body));
  ASSIGN_OR_RETURN(const SnapshotRecord snapshot,
                   ChangeSnapshot(context, call, "volume:update_snapshot",
                                  [&](Transaction&, SnapshotRecord& record) -> Result<void> {
                                    if (naming.name.has_value()) record.name = *naming.name;
                                    if (naming.description.has_value())
                                      record.description = *naming.description;
                                    return {};
                                  }));
  return Wrapped(200, "snapshot", SnapshotView(call, snapshot, Detail::kSummary));
}

Result<void> BeginDelete(Transaction& transaction, const api::Call& call, SnapshotRecord& snapshot,
                         bool force) {
  const bool stable = snapshot.status == SnapshotStatus::kAvailable ||
                      snapshot.status == SnapshotStatus::kError ||
                      snapshot.status == SnapshotStatus::kErrorDeleting;
  if (!stable && !force)
    return InvalidSnapshot("Snapshot status must be available or error, but current status is " +
                           std::string(SnapshotStatusName(snapshot.status)) + ".");
  if (!force) RETURN_IF_ERROR(CheckNotHeld(snapshot));
  // It may be to this one.
  const Result<VolumeRecord> volume = transaction.GetVolume(snapshot.volume_id);
  if (!force && volume.has_value() && volume->status == VolumeStatus::kReverting)
    return InvalidSnapshot("Snapshot can't be deleted while its volume is reverted to a snapshot.");
  snapshot.status = SnapshotStatus::kDeleting;
  return Jobs::Add(transaction, {Op::kDeleteSnapshot, snapshot.project_id, snapshot.id, "",
                                 call.request.request_id});
}

Result<Response> DeleteIn(const Context& context, const api::Call& call, bool force) {
  RETURN_IF_ERROR(CheckMayWrite(call.caller, "volume:delete_snapshot"));
  const SnapshotChange change = [&](Transaction& transaction, SnapshotRecord& snapshot) {
    return BeginDelete(transaction, call, snapshot, force);
  };
  SnapshotRecord changed;
  RETURN_IF_ERROR(context.jobs.Submit(Lane::kDelete, BodyOf(call, change, &changed)));
  return api::Accepted();
}
Result<Response> Delete(const Context& context, const api::Call& call) {
  return DeleteIn(context, call, false);
}

Result<SnapshotStatus> StatusIn(const base::Json& body) {
  const auto name = base::FindString(body, "status");
  const auto status = name.has_value() ? ParseSnapshotStatus(*name) : std::nullopt;
  if (status.has_value()) return *status;
  return InvalidInput("a known status is required");
}

Result<Response> ResetStatus(const Context& context, const api::Call& call,
                             const base::Json& body) {
  const std::string_view policy = "volume_extension:snapshot_admin_actions:reset_status";
  RETURN_IF_ERROR(CheckAdmin(call.caller, policy));
  ASSIGN_OR_RETURN(const SnapshotStatus status, StatusIn(body));
  RETURN_IF_ERROR(ChangeSnapshot(context, call, policy,
                                 [&](Transaction&, SnapshotRecord& record) -> Result<void> {
                                   record.status = status;
                                   return {};
                                 }));
  return api::Accepted();
}

// "80%"; nothing if it is absent.
Result<std::optional<int32_t>> ProgressIn(const base::Json& body) {
  const auto text = base::FindString(body, "progress");
  if (!text.has_value()) return std::optional<int32_t>();
  int32_t percent = -1;
  const auto [end, failure] = std::from_chars(text->data(), text->data() + text->size(), percent);
  const std::string_view rest(end, text->data() + text->size());
  if (failure == std::errc() && percent >= 0 && percent <= 100 && (rest.empty() || rest == "%"))
    return std::optional<int32_t>(percent);
  return InvalidInput("progress must be an integer percentage");
}

// How a hypervisor that takes a snapshot itself tells how far it is. None does here, so a member
// may give one up, but only an administrator may say that it is there.
Result<Response> UpdateStatus(const Context& context, const api::Call& call,
                              const base::Json& body) {
  const std::string_view policy = "snapshot_extension:snapshot_actions:update_snapshot_status";
  ASSIGN_OR_RETURN(const SnapshotStatus status, StatusIn(body));
  ASSIGN_OR_RETURN(const std::optional<int32_t> progress, ProgressIn(body));
  if (status == SnapshotStatus::kAvailable) RETURN_IF_ERROR(CheckAdmin(call.caller, policy));
  const auto change = [&](Transaction&, SnapshotRecord& record) -> Result<void> {
    const bool creating =
        record.status == SnapshotStatus::kCreating &&
        (status == SnapshotStatus::kCreating || status == SnapshotStatus::kAvailable ||
         status == SnapshotStatus::kError);
    const bool deleting =
        record.status == SnapshotStatus::kDeleting &&
        (status == SnapshotStatus::kDeleting || status == SnapshotStatus::kErrorDeleting);
    if (!creating && !deleting)
      return InvalidSnapshot("Provided snapshot status " + std::string(SnapshotStatusName(status)) +
                             " not allowed for snapshot with status " +
                             std::string(SnapshotStatusName(record.status)) + ".");
    record.status = status;
    record.progress_percent = progress.value_or(record.progress_percent);
    return {};
  };
  RETURN_IF_ERROR(ChangeSnapshot(context, call, policy, change));
  return api::Accepted();
}
Result<Response> ForceDelete(const Context& context, const api::Call& call, const base::Json&) {
  RETURN_IF_ERROR(CheckAdmin(call.caller, "volume_extension:snapshot_admin_actions:force_delete"));
  return DeleteIn(context, call, true);
}

Result<Response> Act(const Context& context, const api::Call& call) {
  static constexpr std::array<Action, 3> kActions = {{{"os-reset_status", ResetStatus},
                                                      {"os-update_snapshot_status", UpdateStatus},
                                                      {"os-force_delete", ForceDelete}}};
  return RunAction(context, call, kActions);
}

MetadataAccess AccessToSnapshots() {
  MetadataAccess access;
  access.read = [](const Context& context, const api::Call& call) -> Result<Metadata> {
    ASSIGN_OR_RETURN(SnapshotRecord snapshot,
                     VisibleSnapshot(context, call, call.Param("snapshot_id")));
    return std::move(snapshot.metadata);
  };
  access.change = [](const Context& context, const api::Call& call,
                     const MetadataChange& change) -> Result<Metadata> {
    ASSIGN_OR_RETURN(SnapshotRecord snapshot,
                     ChangeSnapshot(context, call, "volume:update_snapshot_metadata",
                                    [&](Transaction&, SnapshotRecord& record) -> Result<void> {
                                      return change(record.metadata);
                                    }));
    return std::move(snapshot.metadata);
  };
  return access;
}

}  // namespace

void AppendSnapshotRoutes(const Context& context, Routes* routes) {
  const std::string snapshot = "/snapshots/{snapshot_id}";
  routes->push_back(MakeRoute(context, "POST", "/snapshots", Create));
  routes->push_back(MakeRoute(context, "GET", "/snapshots", ListSummary));
  routes->push_back(MakeRoute(context, "GET", "/snapshots/detail", ListDetail));
  routes->push_back(MakeRoute(context, "GET", snapshot, Show));
  routes->push_back(MakeRoute(context, "PUT", snapshot, Update));
  routes->push_back(MakeRoute(context, "DELETE", snapshot, Delete));
  routes->push_back(MakeRoute(context, "POST", snapshot + "/action", Act));
  AppendMetadataRoutes(context, snapshot, AccessToSnapshots(), routes);
}

}  // namespace blockd
