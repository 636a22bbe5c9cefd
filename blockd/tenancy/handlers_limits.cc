#include <map>
#include <set>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/tenancy/tenancy.h"

// What a project may use and does, and the sum of its volumes.

namespace blockd::tenancy {
namespace {

using api::Call;
using api::MakeRoute;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int kLimitsFilterSince = 39;
constexpr int kSummarySince = 12;
constexpr int kSummaryMetadataSince = 36;

struct Limit {
  std::string_view resource;
  std::string_view maximum;
  std::string_view used;
};
constexpr Limit kLimits[] = {
    {kVolumesResource, "maxTotalVolumes", "totalVolumesUsed"},
    {kGigabytesResource, "maxTotalVolumeGigabytes", "totalGigabytesUsed"},
    {kSnapshotsResource, "maxTotalSnapshots", "totalSnapshotsUsed"},
    {kBackupsResource, "maxTotalBackups", "totalBackupsUsed"},
    {kBackupGigabytesResource, "maxTotalBackupGigabytes", "totalBackupGigabytesUsed"},
};

Result<Response> ShowLimits(const Context& context, const Call& call) {
  std::string project = call.caller.project_id;
  const auto asked = call.request.Query("project_id");
  if (asked.has_value() && call.caller.IsAdmin() && call.version.AtLeast(kLimitsFilterSince))
    project = std::string(*asked);
  ASSIGN_OR_RETURN(const Amounts used, context.catalog.UsageOf(project));
  JsonObject absolute;
  for (const Limit& limit : kLimits) {
    ASSIGN_OR_RETURN(const int64_t maximum, context.catalog.LimitOf(project, limit.resource));
    const auto amount = used.find(limit.resource);
    absolute.emplace(limit.maximum, maximum);
    absolute.emplace(limit.used, amount == used.end() ? 0 : amount->second);
  }
  const JsonObject limits = {{"rate", JsonArray{}}, {"absolute", std::move(absolute)}};
  return Response::OfJson(200, JsonObject{{"limits", limits}});
}

Result<Response> Summary(const Context& context, const Call& call) {
  ListQuery query;
  query.limit = SIZE_MAX;
  query.project_id = call.caller.project_id;
  if (const auto all = call.request.Query("all_tenants"); all.has_value() && !all->empty()) {
    ASSIGN_OR_RETURN(const bool wanted, api::ParseBool(*all, "all_tenants"));
    if (wanted && call.caller.IsAdmin()) query.project_id.reset();
  }
  uint64_t count = 0;
  uint64_t size_gb = 0;
  std::map<std::string, std::set<std::string>> metadata;
  // Summed as they pass: nothing is kept.
  RETURN_IF_ERROR(context.catalog.ListVolumes(query, [&](const VolumeRecord& volume) {
    ++count;
    size_gb += volume.size_gb;
    for (const auto& [key, value] : volume.metadata) metadata[key].insert(value);
    return false;
  }));
  JsonObject summary = {{"total_count", count}, {"total_size", size_gb}};
  if (call.version.AtLeast(kSummaryMetadataSince)) {
    JsonObject pairs;
    for (const auto& [key, values] : metadata)
      pairs.emplace(key, JsonArray(values.begin(), values.end()));
    summary.emplace("metadata", std::move(pairs));
  }
  return Response::OfJson(200, JsonObject{{"volume-summary", std::move(summary)}});
}

}  // namespace

void AppendLimitRoutes(const Context& context, std::vector<api::Route>* routes) {
  routes->push_back(MakeRoute(context, "GET", "/limits", ShowLimits));
  routes->push_back(
      MakeRoute(context, "GET", "/volumes/summary", Summary, Access::kToken, kSummarySince));
}

}  // namespace blockd::tenancy
