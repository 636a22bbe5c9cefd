#include <string_view>

#include "blockd/api/errors.h"
#include "blockd/discovery/discovery.h"

namespace blockd::discovery {
namespace {

using api::Call;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int kGroupTypesSince = 11;
constexpr int kGroupsSince = 13;
constexpr int kGroupSnapshotsSince = 14;
constexpr int kClustersSince = 7;
constexpr int kResourceFiltersSince = 33;

// --- extensions: the parts of Cinder's API that are here ---

struct Extension {
  std::string_view name;
  std::string_view alias;
  std::string_view description;
};
constexpr Extension kExtensions[] = {
    {"AdminActions", "os-admin-actions", "Actions of administrators."},
    {"AvailabilityZones", "os-availability-zone", "Lists the availability zones."},
    {"Backups", "backups", "Backups of volumes."},
    {"Capabilities", "capabilities", "What a back end can do."},
    {"ExtendedServices", "os-extended-services", "Why a service is disabled."},
    {"ExtendedSnapshotAttributes", "os-extended-snapshot-attributes",
     "Project and progress of a snapshot."},
    {"Hosts", "os-hosts", "Hosts, as administrators see them."},
    {"Qos_specs_manage", "qos-specs", "Limits of volumes, by type."},
    {"QuotaClasses", "os-quota-class-sets", "Quotas of projects without their own."},
    {"Quotas", "os-quota-sets", "Quotas of projects."},
    {"Scheduler_stats", "scheduler-stats", "Pools and their capacity."},
    {"Services", "os-services", "Services and their state."},
    {"SnapshotActions", "os-snapshot-actions", "Actions on snapshots."},
    {"TypesExtraSpecs", "os-types-extra-specs", "Extra specs of volume types."},
    {"TypesManage", "os-types-manage", "Making and removing volume types."},
    {"UsedLimits", "os-used-limits", "What a project uses of its limits."},
    {"VolumeActions", "os-volume-actions", "Actions on volumes."},
    {"VolumeHostAttribute", "os-vol-host-attr", "The host of a volume."},
    {"VolumeImageMetadata", "os-vol-image-meta", "The image that a volume was made of."},
    {"VolumeMigStatusAttribute", "os-vol-mig-status-attr", "The migration status of a volume."},
    {"VolumeTenantAttribute", "os-vol-tenant-attr", "The project of a volume."},
    {"VolumeTransfer", "os-volume-transfer", "Handing a volume to another project."},
    {"VolumeTypeAccess", "os-volume-type-access", "Which project may use a private type."},
};

JsonObject View(const Extension& extension) {
  return {{"name", extension.name},
          {"alias", extension.alias},
          {"description", extension.description},
          {"updated", "2023-08-31T00:00:00+00:00"},
          {"links", JsonArray{}}};
}

Result<Response> ListExtensions(const Call&) {
  JsonArray extensions;
  for (const Extension& extension : kExtensions) extensions.push_back(View(extension));
  return Response::OfJson(200, JsonObject{{"extensions", std::move(extensions)}});
}

Result<Response> ShowExtension(const Call& call) {
  for (const Extension& extension : kExtensions)
    if (extension.alias == call.Param("alias"))
      return Response::OfJson(200, JsonObject{{"extension", View(extension)}});
  return api::NotFound("Extension", call.Param("alias"));
}

// --- what lists may be filtered by ---

struct Filters {
  std::string_view resource;
  std::vector<std::string_view> names;
};
const std::vector<Filters>& AllFilters() {
  static const auto* const filters = new std::vector<Filters>{
      {"volume",
       {"name", "status", "metadata", "bootable", "migration_status", "availability_zone", "size",
        "created_at", "updated_at"}},
      {"backup", {"name", "status", "volume_id"}},
      {"snapshot", {"name", "status", "volume_id", "metadata", "availability_zone"}},
      {"attachment", {"volume_id", "status", "instance_id", "attach_status"}},
      {"message", {"resource_uuid", "resource_type", "event_id", "request_id", "message_level"}},
      {"pool", {"name", "volume_type"}},
      {"volume_type", {"is_public", "extra_specs"}},
  };
  return *filters;
}

Result<Response> ListFilters(const Call& call) {
  const auto wanted = call.request.Query("resource");
  JsonArray entries;
  for (const Filters& filters : AllFilters()) {
    if (wanted.has_value() && *wanted != filters.resource) continue;
    JsonArray names;
    for (const std::string_view name : filters.names) names.emplace_back(name);
    entries.push_back(JsonObject{{"resource", filters.resource}, {"filters", std::move(names)}});
  }
  return Response::OfJson(200, JsonObject{{"resource_filters", std::move(entries)}});
}

// --- what there is none of ---

// Whoever would make one is told why not, whatever his role.
api::Route NoneMade(std::string pattern, int since) {
  return {"POST", std::move(pattern), Access::kToken, since, [](const Call&) -> Result<Response> {
            return api::Bad(
                "There are no volume groups here: snapshots of several volumes at one moment are "
                "not offered. Take one of each.");
          }};
}

api::Route Route(std::string pattern, Access access, int since, api::Handler handler) {
  return {"GET", std::move(pattern), access, since, std::move(handler)};
}

api::Route EmptyList(std::string pattern, Access access, int since, std::string name) {
  return Route(std::move(pattern), access, since, [name](const Call&) -> Result<Response> {
    JsonObject body;
    body.emplace(name, JsonArray{});
    return Response::OfJson(200, std::move(body));
  });
}

api::Route NoneThere(std::string pattern, Access access, int since, std::string kind) {
  return Route(std::move(pattern), access, since, [kind](const Call& call) -> Result<Response> {
    return api::NotFound(kind, call.Param("id"));
  });
}

}  // namespace

void AppendListRoutes(std::vector<api::Route>* routes) {
  constexpr Access kToken = Access::kToken;
  routes->push_back(Route("/extensions", kToken, 0, ListExtensions));
  routes->push_back(Route("/extensions/{alias}", kToken, 0, ShowExtension));
  routes->push_back(Route("/resource_filters", kToken, kResourceFiltersSince, ListFilters));
  routes->push_back(EmptyList("/group_types", kToken, kGroupTypesSince, "group_types"));
  routes->push_back(NoneThere("/group_types/{id}", kToken, kGroupTypesSince, "Group Type"));
  routes->push_back(EmptyList("/groups", kToken, kGroupsSince, "groups"));
  routes->push_back(EmptyList("/groups/detail", kToken, kGroupsSince, "groups"));
  routes->push_back(NoneThere("/groups/{id}", kToken, kGroupsSince, "Group"));
  routes->push_back(EmptyList("/group_snapshots", kToken, kGroupSnapshotsSince, "group_snapshots"));
  routes->push_back(
      EmptyList("/group_snapshots/detail", kToken, kGroupSnapshotsSince, "group_snapshots"));
  routes->push_back(
      NoneThere("/group_snapshots/{id}", kToken, kGroupSnapshotsSince, "GroupSnapshot"));
  routes->push_back(NoneMade("/group_types", kGroupTypesSince));
  routes->push_back(NoneMade("/groups", kGroupsSince));
  routes->push_back(NoneMade("/groups/action", kGroupSnapshotsSince));
  routes->push_back(NoneMade("/group_snapshots", kGroupSnapshotsSince));
  routes->push_back(EmptyList("/clusters", Access::kAdmin, kClustersSince, "clusters"));
  routes->push_back(EmptyList("/clusters/detail", Access::kAdmin, kClustersSince, "clusters"));
  routes->push_back(NoneThere("/clusters/{id}", Access::kAdmin, kClustersSince, "Cluster"));
}

}  // namespace blockd::discovery
