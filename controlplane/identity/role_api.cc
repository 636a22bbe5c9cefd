#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "controlplane/identity/apis.h"
#include "controlplane/identity/resource.h"
#include "controlplane/identity/roles.h"

namespace controlplane::identity {

namespace {

// ---- Implied roles ----

JsonObject RoleReference(const Call& call, const Record& role) {
  JsonObject view = Reference(role);
  view["links"] = JsonObject{{"self", call.Url("/roles/" + role.id)}};
  return view;
}

std::string RuleId(std::string_view prior, std::string_view implied) {
  return std::string(prior) + "/" + std::string(implied);
}

base::Result<RecordPtr> FindRole(const Snapshot& now, const std::string& id) {
  return Existing(now, Kind::kRole, "role", id);
}

Error DoesNotImply(const std::string& prior, const std::string& implied) {
  return Error(Code::kNotFound, prior + " does not imply " + implied + ".");
}

Result RuleResponse(const Call& call, int status, const Record& prior, const Record& implied) {
  JsonObject rule{{"prior_role", RoleReference(call, prior)},
                  {"implies", RoleReference(call, implied)}};
  std::string self = call.Url("/roles/" + prior.id + "/implies/" + implied.id);
  return Response::OfJson(status, JsonObject{{"role_inference", std::move(rule)},
                                             {"links", JsonObject{{"self", self}}}});
}

JsonArray ImpliedBy(const Call& call, std::string_view prior_id) {
  JsonArray implied;
  for (const RecordPtr& rule : call.now->Where(Index::kImpliedPrior, {prior_id}))
    if (RecordPtr role = call.now->Get(Kind::kRole, Text(*rule, "implied_role_id"));
        role != nullptr)
      implied.push_back(RoleReference(call, *role));
  return implied;
}

Result ListImplied(Call& call) {
  if (!SeesAll(call)) return Forbidden();
  ASSIGN_OR_RETURN(RecordPtr prior, FindRole(*call.now, call.Param("prior_id")));
  JsonObject rule{{"prior_role", RoleReference(call, *prior)},
                  {"implies", ImpliedBy(call, prior->id)}};
  return Response::OfJson(
      200,
      JsonObject{{"role_inference", std::move(rule)},
                 {"links", JsonObject{{"self", call.Url("/roles/" + prior->id + "/implies")}}}});
}

Result ListInferences(Call& call) {
  if (!SeesAll(call)) return Forbidden();
  JsonArray items;
  for (const RecordPtr& prior : call.now->All(Kind::kRole)) {
    JsonArray implied = ImpliedBy(call, prior->id);
    if (implied.empty()) continue;
    items.push_back(
        JsonObject{{"prior_role", RoleReference(call, *prior)}, {"implies", std::move(implied)}});
  }
  return Response::OfJson(
      200, JsonObject{{"role_inferences", std::move(items)},
                      {"links", JsonObject{{"self", call.Url("/role_inferences")}}}});
}

Result ShowRule(Call& call, bool head) {
  if (!SeesAll(call)) return Forbidden();
  ASSIGN_OR_RETURN(RecordPtr prior, FindRole(*call.now, call.Param("prior_id")));
  ASSIGN_OR_RETURN(RecordPtr implied, FindRole(*call.now, call.Param("implied_id")));
  if (call.now->Get(Kind::kImpliedRole, RuleId(prior->id, implied->id)) == nullptr)
    return DoesNotImply(prior->id, implied->id);
  if (head) return NoContent();
  return RuleResponse(call, 200, *prior, *implied);
}

Result AddRule(Call& call) {
  RecordPtr prior, implied;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(prior, FindRole(tx.now(), call.Param("prior_id")));
    ASSIGN_OR_RETURN(implied, FindRole(tx.now(), call.Param("implied_id")));
    // admin must only be had by being given it; and a role of one domain must not come with a
    // global one.
    bool escalates = Text(*implied, "name") == "admin" && Text(*implied, "domain_id").empty();
    bool leaks = Text(*prior, "domain_id").empty() && !Text(*implied, "domain_id").empty();
    if (escalates || leaks) return Forbidden(implied->id + " cannot be an implied role.");
    tx.Put(Kind::kImpliedRole, RuleId(prior->id, implied->id),
           {{"prior_role_id", prior->id}, {"implied_role_id", implied->id}});
    return {};
  }));
  return RuleResponse(call, 201, *prior, *implied);
}

Result RemoveRule(Call& call) {
  const std::string& prior = call.Param("prior_id");
  const std::string& implied = call.Param("implied_id");
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    if (tx.now().Get(Kind::kImpliedRole, RuleId(prior, implied)) == nullptr)
      return DoesNotImply(prior, implied);
    tx.Remove(Kind::kImpliedRole, RuleId(prior, implied));
    return {};
  });
}

// ---- Role assignments ----

// One line of the list: a role that an actor has on a target, and why.
struct Line {
  RecordPtr grant;
  std::string user_id;
  std::string group_id;
  std::string role_id;
  std::string project_id;  // where an inherited or a project grant holds
  std::string prior_role_id;
};

struct Query {
  std::string user_id, group_id, role_id, project_id, domain_id;
  bool system = false, inherited_only = false, effective = false, names = false, subtree = false;
};

bool Asked(const Call& call, std::string_view key) {
  auto value = call.request.Query(key);
  return value.has_value() && MeansTrue(*value);
}

Query ParseQuery(const Call& call) {
  auto text = [&](std::string_view key) {
    return std::string(call.request.Query(key).value_or(""));
  };
  Query query;
  query.user_id = text("user.id");
  query.group_id = text("group.id");
  query.role_id = text("role.id");
  query.project_id = text("scope.project.id");
  query.domain_id = text("scope.domain.id");
  query.system = call.request.Query("scope.system").has_value();
  query.inherited_only = call.request.Query("scope.OS-INHERIT:inherited_to").has_value();
  query.effective = Asked(call, "effective");
  query.names = Asked(call, "include_names");
  query.subtree = Asked(call, "include_subtree");
  return query;
}

// Where a grant holds: its own project, or every one that inherits it.
std::vector<std::string> ProjectsOf(const Snapshot& now, const Record& grant, bool effective) {
  std::string at(Text(grant, "target_id"));
  bool project = Text(grant, "target_kind") == "project";
  if (!effective || !Flag(grant, "inherited")) return {project ? at : std::string()};
  std::vector<std::string> projects;
  for (const RecordPtr& below : ProjectsBelow(now, at)) projects.push_back(below->id);
  return projects;
}

// A grant as lines: one, or all that it comes to when `effective` is asked for.
void Expand(const Snapshot& now, const RecordPtr& grant, bool effective, std::vector<Line>& lines) {
  std::string actor(Text(*grant, "actor_id"));
  std::string role_id(Text(*grant, "role_id"));
  bool group = Text(*grant, "actor_kind") == "group";
  std::vector<std::pair<std::string, std::string>> actors;  // user, group
  if (!group || !effective) {
    actors.emplace_back(group ? "" : actor, group ? actor : "");
  } else {
    for (const RecordPtr& membership : now.Where(Index::kMembershipGroup, {actor}))
      actors.emplace_back(Text(*membership, "user_id"), actor);
  }
  std::set<std::string> role_ids{role_id};
  if (effective) role_ids = WithImplied(now, std::move(role_ids));
  for (const auto& [user_id, group_id] : actors)
    for (const std::string& project_id : ProjectsOf(now, *grant, effective))
      for (const std::string& id : role_ids) {
        RecordPtr role = now.Get(Kind::kRole, id);
        if (role == nullptr || (effective && !Text(*role, "domain_id").empty())) continue;
        lines.push_back({grant, user_id, group_id, id, project_id, id == role_id ? "" : role_id});
      }
}

bool Matches(const Snapshot& now, const Query& query, const Line& line) {
  const Record& grant = *line.grant;
  if (!query.user_id.empty() && line.user_id != query.user_id) return false;
  if (!query.group_id.empty() && line.group_id != query.group_id) return false;
  if (!query.role_id.empty() && line.role_id != query.role_id) return false;
  if (query.inherited_only && !Flag(grant, "inherited")) return false;
  if (query.system && Text(grant, "target_kind") != "system") return false;
  if (!query.domain_id.empty() &&
      (Text(grant, "target_kind") != "domain" || Text(grant, "target_id") != query.domain_id ||
       !line.project_id.empty()))
    return false;
  if (query.project_id.empty()) return true;
  if (line.project_id == query.project_id) return true;
  if (!query.subtree) return false;
  RecordPtr project = now.Get(Kind::kProject, line.project_id);
  if (project == nullptr) return false;
  std::vector<std::string> parents = ParentsOf(now, *project);
  return std::find(parents.begin(), parents.end(), query.project_id) != parents.end();
}

JsonObject Named(const Snapshot& now, Kind kind, const std::string& id, bool names) {
  JsonObject view{{"id", id}};
  RecordPtr record = names ? now.Get(kind, id) : nullptr;
  if (record == nullptr) return view;
  view["name"] = Text(*record, "name");
  RecordPtr domain = now.Get(Kind::kProject, Text(*record, "domain_id"));
  if (domain != nullptr) view["domain"] = Reference(*domain);
  return view;
}

JsonObject LineView(const Call& call, const Line& line, const Query& query) {
  const Snapshot& now = *call.now;
  const Record& grant = *line.grant;
  std::string_view target_kind = Text(grant, "target_kind");
  std::string target_id(Text(grant, "target_id"));
  bool inherited = Flag(grant, "inherited");
  JsonObject scope;
  if (target_kind == "system")
    scope["system"] = JsonObject{{"all", true}};
  else if (!line.project_id.empty())
    scope["project"] = Named(now, Kind::kProject, line.project_id, query.names);
  else
    scope["domain"] = Named(now, Kind::kProject, target_id, query.names);
  if (inherited) scope["OS-INHERIT:inherited_to"] = "projects";

  JsonObject view, links;
  std::string path = inherited ? "/OS-INHERIT" : "";
  path += target_kind == "system" ? "/system" : "/" + std::string(target_kind) + "s/" + target_id;
  path +=
      "/" + std::string(Text(grant, "actor_kind")) + "s/" + std::string(Text(grant, "actor_id"));
  path += "/roles/" + std::string(Text(grant, "role_id"));
  if (inherited) path += "/inherited_to_projects";
  links["assignment"] = call.Url(path);
  if (!line.prior_role_id.empty()) links["prior_role"] = call.Url("/roles/" + line.prior_role_id);
  if (!line.user_id.empty() && !line.group_id.empty())
    links["membership"] = call.Url("/groups/" + line.group_id + "/users/" + line.user_id);
  view["links"] = std::move(links);
  view["scope"] = std::move(scope);
  if (!line.user_id.empty())
    view["user"] = Named(now, Kind::kUser, line.user_id, query.names);
  else
    view["group"] = Named(now, Kind::kGroup, line.group_id, query.names);
  view["role"] = Named(now, Kind::kRole, line.role_id, query.names);
  return view;
}

// The domain that a line belongs to, for a reader of one domain.
std::string DomainOf(const Snapshot& now, const Line& line) {
  if (line.project_id.empty()) return std::string(Text(*line.grant, "target_id"));
  RecordPtr project = now.Get(Kind::kProject, line.project_id);
  return project == nullptr ? std::string() : std::string(Text(*project, "domain_id"));
}

Result ListAssignments(Call& call) {
  const std::string& own_domain = call.by->caller.domain_id;
  if (!SeesAll(call) && !SeesDomain(call, own_domain)) return Forbidden();
  Query query = ParseQuery(call);
  if (!query.project_id.empty() && (!query.domain_id.empty() || query.system))
    return Invalid("Ask for one scope: a project, a domain or the system.");
  if (query.effective && !query.group_id.empty())
    return Invalid("Combining effective and group filter will always result in an empty list.");
  const Snapshot& now = *call.now;
  std::vector<RecordPtr> grants;
  if (!query.user_id.empty()) {
    for (const std::string& actor : ActorsOf(now, query.user_id))
      for (RecordPtr& grant : now.Where(Index::kAssignmentActor, {actor}))
        grants.push_back(std::move(grant));
  } else {
    grants = now.All(Kind::kAssignment);
  }
  JsonArray items;
  for (const RecordPtr& grant : grants) {
    std::vector<Line> lines;
    Expand(now, grant, query.effective, lines);
    for (const Line& line : lines) {
      if (!Matches(now, query, line)) continue;
      if (!SeesAll(call) && DomainOf(now, line) != own_domain) continue;
      if (items.size() <= kMaxListItems) items.push_back(LineView(call, line, query));
    }
  }
  return ListResponse(call, "role_assignments", std::move(items));
}

}  // namespace

void AddRoleApi(Routes& routes) {
  std::string rule = "/roles/{prior_id}/implies/{implied_id}";
  routes.Add("GET", "/roles/{prior_id}/implies", Access::kToken, ListImplied);
  routes.Add("GET", rule, Access::kToken, [](Call& call) { return ShowRule(call, false); });
  routes.Add("HEAD", rule, Access::kToken, [](Call& call) { return ShowRule(call, true); });
  routes.Add("PUT", rule, Access::kAdmin, AddRule);
  routes.Add("DELETE", rule, Access::kAdmin, RemoveRule);
  routes.Add("GET", "/role_inferences", Access::kToken, ListInferences);
  routes.Add("GET", "/role_assignments", Access::kToken, ListAssignments);
}

}  // namespace controlplane::identity
