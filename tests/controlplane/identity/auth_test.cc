#include <gtest/gtest.h>

#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

namespace controlplane::identity {
namespace {

constexpr int64_t kMinuteUs = 60 * base::kSecondUs;

std::vector<std::string> RoleNames(const Reply& reply) {
  std::vector<std::string> names;
  base::Json roles = reply.At("token", "roles");
  if (!roles.is_array()) return names;
  for (const base::Json& role : roles.get_array())
    names.push_back(base::FindString(role, "name").value_or(""));
  std::sort(names.begin(), names.end());
  return names;
}

Reply Validate(const Process& process, std::string_view token, std::string_view subject) {
  return process.Do("GET", "/auth/tokens", token, {}, {{"X-Subject-Token", std::string(subject)}});
}

std::string TokenAuth(std::string_view token, std::string_view scope) {
  std::string body =
      R"({"auth":{"identity":{"methods":["token"],"token":{"id":")" + std::string(token) + R"("}})";
  if (!scope.empty()) body += ",\"scope\":" + std::string(scope);
  return body + "}}";
}

TEST(Auth, ProjectTokenHasRolesAndCatalog) {
  World world;
  Reply reply = Validate(world.process, world.admin, world.admin);
  ASSERT_EQ(reply.status, 200) << reply.body;
  EXPECT_EQ(reply.Str("token", "project", "name"), "admin");
  EXPECT_EQ(reply.Str("token", "project", "domain", "id"), "default");
  EXPECT_EQ(reply.Str("token", "user", "domain", "name"), "Default");
  EXPECT_EQ(RoleNames(reply), (std::vector<std::string>{"admin", "member", "reader"}));
  EXPECT_EQ(reply.At("token", "catalog").as_array().size(), 2u);
  EXPECT_NE(reply.body.find("http://cloud.example:9696/image"), std::string::npos);
  EXPECT_EQ(reply.At("token", "is_domain"), base::Json(false));
  EXPECT_EQ(reply.headers.Get("X-Subject-Token"), world.admin);
}

TEST(Auth, IssuedAndShownAreTheSame) {
  World world;
  World::Member member = world.MakeMember("ann");
  Reply issued = world.process.TryLogin(member.user_id, "secret", ProjectScope(member.project_id));
  std::string token(issued.headers.Get("X-Subject-Token"));
  EXPECT_EQ(Validate(world.process, token, token).json, issued.json);
  Reply bare =
      world.process.Do("GET", "/auth/tokens?nocatalog", token, {}, {{"X-Subject-Token", token}});
  EXPECT_EQ(bare.At("token", "catalog"), base::Json(nullptr));
}

TEST(Auth, Scopes) {
  World world;
  Reply unscoped = Validate(world.process, world.admin, world.process.AdminToken("\"unscoped\""));
  EXPECT_EQ(unscoped.At("token", "project"), base::Json(nullptr));
  EXPECT_EQ(unscoped.At("token", "roles"), base::Json(nullptr));
  EXPECT_EQ(unscoped.At("token", "catalog"), base::Json(nullptr));
  std::string system = world.process.AdminToken(R"({"system":{"all":true}})");
  EXPECT_EQ(Validate(world.process, system, system).At("token", "system", "all"), base::Json(true));
  World::Member member = world.MakeMember("ann");
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret", R"({"system":{"all":true}})").status,
            401);
  EXPECT_EQ(
      world.process.TryLogin(member.user_id, "secret", R"({"domain":{"id":"default"}})").status,
      401);
  Reply granted = world.process.Do("PUT",
                                   "/domains/default/users/" + member.user_id + "/roles/" +
                                       world.process.RoleId(world.admin, "reader"),
                                   world.admin);
  EXPECT_EQ(granted.status, 204);
  Reply domain =
      world.process.TryLogin(member.user_id, "secret", R"({"domain":{"name":"Default"}})");
  EXPECT_EQ(domain.Str("token", "domain", "id"), "default");
}

TEST(Auth, DefaultProjectIsTheScopeWithoutOne) {
  World world;
  World::Member member = world.MakeMember("ann");
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret").At("token", "project"),
            base::Json(nullptr));
  EXPECT_EQ(world.process
                .Do("PATCH", "/users/" + member.user_id, world.admin,
                    R"({"user":{"default_project_id":")" + member.project_id + "\"}}")
                .status,
            200);
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret").Str("token", "project", "id"),
            member.project_id);
}

TEST(Auth, WhatIsWrongIsNotSaid) {
  World world;
  World::Member member = world.MakeMember("ann");
  Reply wrong = world.process.TryLogin(member.user_id, "wrong");
  Reply unknown = world.process.TryLogin("nobody", "wrong");
  Reply no_project = world.process.TryLogin(member.user_id, "secret", ProjectScope("none"));
  EXPECT_EQ(wrong.status, 401);
  EXPECT_EQ(wrong.body, unknown.body);
  EXPECT_EQ(wrong.body, no_project.body);
  EXPECT_EQ(wrong.headers.Get("WWW-Authenticate"),
            "Keystone uri=\"http://cloud.example:9696/identity/v3\"");
  EXPECT_EQ(wrong.Str("error", "title"), "Unauthorized");
}

TEST(Auth, MalformedRequestsAre400) {
  World world;
  for (
      std::string_view body :
      {"", "{", "[]", "{}", R"({"auth":1})", R"({"auth":{}})", R"({"auth":{"identity":{}}})",
       R"({"auth":{"identity":{"methods":[]}}})", R"({"auth":{"identity":{"methods":[1]}}})",
       R"({"auth":{"identity":{"methods":["password"]}}})",
       R"({"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"x"}}}}})",
       R"({"auth":{"identity":{"methods":["password"],"password":{"user":{"id":"x","password":1}}}}})",
       R"({"auth":{"identity":{"methods":["token"]}}})",
       R"({"auth":{"identity":{"methods":["token"],"token":{"id":7}}}})"}) {
    Reply reply = world.process.Do("POST", "/auth/tokens", {}, body);
    EXPECT_EQ(reply.status, 400) << body;
    EXPECT_EQ(reply.At("error", "code"), base::Json(400)) << reply.body;
  }
  EXPECT_EQ(
      world.process
          .Do("POST", "/auth/tokens", {}, R"({"auth":{"identity":{"methods":["totp"],"totp":{}}}})")
          .status,
      401);
}

TEST(Auth, BodiesHoldNoNulAndAreSaidToBeJson) {
  World world;
  const auto create = [&](std::string_view name, std::string_view type) {
    return world.process.Do("POST", "/projects", world.admin,
                            R"({"project":{"name":")" + std::string(name) + R"("}})",
                            {{"Content-Type", std::string(type)}});
  };
  EXPECT_EQ(create("red", "application/json; charset=utf-8").status, 201);
  const Reply nul = create(R"(red\u0000)", "application/json");
  EXPECT_EQ(nul.status, 400);
  EXPECT_NE(nul.Str("error", "message").find("NUL"), std::string::npos) << nul.body;
  const Reply form = create("blue", "application/x-www-form-urlencoded");
  EXPECT_EQ(form.status, 400);
  EXPECT_NE(form.Str("error", "message").find("application/json in Content-Type"),
            std::string::npos)
      << form.body;
}

TEST(Auth, RescopedTokenEndsWithTheFirst) {
  World world;
  World::Member member = world.MakeMember("ann");
  Reply first = world.process.TryLogin(member.user_id, "secret");
  std::string token(first.headers.Get("X-Subject-Token"));
  world.clock.AdvanceUs(5 * kMinuteUs);
  Reply second = world.process.Do("POST", "/auth/tokens", {},
                                  TokenAuth(token, ProjectScope(member.project_id)));
  ASSERT_EQ(second.status, 201) << second.body;
  EXPECT_EQ(second.Str("token", "expires_at"), first.Str("token", "expires_at"));
  EXPECT_NE(second.Str("token", "issued_at"), first.Str("token", "issued_at"));
  EXPECT_EQ(second.At("token", "audit_ids").at(1), first.At("token", "audit_ids").at(0));
  EXPECT_EQ(second.At("token", "methods"), base::Json(base::JsonArray({"password", "token"})));
  // Taking the second away leaves the first.
  std::string scoped(second.headers.Get("X-Subject-Token"));
  EXPECT_EQ(
      world.process.Do("DELETE", "/auth/tokens", token, {}, {{"X-Subject-Token", scoped}}).status,
      204);
  EXPECT_EQ(Validate(world.process, world.admin, scoped).status, 404);
  EXPECT_EQ(Validate(world.process, world.admin, token).status, 200);
  // And one cannot be had with what was taken away.
  EXPECT_EQ(world.process.Do("POST", "/auth/tokens", {}, TokenAuth(scoped, {})).status, 404);
}

TEST(Auth, TokensExpire) {
  World world;
  World::Member member = world.MakeMember("ann");
  world.clock.AdvanceUs(59 * kMinuteUs);
  EXPECT_OK(world.process.identity().verifier().Verify(member.token));
  world.clock.AdvanceUs(1 * kMinuteUs);
  EXPECT_ERROR(world.process.identity().verifier().Verify(member.token),
               base::Code::kUnauthenticated);
  EXPECT_EQ(world.process.Do("GET", "/auth/projects", member.token).status, 401);
}

TEST(Auth, CallerOfAServiceIsComplete) {
  World world;
  World::Member member = world.MakeMember("ann");
  ASSERT_OK_AND_ASSIGN(auto caller, world.process.identity().verifier().Verify(member.token));
  EXPECT_EQ(caller->user_id, member.user_id);
  EXPECT_EQ(caller->user_name, "ann");
  EXPECT_EQ(caller->project_id, member.project_id);
  EXPECT_EQ(caller->project_name, "ann-project");
  EXPECT_EQ(caller->project_domain_id, "default");
  EXPECT_FALSE(caller->IsAdmin());
  EXPECT_TRUE(caller->HasRole("reader"));
}

TEST(Auth, KeysRotateWithoutEndingTokens) {
  Options options = FastOptions();
  options.token_key_rotation_ms = 10 * 60'000;
  World world(options);
  World::Member member = world.MakeMember("ann");
  ASSERT_OK(world.process.identity().RotateTokenKeys());
  world.Tick();
  std::string later = world.process.Login(member.user_id, "secret");
  EXPECT_NE(later.substr(0, 6), member.token.substr(0, 6));  // version and key id
  EXPECT_OK(world.process.identity().verifier().Verify(member.token));
  // By itself, too, when the newest is old; and the oldest goes once nothing it signed can still
  // hold.
  world.clock.AdvanceUs(11 * kMinuteUs);
  std::string third = world.process.Login(member.user_id, "secret");
  EXPECT_NE(third.substr(0, 6), later.substr(0, 6));
  EXPECT_OK(world.process.identity().verifier().Verify(member.token));
  EXPECT_OK(world.process.identity().verifier().Verify(later));
  world.clock.AdvanceUs(62 * kMinuteUs);
  world.process.Login(member.user_id, "secret");
  size_t keys = 0;
  ASSERT_OK(world.meta.Scan(kPartition, "r/token_key/", "r/token_key0", 100,
                            [&](std::string_view, std::string_view) { return ++keys > 0; }));
  EXPECT_EQ(keys, 2u);
}

TEST(Auth, WrongPasswordsLockForAWhile) {
  Options options = FastOptions();
  options.lockout_failures = 3;
  options.lockout_ms = 60'000;
  World world(options);
  World::Member member = world.MakeMember("ann");
  auto status = [&](std::string_view password) {
    world.Tick();
    return world.process.TryLogin(member.user_id, password).status;
  };
  EXPECT_EQ(status("wrong"), 401);
  EXPECT_EQ(status("wrong"), 401);
  EXPECT_EQ(status("secret"), 201);  // forgets the two
  for (int i = 0; i < 3; ++i) EXPECT_EQ(status("wrong"), 401);
  EXPECT_EQ(status("secret"), 401);
  world.clock.AdvanceUs(kMinuteUs);
  EXPECT_EQ(status("secret"), 201);
  // The bootstrapped admin cannot be locked out by whoever knows its name.
  for (int i = 0; i < 5; ++i)
    world.process.Do("POST", "/auth/tokens", {},
                     R"({"auth":{"identity":{"methods":["password"],"password":{"user":)"
                     R"({"name":"admin","domain":{"id":"default"},"password":"x"}}}}})");
  EXPECT_FALSE(world.process.AdminToken().empty());
}

TEST(Auth, OwnPasswordAndItsHistory) {
  Options options = FastOptions();
  options.unique_last_passwords = 2;
  World world(options);
  World::Member member = world.MakeMember("ann");
  auto change = [&](std::string_view from, std::string_view to) {
    world.Tick();
    return world.process
        .Do("POST", "/users/" + member.user_id + "/password", {},
            base::ToText(base::JsonObject{
                {"user", base::JsonObject{{"original_password", from}, {"password", to}}}}))
        .status;
  };
  EXPECT_EQ(change("wrong", "second"), 401);
  EXPECT_EQ(change("secret", "second"), 204);
  EXPECT_EQ(Validate(world.process, world.admin, member.token).status, 404);
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret").status, 401);
  EXPECT_EQ(change("second", "second"), 400);
  EXPECT_EQ(change("second", "secret"), 400);
  EXPECT_EQ(change("second", "third"), 204);
  EXPECT_EQ(change("third", "secret"), 204);
  EXPECT_EQ(world.process
                .Do("POST", "/users/nobody/password", {},
                    R"({"user":{"original_password":"a","password":"b"}})")
                .status,
            401);
}

TEST(Auth, ScopesThatAUserCouldHave) {
  World world;
  World::Member member = world.MakeMember("ann");
  EXPECT_EQ(world.process.Do("GET", "/auth/projects", member.token).Ids("projects"),
            std::vector<std::string>{member.project_id});
  EXPECT_EQ(world.process.Do("GET", "/auth/domains", member.token).Count("domains"), 0u);
  EXPECT_EQ(world.process.Do("GET", "/auth/system", member.token).Count("system"), 0u);
  EXPECT_EQ(world.process.Do("GET", "/auth/system", world.admin).Count("system"), 1u);
  EXPECT_EQ(world.process.Do("GET", "/auth/catalog", member.token).At("catalog").as_array().size(),
            2u);
}

}  // namespace
}  // namespace controlplane::identity
