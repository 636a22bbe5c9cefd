#include <map>
#include <set>

#include <gtest/gtest.h>

#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

// Every route of the service, tried without a token, with a token of a member elsewhere, and with
// an admin's. A new route without a row here fails the test.

namespace controlplane::identity {
namespace {

using base::http::Access;

// What a member of another project gets; an admin's route needs no row: 403.
struct Row {
  std::string_view route;
  int stranger;  // the object is another tenant's
};

constexpr Row kRows[] = {
    {"DELETE /v3/auth/tokens/", 403},
    {"GET /v3/auth/tokens/", 403},
    {"GET /v3/auth/catalog/", 200},
    {"GET /v3/auth/domains/", 200},
    {"GET /v3/auth/projects/", 200},
    {"GET /v3/auth/system/", 200},
    {"GET /v3/domains/", 403},
    {"GET /v3/domains/{id}", 403},
    {"GET /v3/domains/config/default/", 403},
    {"GET /v3/domains/config/{group}/default/", 403},
    {"GET /v3/domains/config/{group}/{option}/default/", 403},
    {"GET /v3/domains/{domain_id}/config/", 403},
    {"GET /v3/domains/{domain_id}/config/{group}", 403},
    {"GET /v3/domains/{domain_id}/config/{group}/{option}", 403},
    {"GET /v3/projects/", 403},
    {"GET /v3/projects/{id}", 403},
    {"GET /v3/projects/{project_id}/tags/", 403},
    {"GET /v3/projects/{project_id}/tags/{tag}", 403},
    {"HEAD /v3/projects/{project_id}/tags/{tag}", 403},
    {"GET /v3/users/", 403},
    {"GET /v3/users/{id}", 403},
    {"GET /v3/users/{user_id}/projects/", 403},
    {"GET /v3/users/{user_id}/groups/", 403},
    {"GET /v3/users/{user_id}/application_credentials/", 403},
    {"POST /v3/users/{user_id}/application_credentials/", 403},
    {"GET /v3/users/{user_id}/application_credentials/{id}", 403},
    {"DELETE /v3/users/{user_id}/application_credentials/{id}", 403},
    {"GET /v3/users/{user_id}/access_rules/", 403},
    {"GET /v3/users/{user_id}/access_rules/{id}", 403},
    {"DELETE /v3/users/{user_id}/access_rules/{id}", 403},
    {"GET /v3/users/{user_id}/credentials/OS-EC2/", 403},
    {"POST /v3/users/{user_id}/credentials/OS-EC2/", 403},
    {"GET /v3/users/{user_id}/credentials/OS-EC2/{access}", 403},
    {"DELETE /v3/users/{user_id}/credentials/OS-EC2/{access}", 403},
    {"GET /v3/groups/", 403},
    {"GET /v3/groups/{id}", 403},
    {"GET /v3/groups/{group_id}/users/", 403},
    {"GET /v3/groups/{group_id}/users/{user_id}", 403},
    {"HEAD /v3/groups/{group_id}/users/{user_id}", 403},
    {"GET /v3/roles/", 403},
    {"GET /v3/roles/{id}", 403},
    {"GET /v3/roles/{prior_id}/implies/", 403},
    {"GET /v3/roles/{prior_id}/implies/{implied_id}", 403},
    {"HEAD /v3/roles/{prior_id}/implies/{implied_id}", 403},
    {"GET /v3/role_inferences/", 403},
    {"GET /v3/role_assignments/", 403},
    {"GET /v3/regions/", 200},  // as Keystone: everyone who is in may know the regions
    {"GET /v3/regions/{id}", 200},
    {"GET /v3/services/", 403},
    {"GET /v3/services/{id}", 403},
    {"GET /v3/endpoints/", 403},
    {"GET /v3/endpoints/{id}", 403},
    {"GET /v3/policies/", 403},
    {"GET /v3/policies/{id}", 403},
    {"GET /v3/credentials/", 200},  // one's own, here none
    {"POST /v3/credentials/", 403},
    {"GET /v3/credentials/{id}", 403},
    {"PATCH /v3/credentials/{id}", 404},
    {"DELETE /v3/credentials/{id}", 404},
    {"GET /v3/OS-OAUTH1/consumers/", 403},
    {"GET /v3/OS-OAUTH1/consumers/{id}", 403},
    {"GET /v3/OS-EP-FILTER/endpoint_groups/", 403},
    {"GET /v3/OS-EP-FILTER/endpoint_groups/{id}", 403},
    {"GET /v3/OS-TRUST/trusts/", 403},
    {"POST /v3/OS-TRUST/trusts/", 403},
    {"GET /v3/OS-TRUST/trusts/{trust_id}", 404},
    {"DELETE /v3/OS-TRUST/trusts/{trust_id}", 404},
    {"GET /v3/OS-TRUST/trusts/{trust_id}/roles/", 404},
    {"GET /v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", 404},
    {"GET /v3/limits/", 200},
    {"GET /v3/limits/model/", 200},
    {"GET /v3/registered_limits/", 200},
    // Grants: the same for users and groups, on projects, domains and the system.
    {"GET /v3/projects/{target_id}/users/{actor_id}/roles/", 403},
    {"GET /v3/projects/{target_id}/users/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/projects/{target_id}/users/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/projects/{target_id}/groups/{actor_id}/roles/", 403},
    {"GET /v3/projects/{target_id}/groups/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/projects/{target_id}/groups/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/domains/{target_id}/users/{actor_id}/roles/", 403},
    {"GET /v3/domains/{target_id}/users/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/domains/{target_id}/users/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/domains/{target_id}/groups/{actor_id}/roles/", 403},
    {"GET /v3/domains/{target_id}/groups/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/domains/{target_id}/groups/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/system/users/{actor_id}/roles/", 403},
    {"GET /v3/system/users/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/system/users/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/system/groups/{actor_id}/roles/", 403},
    {"GET /v3/system/groups/{actor_id}/roles/{role_id}", 403},
    {"HEAD /v3/system/groups/{actor_id}/roles/{role_id}", 403},
    {"GET /v3/OS-INHERIT/projects/{target_id}/users/{actor_id}/roles/inherited_to_projects/", 403},
    {"GET "
     "/v3/OS-INHERIT/projects/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"HEAD "
     "/v3/OS-INHERIT/projects/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"GET /v3/OS-INHERIT/projects/{target_id}/groups/{actor_id}/roles/inherited_to_projects/", 403},
    {"GET "
     "/v3/OS-INHERIT/projects/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"HEAD "
     "/v3/OS-INHERIT/projects/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"GET /v3/OS-INHERIT/domains/{target_id}/users/{actor_id}/roles/inherited_to_projects/", 403},
    {"GET "
     "/v3/OS-INHERIT/domains/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"HEAD "
     "/v3/OS-INHERIT/domains/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"GET /v3/OS-INHERIT/domains/{target_id}/groups/{actor_id}/roles/inherited_to_projects/", 403},
    {"GET "
     "/v3/OS-INHERIT/domains/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
    {"HEAD "
     "/v3/OS-INHERIT/domains/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects/",
     403},
};

// Anyone may call these: what they do needs a password of its own, or is no secret.
const std::set<std::string_view> kPublicRoutes = {"GET /", "GET /v3/", "POST /v3/auth/tokens/",
                                                  "POST /v3/users/{user_id}/password/"};

// Another tenant's objects, by the part of a path that names them.
class Victim {
 public:
  explicit Victim(World& world) {
    World::Member owner = world.MakeMember("victim");
    token_ = owner.token;
    user_ = owner.user_id;
    const Process& p = world.process;
    const std::string& admin = world.admin;
    ids_["domains"] = p.Create(admin, "domains", "domain", R"({"name":"other"})");
    ids_["projects"] = owner.project_id;
    ids_["users"] = owner.user_id;
    ids_["groups"] = p.Create(admin, "groups", "group", R"({"name":"g"})");
    ids_["roles"] = p.RoleId(admin, "member");
    ids_["regions"] = "RegionOne";
    ids_["services"] = p.Create(admin, "services", "service", R"({"type":"t"})");
    ids_["endpoints"] = p.Create(
        admin, "endpoints", "endpoint",
        R"({"interface":"public","url":"http://x","service_id":")" + ids_["services"] + "\"}");
    ids_["policies"] = p.Create(admin, "policies", "policy", R"({"blob":"b","type":"t"})");
    ids_["credentials"] =
        p.Create(token_, "credentials", "credential", R"({"blob":"b","type":"t"})");
    ids_["consumers"] = p.Create(admin, "OS-OAUTH1/consumers", "consumer", "{}");
    ids_["endpoint_groups"] = p.Create(admin, "OS-EP-FILTER/endpoint_groups", "endpoint_group",
                                       R"({"name":"n","filters":{}})");
    ids_["application_credentials"] = p.Create(
        token_, "users/" + user_ + "/application_credentials", "application_credential",
        R"({"name":"a","access_rules":[{"service":"image","path":"/v2/images","method":"GET"}]})");
    ids_["access_rules"] =
        p.Do("GET", "/users/" + user_ + "/access_rules", token_).Ids("access_rules").at(0);
    Reply key = p.Do("POST", "/users/" + user_ + "/credentials/OS-EC2", token_,
                     R"({"tenant_id":")" + owner.project_id + "\"}");
    ids_["OS-EC2"] = key.Str("credential", "access");
    World::Member friend_of = world.MakeMember("friend");
    ids_["trusts"] =
        p.Create(token_, "OS-TRUST/trusts", "trust",
                 R"({"impersonation":true,"roles":[{"name":"member"}],"project_id":")" +
                     owner.project_id + R"(","trustor_user_id":")" + user_ +
                     R"(","trustee_user_id":")" + friend_of.user_id + "\"}");
    p.Do("PUT", "/domains/" + ids_["domains"] + "/config", admin,
         R"({"config":{"identity":{"driver":"sql"}}})");
    p.Do("PUT", "/projects/" + owner.project_id + "/tags/blue", admin);
    p.Do("PUT", "/groups/" + ids_["groups"] + "/users/" + user_, admin);
  }

  // The route's pattern with the victim's objects in it, without /v3.
  std::string Fill(std::string_view pattern) const {
    std::string path, collection;
    for (size_t at = 4; at < pattern.size();) {
      size_t end = std::min(pattern.find('/', at), pattern.size());
      std::string segment(pattern.substr(at, end - at));
      if (segment.starts_with('{')) {
        auto known = ids_.find(segment == "{implied_id}" ? "roles" : collection);
        if (segment == "{group}")
          segment = "identity";
        else if (segment == "{option}")
          segment = "driver";
        else if (segment == "{tag}")
          segment = "blue";
        else
          segment = known == ids_.end() ? "UNKNOWN" : known->second;
      } else {
        collection = segment;
      }
      if (!segment.empty()) path += "/" + segment;
      at = end + 1;
    }
    return path;
  }

  // A body that would be fine if the caller were allowed.
  std::string Body(std::string_view route) const {
    if (route == "POST /v3/credentials/" || route == "PATCH /v3/credentials/{id}")
      return R"({"credential":{"blob":"b","type":"t","user_id":")" + user_ + "\"}}";
    if (route == "POST /v3/OS-TRUST/trusts/")
      return R"({"trust":{"impersonation":true,"roles":[{"name":"member"}],"project_id":")" +
             ids_.at("projects") + R"(","trustor_user_id":")" + user_ + R"(","trustee_user_id":")" +
             user_ + "\"}}";
    return "{}";
  }

  std::string token_, user_;
  std::map<std::string, std::string> ids_;
};

class RbacTest : public testing::Test {
 protected:
  RbacTest() : victim_(world_), stranger_(world_.MakeMember("stranger")) {}

  Reply Try(const base::http::Route& route, std::string_view token) {
    std::string name = route.method + " " + route.pattern;
    return world_.process.Do(route.method, victim_.Fill(route.pattern), token, victim_.Body(name),
                             {{"X-Subject-Token", victim_.token_}});
  }
  const std::vector<base::http::Route>& routes() {
    return world_.process.router().services().front()->routes;
  }

  World world_;
  Victim victim_;
  World::Member stranger_;
};

TEST_F(RbacTest, EveryRouteHasARowAndEveryRowARoute) {
  std::set<std::string> rows, names;
  for (const Row& row : kRows) EXPECT_TRUE(rows.emplace(row.route).second) << row.route;
  for (const base::http::Route& route : routes()) {
    std::string name = route.method + " " + route.pattern;
    names.insert(name);
    bool expected = route.access == Access::kPublic  ? kPublicRoutes.contains(name)
                    : route.access == Access::kAdmin ? !rows.contains(name)
                                                     : rows.contains(name);
    EXPECT_TRUE(expected) << name << " has no row, or one that does not fit its access";
  }
  for (const std::string& row : rows) EXPECT_TRUE(names.contains(row)) << row << " is no route";
  EXPECT_GT(names.size(), 170u);
}

TEST_F(RbacTest, WithoutATokenNothing) {
  for (const base::http::Route& route : routes()) {
    if (route.access == Access::kPublic) continue;
    SCOPED_TRACE(route.method + " " + route.pattern);
    for (std::string_view token : {"", "nonsense", "gAAAAABnonsense"}) {
      Reply reply = Try(route, token);
      EXPECT_EQ(reply.status, 401);
      EXPECT_EQ(reply.At("error", "code"), base::Json(401));
      EXPECT_TRUE(reply.headers.Has("WWW-Authenticate"));
    }
  }
}

TEST_F(RbacTest, AMemberElsewhereGetsNothingOfOthers) {
  std::map<std::string, int> expected;
  for (const Row& row : kRows) expected[std::string(row.route)] = row.stranger;
  for (const base::http::Route& route : routes()) {
    if (route.access == Access::kPublic) continue;
    std::string name = route.method + " " + route.pattern;
    SCOPED_TRACE(name + " as " + victim_.Fill(route.pattern));
    Reply reply = Try(route, stranger_.token);
    EXPECT_EQ(reply.status, route.access == Access::kAdmin ? 403 : expected[name]) << reply.body;
    if (reply.status == 200) {
      EXPECT_EQ(reply.body.find(victim_.user_), std::string::npos) << reply.body;
      EXPECT_EQ(reply.body.find(victim_.ids_.at("projects")), std::string::npos) << reply.body;
    }
  }
}

// The paths above are real: an admin gets an answer for every one that only looks.
TEST_F(RbacTest, AnAdminSeesEverything) {
  for (const base::http::Route& route : routes()) {
    if (route.access == Access::kPublic || (route.method != "GET" && route.method != "HEAD"))
      continue;
    std::string name = route.method + " " + route.pattern;
    SCOPED_TRACE(name + " as " + victim_.Fill(route.pattern));
    int status = Try(route, world_.admin).status;
    // A single grant that nobody made is not there.
    bool grant = name.find("/roles/{role_id}") != std::string::npos &&
                 name.find("OS-TRUST") == std::string::npos;
    bool rule = name.find("{implied_id}") != std::string::npos;
    EXPECT_TRUE(status == 200 || status == 204 || ((grant || rule) && status == 404)) << status;
  }
}

TEST_F(RbacTest, AReaderOfTheSystemLooksAndDoesNotTouch) {
  world_.process.Do("PUT",
                    "/system/users/" + stranger_.user_id + "/roles/" +
                        world_.process.RoleId(world_.admin, "reader"),
                    world_.admin);
  world_.Tick();
  std::string reader =
      world_.process.Login(stranger_.user_id, "secret", R"({"system":{"all":true}})");
  for (const base::http::Route& route : routes()) {
    if (route.access == Access::kPublic) continue;
    SCOPED_TRACE(route.method + " " + route.pattern);
    int status = Try(route, reader).status;
    if (route.access == Access::kAdmin)
      EXPECT_EQ(status, 403);
    else if (route.method == "GET")
      EXPECT_NE(status, 403);
  }
}

TEST_F(RbacTest, AReaderOfADomainSeesThatDomain) {
  const Process& p = world_.process;
  const std::string& domain = victim_.ids_.at("domains");
  p.Do("PUT",
       "/domains/" + domain + "/users/" + stranger_.user_id + "/roles/" +
           p.RoleId(world_.admin, "reader"),
       world_.admin);
  std::string inside =
      p.Create(world_.admin, "users", "user", R"({"name":"inside","domain_id":")" + domain + "\"}");
  world_.Tick();
  std::string reader =
      p.Login(stranger_.user_id, "secret", R"({"domain":{"id":")" + domain + "\"}}");
  Reply users = p.Do("GET", "/users", reader);
  EXPECT_EQ(users.Count("users"), 2u);  // and itself
  EXPECT_NE(users.body.find(inside), std::string::npos);
  EXPECT_EQ(users.body.find(victim_.user_), std::string::npos);
  EXPECT_EQ(p.Do("GET", "/users/" + inside, reader).status, 200);
  EXPECT_EQ(p.Do("GET", "/users/" + victim_.user_, reader).status, 403);
  EXPECT_EQ(p.Do("GET", "/domains", reader).Ids("domains"), std::vector<std::string>{domain});
}

TEST_F(RbacTest, AUserSeesItself) {
  const Process& p = world_.process;
  std::string self = "/users/" + stranger_.user_id;
  for (std::string rest : {"", "/projects", "/groups", "/application_credentials", "/access_rules",
                           "/credentials/OS-EC2"})
    EXPECT_EQ(p.Do("GET", self + rest, stranger_.token).status, 200) << rest;
  EXPECT_EQ(p.Do("GET", "/projects/" + stranger_.project_id, stranger_.token).status, 200);
  EXPECT_EQ(p.Do("GET", "/domains/default", stranger_.token).status, 200);
  EXPECT_EQ(p.Do("PATCH", self, stranger_.token, R"({"user":{"name":"x"}})").status, 403);
}

}  // namespace
}  // namespace controlplane::identity
