#include <algorithm>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/views.h"
#include "blockd/discovery/discovery.h"
#include "blockd/type_directory.h"

namespace blockd::discovery {
namespace {

using api::Bad;
using api::Call;
using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int kClusterSince = 7;
constexpr int kBackendStateSince = 49;
constexpr std::string_view kDriverVersion = "1.0";

// Clients look for these binaries by name, though all of it is one process.
constexpr std::string_view kVolumeBinary = "cinder-volume";
constexpr std::string_view kSchedulerBinary = "cinder-scheduler";
constexpr std::string_view kBackupBinary = "cinder-backup";

// One for each back end.
std::vector<HostName> Hosts(const Context& context) {
  std::vector<HostName> hosts;
  for (const std::string& back_end : context.options.back_ends)
    hosts.push_back(ParseHost(HostOf(context.options, back_end)));
  return hosts;
}

struct Row {
  std::string_view binary;
  std::string host;
  bool is_up = true;
};
std::vector<Row> Rows(const Context& context) {
  const std::string& node = context.options.node;
  std::vector<Row> rows = {{kSchedulerBinary, node}};
  for (const HostName& host : Hosts(context)) rows.push_back({kVolumeBinary, host.backend});
  const BackupService backups = context.options.backup_service;
  if (backups != BackupService::kOff)
    rows.push_back({kBackupBinary, node, backups == BackupService::kUp});
  return rows;
}

JsonObject View(const Context& context, const Call& call, const Row& row) {
  JsonObject view = {{"binary", row.binary},
                     {"host", row.host},
                     {"zone", context.options.availability_zone},
                     {"status", "enabled"},
                     {"state", row.is_up ? "up" : "down"},
                     {"updated_at", api::FormatTime(context.catalog.NowUs())},
                     {"disabled_reason", nullptr}};
  if (call.version.AtLeast(kClusterSince)) view.emplace("cluster", nullptr);
  if (row.binary != kVolumeBinary) return view;
  view.emplace("replication_status", "disabled");
  view.emplace("active_backend_id", nullptr);
  view.emplace("frozen", false);
  if (call.version.AtLeast(kBackendStateSince)) view.emplace("backend_state", "up");
  return view;
}

Result<Response> ListServices(const Context& context, const Call& call) {
  const auto binary = call.request.Query("binary");
  const auto host = call.request.Query("host");
  JsonArray views;
  for (const Row& row : Rows(context)) {
    if (binary.has_value() && *binary != row.binary) continue;
    // A node's name means all that runs there.
    if (host.has_value() && *host != row.host && *host != ParseHost(row.host).node) continue;
    views.push_back(View(context, call, row));
  }
  return Response::OfJson(200, JsonObject{{"services", std::move(views)}});
}

Result<Row> FindRow(const Context& context, std::string_view host, std::string_view binary) {
  for (Row& row : Rows(context))
    if (row.host == host && row.binary == binary) return std::move(row);
  return Error(Code::kNotFound, "Service " + api::Echo(binary) + " could not be found on host " +
                                    api::Echo(host) + ".");
}

Result<Response> ChangeReplication(const Context& context, const JsonObject& body, bool freeze) {
  ASSIGN_OR_RETURN(const std::string host, api::RequiredName(body, "host"));
  if (!FindRow(context, host, kVolumeBinary).has_value())
    return Bad("No service found with host=" + host);
  if (freeze) return Bad("Back ends can't be frozen here.");
  return api::Accepted();
}

// The one process is enabled as long as it runs.
Result<Response> ChangeService(const Context& context, const Call& call) {
  const std::string& action = call.Param("action");
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  if (action == "freeze" || action == "thaw")
    return ChangeReplication(context, body, action == "freeze");
  if (action != "enable" && action != "disable" && action != "disable-log-reason")
    return Error(Code::kNotFound, "There is no such action: " + api::Echo(action) + ".");
  if (action == "disable-log-reason") {
    if (!body.contains("disabled_reason")) return api::Missing("disabled_reason");
    RETURN_IF_ERROR(api::RequiredName(body, "disabled_reason"));
  }
  ASSIGN_OR_RETURN(const std::string host, api::RequiredName(body, "host"));
  const bool by_service = !body.contains("binary") && body.contains("service");
  ASSIGN_OR_RETURN(const std::string binary,
                   api::RequiredName(body, by_service ? "service" : "binary"));
  ASSIGN_OR_RETURN(const Row row, FindRow(context, host, binary));
  if (action != "enable") return Bad("There is one service only: stop it to disable it.");
  return Response::OfJson(200, JsonObject{{"host", row.host},
                                          {"service", row.binary},
                                          {"binary", row.binary},
                                          {"disabled", false},
                                          {"status", "enabled"}});
}

Result<Response> ListHosts(const Context& context, const Call&) {
  JsonArray hosts;
  for (const Row& row : Rows(context))
    hosts.push_back(JsonObject{{"host_name", row.host},
                               {"service", row.binary},
                               {"zone", context.options.availability_zone},
                               {"service-status", "available"},
                               {"service-state", "enabled"},
                               {"last-update", api::FormatTime(context.catalog.NowUs())}});
  return Response::OfJson(200, JsonObject{{"hosts", std::move(hosts)}});
}

// What lies on a host.
struct Sum {
  uint64_t volumes = 0;
  uint64_t volume_gb = 0;
  uint64_t snapshots = 0;
  uint64_t snapshot_gb = 0;
};

// Of a back end, by project, and of all under "(total)". A snapshot counts where its volume is, or
// with those of the first back end once that is gone.
Result<std::map<std::string, Sum>> Sums(const Context& context, const std::string& back_end) {
  std::map<std::string, Sum> sums;
  Sum& total = sums["(total)"];
  ListQuery everything;
  everything.limit = SIZE_MAX;
  // Counted as they pass: nothing is kept.
  std::map<std::string, std::string> elsewhere;  // volumes of other back ends than the first
  const auto count_volume = [&](const VolumeRecord& volume) {
    if (BackEndOf(volume) != context.options.back_ends.front())
      elsewhere.emplace(volume.id, BackEndOf(volume));
    if (BackEndOf(volume) != back_end) return false;
    for (Sum* sum : {&total, &sums[volume.project_id]}) {
      ++sum->volumes;
      sum->volume_gb += volume.size_gb;
    }
    return false;
  };
  const auto count_snapshot = [&](const SnapshotRecord& snapshot) {
    const auto found = elsewhere.find(snapshot.volume_id);
    if ((found == elsewhere.end() ? context.options.back_ends.front() : found->second) != back_end)
      return false;
    for (Sum* sum : {&total, &sums[snapshot.project_id]}) {
      ++sum->snapshots;
      sum->snapshot_gb += snapshot.size_gb;
    }
    return false;
  };
  RETURN_IF_ERROR(context.catalog.ListVolumes(everything, count_volume));
  RETURN_IF_ERROR(context.catalog.ListSnapshots(everything, count_snapshot));
  return sums;
}

Result<Response> ShowHost(const Context& context, const Call& call) {
  const std::string& host = call.Param("host");
  if (!FindRow(context, host, kVolumeBinary).has_value()) return api::NotFound("Host", host);
  ASSIGN_OR_RETURN(const auto sums, Sums(context, ParseHost(host).name));
  JsonArray resources;
  for (const auto& [project, sum] : sums)
    resources.push_back(JsonObject{
        {"resource", JsonObject{{"host", host},
                                {"project", project},
                                {"volume_count", std::to_string(sum.volumes)},
                                {"total_volume_gb", std::to_string(sum.volume_gb)},
                                {"snapshot_count", std::to_string(sum.snapshots)},
                                {"total_snapshot_gb", std::to_string(sum.snapshot_gb)}}}});
  return Response::OfJson(200, JsonObject{{"host", std::move(resources)}});
}

Result<Response> ListZones(const Context& context, const Call&) {
  JsonArray zones;
  zones.push_back(JsonObject{{"zoneName", context.options.availability_zone},
                             {"zoneState", JsonObject{{"available", true}}}});
  return Response::OfJson(200, JsonObject{{"availabilityZoneInfo", std::move(zones)}});
}

Json Gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(base::kGiB);
}

Result<JsonObject> PoolCapabilities(const Context& context, const std::string& back_end) {
  Json total = "unknown";
  Json free = "unknown";
  if (context.capacity) {
    ASSIGN_OR_RETURN(const std::optional<Capacity> capacity, context.capacity(back_end));
    if (capacity.has_value()) {
      total = Gigabytes(capacity->total_bytes);
      free = Gigabytes(capacity->free_bytes);
    }
  }
  ASSIGN_OR_RETURN(const auto sums, Sums(context, back_end));
  const auto provisioned_gb = static_cast<double>(sums.at("(total)").volume_gb);
  return JsonObject{{"volume_backend_name", back_end},
                    {"vendor_name", kBackEndVendor},
                    {"driver_version", kDriverVersion},
                    {"storage_protocol", kBackEndProtocol},
                    {"total_capacity_gb", total},
                    {"free_capacity_gb", free},
                    {"reserved_percentage", 0},
                    {"QoS_support", true},
                    {"sparse_copy_volume", true},
                    {"provisioned_capacity_gb", provisioned_gb},
                    {"max_over_subscription_ratio", 20.0},
                    {"thin_provisioning_support", true},
                    {"thick_provisioning_support", true},
                    {"allocated_capacity_gb", provisioned_gb},
                    {"filter_function", nullptr},
                    {"goodness_function", nullptr},
                    {"timestamp", api::FormatTime(context.catalog.NowUs())}};
}

Result<Response> ListPools(const Context& context, const Call& call) {
  bool detail = false;
  if (const auto text = call.request.Query("detail"); text.has_value()) {
    ASSIGN_OR_RETURN(detail, api::ParseBool(*text, "detail"));
  }
  const auto name = call.request.Query("name");
  JsonArray pools;
  for (const HostName& host : Hosts(context)) {
    if (name.has_value() && *name != host.pool) continue;
    JsonObject pool = {{"name", host.pool}};
    if (detail) {
      ASSIGN_OR_RETURN(JsonObject capabilities, PoolCapabilities(context, host.name));
      pool.emplace("capabilities", std::move(capabilities));
    }
    pools.push_back(std::move(pool));
  }
  return Response::OfJson(200, JsonObject{{"pools", std::move(pools)}});
}

JsonObject Property(std::string_view title, std::string_view description) {
  return {{"title", title}, {"description", description}, {"type", "boolean"}};
}

Result<Response> ShowCapabilities(const Context& context, const Call& call) {
  const std::string& asked = call.Param("host");
  const std::vector<HostName> hosts = Hosts(context);
  const auto host = std::find_if(hosts.begin(), hosts.end(), [&](const HostName& one) {
    return asked == one.backend || asked == one.pool;
  });
  if (host == hosts.end())
    return Error(Code::kNotFound, "Host " + api::Echo(asked) + " could not be found.");
  const JsonObject properties = {
      {"thin_provisioning", Property("Thin Provisioning", "Space is taken as it is written.")},
      {"compression", Property("Compression", "What is sealed is compressed.")},
      {"qos", Property("QoS", "Limits of qos-specs are kept to by the back end.")},
      {"replication_enabled", Property("Replication", "Volumes are not replicated.")}};
  return Response::OfJson(200,
                          JsonObject{{"namespace", "OS::Storage::Capabilities::" + host->backend},
                                     {"vendor_name", kBackEndVendor},
                                     {"volume_backend_name", host->name},
                                     {"pool_name", nullptr},
                                     {"driver_version", kDriverVersion},
                                     {"storage_protocol", kBackEndProtocol},
                                     {"display_name", nullptr},
                                     {"description", nullptr},
                                     {"visibility", nullptr},
                                     {"replication_targets", JsonArray{}},
                                     {"properties", properties}});
}

}  // namespace

HostName ParseHost(std::string_view host) {
  HostName parsed;
  parsed.pool = std::string(host);
  const size_t hash = host.find('#');
  parsed.backend = std::string(host.substr(0, hash));
  const size_t at = parsed.backend.find('@');
  parsed.node = parsed.backend.substr(0, at);
  parsed.name = at == std::string::npos ? parsed.node : parsed.backend.substr(at + 1);
  return parsed;
}

void AppendServiceRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern,
                       api::ContextHandler<Context> handler, Access access = Access::kAdmin) {
    routes->push_back(api::MakeRoute(context, method, pattern, handler, access));
  };
  add("GET", "/os-services", ListServices);
  add("PUT", "/os-services/{action}", ChangeService);
  add("GET", "/os-hosts", ListHosts);
  add("GET", "/os-hosts/{host}", ShowHost);
  add("GET", "/os-availability-zone", ListZones, Access::kToken);
  add("GET", "/scheduler-stats/get_pools", ListPools);
  add("GET", "/capabilities/{host}", ShowCapabilities);
}

}  // namespace blockd::discovery
