#include <array>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/controlplane/identity/harness.h"
#include "tests/support/results.h"

// Several processes over one store, asked in turn as a proxy in front of them does: the clock
// stands still but for microseconds, so nobody looks for changes only because time went by.

namespace controlplane::identity {
namespace {

std::string WithPassword(std::string_view password) {
  return R"({"user":{"password":")" + std::string(password) + "\"}}";
}

TEST(Processes, AnyOfThemShowsWhatAnotherDid) {
  World world;
  Process other(world.meta, world.clock);
  const std::string id = world.process.Create(world.admin, "groups", "group", R"({"name":"g"})");
  EXPECT_EQ(other.Do("GET", "/groups/" + id, world.admin).status, 200);
  EXPECT_EQ(
      world.process.Do("PATCH", "/groups/" + id, world.admin, R"({"group":{"name":"h"}})").status,
      200);
  EXPECT_EQ(other.Do("GET", "/groups/" + id, world.admin).Str("group", "name"), "h");
  EXPECT_EQ(other.Do("DELETE", "/groups/" + id, world.admin).status, 204);
  EXPECT_EQ(world.process.Do("GET", "/groups/" + id, world.admin).status, 404);
}

TEST(Processes, ARevokedTokenIsVoidAtOnceForAnyOfThem) {
  World world;
  Process other(world.meta, world.clock);
  const World::Member member = world.MakeMember("ann");
  const auto show = [&] {
    return other.Do("GET", "/auth/tokens", world.admin, {}, {{"X-Subject-Token", member.token}})
        .status;
  };
  EXPECT_EQ(show(), 200);
  world.Tick();
  EXPECT_EQ(world.process
                .Do("DELETE", "/auth/tokens", world.admin, {}, {{"X-Subject-Token", member.token}})
                .status,
            204);
  EXPECT_EQ(show(), 404);
}

// A role that was given just before: other services' calls see it with the first token that has it.
TEST(Processes, ANewTokenHasTheRolesItWasMadeWith) {
  World world;
  Process other(world.meta, world.clock);
  const World::Member member = world.MakeMember("ann", "reader");
  EXPECT_OK(other.identity().verifier().Verify(member.token));
  EXPECT_EQ(world.process
                .Do("PUT",
                    "/projects/" + member.project_id + "/users/" + member.user_id + "/roles/" +
                        world.process.RoleId(world.admin, "admin"),
                    world.admin)
                .status,
            204);
  const std::string token =
      world.process.Login(member.user_id, "secret", ProjectScope(member.project_id));
  ASSERT_OK_AND_ASSIGN(const auto caller, other.identity().verifier().Verify(token));
  EXPECT_TRUE(caller->IsAdmin());
}

// The clocks of hosts are not quite the same: neither does a new token die of that, nor an old one
// live.
TEST(Processes, ClocksMayDifferByASecond) {
  World world;
  base::ManualClock ahead(world.clock.NowUs() + base::kSecondUs - 1000);
  Process other(world.meta, ahead);
  const World::Member member = world.MakeMember("ann");
  const std::string scope = ProjectScope(member.project_id);
  const std::string early = other.Login(member.user_id, "secret", scope);
  world.Tick();
  ASSERT_EQ(
      world.process.Do("PATCH", "/users/" + member.user_id, world.admin, WithPassword("second"))
          .status,
      200);
  EXPECT_ERROR(world.process.identity().verifier().Verify(early), base::Code::kUnauthenticated);
  ASSERT_EQ(
      other.Do("PATCH", "/users/" + member.user_id, world.admin, WithPassword("third")).status,
      200);
  const std::string late = world.process.Login(member.user_id, "third", scope);
  EXPECT_OK(world.process.identity().verifier().Verify(late));
  EXPECT_OK(other.identity().verifier().Verify(late));
}

TEST(Processes, WrongPasswordsAreCountedTogether) {
  Options options = FastOptions();
  options.lockout_failures = 4;
  World world(options);
  Process other(world.meta, world.clock, options);
  const World::Member member = world.MakeMember("ann");
  for (int i = 0; i < 4; ++i) {
    const Process& process = i % 2 == 0 ? world.process : other;
    EXPECT_EQ(process.TryLogin(member.user_id, "wrong").status, 401);
  }
  EXPECT_EQ(world.process.TryLogin(member.user_id, "secret").status, 401);
  EXPECT_EQ(other.TryLogin(member.user_id, "secret").status, 401);
}

TEST(Processes, OneMakesTheNewKey) {
  Options options = FastOptions();
  options.token_key_rotation_ms = 60'000;
  World world(options);
  Process other(world.meta, world.clock, options);
  Process third(world.meta, world.clock, options);
  const auto keys = [&] {
    size_t count = 0;
    EXPECT_OK(world.meta.Scan(kPartition, "r/token_key/", "r/token_key0", 100,
                              [&](std::string_view, std::string_view) { return ++count > 0; }));
    return count;
  };
  const size_t before = keys();
  world.clock.AdvanceUs(61 * base::kSecondUs);
  for (Process* process : {&other, &third, &world.process}) {
    const std::string token = process->AdminToken();
    EXPECT_OK(other.identity().verifier().Verify(token));
    EXPECT_OK(third.identity().verifier().Verify(token));
  }
  EXPECT_EQ(keys(), before + 1);
}

// Two first starts at once: the second one's password is not the admin's.
TEST(Processes, TheAdminIsMadeOnce) {
  chunkstore::MemoryMetaStore meta;
  const base::ManualClock clock;
  ASSERT_OK_AND_ASSIGN(const auto late, Identity::Open(FastOptions(), meta, clock));
  Process first(meta, clock);
  BootstrapRequest request;
  request.admin_password = "another";
  ASSERT_OK(late->Bootstrap(request));
  EXPECT_FALSE(first.AdminToken().empty());
}

// --- A model: what the processes answer, taken in turn, is what one record of it all says. ---

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {
    for (int i = 0; i < 2; ++i)
      others_.push_back(std::make_unique<Process>(world_.meta, world_.clock));
    role_ = world_.process.RoleId(world_.admin, "member");
  }

  void Step() {
    world_.Tick();
    switch (Pick(12)) {
      case 0:
        return NewUser();
      case 1:
        return NewProject();
      case 2:
      case 3:
        return ChangeGrant();
      case 4:
        return SetEnabled();
      case 5:
        return ChangePassword();
      case 6:
      case 7:
      case 8:
        return Login();
      case 9:
        return Revoke();
      case 10:
        return Delete();
      default:
        return;
    }
  }

  // Each token, at a process by chance.
  void CheckTokens() {
    for (const Token& token : tokens_) {
      const Reply shown =
          Any().Do("GET", "/auth/tokens", world_.admin, {}, {{"X-Subject-Token", token.text}});
      EXPECT_EQ(shown.status, Holds(token) ? 200 : 404);
      if (Holds(token)) EXPECT_OK(Any().identity().verifier().Verify(token.text));
    }
  }
  // What other services go by: at the latest after the refresh.
  void CheckVerifiers() {
    world_.clock.AdvanceUs(StoreOptions().refresh_ms * 1000 + 1);
    for (const Token& token : tokens_)
      EXPECT_EQ(Any().identity().verifier().Verify(token.text).has_value(), Holds(token));
  }
  size_t holding() const {
    size_t count = 0;
    for (const Token& token : tokens_) count += Holds(token) ? 1 : 0;
    return count;
  }

 private:
  struct Thing {
    std::string id;
    std::string password;  // of users
    bool enabled = true;
    bool there = true;
  };
  struct Token {
    std::string text;
    size_t user = 0;
    size_t project = 0;
    bool ended = false;
  };

  size_t Pick(size_t count) { return random_() % count; }
  Process& Any() {
    const size_t chosen = Pick(others_.size() + 1);
    return chosen == 0 ? world_.process : *others_[chosen - 1];
  }
  bool MayBe(size_t user, size_t project) const {
    return users_[user].there && users_[user].enabled && projects_[project].there &&
           projects_[project].enabled && grants_.contains({user, project});
  }
  bool Holds(const Token& token) const { return !token.ended && MayBe(token.user, token.project); }
  template <typename Which>
  void End(Which which) {
    for (Token& token : tokens_) token.ended = token.ended || which(token);
  }

  void NewUser() {
    Thing user;
    user.password = "pw" + std::to_string(users_.size());
    user.id = Any().Create(world_.admin, "users", "user",
                           R"({"name":"u)" + std::to_string(users_.size()) + R"(","password":")" +
                               user.password + "\"}");
    users_.push_back(user);
  }
  void NewProject() {
    Thing project;
    project.id = Any().Create(world_.admin, "projects", "project",
                              R"({"name":"p)" + std::to_string(projects_.size()) + "\"}");
    projects_.push_back(project);
  }
  void ChangeGrant() {
    if (users_.empty() || projects_.empty()) return;
    const size_t user = Pick(users_.size());
    const size_t project = Pick(projects_.size());
    const bool there = users_[user].there && projects_[project].there;
    const std::string path =
        "/projects/" + projects_[project].id + "/users/" + users_[user].id + "/roles/" + role_;
    const std::pair<size_t, size_t> grant(user, project);
    if (Pick(3) != 0) {
      EXPECT_EQ(Any().Do("PUT", path, world_.admin).status, there ? 204 : 404);
      if (there) grants_.insert(grant);
      return;
    }
    EXPECT_EQ(Any().Do("DELETE", path, world_.admin).status, grants_.contains(grant) ? 204 : 404);
    grants_.erase(grant);
  }
  void SetEnabled() {
    const bool of_user = Pick(2) == 0;
    std::vector<Thing>& things = of_user ? users_ : projects_;
    if (things.empty()) return;
    const size_t chosen = Pick(things.size());
    Thing& thing = things[chosen];
    const bool enabled = Pick(3) != 0;
    const Reply reply =
        Any().Do("PATCH", (of_user ? "/users/" : "/projects/") + thing.id, world_.admin,
                 std::string(of_user ? R"({"user")" : R"({"project")") +
                     (enabled ? R"(:{"enabled":true}})" : R"(:{"enabled":false}})"));
    EXPECT_EQ(reply.status, thing.there ? 200 : 404) << reply.body;
    if (!thing.there) return;
    if (thing.enabled && !enabled)
      End([&](const Token& t) { return (of_user ? t.user : t.project) == chosen; });
    thing.enabled = enabled;
  }
  void ChangePassword() {
    if (users_.empty()) return;
    const size_t chosen = Pick(users_.size());
    Thing& user = users_[chosen];
    const std::string password = user.password + "x";
    const Reply reply =
        Any().Do("PATCH", "/users/" + user.id, world_.admin, WithPassword(password));
    EXPECT_EQ(reply.status, user.there ? 200 : 404);
    if (!user.there) return;
    user.password = password;
    End([&](const Token& token) { return token.user == chosen; });
  }
  void Login() {
    if (users_.empty() || projects_.empty()) return;
    const size_t user = Pick(users_.size());
    const size_t project = Pick(projects_.size());
    const bool right = Pick(5) != 0;
    const Reply reply = Any().TryLogin(users_[user].id, right ? users_[user].password : "wrong",
                                       ProjectScope(projects_[project].id));
    const bool may = right && MayBe(user, project);
    EXPECT_EQ(reply.status, may ? 201 : 401) << reply.body;
    if (may)
      tokens_.push_back({std::string(reply.headers.Get("X-Subject-Token")), user, project, false});
  }
  void Revoke() {
    if (tokens_.empty()) return;
    Token& token = tokens_[Pick(tokens_.size())];
    const Reply reply =
        Any().Do("DELETE", "/auth/tokens", world_.admin, {}, {{"X-Subject-Token", token.text}});
    EXPECT_EQ(reply.status, Holds(token) ? 204 : 404);
    token.ended = token.ended || Holds(token);
  }
  void Delete() {
    if (Pick(3) != 0) return;
    const bool of_user = Pick(2) == 0;
    std::vector<Thing>& things = of_user ? users_ : projects_;
    if (things.empty()) return;
    const size_t chosen = Pick(things.size());
    const Reply reply =
        Any().Do("DELETE", (of_user ? "/users/" : "/projects/") + things[chosen].id, world_.admin);
    EXPECT_EQ(reply.status, things[chosen].there ? 204 : 404);
    things[chosen].there = false;
    std::erase_if(grants_, [&](const std::pair<size_t, size_t>& grant) {
      return (of_user ? grant.first : grant.second) == chosen;
    });
  }

  std::mt19937_64 random_;
  World world_;
  std::vector<std::unique_ptr<Process>> others_;
  std::string role_;
  std::vector<Thing> users_;
  std::vector<Thing> projects_;
  std::set<std::pair<size_t, size_t>> grants_;
  std::vector<Token> tokens_;
};

TEST(Processes, AnswerAsOne) {
  size_t held = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    Model model(seed);
    for (int step = 0; step < 250; ++step) {
      model.Step();
      if (step % 10 == 0) model.CheckTokens();
      if (step % 50 == 0) model.CheckVerifiers();
    }
    held += model.holding();
  }
  EXPECT_GT(held, 0U) << "the model must not only see tokens that ended";
}

}  // namespace
}  // namespace controlplane::identity
