#include <algorithm>

#include "controlplane/identity/apis.h"
#include "controlplane/identity/resources.h"

// Tags of projects, the small collections below them.

namespace controlplane::identity {

namespace {

base::Result<RecordPtr> FindProject(const Call& call, const Snapshot& now) {
  const std::string& id = call.Param("project_id");
  return Existing(now, Kind::kProject, "project", id);
}

base::Result<RecordPtr> VisibleProject(const Call& call) {
  ASSIGN_OR_RETURN(RecordPtr project, FindProject(call, *call.now));
  if (!ProjectResource().may_read(call, *project)) return Forbidden();
  return project;
}

Response TagsResponse(const Call& call, const std::string& project_id,
                      const std::vector<std::string>& tags) {
  JsonArray list;
  for (const std::string& tag : tags) list.push_back(Json(tag));
  std::string self = call.Url("/projects/" + project_id + "/tags");
  return Response::OfJson(
      200, JsonObject{{"tags", std::move(list)}, {"links", JsonObject{{"self", self}}}});
}

Result ListTags(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr project, VisibleProject(call));
  return TagsResponse(call, project->id, Strings(project->body, "tags"));
}

Result CheckTag(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr project, VisibleProject(call));
  const std::string& tag = call.Param("tag");
  if (!Contains(project->body, "tags", tag)) return NotFound("project tag", tag);
  return NoContent();
}

// Replaces the tags by what `change` makes of them.
using TagChange = std::function<base::Result<void>(std::vector<std::string>&)>;
base::Result<void> ChangeTags(Call& call, const TagChange& change) {
  return call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr before, FindProject(call, tx.now()));
    std::vector<std::string> tags = Strings(before->body, "tags");
    RETURN_IF_ERROR(change(tags));
    JsonArray list;
    for (const std::string& tag : tags) list.push_back(Json(tag));
    JsonObject body = before->body;
    body["tags"] = std::move(list);
    RETURN_IF_ERROR(CheckTags(body));
    tx.Put(Kind::kProject, before->id, std::move(body));
    return {};
  });
}

Result ReplaceTags(Call& call) {
  ASSIGN_OR_RETURN(JsonObject body, BodyObject(call.request));
  const Json* tags = body.if_contains("tags");
  if (tags == nullptr || !tags->is_array()) return Invalid("\"tags\" is a list of strings.");
  for (const Json& tag : tags->get_array())
    if (!tag.is_string()) return Invalid("\"tags\" is a list of strings.");
  std::vector<std::string> wanted = Strings(body, "tags");
  RETURN_IF_ERROR(ChangeTags(call, [&](std::vector<std::string>& now) -> base::Result<void> {
    now = wanted;
    return {};
  }));
  return TagsResponse(call, call.Param("project_id"), wanted);
}

Result ClearTags(Call& call) {
  RETURN_IF_ERROR(ChangeTags(call, [](std::vector<std::string>& tags) -> base::Result<void> {
    tags.clear();
    return {};
  }));
  return NoContent();
}

Result AddTag(Call& call) {
  const std::string& tag = call.Param("tag");
  RETURN_IF_ERROR(ChangeTags(call, [&](std::vector<std::string>& tags) -> base::Result<void> {
    if (std::find(tags.begin(), tags.end(), tag) == tags.end()) tags.push_back(tag);
    return {};
  }));
  Response response = Response::Empty(201);
  response.headers.Set("Location",
                       call.Url("/projects/" + call.Param("project_id") + "/tags/" + tag));
  return response;
}

Result RemoveTag(Call& call) {
  const std::string& tag = call.Param("tag");
  RETURN_IF_ERROR(ChangeTags(call, [&](std::vector<std::string>& tags) -> base::Result<void> {
    if (std::erase(tags, tag) == 0) return NotFound("project tag", tag);
    return {};
  }));
  return NoContent();
}

}  // namespace

void AddProjectApi(Routes& routes) {
  std::string all = "/projects/{project_id}/tags";
  std::string one = all + "/{tag}";
  routes.Add("GET", all, Access::kToken, ListTags);
  routes.Add("PUT", all, Access::kAdmin, ReplaceTags);
  routes.Add("DELETE", all, Access::kAdmin, ClearTags);
  for (std::string_view method : {"GET", "HEAD"}) routes.Add(method, one, Access::kToken, CheckTag);
  routes.Add("PUT", one, Access::kAdmin, AddTag);
  routes.Add("DELETE", one, Access::kAdmin, RemoveTag);
}

}  // namespace controlplane::identity
