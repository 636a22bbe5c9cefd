#include <functional>

#include <gtest/gtest.h>

#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

// Whatever a token rests on, taking it away voids the token: in the same process at once, in
// another that shares the MetaStore within a second.

namespace controlplane::identity {
namespace {

struct Taken {
  const char* name;
  std::function<Reply(World&, const World::Member&)> take;
};

Reply Patch(World& world, const std::string& path, const std::string& body) {
  return world.process.Do("PATCH", path, world.admin, body);
}

const Taken kTaken[] = {
    {"token revoked",
     [](World& w, const World::Member& m) {
       return w.process.Do("DELETE", "/auth/tokens", w.admin, {}, {{"X-Subject-Token", m.token}});
     }},
    {"user disabled",
     [](World& w, const World::Member& m) {
       return Patch(w, "/users/" + m.user_id, R"({"user":{"enabled":false}})");
     }},
    {"password reset",
     [](World& w, const World::Member& m) {
       return Patch(w, "/users/" + m.user_id, R"({"user":{"password":"another"}})");
     }},
    {"user deleted",
     [](World& w, const World::Member& m) {
       return w.process.Do("DELETE", "/users/" + m.user_id, w.admin);
     }},
    {"project disabled",
     [](World& w, const World::Member& m) {
       return Patch(w, "/projects/" + m.project_id, R"({"project":{"enabled":false}})");
     }},
    {"project deleted",
     [](World& w, const World::Member& m) {
       return w.process.Do("DELETE", "/projects/" + m.project_id, w.admin);
     }},
    {"role taken away",
     [](World& w, const World::Member& m) {
       return w.process.Do("DELETE",
                           "/projects/" + m.project_id + "/users/" + m.user_id + "/roles/" +
                               w.process.RoleId(w.admin, "member"),
                           w.admin);
     }},
};

TEST(Revocation, HoldsAtOnceHereAndWithinASecondElsewhere) {
  for (const Taken& taken : kTaken) {
    SCOPED_TRACE(taken.name);
    World world;
    World::Member member = world.MakeMember("ann");
    Process other(world.meta, world.clock);
    EXPECT_OK(other.identity().verifier().Verify(member.token));
    EXPECT_OK(world.process.identity().verifier().Verify(member.token));
    world.Tick();
    Reply reply = taken.take(world, member);
    EXPECT_TRUE(reply.status == 200 || reply.status == 204) << reply.body;
    EXPECT_ERROR(world.process.identity().verifier().Verify(member.token),
                 base::Code::kUnauthenticated);
    EXPECT_OK(other.identity().verifier().Verify(member.token));  // it has not looked yet
    world.clock.AdvanceUs(base::kSecondUs);
    EXPECT_ERROR(other.identity().verifier().Verify(member.token), base::Code::kUnauthenticated);
  }
}

TEST(Revocation, EnablingAgainDoesNotReviveTokens) {
  World world;
  World::Member member = world.MakeMember("ann");
  world.Tick();
  Patch(world, "/users/" + member.user_id, R"({"user":{"enabled":false}})");
  Patch(world, "/users/" + member.user_id, R"({"user":{"enabled":true}})");
  EXPECT_ERROR(world.process.identity().verifier().Verify(member.token),
               base::Code::kUnauthenticated);
  world.Tick();
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret").status, 201);
}

TEST(Revocation, DisabledDomainStopsItsUsers) {
  World world;
  std::string domain = world.process.Create(world.admin, "domains", "domain", R"({"name":"dom"})");
  std::string user =
      world.process.Create(world.admin, "users", "user",
                           R"({"name":"ann","password":"secret","domain_id":")" + domain + "\"}");
  std::string token = world.process.Login(user, "secret");
  EXPECT_OK(world.process.identity().verifier().Verify(token));
  world.Tick();
  Patch(world, "/domains/" + domain, R"({"domain":{"enabled":false}})");
  EXPECT_ERROR(world.process.identity().verifier().Verify(token), base::Code::kUnauthenticated);
  EXPECT_EQ(world.process.TryLogin(user, "secret").status, 401);
}

TEST(Revocation, RolesFollowImplications) {
  World world;
  World::Member member = world.MakeMember("ann", "member");
  auto has = [&](std::string_view role) {
    auto caller = world.process.identity().verifier().Verify(member.token);
    return caller.has_value() && (*caller)->HasRole(role);
  };
  std::string extra = world.process.Create(world.admin, "roles", "role", R"({"name":"extra"})");
  std::string rule = "/roles/" + world.process.RoleId(world.admin, "member") + "/implies/" + extra;
  EXPECT_FALSE(has("extra"));
  EXPECT_EQ(world.process.Do("PUT", rule, world.admin).status, 201);
  EXPECT_TRUE(has("extra"));
  EXPECT_EQ(world.process.Do("HEAD", rule, world.admin).status, 204);
  EXPECT_EQ(world.process.Do("DELETE", rule, world.admin).status, 204);
  EXPECT_FALSE(has("extra"));
  EXPECT_EQ(world.process.Do("GET", rule, world.admin).status, 404);
}

TEST(Revocation, TooManySingleOnesEndAll) {
  World world;
  World::Member member = world.MakeMember("ann");
  auto records = [&] {
    size_t count = 0;
    EXPECT_OK(world.meta.Scan(kPartition, "r/revocation/", "r/revocation0", 10'000,
                              [&](std::string_view, std::string_view) { return ++count > 0; }));
    return count;
  };
  for (size_t i = 0; i <= kMaxRevocationsOfUser; ++i) {
    EXPECT_OK(world.process.identity().verifier().Verify(member.token));
    std::string token = world.process.Login(member.user_id, "secret");
    Reply revoked =
        world.process.Do("DELETE", "/auth/tokens", token, {}, {{"X-Subject-Token", token}});
    ASSERT_EQ(revoked.status, 204);
    ASSERT_LE(records(), kMaxRevocationsOfUser);
  }
  EXPECT_ERROR(world.process.identity().verifier().Verify(member.token),
               base::Code::kUnauthenticated);
  EXPECT_EQ(records(), 0u);
}

TEST(Revocation, ATokenMadeElsewhereIsKnownAtOnce) {
  World world;
  Process other(world.meta, world.clock);
  World::Member member = world.MakeMember("ann");  // user, project and role that `other` never saw
  world.Tick();
  world.clock.AdvanceUs(6'000);
  EXPECT_OK(other.identity().verifier().Verify(member.token));
}

}  // namespace
}  // namespace controlplane::identity
