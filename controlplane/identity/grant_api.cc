#include <array>

#include "controlplane/identity/apis.h"
#include "controlplane/identity/resources.h"
#include "controlplane/identity/roles.h"

// Roles given to users and groups on projects, domains and the system, here or inherited by the
// projects below: one set of handlers for all twelve combinations that the interface spells out as
// paths.

namespace controlplane::identity {

namespace {

// One combination. The path's parameters are target_id (but for the system), actor_id and role_id.
struct Shape {
  ScopeKind target;
  bool group = false;
  bool inherited = false;
};

std::string GrantId(std::string_view actor_id, const Shape& shape, std::string_view target_id,
                    std::string_view role_id) {
  std::string id(actor_id);
  for (std::string_view part : {TargetKindName(shape.target), target_id, role_id,
                                std::string_view(shape.inherited ? "inherited" : "direct")}) {
    id += '/';
    id += part;
  }
  return id;
}

std::string TargetIdOf(const Call& call, const Shape& shape) {
  return shape.target == ScopeKind::kSystem ? std::string(kSystemTarget) : call.Param("target_id");
}

// The target and the actor exist, and the caller may look at them.
base::Result<void> CheckGrantees(const Call& call, const Snapshot& now, const Shape& shape) {
  if (shape.target != ScopeKind::kSystem) {
    bool domain = shape.target == ScopeKind::kDomain;
    const std::string& id = call.Param("target_id");
    RecordPtr target = now.Get(Kind::kProject, id);
    if (target == nullptr || (domain && !Flag(*target, "is_domain")))
      return NotFound(domain ? "domain" : "project", id);
    std::string_view domain_id =
        Flag(*target, "is_domain") ? std::string_view(target->id) : Text(*target, "domain_id");
    if (!SeesDomain(call, domain_id)) return Forbidden();
  } else if (!SeesAll(call)) {
    return Forbidden();
  }
  const std::string& actor_id = call.Param("actor_id");
  if (now.Get(shape.group ? Kind::kGroup : Kind::kUser, actor_id) == nullptr)
    return NotFound(shape.group ? "group" : "user", actor_id);
  return {};
}

Result ListGrants(Call& call, const Shape& shape) {
  RETURN_IF_ERROR(CheckGrantees(call, *call.now, shape));
  static const Resource& roles = *new Resource(RoleResource());
  std::string target_id = TargetIdOf(call, shape);
  JsonArray items;
  for (const RecordPtr& grant :
       call.now->Where(Index::kAssignmentActor, {call.Param("actor_id")})) {
    if (Text(*grant, "target_id") != target_id || Flag(*grant, "inherited") != shape.inherited ||
        Text(*grant, "target_kind") != TargetKindName(shape.target))
      continue;
    RecordPtr role = call.now->Get(Kind::kRole, Text(*grant, "role_id"));
    if (role != nullptr) items.push_back(ViewOf(call, roles, *role));
  }
  return ListResponse(call, "roles", std::move(items));
}

Result CheckGrant(Call& call, const Shape& shape) {
  RETURN_IF_ERROR(CheckGrantees(call, *call.now, shape));
  const std::string& role_id = call.Param("role_id");
  std::string id = GrantId(call.Param("actor_id"), shape, TargetIdOf(call, shape), role_id);
  if (call.now->Get(Kind::kAssignment, id) == nullptr)
    return NotFound("role assignment with role", role_id);
  return NoContent();
}

Result AddGrant(Call& call, const Shape& shape) {
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckGrantees(call, tx.now(), shape));
    const std::string& actor_id = call.Param("actor_id");
    const std::string& role_id = call.Param("role_id");
    std::string target_id = TargetIdOf(call, shape);
    if (tx.now().Get(Kind::kRole, role_id) == nullptr) return NotFound("role", role_id);
    std::string id = GrantId(actor_id, shape, target_id, role_id);
    if (tx.now().Get(Kind::kAssignment, id) != nullptr) return {};
    tx.Put(Kind::kAssignment, id,
           {{"actor_kind", shape.group ? "group" : "user"},
            {"actor_id", actor_id},
            {"target_kind", TargetKindName(shape.target)},
            {"target_id", target_id},
            {"role_id", role_id},
            {"inherited", shape.inherited}});
    return {};
  });
}

Result RemoveGrant(Call& call, const Shape& shape) {
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(CheckGrantees(call, tx.now(), shape));
    const std::string& role_id = call.Param("role_id");
    std::string id = GrantId(call.Param("actor_id"), shape, TargetIdOf(call, shape), role_id);
    if (tx.now().Get(Kind::kAssignment, id) == nullptr)
      return NotFound("role assignment with role", role_id);
    tx.Remove(Kind::kAssignment, id);
    return {};
  });
}

void AddShape(Routes& routes, const Shape& shape) {
  std::string path = shape.inherited ? "/OS-INHERIT" : "";
  if (shape.target == ScopeKind::kSystem)
    path += "/system";
  else
    path += shape.target == ScopeKind::kDomain ? "/domains/{target_id}" : "/projects/{target_id}";
  path += shape.group ? "/groups/{actor_id}/roles" : "/users/{actor_id}/roles";
  std::string suffix = shape.inherited ? "/inherited_to_projects" : "";
  std::string one = path + "/{role_id}" + suffix;
  routes.Add("GET", path + suffix, Access::kToken,
             [shape](Call& call) { return ListGrants(call, shape); });
  for (std::string_view method : {"GET", "HEAD"})
    routes.Add(method, one, Access::kToken,
               [shape](Call& call) { return CheckGrant(call, shape); });
  routes.Add("PUT", one, Access::kAdmin, [shape](Call& call) { return AddGrant(call, shape); });
  routes.Add("DELETE", one, Access::kAdmin,
             [shape](Call& call) { return RemoveGrant(call, shape); });
}

}  // namespace

void AddGrantApi(Routes& routes) {
  for (bool group : {false, true}) {
    AddShape(routes, {ScopeKind::kProject, group, false});
    AddShape(routes, {ScopeKind::kDomain, group, false});
    AddShape(routes, {ScopeKind::kSystem, group, false});
    AddShape(routes, {ScopeKind::kProject, group, true});
    AddShape(routes, {ScopeKind::kDomain, group, true});
  }
}

}  // namespace controlplane::identity
