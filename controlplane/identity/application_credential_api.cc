#include <algorithm>
#include <set>
#include <vector>

#include "base/auth/access_rules.h"
#include "base/coding.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "controlplane/identity/apis.h"
#include "controlplane/identity/roles.h"

// Application credentials: a user's own, for one project, with some of its roles there, until it
// deletes them. The secret is shown once and kept as a hash. Access rules narrow one down to some
// calls of some services.

namespace controlplane::identity {

namespace {

constexpr size_t kMaxName = 255;
constexpr size_t kSecretBytes = 32;

std::string UserPath(const Call& call, std::string_view rest) {
  return "/users/" + call.Param("user_id") + std::string(rest);
}

// Its own user; or, to look and to take away, an administrator.
base::Result<void> CheckOwner(const Call& call, bool admins_too) {
  const std::string& user_id = call.Param("user_id");
  if (!IsSelf(call, user_id) && !(admins_too && SeesAll(call))) return Forbidden();
  if (call.now->Get(Kind::kUser, user_id) == nullptr) return NotFound("user", user_id);
  return {};
}

JsonObject RuleView(const Call& call, const Record& rule) {
  JsonObject view = View(call, rule, UserPath(call, "/access_rules"));
  view.erase("user_id");
  return view;
}

JsonObject CredentialView(const Call& call, const Snapshot& now, const Record& credential) {
  JsonObject view = View(call, credential, UserPath(call, "/application_credentials"));
  JsonArray roles;
  for (const std::string& id : Strings(credential.body, "_role_ids")) {
    RecordPtr role = now.Get(Kind::kRole, id);
    if (role == nullptr) continue;
    roles.push_back(JsonObject{{"id", id},
                               {"name", Text(*role, "name")},
                               {"domain_id", TextOrNull(Text(*role, "domain_id"))},
                               {"description", TextOrNull(Text(*role, "description"))},
                               {"options", JsonObject()}});
  }
  view["roles"] = std::move(roles);
  if (credential.body.if_contains("_access_rule_ids") != nullptr) {
    JsonArray rules;
    for (const std::string& id : Strings(credential.body, "_access_rule_ids"))
      if (RecordPtr rule = now.Get(Kind::kAccessRule, id); rule != nullptr) {
        JsonObject shown = RuleView(call, *rule);
        shown.erase("links");
        rules.push_back(std::move(shown));
      }
    view["access_rules"] = std::move(rules);
  }
  return view;
}

struct Input {
  std::string name;
  std::string description;
  std::string secret;
  int64_t expires_us = 0;
  bool unrestricted = false;
  std::set<std::string> role_ids;
  bool has_rules = false;
  std::vector<JsonObject> rules;      // service, path, method
  std::vector<std::string> rule_ids;  // known ones, by id
};

// {"id": ...} or {"name": ...} of roles that the caller holds here.
base::Result<void> ParseRoles(const Call& call, const JsonObject& body, Input& input) {
  const Json* roles = body.if_contains("roles");
  if (roles == nullptr) {
    std::set<std::string> held = AssignedRoleIds(*call.now, call.by->user->id,
                                                 {call.by->token.scope, call.by->token.scope_id});
    for (const RecordPtr& role : call.by->roles)
      if (held.contains(role->id)) input.role_ids.insert(role->id);
    return {};
  }
  if (!roles->is_array()) return Invalid("\"roles\" is a list of roles.");
  for (const Json& item : roles->get_array()) {
    if (!item.is_object()) return Invalid("\"roles\" is a list of {\"id\"} or {\"name\"}.");
    std::string_view id = Text(item.get_object(), "id");
    std::string_view name = Text(item.get_object(), "name");
    auto held =
        std::find_if(call.by->roles.begin(), call.by->roles.end(), [&](const RecordPtr& role) {
          return id.empty() ? Text(*role, "name") == name : role->id == id;
        });
    if (held == call.by->roles.end())
      return Invalid("Could not find role assignment with role: " +
                     std::string(id.empty() ? name : id) + " for this user on this project.");
    input.role_ids.insert((*held)->id);
  }
  if (input.role_ids.empty()) return Invalid("\"roles\" names no role.");
  return {};
}

base::Result<void> ParseRules(const JsonObject& body, Input& input) {
  const Json* rules = body.if_contains("access_rules");
  if (rules == nullptr) return {};
  if (!rules->is_array() || rules->get_array().size() > kMaxAccessRules)
    return Invalid("\"access_rules\" is a list of at most " + std::to_string(kMaxAccessRules) +
                   ".");
  input.has_rules = true;
  constexpr std::string_view kMethods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"};
  for (const Json& item : rules->get_array()) {
    if (!item.is_object()) return Invalid("An access rule is an object.");
    const JsonObject& rule = item.get_object();
    if (std::string_view id = Text(rule, "id"); !id.empty()) {
      input.rule_ids.emplace_back(id);
      continue;
    }
    JsonObject kept;
    for (std::string_view name : {"service", "path", "method"}) {
      std::string_view text = Text(rule, name);
      if (text.empty() || text.size() > kMaxIdBytes || !IsCleanName(text))
        return Invalid("An access rule needs \"service\", \"path\" and \"method\".");
      kept[name] = text;
    }
    if (const auto pattern = base::auth::CheckPattern(Text(rule, "path")); !pattern.has_value())
      return Invalid(pattern.error().message() + ".");
    if (rule.size() != 3 || !Text(rule, "path").starts_with('/') ||
        std::find(std::begin(kMethods), std::end(kMethods), Text(rule, "method")) ==
            std::end(kMethods))
      return Invalid("Not a valid access rule.");
    input.rules.push_back(std::move(kept));
  }
  return {};
}

base::Result<Input> ParseInput(const Call& call) {
  ASSIGN_OR_RETURN(JsonObject body, BodyMember(call.request, "application_credential"));
  Input input;
  input.name = Text(body, "name");
  if (input.name.empty() || base::CountCharacters(input.name) > kMaxName ||
      !IsCleanName(input.name))
    return Invalid("\"name\" has 1 to " + std::to_string(kMaxName) + " characters.");
  input.description = Text(body, "description");
  if (input.description.size() > kMaxTextBytes) return Invalid("\"description\" is too long.");
  input.secret = Text(body, "secret");
  if (input.secret.size() > kMaxPasswordBytes) return Invalid("\"secret\" is too long.");
  input.unrestricted = Flag(body, "unrestricted");
  ASSIGN_OR_RETURN(input.expires_us, OptionalTime(body, "expires_at"));
  if (input.expires_us != 0 && input.expires_us <= call.api.clock.NowUs())
    return Invalid("\"expires_at\" is in the past.");
  RETURN_IF_ERROR(ParseRoles(call, body, input));
  RETURN_IF_ERROR(ParseRules(body, input));
  return input;
}

// Makes the rules that the user does not have yet; equal ones are shared.
base::Result<JsonArray> PlaceRules(Transaction& tx, const std::string& user_id, const Input& input,
                                   std::vector<Record>& made) {
  std::vector<RecordPtr> known = tx.now().Where(Index::kAccessRuleUser, {user_id});
  JsonArray ids;
  for (const std::string& id : input.rule_ids) {
    if (std::none_of(known.begin(), known.end(), [&](const RecordPtr& r) { return r->id == id; }))
      return NotFound("access rule", id);
    ids.push_back(Json(id));
  }
  for (const JsonObject& rule : input.rules) {
    auto same = std::find_if(known.begin(), known.end(), [&](const RecordPtr& other) {
      return Text(*other, "service") == Text(rule, "service") &&
             Text(*other, "path") == Text(rule, "path") &&
             Text(*other, "method") == Text(rule, "method");
    });
    std::string id = same == known.end() ? base::NewUuidHex() : (*same)->id;
    if (same == known.end()) {
      JsonObject body = rule;
      body["user_id"] = user_id;
      made.push_back(Record{Kind::kAccessRule, id, body});
      tx.Put(Kind::kAccessRule, id, std::move(body));
    }
    ids.push_back(Json(id));
  }
  return ids;
}

std::string ShownExpiry(int64_t expires_us) {
  std::string text = base::FormatTimeMicros(expires_us);
  text.pop_back();  // Keystone shows this one without its Z
  return text;
}

Result Create(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, false));
  if (!call.by->may_delegate()) return Forbidden();
  if (call.by->token.scope != ScopeKind::kProject)
    return Forbidden("An application credential is for a project: use a token with that scope.");
  ASSIGN_OR_RETURN(Input input, ParseInput(call));
  if (input.secret.empty()) input.secret = base::ToBase64Url(base::RandomBytes(kSecretBytes));
  ASSIGN_OR_RETURN(std::string hash, call.api.passwords.Hash(input.secret));
  const std::string& user_id = call.Param("user_id");
  std::string id = base::NewUuidHex();
  JsonArray role_ids;
  for (const std::string& role_id : input.role_ids) role_ids.push_back(Json(role_id));
  JsonObject body;
  RETURN_IF_ERROR(call.api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    if (tx.now().Named(Index::kApplicationCredentialName, user_id, input.name) != nullptr)
      return Error(Code::kAlreadyExists,
                   "Conflict occurred attempting to store application_credential - Duplicate "
                   "entry found with name " +
                       input.name + ".");
    if (tx.now().Get(Kind::kUser, user_id) == nullptr) return NotFound("user", user_id);
    RETURN_IF_ERROR(CheckRoomFor(tx.now(), Index::kApplicationCredentialUser, user_id));
    if (input.has_rules) RETURN_IF_ERROR(CheckRoomFor(tx.now(), Index::kAccessRuleUser, user_id));
    body = JsonObject{
        {"name", input.name},
        {"description", TextOrNull(input.description)},
        {"user_id", user_id},
        {"project_id", call.by->token.scope_id},
        {"system", nullptr},
        {"expires_at", input.expires_us == 0 ? Json(nullptr) : Json(ShownExpiry(input.expires_us))},
        {"unrestricted", input.unrestricted},
        {"_expires_us", input.expires_us},
        {"_secret_hash", hash},
        {"_role_ids", role_ids}};
    std::vector<Record> made;
    if (input.has_rules) {
      ASSIGN_OR_RETURN(body["_access_rule_ids"], PlaceRules(tx, user_id, input, made));
    }
    tx.Put(Kind::kApplicationCredential, id, body);
    return {};
  }));
  ASSIGN_OR_RETURN(SnapshotPtr after, call.api.store.Read());
  JsonObject view =
      CredentialView(call, *after, Record{Kind::kApplicationCredential, id, std::move(body)});
  view["secret"] = input.secret;
  return Created("application_credential", std::move(view));
}

base::Result<RecordPtr> Find(const Call& call, const Snapshot& now, Kind kind,
                             std::string_view label) {
  const std::string& id = call.Param("id");
  RecordPtr record = now.Get(kind, id);
  if (record == nullptr || Text(*record, "user_id") != call.Param("user_id"))
    return NotFound(label, id);
  return record;
}

Result List(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, true));
  auto name = call.request.Query("name");
  JsonArray items;
  for (const RecordPtr& credential :
       call.now->Where(Index::kApplicationCredentialUser, {call.Param("user_id")}))
    if (!name.has_value() || Text(*credential, "name") == *name)
      items.push_back(CredentialView(call, *call.now, *credential));
  return ListResponse(call, "application_credentials", std::move(items));
}

Result ShowOne(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, true));
  ASSIGN_OR_RETURN(RecordPtr credential,
                   Find(call, *call.now, Kind::kApplicationCredential, "Application Credential"));
  return Shown("application_credential", CredentialView(call, *call.now, *credential));
}

Result Delete(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, IsAdmin(call)));
  if (!call.by->may_delegate()) return Forbidden();
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr credential,
                     Find(call, tx.now(), Kind::kApplicationCredential, "Application Credential"));
    tx.Remove(Kind::kApplicationCredential, credential->id);
    return {};
  });
}

Result ListRules(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, true));
  JsonArray items;
  for (const RecordPtr& rule : call.now->Where(Index::kAccessRuleUser, {call.Param("user_id")}))
    items.push_back(RuleView(call, *rule));
  return ListResponse(call, "access_rules", std::move(items));
}

Result ShowRule(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, true));
  ASSIGN_OR_RETURN(RecordPtr rule, Find(call, *call.now, Kind::kAccessRule, "Access Rule"));
  return Shown("access_rule", RuleView(call, *rule));
}

Result DeleteRule(Call& call) {
  RETURN_IF_ERROR(CheckOwner(call, IsAdmin(call)));
  return Written(call, [&](Transaction& tx) -> base::Result<void> {
    ASSIGN_OR_RETURN(RecordPtr rule, Find(call, tx.now(), Kind::kAccessRule, "Access Rule"));
    for (const RecordPtr& credential :
         tx.now().Where(Index::kApplicationCredentialUser, {call.Param("user_id")}))
      if (Contains(credential->body, "_access_rule_ids", rule->id))
        return Forbidden("May not delete access rule in use");
    tx.Remove(Kind::kAccessRule, rule->id);
    return {};
  });
}

}  // namespace

void AddApplicationCredentialApi(Routes& routes) {
  std::string all = "/users/{user_id}/application_credentials";
  routes.Add("GET", all, Access::kToken, List);
  routes.Add("POST", all, Access::kToken, Create);
  routes.Add("GET", all + "/{id}", Access::kToken, ShowOne);
  routes.Add("DELETE", all + "/{id}", Access::kToken, Delete);
  std::string rules = "/users/{user_id}/access_rules";
  routes.Add("GET", rules, Access::kToken, ListRules);
  routes.Add("GET", rules + "/{id}", Access::kToken, ShowRule);
  routes.Add("DELETE", rules + "/{id}", Access::kToken, DeleteRule);
}

}  // namespace controlplane::identity
