#include <utility>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/handlers.h"
#include "blockd/policy.h"
#include "blockd/project_qos.h"

// Limits of projects: an extension of this service, shaped like the quotas. A change reaches
// attached volumes before it is answered.

namespace blockd {
namespace {

using api::Call;
using base::Code;
using base::Error;
using base::JsonObject;
using base::Result;
using base::http::Access;
using base::http::Response;

Response Answer(const ProjectQos& qos) {
  JsonObject view = {{"project_id", qos.project_id}, {"specs", api::ToJson(qos.specs)}};
  return Response::OfJson(200, JsonObject{{"project_qos", std::move(view)}});
}

Result<Response> List(const Context& context, const Call&) {
  ASSIGN_OR_RETURN(const std::vector<ProjectQos> all, ListProjectQos(context.catalog));
  base::JsonArray views;
  for (const ProjectQos& qos : all)
    views.push_back(JsonObject{{"project_id", qos.project_id}, {"specs", api::ToJson(qos.specs)}});
  return Response::OfJson(200, JsonObject{{"project_qos", std::move(views)}});
}

Result<Response> Show(const Context& context, const Call& call) {
  const std::string& target = call.Param("target_id");
  if (!MaySee(call.caller, target))
    return Error(Code::kPermissionDenied,
                 "You are not authorized to see the limits of another project.");
  ASSIGN_OR_RETURN(const ProjectQos qos, GetProjectQos(context.catalog, target));
  return Answer(qos);
}

Result<void> Change(const Context& context, const ProjectQos& qos) {
  RETURN_IF_ERROR(SetProjectQos(context.catalog, qos));
  return ApplyProjectQos(context.catalog, context.exports, qos.project_id);
}

Result<Response> Update(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call, "project_qos"));
  const base::Json* specs = body.if_contains("specs");
  if (specs == nullptr) return api::Missing("specs");
  ProjectQos qos{call.Param("target_id"), {}};
  ASSIGN_OR_RETURN(qos.specs, api::ParseTextMap(*specs, "specs"));
  RETURN_IF_ERROR(Change(context, qos));
  return Answer(qos);
}

Result<Response> Delete(const Context& context, const Call& call) {
  RETURN_IF_ERROR(Change(context, ProjectQos{call.Param("target_id"), {}}));
  return Response::Empty(204);
}

}  // namespace

void AppendProjectQosRoutes(const Context& context, Routes* routes) {
  const auto add = [&](const char* method, const char* pattern, ContextHandler handler,
                       Access access) {
    routes->push_back(MakeRoute(context, method, pattern, handler, access));
  };
  add("GET", "/os-project-qos", List, Access::kAdmin);
  add("GET", "/os-project-qos/{target_id}", Show, Access::kToken);
  add("PUT", "/os-project-qos/{target_id}", Update, Access::kAdmin);
  add("DELETE", "/os-project-qos/{target_id}", Delete, Access::kAdmin);
}

}  // namespace blockd
