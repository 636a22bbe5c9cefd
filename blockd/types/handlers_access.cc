#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/views.h"
#include "blockd/types/bind.h"

// Which projects have access to a private volume type.

namespace blockd::types {
namespace {

using api::Bad;
using api::Call;
using base::Code;
using base::Error;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Response;

Result<Response> ListAccess(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const VolumeType type, context.types.Get(call.Param("type_id")));
  if (type.is_public)
    return Error(Code::kNotFound, "Access list not available for public volume types.");
  JsonArray entries;
  for (const std::string& project : type.projects)
    entries.push_back(JsonObject{{"volume_type_id", type.id}, {"project_id", project}});
  return Response::OfJson(200, JsonObject{{"volume_type_access", std::move(entries)}});
}

Result<void> Give(VolumeType& type, const std::string& project) {
  if (type.projects.insert(project).second) return {};
  return Error(Code::kAlreadyExists, "Volume type access for " + type.id + " / " + project +
                                         " combination already exists.");
}

Result<void> Take(VolumeType& type, const std::string& project) {
  if (type.projects.erase(project) > 0) return {};
  return Error(Code::kNotFound,
               "Volume type access not found for " + type.id + " / " + project + " combination.");
}

Result<Response> Act(const Context& context, const Call& call) {
  ASSIGN_OR_RETURN(const JsonObject body, api::ParseBody(call));
  if (body.size() != 1) return Bad("The body must name one action.");
  const std::string action(body.begin()->key());
  if (action != "addProjectAccess" && action != "removeProjectAccess")
    return Bad("There is no such action: " + api::Echo(action) +
               ". Verify the request body and Content-Type header and try again.");
  ASSIGN_OR_RETURN(const JsonObject arguments, api::ParseBody(call, action));
  ASSIGN_OR_RETURN(const std::string project, api::RequiredName(arguments, "project"));
  RETURN_IF_ERROR(
      context.types.Update(call.Param("type_id"), [&](VolumeType& type) -> Result<void> {
        if (type.is_public)
          return Bad(
              "Invalid volume type: Type access modification is not applicable to public volume "
              "type.");
        return action == "addProjectAccess" ? Give(type, project) : Take(type, project);
      }));
  return api::Accepted();
}

}  // namespace

void AppendTypeAccessRoutes(const Context& context, std::vector<api::Route>* routes) {
  routes->push_back(
      MakeRoute(context, "GET", "/types/{type_id}/os-volume-type-access", ListAccess));
  routes->push_back(MakeRoute(context, "POST", "/types/{type_id}/action", Act));
}

}  // namespace blockd::types
