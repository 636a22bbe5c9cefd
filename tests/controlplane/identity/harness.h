#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/http/router.h"
#include "base/json.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "controlplane/identity/identity.h"

// Calls the service as the server does (router, access, handler, error renderer), without sockets.

namespace controlplane::identity {

constexpr char kAdminPassword[] = "the admin's password";

struct Reply {
  int status = 0;
  std::string body;
  base::http::Headers headers;
  base::Json json;  // null if the body is empty

  // reply.At("token", "user", "id"); null if a step is missing.
  template <typename... Names>
  base::Json At(Names... names) const {
    const base::Json* value = &json;
    for (std::string_view name : {std::string_view(names)...}) {
      value = base::Find(*value, name);
      if (value == nullptr) return nullptr;
    }
    return *value;
  }
  template <typename... Names>
  std::string Str(Names... names) const {
    base::Json value = At(names...);
    return value.is_string() ? std::string(base::View(value.get_string())) : std::string();
  }
  size_t Count(std::string_view collection) const;
  // The ids in a collection.
  std::vector<std::string> Ids(std::string_view collection) const;
};

// Cheap passwords: what they cost is libsodium's business.
Options FastOptions();

// One process's identity service: an Identity over `meta`, mounted.
class Process {
 public:
  Process(chunkstore::MetaStore& meta, const base::Clock& clock, Options options = FastOptions());

  Identity& identity() { return *identity_; }
  const base::http::Router& router() const { return router_; }

  // `target` is below /identity/v3, with a query if any. `extra` are further headers.
  Reply Do(std::string_view method, std::string_view target, std::string_view token = {},
           std::string_view body = {},
           std::vector<std::pair<std::string, std::string>> extra = {}) const;

  // {"auth": ...} from its parts; the token, or "" with a failed expectation.
  std::string Login(std::string_view user_id, std::string_view password,
                    std::string_view scope = {}) const;
  Reply TryLogin(std::string_view user_id, std::string_view password,
                 std::string_view scope = {}) const;
  std::string AdminToken(std::string_view scope = kAdminScope) const;
  static constexpr std::string_view kAdminScope =
      R"({"project":{"name":"admin","domain":{"id":"default"}}})";

  // Creates and answers the new one's id, or "" with a failed expectation.
  std::string Create(std::string_view token, std::string_view collection, std::string_view member,
                     std::string_view fields) const;
  std::string RoleId(std::string_view token, std::string_view name) const;

 private:
  std::unique_ptr<Identity> identity_;
  base::http::Router router_;
};

// A bootstrapped world with one process.
struct World {
  World(Options options = FastOptions());

  chunkstore::MemoryMetaStore meta;
  base::ManualClock clock;
  Process process;
  std::string admin;  // a token, scoped to the project admin

  // A user with a role on a new project; its token is scoped there.
  struct Member {
    std::string user_id, project_id, token;
  };
  Member MakeMember(std::string_view name, std::string_view role = "member");
  // Time moves, so that what happens next is later than what happened before.
  void Tick() { clock.AdvanceUs(10); }
};

std::string ProjectScope(std::string_view project_id);

}  // namespace controlplane::identity
