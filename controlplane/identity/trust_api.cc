#include <algorithm>
#include <set>

#include "base/uuid.h"
#include "controlplane/identity/apis.h"
#include "controlplane/identity/resources.h"
#include "controlplane/identity/roles.h"

// Trusts: one user (the trustor) lets another (the trustee) act with some of its roles on a
// project. A trust is made, looked at and deleted, never changed.

namespace controlplane::identity {

namespace {

constexpr char kPath[] = "/OS-TRUST/trusts";

const Resource& Roles() {
  static const Resource& roles = *new Resource(RoleResource());
  return roles;
}

JsonArray RoleViews(const Call& call, const Record& trust) {
  JsonArray roles;
  for (const std::string& id : Strings(trust.body, "_role_ids"))
    if (RecordPtr role = call.now->Get(Kind::kRole, id); role != nullptr)
      roles.push_back(ViewOf(call, Roles(), *role));
  return roles;
}

JsonObject TrustView(const Call& call, const Record& trust, bool with_roles) {
  JsonObject view = View(call, trust, kPath);
  if (!with_roles) return view;
  view["roles"] = RoleViews(call, trust);
  std::string self = call.Url(std::string(kPath) + "/" + trust.id + "/roles");
  view["roles_links"] = JsonObject{{"self", self}, {"next", nullptr}, {"previous", nullptr}};
  return view;
}

bool IsParty(const Call& call, const Record& trust) {
  return IsSelf(call, Text(trust, "trustor_user_id")) ||
         IsSelf(call, Text(trust, "trustee_user_id"));
}

// A trust that the caller may look at. Others' look as if they were not there, ended ones too.
base::Result<RecordPtr> Find(const Call& call, const Snapshot& now) {
  const std::string& id = call.Param("trust_id");
  RecordPtr trust = now.Get(Kind::kTrust, id);
  if (trust == nullptr || (!IsParty(call, *trust) && !SeesAll(call))) return NotFound("trust", id);
  int64_t until_us = Number(*trust, "_expires_us");
  if (until_us > 0 && until_us <= call.api.clock.NowUs()) return NotFound("trust", id);
  return trust;
}

// The roles that are passed on: ids of what the trustor itself has on the project.
base::Result<JsonArray> ChooseRoles(const Snapshot& now, const JsonObject& body,
                                    const std::string& trustor_id, const std::string& project_id) {
  std::set<std::string> held =
      WithImplied(now, AssignedRoleIds(now, trustor_id, {ScopeKind::kProject, project_id}));
  const Json* roles = body.if_contains("roles");
  if (roles == nullptr || !roles->is_array() || roles->get_array().empty())
    return Forbidden("At least one role should be specified.");
  std::set<std::string> chosen;
  for (const Json& item : roles->get_array()) {
    if (!item.is_object()) return Invalid("\"roles\" is a list of {\"id\"} or {\"name\"}.");
    std::string id(Text(item.get_object(), "id"));
    if (id.empty()) {
      std::string_view name = Text(item.get_object(), "name");
      RecordPtr role = now.Named(Index::kRoleName, "", name);
      if (role == nullptr) return NotFound("role", name);
      id = role->id;
    }
    if (now.Get(Kind::kRole, id) == nullptr) return NotFound("role", id);
    if (!held.contains(id)) return Forbidden("The trustor does not have role " + id + " there.");
    chosen.insert(id);
  }
  JsonArray ids;
  for (const std::string& id : chosen) ids.push_back(Json(id));
  return ids;
}

base::Result<void> CheckInput(const JsonObject& body) {
  constexpr std::string_view kKnown[] = {
      "trustor_user_id", "trustee_user_id", "project_id",         "impersonation",     "expires_at",
      "roles",           "remaining_uses",  "redelegation_count", "allow_redelegation"};
  for (const auto& [name, value] : body)
    if (std::find(std::begin(kKnown), std::end(kKnown), std::string_view(name)) == std::end(kKnown))
      return Invalid("Additional properties are not allowed: '" + std::string(name) +
                     "' was unexpected.");
  for (std::string_view name : {"trustor_user_id", "trustee_user_id", "project_id"})
    if (Text(body, name).empty())
      return Invalid("'" + std::string(name) + "' is a required property.");
  const Json* impersonation = body.if_contains("impersonation");
  if (impersonation == nullptr || !impersonation->is_bool())
    return Invalid("'impersonation' is a required property, true or false.");
  // What would have to be kept to and is not must not look accepted.
  const Json* uses = body.if_contains("remaining_uses");
  if ((uses != nullptr && !uses->is_null()) || Flag(body, "allow_redelegation"))
    return Forbidden("Trusts with remaining_uses or redelegation are not supported.");
  return {};
}

Result Create(Call& call) {
  ASSIGN_OR_RETURN(JsonObject input, BodyMember(call.request, "trust"));
  RETURN_IF_ERROR(CheckInput(input));
  ASSIGN_OR_RETURN(int64_t expires_us, OptionalTime(input, "expires_at"));
  if (expires_us != 0 && expires_us <= call.api.clock.NowUs())
    return Invalid("\"expires_at\" is in the past.");
  std::string trustor_id(Text(input, "trustor_user_id"));
  std::string trustee_id(Text(input, "trustee_user_id"));
  std::string project_id(Text(input, "project_id"));
  if (!IsSelf(call, trustor_id)) return Forbidden("Only the trustor can make a trust.");
  if (!call.by->may_delegate()) return Forbidden();
  std::string id = base::NewUuidHex();
  JsonObject body;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    if (tx.now().Get(Kind::kUser, trustee_id) == nullptr) return NotFound("user", trustee_id);
    if (tx.now().Get(Kind::kProject, project_id) == nullptr) return NotFound("project", project_id);
    RETURN_IF_ERROR(CheckRoomFor(tx.now(), Index::kTrustTrustor, trustor_id));
    ASSIGN_OR_RETURN(JsonArray role_ids, ChooseRoles(tx.now(), input, trustor_id, project_id));
    body = JsonObject{
        {"trustor_user_id", trustor_id},
        {"trustee_user_id", trustee_id},
        {"project_id", project_id},
        {"impersonation", Flag(input, "impersonation")},
        {"deleted_at", nullptr},
        {"expires_at", expires_us == 0 ? Json(nullptr) : Json(base::FormatTimeMicros(expires_us))},
        {"redelegated_trust_id", nullptr},
        {"redelegation_count", 0},
        {"remaining_uses", nullptr},
        {"_expires_us", expires_us},
        {"_role_ids", std::move(role_ids)}};
    tx.Put(Kind::kTrust, id, body);
    return {};
  }));
  return Created("trust", TrustView(call, Record{Kind::kTrust, id, std::move(body)}, true));
}

Result List(Call& call) {
  std::string trustor(call.request.Query("trustor_user_id").value_or(""));
  std::string trustee(call.request.Query("trustee_user_id").value_or(""));
  bool own =
      (!trustor.empty() && IsSelf(call, trustor)) || (!trustee.empty() && IsSelf(call, trustee));
  if (!own && !SeesAll(call)) return Forbidden();
  int64_t now_us = call.api.clock.NowUs();
  JsonArray items;
  for (const RecordPtr& trust : call.now->All(Kind::kTrust)) {
    if (!trustor.empty() && Text(*trust, "trustor_user_id") != trustor) continue;
    if (!trustee.empty() && Text(*trust, "trustee_user_id") != trustee) continue;
    int64_t until_us = Number(*trust, "_expires_us");
    if (until_us > 0 && until_us <= now_us) continue;
    if (items.size() <= kMaxListItems) items.push_back(TrustView(call, *trust, false));
  }
  return ListResponse(call, "trusts", std::move(items));
}

Result ShowOne(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr trust, Find(call, *call.now));
  return Shown("trust", TrustView(call, *trust, true));
}

Result Delete(Call& call) {
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr trust, Find(call, tx.now()));
    bool may =
        IsAdmin(call) || (IsSelf(call, Text(*trust, "trustor_user_id")) && call.by->may_delegate());
    if (!may) return Forbidden();
    tx.Remove(Kind::kTrust, trust->id);
    return {};
  });
}

Result ListRoles(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr trust, Find(call, *call.now));
  return ListResponse(call, "roles", RoleViews(call, *trust));
}

Result ShowRole(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr trust, Find(call, *call.now));
  const std::string& role_id = call.Param("role_id");
  RecordPtr role = call.now->Get(Kind::kRole, role_id);
  if (role == nullptr || !Contains(trust->body, "_role_ids", role_id))
    return NotFound("role", role_id);
  return Shown("role", ViewOf(call, Roles(), *role));
}

}  // namespace

void AddTrustApi(Routes& routes) {
  std::string one = std::string(kPath) + "/{trust_id}";
  routes.Add("GET", kPath, Access::kToken, List);
  routes.Add("POST", kPath, Access::kToken, Create);
  routes.Add("GET", one, Access::kToken, ShowOne);
  routes.Add("DELETE", one, Access::kToken, Delete);
  routes.Add("GET", one + "/roles", Access::kToken, ListRoles);
  routes.Add("GET", one + "/roles/{role_id}", Access::kToken, ShowRole);
}

}  // namespace controlplane::identity
