#include "controlplane/identity/bootstrap.h"

#include <map>

#include "base/uuid.h"
#include "controlplane/identity/roles.h"
#include "controlplane/identity/sessions.h"

namespace controlplane::identity {

using base::JsonArray;
using base::JsonObject;

namespace {

// Finds or makes records by name within one transaction.
class Builder {
 public:
  explicit Builder(Transaction& tx) : tx_(tx) {}

  void Domain() {
    if (tx_.now().Get(Kind::kProject, kDefaultDomainId) != nullptr) return;
    tx_.Put(Kind::kProject, kDefaultDomainId,
            {{"name", "Default"},
             {"domain_id", nullptr},
             {"description", "The default domain"},
             {"enabled", true},
             {"parent_id", nullptr},
             {"is_domain", true},
             {"tags", JsonArray()},
             {"options", JsonObject()}});
  }

  std::string Project(std::string_view name, std::string_view description) {
    return Ensure(Kind::kProject, Index::kProjectName, kDefaultDomainId, name,
                  {{"name", name},
                   {"domain_id", kDefaultDomainId},
                   {"description", description},
                   {"enabled", true},
                   {"parent_id", kDefaultDomainId},
                   {"is_domain", false},
                   {"tags", JsonArray()},
                   {"options", JsonObject()}});
  }

  std::string Role(std::string_view name) {
    return Ensure(Kind::kRole, Index::kRoleName, "", name,
                  {{"name", name},
                   {"domain_id", nullptr},
                   {"description", nullptr},
                   {"options", JsonObject{{"immutable", true}}}});
  }

  // It cannot be locked out: anyone who knows its name could do that. An existing one is left as it
  // is unless its password is to be another: another process may have made it just now.
  std::string Admin(const std::string& password_hash, bool reset, int64_t now_us) {
    RecordPtr known = tx_.now().Named(Index::kUserName, kDefaultDomainId, "admin");
    if (known != nullptr && reset) {
      JsonObject body = known->body;
      body["_password_hash"] = password_hash;
      VoidTokensBefore(now_us, body);
      tx_.Put(Kind::kUser, known->id, std::move(body));
      return known->id;
    }
    return Ensure(Kind::kUser, Index::kUserName, kDefaultDomainId, "admin",
                  {{"name", "admin"},
                   {"domain_id", kDefaultDomainId},
                   {"enabled", true},
                   {"options", JsonObject{{"ignore_lockout_failure_attempts", true}}},
                   {"_password_hash", password_hash}});
  }

  void Implies(const std::string& prior, const std::string& implied) {
    PutNew(Kind::kImpliedRole, prior + "/" + implied,
           {{"prior_role_id", prior}, {"implied_role_id", implied}});
  }

  void Grant(const std::string& user_id, ScopeKind kind, const std::string& target_id,
             const std::string& role_id) {
    std::string target_kind(TargetKindName(kind));
    PutNew(Kind::kAssignment,
           user_id + "/" + target_kind + "/" + target_id + "/" + role_id + "/direct",
           {{"actor_kind", "user"},
            {"actor_id", user_id},
            {"target_kind", target_kind},
            {"target_id", target_id},
            {"role_id", role_id},
            {"inherited", false}});
  }

  void Region(const std::string& id) {
    PutNew(Kind::kRegion, id, {{"description", ""}, {"parent_region_id", nullptr}});
  }

  void Service(const BootstrapRequest::Service& service, const std::string& region) {
    std::string id;
    for (const RecordPtr& known : tx_.now().All(Kind::kService))
      if (Text(*known, "type") == service.type) id = known->id;
    if (id.empty()) {
      id = base::NewUuidHex();
      tx_.Put(Kind::kService, id,
              {{"name", service.name}, {"type", service.type}, {"enabled", true}});
    }
    for (std::string_view interface : {"public", "internal", "admin"})
      Endpoint(id, interface, service.url, region);
  }

 private:
  void PutNew(Kind kind, const std::string& id, JsonObject body) {
    if (tx_.now().Get(kind, id) == nullptr) tx_.Put(kind, id, std::move(body));
  }

  std::string Ensure(Kind kind, Index index, std::string_view within, std::string_view name,
                     JsonObject body) {
    RecordPtr known = tx_.now().Named(index, within, name);
    if (known != nullptr) return known->id;
    std::string id = base::NewUuidHex();
    tx_.Put(kind, id, std::move(body));
    return id;
  }

  void Endpoint(const std::string& service_id, std::string_view interface, const std::string& url,
                const std::string& region) {
    for (const RecordPtr& known : tx_.now().Where(Index::kEndpointService, {service_id})) {
      if (Text(*known, "interface") != interface || Text(*known, "region_id") != region) continue;
      if (Text(*known, "url") == url) return;
      JsonObject body = known->body;
      body["url"] = url;
      tx_.Put(Kind::kEndpoint, known->id, std::move(body));
      return;
    }
    tx_.Put(Kind::kEndpoint, base::NewUuidHex(),
            {{"interface", interface},
             {"region_id", region},
             {"service_id", service_id},
             {"url", url},
             {"enabled", true}});
  }

  Transaction& tx_;
};

}  // namespace

base::Result<void> RunBootstrap(Api& api, const BootstrapRequest& request) {
  ASSIGN_OR_RETURN(SnapshotPtr now, api.store.Read(Store::kLatest));
  std::string password_hash;
  bool fresh = now->Named(Index::kUserName, kDefaultDomainId, "admin") == nullptr;
  if (fresh || request.reset_admin_password) {
    if (request.admin_password.empty()) return Invalid("the user admin needs a password");
    ASSIGN_OR_RETURN(password_hash, api.passwords.Hash(request.admin_password));
  }
  return api.store.Transact([&](Transaction& tx) -> base::Result<void> {
    Builder builder(tx);
    builder.Domain();
    std::string project = builder.Project("admin", "Bootstrap project for initializing the cloud.");
    builder.Project("service", "For the services' own users.");
    std::string admin = builder.Role("admin");
    std::string member = builder.Role("member");
    std::string reader = builder.Role("reader");
    builder.Role("service");
    builder.Implies(admin, member);
    builder.Implies(member, reader);
    std::string user =
        builder.Admin(password_hash, request.reset_admin_password, api.clock.NowUs());
    builder.Grant(user, ScopeKind::kProject, project, admin);
    builder.Grant(user, ScopeKind::kSystem, std::string(kSystemTarget), admin);
    builder.Region(request.region);
    builder.Service({"identity", "keystone", "$(base_url)s/identity/v3"}, request.region);
    for (const BootstrapRequest::Service& service : request.services)
      builder.Service(service, request.region);
    return {};
  });
}

}  // namespace controlplane::identity
