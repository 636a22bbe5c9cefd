#include <gtest/gtest.h>

#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

namespace controlplane::identity {
namespace {

class ResourcesTest : public testing::Test {
 protected:
  Reply Do(std::string_view method, const std::string& target, std::string_view body = {}) {
    return world_.process.Do(method, target, world_.admin, body);
  }
  int Status(std::string_view method, const std::string& target, std::string_view body = {}) {
    return Do(method, target, body).status;
  }
  std::string Create(std::string_view collection, std::string_view member,
                     std::string_view fields) {
    return world_.process.Create(world_.admin, collection, member, fields);
  }
  World world_;
};

struct Plain {
  const char* collection;
  const char* member;
  const char* fields;   // a good new one
  const char* change;   // a good update
  const char* missing;  // lacks something; null: nothing is required
};
constexpr Plain kPlain[] = {
    {"domains", "domain", R"({"name":"n"})", R"({"description":"d"})", "{}"},
    {"projects", "project", R"({"name":"n"})", R"({"description":"d"})", "{}"},
    {"users", "user", R"({"name":"n"})", R"({"email":"d"})", "{}"},
    {"groups", "group", R"({"name":"n"})", R"({"description":"d"})", "{}"},
    {"roles", "role", R"({"name":"n"})", R"({"description":"d"})", "{}"},
    {"regions", "region", R"({"id":"here"})", R"({"description":"d"})", nullptr},
    {"services", "service", R"({"type":"t"})", R"({"name":"d"})", "{}"},
    {"policies", "policy", R"({"type":"t","blob":"b"})", R"({"blob":"c"})", R"({"type":"t"})"},
    {"credentials", "credential", R"({"type":"t","blob":"b"})", R"({"blob":"c"})",
     R"({"type":"t"})"},
    {"OS-OAUTH1/consumers", "consumer", "{}", R"({"description":"d"})", nullptr},
    {"OS-EP-FILTER/endpoint_groups", "endpoint_group", R"({"name":"n","filters":{}})",
     R"({"description":"d"})", R"({"name":"n"})"},
};

std::string Wrap(const Plain& plain, std::string_view fields) {
  return "{\"" + std::string(plain.member) + "\":" + std::string(fields) + "}";
}

TEST_F(ResourcesTest, LiveAndDie) {
  for (const Plain& plain : kPlain) {
    SCOPED_TRACE(plain.collection);
    std::string all = std::string("/") + plain.collection;
    Reply created = Do("POST", all, Wrap(plain, plain.fields));
    ASSERT_EQ(created.status, 201) << created.body;
    std::string id = created.Str(plain.member, "id");
    std::string one = all + "/" + id;
    EXPECT_EQ(created.Str(plain.member, "links", "self"),
              "http://cloud.example:9696/identity/v3" + one);
    Reply shown = Do("GET", one);
    EXPECT_EQ(shown.status, 200);
    Reply list = Do("GET", all);
    std::string collection = all.substr(all.rfind('/') + 1);
    std::vector<std::string> ids = list.Ids(collection);
    EXPECT_NE(std::find(ids.begin(), ids.end(), id), ids.end());
    EXPECT_EQ(list.At("links", "next"), base::Json(nullptr));
    EXPECT_EQ(list.Str("links", "self"), "http://cloud.example:9696/identity/v3" + all);
    Reply changed = Do("PATCH", one, Wrap(plain, plain.change));
    EXPECT_EQ(changed.status, 200) << changed.body;
    EXPECT_EQ(Do("GET", one).json, changed.json);
    EXPECT_EQ(Status("PATCH", one, Wrap(plain, R"({"id":"another"})")), 400);
    if (std::string_view(plain.collection) == "domains") {
      EXPECT_EQ(Status("DELETE", one), 403);  // enabled
      EXPECT_EQ(Status("PATCH", one, R"({"domain":{"enabled":false}})"), 200);
    }
    EXPECT_EQ(Status("DELETE", one), 204);
    for (std::string_view method : {"GET", "DELETE"}) {
      Reply gone = Do(method, one);
      EXPECT_EQ(gone.status, 404);
      EXPECT_NE(gone.Str("error", "message").find(id), std::string::npos);
    }
    EXPECT_EQ(Status("PATCH", one, Wrap(plain, plain.change)), 404);
  }
}

TEST_F(ResourcesTest, BadBodiesAre400) {
  for (const Plain& plain : kPlain) {
    SCOPED_TRACE(plain.collection);
    std::string all = std::string("/") + plain.collection;
    std::string member(plain.member);
    for (const std::string& body :
         {std::string(), std::string("{"), std::string("[]"), std::string("{}"),
          "{\"" + member + "\":[]}", "{\"" + member + "\":\"x\"}", "{\"" + member + "\":null}",
          "{\"" + member + "\":{\"_password_hash\":\"x\"}}",
          "{\"" + member + "\":{\"name\":\"n\",\"type\":1,\"blob\":{},\"description\":7}}"})
      EXPECT_EQ(Status("POST", all, body), 400) << body;
    if (plain.missing != nullptr) {
      EXPECT_EQ(Status("POST", all, Wrap(plain, plain.missing)), 400);
    }
  }
}

TEST_F(ResourcesTest, NamesAreLimitedAndUnique) {
  struct Limit {
    const char* collection;
    const char* member;
    size_t characters;
  };
  for (const Limit& limit :
       {Limit{"domains", "domain", 64}, Limit{"projects", "project", 64},
        Limit{"users", "user", 255}, Limit{"groups", "group", 64}, Limit{"roles", "role", 255}}) {
    SCOPED_TRACE(limit.collection);
    std::string all = std::string("/") + limit.collection;
    auto body = [&](const std::string& name) {
      return base::ToText(base::JsonObject{{limit.member, base::JsonObject{{"name", name}}}});
    };
    std::string longest;
    for (size_t i = 0; i < limit.characters; ++i) longest += "é";  // characters, not bytes
    EXPECT_EQ(Status("POST", all, body(longest)), 201);
    EXPECT_EQ(Status("POST", all, body(longest)), 409);
    EXPECT_EQ(Status("POST", all, body(longest + "x")), 400);
    EXPECT_EQ(Status("POST", all, body("")), 400);
    EXPECT_EQ(Status("POST", all,
                     body("a\x1f"
                          "b")),
              400);
    std::string other = Create(limit.collection, limit.member, R"({"name":"other"})");
    EXPECT_EQ(Status("PATCH", all + "/" + other, body(longest)), 409);
    EXPECT_EQ(Status("PATCH", all + "/" + other, body("other")), 200);  // its own
  }
}

TEST_F(ResourcesTest, SecretsAreNeverShown) {
  std::string id = Create("users", "user", R"({"name":"ann","password":"secret"})");
  for (const std::string& path : {"/users/" + id, std::string("/users")}) {
    Reply reply = Do("GET", path);
    EXPECT_EQ(reply.body.find("argon2"), std::string::npos);
    EXPECT_EQ(reply.body.find("\"_"), std::string::npos);
    EXPECT_EQ(reply.body.find("password\""), std::string::npos);
  }
  Reply changed = Do("PATCH", "/users/" + id, R"({"user":{"password":"other"}})");
  EXPECT_EQ(changed.body.find("other"), std::string::npos);
  std::string stored = world_.meta.Get(kPartition, "r/user/" + id).value();
  EXPECT_EQ(stored.find("other"), std::string::npos);
  EXPECT_NE(stored.find("$argon2id$"), std::string::npos);
  Reply consumer = Do("POST", "/OS-OAUTH1/consumers", R"({"consumer":{}})");
  EXPECT_FALSE(consumer.Str("consumer", "secret").empty());
  EXPECT_EQ(
      Do("GET", "/OS-OAUTH1/consumers/" + consumer.Str("consumer", "id")).At("consumer", "secret"),
      base::Json(nullptr));
}

TEST_F(ResourcesTest, ExtraMembersOfUsersAreKept) {
  Reply created = Do("POST", "/users", R"({"user":{"name":"ann","email":"a@b","x":{"y":[1]}}})");
  EXPECT_EQ(created.Str("user", "email"), "a@b");
  EXPECT_EQ(created.At("user", "x", "y").at(0), base::Json(1));
  std::string many = R"({"user":{"name":"bob")";
  for (size_t i = 0; i <= kMaxExtraMembers; ++i) many += ",\"m" + std::to_string(i) + "\":1";
  EXPECT_EQ(Status("POST", "/users", many + "}}"), 400);
}

TEST_F(ResourcesTest, FiltersOfLists) {
  Create("users", "user", R"({"name":"on"})");
  Create("users", "user", R"({"name":"off","enabled":false})");
  EXPECT_EQ(Do("GET", "/users?name=on").Count("users"), 1u);
  EXPECT_EQ(Do("GET", "/users?enabled=False").Count("users"), 1u);
  EXPECT_EQ(Do("GET", "/users?enabled=1&domain_id=default").Count("users"), 2u);  // with admin
  EXPECT_EQ(Do("GET", "/users?domain_id=none").Count("users"), 0u);
  EXPECT_EQ(Do("GET", "/projects?is_domain=True").Ids("projects"),
            std::vector<std::string>{"default"});
  std::string red = Create("projects", "project", R"({"name":"a","tags":["red","blue"]})");
  std::string blue = Create("projects", "project", R"({"name":"b","tags":["blue"]})");
  EXPECT_EQ(Do("GET", "/projects?tags=red,blue").Ids("projects"), std::vector<std::string>{red});
  EXPECT_EQ(Do("GET", "/projects?tags-any=red,blue").Count("projects"), 2u);
  EXPECT_EQ(Do("GET", "/projects?not-tags=red,blue").Count("projects"), 3u);
}

TEST_F(ResourcesTest, ProjectsFormTrees) {
  std::string top = Create("projects", "project", R"({"name":"top"})");
  std::string low = Create("projects", "project", R"({"name":"low","parent_id":")" + top + "\"}");
  EXPECT_EQ(Do("GET", "/projects/" + top).Str("project", "parent_id"), "default");
  EXPECT_EQ(Status("DELETE", "/projects/" + top), 403);
  EXPECT_EQ(
      Do("GET", "/projects/" + low + "?parents_as_ids").At("project", "parents", top, "default"),
      base::Json(nullptr));
  EXPECT_EQ(
      Do("GET", "/projects/" + top + "?subtree_as_list").At("project", "subtree").as_array().size(),
      1u);
  EXPECT_EQ(Status("POST", "/projects", R"({"project":{"name":"x","parent_id":"none"}})"), 404);
  EXPECT_EQ(Status("POST", "/projects", R"({"project":{"name":"x","domain_id":"none"}})"), 404);
  EXPECT_EQ(Status("PATCH", "/projects/" + low, R"({"project":{"parent_id":"default"}})"), 400);
  std::string parent = low;
  int status = 201;
  for (size_t i = 0; i <= kMaxProjectDepth && status == 201; ++i) {
    Reply reply =
        Do("POST", "/projects",
           R"({"project":{"name":"d)" + std::to_string(i) + R"(","parent_id":")" + parent + "\"}}");
    status = reply.status;
    parent = reply.Str("project", "id");
  }
  EXPECT_EQ(status, 403);
}

TEST_F(ResourcesTest, DeletedDomainTakesItsOwnAlong) {
  std::string domain = Create("domains", "domain", R"({"name":"dom"})");
  std::string in = R"(,"domain_id":")" + domain + "\"}";
  std::string user = Create("users", "user", R"({"name":"u")" + in);
  std::string group = Create("groups", "group", R"({"name":"g")" + in);
  std::string project = Create("projects", "project", R"({"name":"p")" + in);
  std::string role = Create("roles", "role", R"({"name":"r")" + in);
  std::string grant = "/projects/" + project + "/users/" + user + "/roles/" + role;
  EXPECT_EQ(Status("PUT", grant), 204);
  EXPECT_EQ(Status("PUT", "/groups/" + group + "/users/" + user), 204);
  EXPECT_EQ(Status("PUT", "/domains/" + domain + "/config",
                   R"({"config":{"identity":{"driver":"sql"}}})"),
            201);
  Do("PATCH", "/domains/" + domain, R"({"domain":{"enabled":false}})");
  EXPECT_EQ(Status("DELETE", "/domains/" + domain), 204);
  for (const std::string& path : {"/users/" + user, "/groups/" + group, "/projects/" + project,
                                  "/roles/" + role, "/domains/" + domain})
    EXPECT_EQ(Status("GET", path), 404) << path;
  size_t left = 0;
  ASSERT_OK(world_.meta.Scan(
      kPartition, "r/", "r0", 10'000, [&](std::string_view key, std::string_view value) {
        for (const std::string& id : {domain, user, group, project, role})
          if (value.find(id) != std::string_view::npos || key.find(id) != std::string_view::npos)
            ++left;
        return true;
      }));
  EXPECT_EQ(left, 0u);
}

TEST_F(ResourcesTest, ImmutableOnesStay) {
  std::string role = "/roles/" + world_.process.RoleId(world_.admin, "member");
  EXPECT_EQ(Status("DELETE", role), 403);
  EXPECT_EQ(Status("PATCH", role, R"({"role":{"name":"x"}})"), 403);
  EXPECT_EQ(Status("PATCH", role, R"({"role":{"options":{"immutable":false}}})"), 200);
  EXPECT_EQ(Status("PATCH", role, R"({"role":{"description":"x"}})"), 200);
  EXPECT_EQ(Status("PATCH", role, R"({"role":{"options":{"unknown":1}}})"), 400);
}

TEST_F(ResourcesTest, EndpointsAndRegions) {
  std::string service = Create("services", "service", R"({"type":"t","name":"n"})");
  auto body = [&](const std::string& rest) {
    return R"({"endpoint":{"service_id":")" + service + "\"," + rest + "}}";
  };
  EXPECT_EQ(Status("POST", "/endpoints", body(R"("interface":"odd","url":"http://x")")), 400);
  EXPECT_EQ(Status("POST", "/endpoints", body(R"("interface":"public","url":"http://$(odd)s")")),
            400);
  EXPECT_EQ(Status("POST", "/endpoints",
                   body(R"("interface":"public","url":"http://x","enabled":"False")")),
            400);
  EXPECT_EQ(Status("POST", "/endpoints",
                   body(R"("interface":"public","url":"http://x","region_id":"none")")),
            400);
  Reply made = Do("POST", "/endpoints",
                  body(R"("interface":"public","url":"http://x/$(project_id)s","region":"new")"));
  EXPECT_EQ(made.Str("endpoint", "region_id"), "new");
  EXPECT_EQ(Status("DELETE", "/regions/new"), 403);
  EXPECT_NE(Do("GET", "/auth/catalog").body.find("http://x/"), std::string::npos);
  EXPECT_EQ(Status("DELETE", "/services/" + service), 204);
  EXPECT_EQ(Status("GET", "/endpoints/" + made.Str("endpoint", "id")), 404);
  EXPECT_EQ(Status("DELETE", "/regions/new"), 204);
  EXPECT_EQ(Status("PUT", "/regions/mine", R"({"region":{}})"), 201);
  EXPECT_EQ(Status("PUT", "/regions/mine", R"({"region":{}})"), 409);
  EXPECT_EQ(Status("PATCH", "/regions/mine", R"({"region":{"parent_region_id":"mine"}})"), 403);
  EXPECT_EQ(Status("POST", "/regions", R"({"region":{"id":"a/b"}})"), 400);
}

TEST_F(ResourcesTest, Tags) {
  std::string project = "/projects/" + Create("projects", "project", R"({"name":"p"})");
  EXPECT_EQ(Status("PUT", project + "/tags/red"), 201);
  EXPECT_EQ(Status("GET", project + "/tags/red"), 204);
  EXPECT_EQ(Status("GET", project + "/tags/blue"), 404);
  EXPECT_EQ(Status("PUT", project + "/tags", R"({"tags":["a","b"]})"), 200);
  EXPECT_EQ(Status("PUT", project + "/tags", R"({"tags":["a","a"]})"), 400);
  EXPECT_EQ(Status("PUT", project + "/tags", R"({"tags":["a,b"]})"), 400);
  EXPECT_EQ(Do("GET", project + "/tags").At("tags").as_array().size(), 2u);
  EXPECT_EQ(Status("DELETE", project + "/tags/a"), 204);
  EXPECT_EQ(Status("DELETE", project + "/tags"), 204);
  for (size_t i = 0; i < kMaxTags; ++i)
    EXPECT_EQ(Status("PUT", project + "/tags/t" + std::to_string(i)), 201);
  EXPECT_EQ(Status("PUT", project + "/tags/one-more"), 400);
}

TEST_F(ResourcesTest, InheritedAndGroupRoles) {
  std::string domain = Create("domains", "domain", R"({"name":"dom"})");
  std::string in = R"(,"domain_id":")" + domain + "\"";
  std::string project = Create("projects", "project", R"({"name":"p")" + in + "}");
  std::string below =
      Create("projects", "project", R"({"name":"q","parent_id":")" + project + "\"}");
  std::string user = Create("users", "user", R"({"name":"u","password":"secret")" + in + "}");
  std::string group = Create("groups", "group", R"({"name":"g")" + in + "}");
  Do("PUT", "/groups/" + group + "/users/" + user);
  std::string role = world_.process.RoleId(world_.admin, "member");
  std::string grant = "/OS-INHERIT/domains/" + domain + "/groups/" + group + "/roles/" + role +
                      "/inherited_to_projects";
  EXPECT_EQ(Status("HEAD", grant), 404);
  EXPECT_EQ(Status("PUT", grant), 204);
  EXPECT_EQ(Status("HEAD", grant), 204);
  world_.Tick();
  for (const std::string& at : {project, below})
    EXPECT_EQ(world_.process.TryLogin(user, "secret", ProjectScope(at)).status, 201);
  EXPECT_EQ(
      world_.process.TryLogin(user, "secret", R"({"domain":{"id":")" + domain + "\"}}").status,
      401);
  auto count = [&](const std::string& query) {
    return Do("GET", "/role_assignments?" + query).At("role_assignments").as_array().size();
  };
  EXPECT_EQ(count("user.id=" + user + "&effective"), 4u);  // two projects, member and reader
  EXPECT_EQ(count("group.id=" + group), 1u);
  EXPECT_EQ(count("scope.project.id=" + below + "&effective&user.id=" + user), 2u);
  EXPECT_EQ(count("scope.project.id=" + below), 0u);
  Reply names = Do("GET", "/role_assignments?effective&include_names&user.id=" + user);
  EXPECT_NE(names.body.find("\"prior_role\""), std::string::npos);
  EXPECT_NE(names.body.find("\"membership\""), std::string::npos);
  EXPECT_NE(names.body.find("\"name\":\"dom\""), std::string::npos);
  EXPECT_EQ(Status("DELETE", grant), 204);
  EXPECT_EQ(count("user.id=" + user + "&effective"), 0u);
}

TEST_F(ResourcesTest, DomainConfig) {
  std::string config = "/domains/" + Create("domains", "domain", R"({"name":"d"})") + "/config";
  EXPECT_EQ(Status("GET", config), 404);
  EXPECT_EQ(Status("PUT", config, R"({"config":{"odd":{}}})"), 403);
  EXPECT_EQ(Status("PUT", config, R"({"config":{"ldap":{"odd":1}}})"), 403);
  EXPECT_EQ(Status("PUT", config, R"({"config":{"ldap":{"url":"ldap://x"}}})"), 201);
  EXPECT_EQ(Status("PATCH", config + "/ldap/url", R"({"config":{"url":"ldap://y"}})"), 200);
  EXPECT_EQ(Do("GET", config + "/ldap/url").Str("config", "url"), "ldap://y");
  EXPECT_EQ(Status("PATCH", config + "/ldap", R"({"config":{"identity":{}}})"), 403);
  EXPECT_EQ(Status("DELETE", config + "/ldap/url"), 204);
  EXPECT_EQ(Status("GET", config + "/ldap/url"), 404);
  EXPECT_EQ(Status("DELETE", config), 204);
  EXPECT_EQ(Status("GET", "/domains/config/identity/driver/default"), 200);
  EXPECT_EQ(Status("GET", "/domains/config/odd/default"), 404);
}

// ---- What users pass on ----

class DelegationTest : public ResourcesTest {
 protected:
  Reply ByCredential(const std::string& id, const std::string& secret) {
    return world_.process.Do(
        "POST", "/auth/tokens", {},
        R"({"auth":{"identity":{"methods":["application_credential"],"application_credential":{"id":")" +
            id + R"(","secret":")" + secret + "\"}}}}");
  }
  Reply MakeCredential(const World::Member& member, const std::string& token,
                       const std::string& fields) {
    world_.Tick();
    return world_.process.Do("POST", "/users/" + member.user_id + "/application_credentials", token,
                             R"({"application_credential":)" + fields + "}");
  }
};

TEST_F(DelegationTest, ApplicationCredential) {
  World::Member member = world_.MakeMember("ann");
  Reply made = MakeCredential(member, member.token, R"({"name":"robot"})");
  ASSERT_EQ(made.status, 201) << made.body;
  std::string id = made.Str("application_credential", "id");
  std::string secret = made.Str("application_credential", "secret");
  EXPECT_EQ(MakeCredential(member, member.token, R"({"name":"robot"})").status, 409);
  EXPECT_EQ(ByCredential(id, "wrong").status, 401);
  EXPECT_EQ(ByCredential("none", secret).status, 401);
  world_.Tick();
  Reply issued = ByCredential(id, secret);
  ASSERT_EQ(issued.status, 201) << issued.body;
  EXPECT_EQ(issued.Str("token", "project", "id"), member.project_id);
  EXPECT_EQ(issued.At("token", "application_credential", "restricted"), base::Json(true));
  std::string token(issued.headers.Get("X-Subject-Token"));
  EXPECT_OK(world_.process.identity().verifier().Verify(token));
  // A restricted one makes no others, trades for nothing, and ends with the credential.
  EXPECT_EQ(MakeCredential(member, token, R"({"name":"child"})").status, 403);
  EXPECT_EQ(world_.process
                .Do("POST", "/auth/tokens", {},
                    R"({"auth":{"identity":{"methods":["token"],"token":{"id":")" + token +
                        R"("}},"scope":{"project":{"id":")" + member.project_id + "\"}}}}")
                .status,
            403);
  std::string path = "/users/" + member.user_id + "/application_credentials/" + id;
  EXPECT_EQ(world_.process.Do("GET", path, member.token).At("application_credential", "secret"),
            base::Json(nullptr));
  EXPECT_EQ(world_.process.Do("DELETE", path, member.token).status, 204);
  EXPECT_ERROR(world_.process.identity().verifier().Verify(token), base::Code::kUnauthenticated);
}

TEST_F(DelegationTest, ApplicationCredentialHasNoMoreThanItsUser) {
  World::Member member = world_.MakeMember("ann");
  EXPECT_EQ(
      MakeCredential(member, member.token, R"({"name":"x","roles":[{"name":"admin"}]})").status,
      400);
  Reply made = MakeCredential(member, member.token, R"({"name":"x","roles":[{"name":"reader"}]})");
  world_.Tick();
  Reply issued = ByCredential(made.Str("application_credential", "id"),
                              made.Str("application_credential", "secret"));
  ASSERT_EQ(issued.status, 201) << issued.body;
  EXPECT_EQ(issued.At("token", "roles").as_array().size(), 1u);
  std::string grant = "/projects/" + member.project_id + "/users/" + member.user_id + "/roles/" +
                      world_.process.RoleId(world_.admin, "member");
  EXPECT_EQ(Status("DELETE", grant), 204);
  EXPECT_ERROR(world_.process.identity().verifier().Verify(issued.headers.Get("X-Subject-Token")),
               base::Code::kUnauthenticated);
}

TEST_F(DelegationTest, ApplicationCredentialExpires) {
  World::Member member = world_.MakeMember("ann");
  std::string soon = base::FormatTimeMicros(world_.clock.NowUs() + 60 * base::kSecondUs);
  Reply made = MakeCredential(member, member.token, R"({"name":"x","expires_at":")" + soon + "\"}");
  std::string id = made.Str("application_credential", "id");
  std::string secret = made.Str("application_credential", "secret");
  world_.Tick();
  std::string token(ByCredential(id, secret).headers.Get("X-Subject-Token"));
  EXPECT_OK(world_.process.identity().verifier().Verify(token));
  world_.clock.AdvanceUs(60 * base::kSecondUs);
  EXPECT_ERROR(world_.process.identity().verifier().Verify(token), base::Code::kUnauthenticated);
  EXPECT_EQ(ByCredential(id, secret).status, 401);
  EXPECT_EQ(
      MakeCredential(member, member.token, R"({"name":"y","expires_at":")" + soon + "\"}").status,
      400);
}

TEST_F(DelegationTest, AUserCannotFillTheStore) {
  World::Member member = world_.MakeMember("ann");
  int status = 201;
  size_t made = 0;
  std::string body = R"({"tenant_id":")" + member.project_id + "\"}";
  std::string path = "/users/" + member.user_id + "/credentials/OS-EC2";
  for (; status == 201 && made <= kMaxOwnedByUser; ++made)
    status = world_.process.Do("POST", path, member.token, body).status;
  EXPECT_EQ(status, 403);
  EXPECT_EQ(made, kMaxOwnedByUser + 1);
}

TEST_F(DelegationTest, AccessRulesAreNotOverlooked) {
  World::Member member = world_.MakeMember("ann");
  Reply made = MakeCredential(
      member, member.token,
      R"({"name":"x","access_rules":[{"service":"image","path":"/v2/images","method":"GET"}]})");
  ASSERT_EQ(made.status, 201) << made.body;
  world_.Tick();
  Reply issued = ByCredential(made.Str("application_credential", "id"),
                              made.Str("application_credential", "secret"));
  std::string token(issued.headers.Get("X-Subject-Token"));
  ASSERT_OK_AND_ASSIGN(const auto caller, world_.process.identity().verifier().Verify(token));
  ASSERT_TRUE(caller->access_rules.has_value());
  ASSERT_EQ(caller->access_rules->size(), 1u);
  EXPECT_EQ(caller->access_rules->front().path, "/v2/images");
  std::pair<std::string, std::string> subject{"X-Subject-Token", token};
  // A service that does not say it can check the rules must not take the token at all.
  EXPECT_EQ(world_.process.Do("GET", "/auth/tokens", world_.admin, {}, {subject}).status, 404);
  Reply checked = world_.process.Do("GET", "/auth/tokens", world_.admin, {},
                                    {subject, {"OpenStack-Identity-Access-Rules", "1.0"}});
  EXPECT_EQ(checked.At("token", "application_credential", "access_rules").at(0).at("path"),
            base::Json("/v2/images"));
  std::string many_wildcards;
  for (int i = 0; i < 17; ++i) many_wildcards += "/*";
  const std::string wild =
      R"([{"service":"image","path":")" + many_wildcards + R"(","method":"GET"}])";
  for (const char* bad : {wild.c_str(), R"([{"service":"image","path":"v2","method":"GET"}])",
                          R"([{"service":"image","path":"/v2","method":"STEAL"}])",
                          R"([{"path":"/v2"}])", R"([1])", R"({"a":1})"})
    EXPECT_EQ(MakeCredential(member, member.token,
                             R"({"name":"y","access_rules":)" + std::string(bad) + "}")
                  .status,
              400)
        << bad;
}

TEST_F(DelegationTest, Trust) {
  World::Member trustor = world_.MakeMember("ann");
  World::Member trustee = world_.MakeMember("bob");
  auto make = [&](const std::string& token, const std::string& role, bool impersonation) {
    world_.Tick();
    return world_.process.Do("POST", "/OS-TRUST/trusts", token,
                             R"({"trust":{"trustor_user_id":")" + trustor.user_id +
                                 R"(","trustee_user_id":")" + trustee.user_id +
                                 R"(","project_id":")" + trustor.project_id +
                                 R"(","roles":[{"name":")" + role + R"("}],"impersonation":)" +
                                 (impersonation ? "true" : "false") + "}}");
  };
  EXPECT_EQ(make(trustee.token, "member", true).status, 403);
  EXPECT_EQ(make(trustor.token, "admin", true).status, 403);
  for (bool impersonation : {true, false}) {
    Reply made = make(trustor.token, "reader", impersonation);
    ASSERT_EQ(made.status, 201) << made.body;
    std::string id = made.Str("trust", "id");
    std::string scope = R"({"OS-TRUST:trust":{"id":")" + id + "\"}}";
    world_.Tick();
    EXPECT_EQ(world_.process.TryLogin(trustor.user_id, "secret", scope).status, 401);
    Reply issued = world_.process.TryLogin(trustee.user_id, "secret", scope);
    ASSERT_EQ(issued.status, 201) << issued.body;
    EXPECT_EQ(issued.Str("token", "user", "id"), impersonation ? trustor.user_id : trustee.user_id);
    EXPECT_EQ(issued.Str("token", "OS-TRUST:trust", "id"), id);
    EXPECT_EQ(issued.At("token", "roles").as_array().size(), 1u);
    std::string token(issued.headers.Get("X-Subject-Token"));
    EXPECT_OK(world_.process.identity().verifier().Verify(token));
    EXPECT_EQ(MakeCredential(trustor, token, R"({"name":"x"})").status, 403);
    EXPECT_EQ(world_.process.Do("DELETE", "/OS-TRUST/trusts/" + id, trustee.token).status, 403);
    EXPECT_EQ(world_.process.Do("DELETE", "/OS-TRUST/trusts/" + id, trustor.token).status, 204);
    EXPECT_ERROR(world_.process.identity().verifier().Verify(token), base::Code::kUnauthenticated);
  }
}

}  // namespace
}  // namespace controlplane::identity
