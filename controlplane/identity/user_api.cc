#include <algorithm>

#include "base/hash.h"
#include "base/uuid.h"
#include "controlplane/identity/apis.h"
#include "controlplane/identity/resources.h"
#include "controlplane/identity/roles.h"

namespace controlplane::identity {

namespace {

// ---- A user's own password ----

// Is the new password one of the last ones? Each takes a check, so the history is short.
base::Result<void> CheckHistory(Api& api, const Record& user, std::string_view password) {
  int64_t unique = std::min<int64_t>(api.options.unique_last_passwords, kMaxPasswordHistory);
  if (unique < 2) return {};
  std::vector<std::string> hashes = Strings(user.body, "_password_history");
  hashes.insert(hashes.begin(), std::string(Text(user, "_password_hash")));
  for (size_t i = 0; i < hashes.size() && static_cast<int64_t>(i) < unique; ++i) {
    ASSIGN_OR_RETURN(bool same, api.passwords.Verify(password, hashes[i]));
    if (same)
      return Invalid(
          "The new password cannot be identical to a previous password. The total "
          "number which includes the new password must be unique is " +
          std::to_string(unique) + ".");
  }
  return {};
}

JsonArray NewHistory(const Api& api, const Record& user) {
  int64_t kept = std::min<int64_t>(api.options.unique_last_passwords, kMaxPasswordHistory) - 1;
  JsonArray history;
  if (kept < 1) return history;
  history.push_back(Json(Text(user, "_password_hash")));
  for (const std::string& hash : Strings(user.body, "_password_history"))
    if (static_cast<int64_t>(history.size()) < kept) history.push_back(Json(hash));
  return history;
}

// Public: the original password is the proof, so that one whose token has ended can still change
// it.
Result ChangePassword(Call& call) {
  Api& api = call.api;
  ASSIGN_OR_RETURN(call.now, api.store.Read(Store::kLatest));
  ASSIGN_OR_RETURN(JsonObject body, BodyMember(call.request, "user"));
  const Json* original = body.if_contains("original_password");
  const Json* wanted = body.if_contains("password");
  if (original == nullptr || !original->is_string() || wanted == nullptr || !wanted->is_string())
    return Invalid("Both \"original_password\" and \"password\" are needed, as strings.");
  std::string_view password = base::View(wanted->get_string());
  if (password.empty() || password.size() > kMaxPasswordBytes)
    return Invalid("A password has 1 to " + std::to_string(kMaxPasswordBytes) + " bytes.");
  const std::string& id = call.Param("user_id");
  ASSIGN_OR_RETURN(RecordPtr user, CheckPassword(api, *call.now, call.now->Get(Kind::kUser, id),
                                                 base::View(original->get_string())));
  if (!Flag(*user, "enabled")) return Unauthorized();
  const Json* options = user->body.if_contains("options");
  if (options != nullptr && Flag(options->get_object(), "lock_password"))
    return Forbidden("The password of this user is locked; an administrator can change it.");
  RETURN_IF_ERROR(CheckHistory(api, *user, password));
  ASSIGN_OR_RETURN(std::string hash, api.passwords.Hash(password));
  RETURN_IF_ERROR(api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    RecordPtr before = tx.now().Get(Kind::kUser, id);
    if (before == nullptr || Text(*before, "_password_hash") != Text(*user, "_password_hash"))
      return Unauthorized();  // another change came first
    JsonObject changed = before->body;
    changed["_password_history"] = NewHistory(api, *before);
    changed["_password_hash"] = hash;
    VoidTokensBefore(api.clock.NowUs(), changed);
    tx.Put(Kind::kUser, id, std::move(changed));
    return {};
  }));
  return NoContent();
}

// ---- A user's projects and groups ----

base::Result<RecordPtr> VisibleUser(const Call& call) {
  const std::string& id = call.Param("user_id");
  RecordPtr user = call.now->Get(Kind::kUser, id);
  bool may = IsSelf(call, id) ||
             (user != nullptr ? SeesDomain(call, Text(*user, "domain_id")) : SeesAll(call));
  if (!may) return Forbidden();
  if (user == nullptr) return NotFound("user", id);
  return user;
}

Result ListUserProjects(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr user, VisibleUser(call));
  static const Resource& projects = *new Resource(ProjectResource());
  JsonArray items;
  for (const RecordPtr& project : TargetsOf(*call.now, user->id, ScopeKind::kProject)) {
    JsonObject view = View(call, *project, "/projects");
    items.push_back(std::move(view));
  }
  return ListResponse(call, projects.collection, std::move(items));
}

Result ListUserGroups(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr user, VisibleUser(call));
  JsonArray items;
  for (const RecordPtr& membership : call.now->Where(Index::kMembershipUser, {user->id})) {
    RecordPtr group = call.now->Get(Kind::kGroup, Text(*membership, "group_id"));
    if (group == nullptr) continue;
    JsonObject view = View(call, *group, "/groups");
    view["membership_expires_at"] = nullptr;
    items.push_back(std::move(view));
  }
  return ListResponse(call, "groups", std::move(items));
}

// ---- A group's users ----

std::string MembershipId(const Call& call) {
  return call.Param("group_id") + "/" + call.Param("user_id");
}

base::Result<RecordPtr> FindGroup(const Call& call, const Snapshot& now) {
  const std::string& id = call.Param("group_id");
  return Existing(now, Kind::kGroup, "group", id);
}

Result ListGroupUsers(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr group, FindGroup(call, *call.now));
  if (!SeesDomain(call, Text(*group, "domain_id"))) return Forbidden();
  static const Resource& users = *new Resource(UserResource());
  JsonArray items;
  for (const RecordPtr& membership : call.now->Where(Index::kMembershipGroup, {group->id})) {
    RecordPtr user = call.now->Get(Kind::kUser, Text(*membership, "user_id"));
    if (user != nullptr && items.size() <= kMaxListItems)
      items.push_back(ViewOf(call, users, *user));
  }
  return ListResponse(call, "users", std::move(items));
}

Result CheckMembership(Call& call) {
  ASSIGN_OR_RETURN(RecordPtr group, FindGroup(call, *call.now));
  const std::string& user_id = call.Param("user_id");
  if (!SeesDomain(call, Text(*group, "domain_id")) && !IsSelf(call, user_id)) return Forbidden();
  if (call.now->Get(Kind::kMembership, MembershipId(call)) == nullptr)
    return Error(Code::kNotFound, "User " + user_id + " is not found in group " + group->id + ".");
  return NoContent();
}

Result AddMember(Call& call) {
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    RETURN_IF_ERROR(FindGroup(call, tx.now()));
    const std::string& user_id = call.Param("user_id");
    if (tx.now().Get(Kind::kUser, user_id) == nullptr) return NotFound("user", user_id);
    tx.Put(Kind::kMembership, MembershipId(call),
           {{"user_id", user_id}, {"group_id", call.Param("group_id")}});
    return {};
  });
}

Result RemoveMember(Call& call) {
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr group, FindGroup(call, tx.now()));
    if (tx.now().Get(Kind::kMembership, MembershipId(call)) == nullptr)
      return Error(Code::kNotFound,
                   "User " + call.Param("user_id") + " is not found in group " + group->id + ".");
    tx.Remove(Kind::kMembership, MembershipId(call));
    return {};
  });
}

}  // namespace

void AddUserApi(Routes& routes) {
  routes.Add("POST", "/users/{user_id}/password", Access::kPublic, ChangePassword);
  routes.Add("GET", "/users/{user_id}/projects", Access::kToken, ListUserProjects);
  routes.Add("GET", "/users/{user_id}/groups", Access::kToken, ListUserGroups);
  routes.Add("GET", "/groups/{group_id}/users", Access::kToken, ListGroupUsers);
  for (std::string_view method : {"GET", "HEAD"})
    routes.Add(method, "/groups/{group_id}/users/{user_id}", Access::kToken, CheckMembership);
  routes.Add("PUT", "/groups/{group_id}/users/{user_id}", Access::kAdmin, AddMember);
  routes.Add("DELETE", "/groups/{group_id}/users/{user_id}", Access::kAdmin, RemoveMember);
}

}  // namespace controlplane::identity
