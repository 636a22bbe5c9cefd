#include <algorithm>
#include <vector>

#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"
#include "controlplane/identity/apis.h"
#include "controlplane/identity/catalog.h"
#include "controlplane/identity/resources.h"
#include "controlplane/identity/roles.h"

namespace controlplane::identity {

namespace {

// ---- Who is it? ----

const JsonObject* Child(const JsonObject& object, std::string_view name) {
  const Json* child = object.if_contains(name);
  return child != nullptr && child->is_object() ? &child->get_object() : nullptr;
}

// {"id": ...} or {"name": ...}; null if there is none such.
RecordPtr FindDomain(const Snapshot& now, const JsonObject* domain) {
  if (domain == nullptr) return nullptr;
  std::string_view id = Text(*domain, "id");
  RecordPtr found = id.empty() ? now.Named(Index::kProjectName, "", Text(*domain, "name"))
                               : now.Get(Kind::kProject, id);
  return found != nullptr && Flag(*found, "is_domain") ? found : nullptr;
}

// {"id": ...}, or {"name": ..., "domain": {...}}; null if there is none such.
RecordPtr FindInDomain(const Snapshot& now, Kind kind, Index index, const JsonObject& named) {
  std::string_view id = Text(named, "id");
  if (!id.empty()) return now.Get(kind, id);
  RecordPtr domain = FindDomain(now, Child(named, "domain"));
  return domain == nullptr ? nullptr : now.Named(index, domain->id, Text(named, "name"));
}

bool IsLocked(const Api& api, const Snapshot& now, const Record& user) {
  RecordPtr failures = now.Get(Kind::kLoginFailures, user.id);
  if (failures == nullptr || api.options.lockout_failures <= 0) return false;
  if (Number(*failures, "_count") < api.options.lockout_failures) return false;
  return api.clock.NowUs() < Number(*failures, "_last_us") + api.options.lockout_ms * 1000;
}

bool IsExemptFromLockout(const Record& user) {
  const JsonObject* options = Child(user.body, "options");
  return options != nullptr && Flag(*options, "ignore_lockout_failure_attempts");
}

// Counts a failure, or forgets them after a success.
base::Result<void> NoteLogin(Api& api, const Record& user, bool success) {
  if (api.options.lockout_failures <= 0 || IsExemptFromLockout(user)) return {};
  int64_t now_us = api.clock.NowUs();
  return api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    RecordPtr before = tx.now().Get(Kind::kLoginFailures, user.id);
    if (tx.now().Get(Kind::kUser, user.id) == nullptr) return {};
    if (success) {
      if (before != nullptr) tx.Remove(Kind::kLoginFailures, user.id);
      return {};
    }
    int64_t count = before == nullptr ? 0 : Number(*before, "_count");
    bool over = before != nullptr && count >= api.options.lockout_failures &&
                now_us >= Number(*before, "_last_us") + api.options.lockout_ms * 1000;
    tx.Put(Kind::kLoginFailures, user.id, {{"_count", over ? 1 : count + 1}, {"_last_us", now_us}});
    return {};
  });
}

base::Result<RecordPtr> ByPassword(Api& api, const Snapshot& now, const JsonObject& identity) {
  const JsonObject* method = Child(identity, "password");
  const JsonObject* named = method == nullptr ? nullptr : Child(*method, "user");
  if (named == nullptr) return Invalid("The method password needs an object \"user\".");
  const Json* password = named->if_contains("password");
  if (password == nullptr || !password->is_string())
    return Invalid("The method password needs a string \"password\".");
  return CheckPassword(api, now, FindInDomain(now, Kind::kUser, Index::kUserName, *named),
                       base::View(password->get_string()));
}

struct Proof {
  RecordPtr user;
  uint8_t methods = 0;
  SessionPtr session;                // the token that was shown, or null
  RecordPtr application_credential;  // or null
};

base::Result<void> ByToken(Call& call, const JsonObject& identity, Proof& proof) {
  const JsonObject* method = Child(identity, "token");
  std::string_view id = method == nullptr ? std::string_view() : Text(*method, "id");
  if (id.empty()) return Invalid("The method token needs a string \"id\".");
  auto session = call.api.sessions.Resolve(id);
  if (!session.has_value()) {
    if (session.error().code() != Code::kUnauthenticated) return std::move(session).error();
    return Error(Code::kNotFound, "Failed to validate token");
  }
  if (!(*session)->may_delegate() || (*session)->application_credential != nullptr)
    return Forbidden("This token cannot be exchanged for another.");
  proof.session = *std::move(session);
  proof.user = proof.session->user;
  proof.methods |= proof.session->token.methods | kMethodToken;
  return {};
}

base::Result<void> ByApplicationCredential(Call& call, const JsonObject& identity, Proof& proof) {
  const JsonObject* method = Child(identity, "application_credential");
  if (method == nullptr) return Invalid("The method needs an object \"application_credential\".");
  const Snapshot& now = *call.now;
  RecordPtr credential;
  if (std::string_view id = Text(*method, "id"); !id.empty()) {
    credential = now.Get(Kind::kApplicationCredential, id);
  } else if (const JsonObject* named = Child(*method, "user"); named != nullptr) {
    RecordPtr user = FindInDomain(now, Kind::kUser, Index::kUserName, *named);
    if (user != nullptr)
      credential = now.Named(Index::kApplicationCredentialName, user->id, Text(*method, "name"));
  }
  std::string_view hash = credential == nullptr ? "" : Text(*credential, "_secret_hash");
  ASSIGN_OR_RETURN(bool same, call.api.passwords.Verify(Text(*method, "secret"), hash));
  if (!same) return Unauthorized();
  proof.user = now.Get(Kind::kUser, Text(*credential, "user_id"));
  if (proof.user == nullptr) return Unauthorized();
  proof.application_credential = std::move(credential);
  proof.methods |= kMethodApplicationCredential;
  return {};
}

base::Result<Proof> ProveIdentity(Call& call, const JsonObject& identity) {
  std::vector<std::string> methods = Strings(identity, "methods");
  if (methods.empty()) return Invalid("\"methods\" names no way to authenticate.");
  Proof proof;
  for (const std::string& method : methods) {
    RecordPtr before = proof.user;
    if (method == "password") {
      ASSIGN_OR_RETURN(proof.user, ByPassword(call.api, *call.now, identity));
      proof.methods |= kMethodPassword;
    } else if (method == "token") {
      RETURN_IF_ERROR(ByToken(call, identity, proof));
    } else if (method == "application_credential") {
      RETURN_IF_ERROR(ByApplicationCredential(call, identity, proof));
    } else {
      return Unauthorized();
    }
    if (before != nullptr && before->id != proof.user->id) return Unauthorized();
  }
  return proof;
}

// ---- For what? ----

base::Result<void> ScopeToTrust(const Snapshot& now, const Proof& proof, const JsonObject& named,
                                TokenPayload& payload) {
  RecordPtr trust = now.Get(Kind::kTrust, Text(named, "id"));
  if (trust == nullptr) return Unauthorized();
  if (Text(*trust, "trustee_user_id") != proof.user->id) return Unauthorized();
  if (Text(*trust, "project_id").empty()) return Unauthorized();
  payload.trust_id = trust->id;
  payload.scope = ScopeKind::kProject;
  payload.scope_id = Text(*trust, "project_id");
  if (Flag(*trust, "impersonation")) payload.user_id = Text(*trust, "trustor_user_id");
  return {};
}

base::Result<void> ScopeAsAsked(const Snapshot& now, const Proof& proof, const JsonObject& scope,
                                TokenPayload& payload) {
  if (const JsonObject* project = Child(scope, "project"); project != nullptr) {
    RecordPtr found = FindInDomain(now, Kind::kProject, Index::kProjectName, *project);
    if (found == nullptr) return Unauthorized();
    payload.scope = ScopeKind::kProject;
    payload.scope_id = found->id;
  } else if (const JsonObject* domain = Child(scope, "domain"); domain != nullptr) {
    RecordPtr found = FindDomain(now, domain);
    if (found == nullptr) return Unauthorized();
    payload.scope = ScopeKind::kDomain;
    payload.scope_id = found->id;
  } else if (const JsonObject* system = Child(scope, "system"); system != nullptr) {
    if (!Flag(*system, "all")) return Invalid("The only scope of the system is {\"all\": true}.");
    payload.scope = ScopeKind::kSystem;
  } else if (const JsonObject* trust = Child(scope, "OS-TRUST:trust"); trust != nullptr) {
    return ScopeToTrust(now, proof, *trust, payload);
  } else {
    return Invalid("The scope names no project, domain, system or trust.");
  }
  return {};
}

// Without a scope asked for: an application credential's project, or the user's default project if
// it has a role there.
void ScopeByDefault(const Snapshot& now, const Proof& proof, TokenPayload& payload) {
  std::string_view project_id = Text(*proof.user, "default_project_id");
  RecordPtr project = now.Get(Kind::kProject, project_id);
  if (proof.session != nullptr || project == nullptr || !ProjectIsUsable(now, *project)) return;
  Target target{ScopeKind::kProject, project->id};
  if (TokenRoles(now, AssignedRoleIds(now, proof.user->id, target)).empty()) return;
  payload.scope = ScopeKind::kProject;
  payload.scope_id = project->id;
}

base::Result<void> ChooseScope(const Snapshot& now, const Proof& proof, const JsonObject& auth,
                               TokenPayload& payload) {
  const Json* scope = auth.if_contains("scope");
  if (proof.application_credential != nullptr) {
    if (scope != nullptr) return Unauthorized();  // it has its own scope, and no other
    payload.application_credential_id = proof.application_credential->id;
    payload.scope = ScopeKind::kProject;
    payload.scope_id = Text(*proof.application_credential, "project_id");
    return {};
  }
  if (scope == nullptr) {
    ScopeByDefault(now, proof, payload);
    return {};
  }
  if (scope->is_object()) return ScopeAsAsked(now, proof, scope->get_object(), payload);
  if (scope->is_string() && base::View(scope->get_string()) == "unscoped") return {};
  return Invalid("\"scope\" is an object or \"unscoped\".");
}

// The token is newer than what ended the tokens before it, whichever process's clock said so: all
// that Sessions::Evaluate will look at.
void IssueAfterRevocations(const Snapshot& now, TokenPayload& payload) {
  const auto after = [&](Kind kind, std::string_view id) {
    const RecordPtr record = now.Get(kind, id);
    if (record != nullptr)
      payload.issued_at_us = std::max(payload.issued_at_us, Number(*record, "_tokens_from_us") + 1);
    return record;
  };
  const auto after_both = [&](Kind kind, std::string_view id) {
    const RecordPtr record = after(kind, id);
    if (record != nullptr) after(Kind::kProject, Text(*record, "domain_id"));
  };
  after_both(Kind::kUser, payload.user_id);
  if (!payload.scope_id.empty()) after_both(Kind::kProject, payload.scope_id);
  const RecordPtr trust = now.Get(Kind::kTrust, payload.trust_id);
  if (trust == nullptr) return;
  for (std::string_view side : {"trustor_user_id", "trustee_user_id"})
    after_both(Kind::kUser, Text(*trust, side));
}

// ---- Documents ----

JsonObject WithDomain(const Record& record, const Record* domain) {
  JsonObject view;
  if (domain != nullptr) view["domain"] = Reference(*domain);
  view["id"] = record.id;
  view["name"] = Text(record, "name");
  return view;
}

JsonArray MethodNames(uint8_t methods) {
  JsonArray names;
  if (methods & kMethodPassword) names.push_back("password");
  if (methods & kMethodApplicationCredential) names.push_back("application_credential");
  if (methods & kMethodToken) names.push_back("token");
  return names;
}

void AddScope(const Session& session, JsonObject& token) {
  if (session.project != nullptr) {
    token["project"] = WithDomain(*session.project, session.project_domain.get());
    token["is_domain"] = false;
  } else if (session.domain != nullptr) {
    token["domain"] = Reference(*session.domain);
  } else if (session.token.scope == ScopeKind::kSystem) {
    token["system"] = JsonObject{{"all", true}};
  }
  if (session.scoped()) {
    JsonArray roles;
    for (const RecordPtr& role : session.roles) roles.push_back(Reference(*role));
    token["roles"] = std::move(roles);
  }
}

void AddOrigin(const Snapshot& now, const Session& session, JsonObject& token) {
  if (session.application_credential != nullptr) {
    const Record& credential = *session.application_credential;
    JsonObject view = Reference(credential);
    view["restricted"] = !Flag(credential, "unrestricted");
    if (session.has_access_rules()) {
      JsonArray rules;
      for (const std::string& id : Strings(credential.body, "_access_rule_ids"))
        if (RecordPtr rule = now.Get(Kind::kAccessRule, id); rule != nullptr)
          rules.push_back(JsonObject{{"id", rule->id},
                                     {"service", Text(*rule, "service")},
                                     {"path", Text(*rule, "path")},
                                     {"method", Text(*rule, "method")}});
      view["access_rules"] = std::move(rules);
    }
    token["application_credential"] = std::move(view);
  }
  if (session.trust != nullptr) {
    const Record& trust = *session.trust;
    token["OS-TRUST:trust"] =
        JsonObject{{"id", trust.id},
                   {"impersonation", Flag(trust, "impersonation")},
                   {"trustor_user", JsonObject{{"id", Text(trust, "trustor_user_id")}}},
                   {"trustee_user", JsonObject{{"id", Text(trust, "trustee_user_id")}}}};
  }
}

std::string TokenDocument(const Session& session, const Snapshot& now, std::string_view base_url,
                          bool with_catalog) {
  JsonObject token;
  token["methods"] = MethodNames(session.token.methods);
  JsonObject user = WithDomain(*session.user, session.user_domain.get());
  user["password_expires_at"] = nullptr;
  token["user"] = std::move(user);
  JsonArray audit_ids{base::ToBase64Url(session.token.audit_id)};
  if (!session.token.parent_audit_id.empty())
    audit_ids.push_back(Json(base::ToBase64Url(session.token.parent_audit_id)));
  token["audit_ids"] = std::move(audit_ids);
  token["expires_at"] = base::FormatTimeMicros(session.token.expires_at_us);
  token["issued_at"] = base::FormatTimeMicros(session.token.issued_at_us);
  AddScope(session, token);
  AddOrigin(now, session, token);
  if (session.scoped() && with_catalog) token["catalog"] = Catalog(now, session, base_url);
  return boost::json::serialize(JsonObject{{"token", std::move(token)}});
}

Response TokenResponse(int status, std::string_view token, std::string body) {
  Response response = Response::Text(status, std::move(body), "application/json");
  response.headers.Set("X-Subject-Token", token);
  response.headers.Set("Vary", "X-Auth-Token");
  return response;
}

// ---- Handlers ----

Result IssueToken(Call& call) {
  Api& api = call.api;
  // Before anything is looked at: a password changed from here on makes the token void.
  int64_t issued_at_us = api.clock.NowUs();
  ASSIGN_OR_RETURN(call.now, api.store.Read(Store::kLatest));
  ASSIGN_OR_RETURN(JsonObject auth, BodyMember(call.request, "auth"));
  const JsonObject* identity = Child(auth, "identity");
  if (identity == nullptr) return Invalid("\"auth\" needs an object \"identity\".");
  ASSIGN_OR_RETURN(Proof proof, ProveIdentity(call, *identity));

  TokenPayload payload;
  payload.methods = proof.methods;
  payload.user_id = proof.user->id;
  payload.issued_at_us = issued_at_us;
  payload.expires_at_us = issued_at_us + api.options.token_lifetime_ms * 1000;
  payload.audit_id = base::RandomBytes(kAuditIdBytes);
  if (proof.session != nullptr) {
    // A token bought with a token ends with it, so that nobody stays in by exchanging.
    const TokenPayload& parent = proof.session->token;
    payload.expires_at_us = std::min(payload.expires_at_us, parent.expires_at_us);
    payload.parent_audit_id =
        parent.parent_audit_id.empty() ? parent.audit_id : parent.parent_audit_id;
  }
  RETURN_IF_ERROR(ChooseScope(*call.now, proof, auth, payload));
  IssueAfterRevocations(*call.now, payload);
  if (proof.application_credential != nullptr)
    if (int64_t until_us = Number(*proof.application_credential, "_expires_us"); until_us > 0)
      payload.expires_at_us = std::max(issued_at_us, std::min(payload.expires_at_us, until_us));
  // A key made for this token is a newer version of the world than the one it was judged by; judge
  // it by this one again, as whoever validates it will.
  ASSIGN_OR_RETURN(std::string token, api.sessions.Seal(payload));
  ASSIGN_OR_RETURN(SessionPtr session, api.sessions.Evaluate(*call.now, std::move(payload)));
  bool with_catalog = !call.request.Query("nocatalog").has_value();
  return TokenResponse(201, token,
                       TokenDocument(*session, *call.now, call.base_url(), with_catalog));
}

// The token that a request is about. A void one is 404 here, not 401.
base::Result<SessionPtr> Subject(Call& call) {
  auto subject = call.api.sessions.Resolve(call.request.headers.Get("X-Subject-Token"));
  if (!subject.has_value() && subject.error().code() == Code::kUnauthenticated)
    return Error(Code::kNotFound, "Failed to validate token");
  if (!subject.has_value()) return subject;
  bool own = (*subject)->user->id == call.by->user->id;
  if (!own && !SeesAll(call) && !call.by->caller.HasRole("service")) return Forbidden();
  // Whoever cannot keep to access rules must not take the token for a whole one; who can says so.
  if ((*subject)->has_access_rules() &&
      !call.request.headers.Has("OpenStack-Identity-Access-Rules"))
    return Error(Code::kNotFound, "Failed to validate token");
  return subject;
}

Result ShowToken(Call& call) {
  ASSIGN_OR_RETURN(SessionPtr subject, Subject(call));
  std::string_view token = call.request.headers.Get("X-Subject-Token");
  std::string_view base_url = call.base_url();
  if (call.request.Query("nocatalog").has_value())
    return TokenResponse(200, token, TokenDocument(*subject, *call.now, base_url, false));
  ASSIGN_OR_RETURN(
      auto document,
      call.api.sessions.Document(token, base_url, [&](const Session& session, const Snapshot& now) {
        return TokenDocument(session, now, base_url, true);
      }));
  return TokenResponse(200, token, *document);
}

Result RevokeToken(Call& call) {
  auto subject = call.api.sessions.Resolve(call.request.headers.Get("X-Subject-Token"));
  if (!subject.has_value() && subject.error().code() == Code::kUnauthenticated)
    return Error(Code::kNotFound, "Failed to validate token");
  RETURN_IF_ERROR(subject);
  if ((*subject)->user->id != call.by->user->id && !IsAdmin(call)) return Forbidden();
  RETURN_IF_ERROR(call.api.sessions.Revoke(**subject));
  return NoContent();
}

Result ShowCatalog(Call& call) {
  if (!call.by->scoped()) return Forbidden("A catalog needs a scoped token.");
  JsonObject body{{"catalog", Catalog(*call.now, *call.by, call.base_url())},
                  {"links", JsonObject{{"self", call.Url("/auth/catalog")}}}};
  return Response::OfJson(200, body);
}

Result ListScopes(Call& call, const Resource& resource, ScopeKind kind) {
  JsonArray items;
  for (const RecordPtr& target : TargetsOf(*call.now, call.by->user->id, kind))
    items.push_back(ViewOf(call, resource, *target));
  return ListResponse(call, resource.collection, std::move(items));
}

Result ListSystemScopes(Call& call) {
  JsonArray items;
  if (!AssignedRoleIds(*call.now, call.by->user->id, {ScopeKind::kSystem, {}}).empty())
    items.push_back(JsonObject{{"all", true}});
  return ListResponse(call, "system", std::move(items));
}

}  // namespace

base::Result<RecordPtr> CheckPassword(Api& api, const Snapshot& now, RecordPtr user,
                                      std::string_view password) {
  if (password.size() > kMaxPasswordBytes) password = {};  // belongs to nobody, and costs the same
  std::string_view hash = user == nullptr ? "" : Text(*user, "_password_hash");
  ASSIGN_OR_RETURN(bool same, api.passwords.Verify(password, hash));
  if (user == nullptr) return Unauthorized();
  bool locked = !IsExemptFromLockout(*user) && IsLocked(api, now, *user);
  if (locked) return Unauthorized();
  RETURN_IF_ERROR(NoteLogin(api, *user, same));
  if (!same) {
    LOG(kInfo, "identity", "a wrong password for user {}", user->id);
    return Unauthorized();
  }
  return user;
}

void AddAuthApi(Routes& routes) {
  routes.Add("POST", "/auth/tokens", Access::kPublic, IssueToken);
  routes.Add("GET", "/auth/tokens", Access::kToken, ShowToken);
  routes.Add("DELETE", "/auth/tokens", Access::kToken, RevokeToken);
  routes.Add("GET", "/auth/catalog", Access::kToken, ShowCatalog);
  routes.Add("GET", "/auth/projects", Access::kToken,
             [](Call& call) { return ListScopes(call, ProjectResource(), ScopeKind::kProject); });
  routes.Add("GET", "/auth/domains", Access::kToken,
             [](Call& call) { return ListScopes(call, DomainResource(), ScopeKind::kDomain); });
  routes.Add("GET", "/auth/system", Access::kToken, ListSystemScopes);
}

}  // namespace controlplane::identity
