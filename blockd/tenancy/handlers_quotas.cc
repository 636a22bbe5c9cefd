#include <optional>
#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/policy.h"
#include "blockd/tenancy/tenancy.h"

// Quotas of projects and of the class "default", which is what projects without their own have.

namespace blockd::tenancy {
namespace {

using api::Bad;
using api::Call;
using api::MakeRoute;
using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

constexpr int64_t kMaxLimit = INT32_MAX;  // as in Cinder
constexpr std::string_view kDefaultClass = "default";

// A limit as the API names it and as the catalog does: "volumes_fast" is "volumes:<id of fast>".
struct Resource {
  std::string name;
  std::string key;
};

// In the order of Cinder's answers.
Result<std::vector<Resource>> AllResources(const Context& context) {
  std::vector<Resource> resources;
  for (const std::string_view name :
       {kVolumesResource, kPerVolumeGigabytesResource, kSnapshotsResource, kGigabytesResource,
        kBackupsResource, kBackupGigabytesResource})
    resources.push_back({std::string(name), std::string(name)});
  ASSIGN_OR_RETURN(const std::vector<types::VolumeType> all, context.types.List());
  for (const types::VolumeType& type : all)
    for (const std::string_view name : {kVolumesResource, kGigabytesResource, kSnapshotsResource})
      resources.push_back({std::string(name) + "_" + type.name, TypeResource(name, type.id)});
  resources.push_back({std::string(kGroupsResource), std::string(kGroupsResource)});
  return resources;
}

int64_t Find(const Amounts& amounts, std::string_view key, int64_t otherwise) {
  const auto found = amounts.find(key);
  return found == amounts.end() ? otherwise : found->second;
}

// What counts for a project; without one, for those that have nothing of their own.
struct Limits {
  Amounts own;
  Amounts of_class;
  int64_t Of(std::string_view key) const {
    return Find(own, key, Find(of_class, key, BuiltInLimit(key)));
  }
};

Result<Limits> LoadLimits(const Context& context, std::string_view project_id) {
  Limits limits;
  ASSIGN_OR_RETURN(limits.of_class, context.catalog.ClassLimits());
  if (!project_id.empty()) {
    ASSIGN_OR_RETURN(limits.own, context.catalog.LimitsSetFor(project_id));
  }
  return limits;
}

Result<JsonObject> LimitsView(const Context& context, std::string_view project_id) {
  ASSIGN_OR_RETURN(const std::vector<Resource> resources, AllResources(context));
  ASSIGN_OR_RETURN(const Limits limits, LoadLimits(context, project_id));
  JsonObject view;
  for (const Resource& resource : resources) view.emplace(resource.name, limits.Of(resource.key));
  return view;
}

Result<JsonObject> UsageView(const Context& context, std::string_view project_id) {
  ASSIGN_OR_RETURN(const std::vector<Resource> resources, AllResources(context));
  ASSIGN_OR_RETURN(const Limits limits, LoadLimits(context, project_id));
  ASSIGN_OR_RETURN(const Amounts used, context.catalog.UsageOf(project_id));
  JsonObject view;
  for (const Resource& resource : resources)
    view.emplace(resource.name, JsonObject{{"limit", limits.Of(resource.key)},
                                           {"in_use", Find(used, resource.key, 0)},
                                           {"reserved", 0}});
  return view;
}

Response Wrapped(std::string_view name, JsonObject view, std::string_view id) {
  if (!id.empty()) view.emplace("id", id);
  JsonObject body;
  body.emplace(name, std::move(view));
  return Response::OfJson(200, std::move(body));
}

// The project in the path, if the caller may know its quotas.
Result<std::string> TargetOf(const Call& call) {
  const std::string& target = call.Param("target_id");
  if (MaySee(call.caller, target)) return target;
  return Error(Code::kPermissionDenied,
               "You are not authorized to see the quotas of another project.");
}

Result<Response> Show(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const std::string target, TargetOf(call));
  bool usage = false;
  if (const auto text = call.request.Query("usage"); text.has_value()) {
    ASSIGN_OR_RETURN(usage, api::ParseBool(*text, "usage"));
  }
  ASSIGN_OR_RETURN(JsonObject view,
                   usage ? UsageView(context, target) : LimitsView(context, target));
  return Wrapped("quota_set", std::move(view), target);
}

Result<Response> ShowDefaults(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const std::string target, TargetOf(call));
  ASSIGN_OR_RETURN(JsonObject view, LimitsView(context, ""));
  return Wrapped("quota_set", std::move(view), target);
}

Result<Catalog::LimitChanges> ReadChanges(const Context& context, const JsonObject& body) {
  ASSIGN_OR_RETURN(const std::vector<Resource> resources, AllResources(context));
  Catalog::LimitChanges changes;
  std::string unknown;
  for (const auto& [name, value] : body) {
    if (name == "tenant_id" || name == "project_id" || name == "id" || name == "class_name")
      continue;
    const Resource* named = nullptr;
    for (const Resource& resource : resources)
      if (resource.name == std::string_view(name)) named = &resource;
    if (named == nullptr) {
      unknown += (unknown.empty() ? "" : ",") + api::Echo(name);
      continue;
    }
    ASSIGN_OR_RETURN(const std::optional<int64_t> limit,
                     api::OptionalInt(body, name, kUnlimited, kMaxLimit));
    if (!limit.has_value()) return api::BadField(name, value, "None is not of type 'integer'");
    changes.emplace(named->key, *limit);
  }
  if (!unknown.empty()) return Bad("Bad key(s) in quota set: " + unknown);
  return changes;
}

// Below what is in use a limit may be set too, unless the client asks for a check.
Result<void> CheckInUse(const Context& context, const Call& call,
                        const Catalog::LimitChanges& changes) {
  const auto text = call.request.Query("skip_validation");
  if (!text.has_value()) return {};
  ASSIGN_OR_RETURN(const bool skip, api::ParseBool(*text, "skip_validation"));
  if (skip) return {};
  ASSIGN_OR_RETURN(const Amounts used, context.catalog.UsageOf(call.Param("target_id")));
  for (const auto& [key, limit] : changes)
    if (*limit != kUnlimited && *limit < Find(used, key, 0))
      return Bad("Quota limit " + std::to_string(*limit) + " for " + key +
                 " is below what is in use: " + std::to_string(Find(used, key, 0)) + ".");
  return {};
}

Result<Response> Update(const Context& context, const Call& call) {
  const std::string& target = call.Param("target_id");
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "quota_set"));
  ASSIGN_OR_RETURN(const Catalog::LimitChanges changes, ReadChanges(context, body));
  RETURN_IF_ERROR(CheckInUse(context, call, changes));
  RETURN_IF_ERROR(context.catalog.SetLimits(target, changes));
  ASSIGN_OR_RETURN(JsonObject view, LimitsView(context, target));
  return Wrapped("quota_set", std::move(view), "");
}

Result<Response> Delete(const Context& context, const Call& call) {
  RETURN_IF_ERROR(context.catalog.ForgetLimits(call.Param("target_id")));
  return Response::Empty(200);
}

Result<void> CheckClass(const Call& call) {
  const std::string& name = call.Param("class_name");
  if (name == kDefaultClass) return {};
  return Error(Code::kNotFound, "Quota class " + api::Echo(name) +
                                    " could not be found: there is the class default only.");
}

Result<Response> ShowClass(const Context& context, const Call& call) {
  RETURN_IF_ERROR(CheckClass(call));
  ASSIGN_OR_RETURN(JsonObject view, LimitsView(context, ""));
  return Wrapped("quota_class_set", std::move(view), kDefaultClass);
}

Result<Response> UpdateClass(const Context& context, const Call& call) {
  RETURN_IF_ERROR(CheckClass(call));
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "quota_class_set"));
  ASSIGN_OR_RETURN(const Catalog::LimitChanges changes, ReadChanges(context, body));
  RETURN_IF_ERROR(context.catalog.SetClassLimits(changes));
  ASSIGN_OR_RETURN(JsonObject view, LimitsView(context, ""));
  return Wrapped("quota_class_set", std::move(view), "");
}

}  // namespace

void AppendQuotaRoutes(const Context& context, std::vector<api::Route>* routes) {
  const auto add = [&](const char* method, const char* pattern,
                       api::ContextHandler<Context> handler, Access access) {
    routes->push_back(MakeRoute(context, method, pattern, handler, access));
  };
  add("GET", "/os-quota-sets/{target_id}", Show, Access::kToken);
  add("PUT", "/os-quota-sets/{target_id}", Update, Access::kAdmin);
  add("DELETE", "/os-quota-sets/{target_id}", Delete, Access::kAdmin);
  add("GET", "/os-quota-sets/{target_id}/defaults", ShowDefaults, Access::kToken);
  add("GET", "/os-quota-class-sets/{class_name}", ShowClass, Access::kAdmin);
  add("PUT", "/os-quota-class-sets/{class_name}", UpdateClass, Access::kAdmin);
}

void AppendRoutes(const Context& context, std::vector<api::Route>* routes) {
  AppendQuotaRoutes(context, routes);
  AppendLimitRoutes(context, routes);
  AppendMessageRoutes(context, routes);
  AppendTransferRoutes(context, routes);
}

}  // namespace blockd::tenancy
