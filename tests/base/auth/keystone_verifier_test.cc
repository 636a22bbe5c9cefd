#include "base/auth/keystone_verifier.h"

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/http/server.h"
#include "base/json.h"
#include "tests/support/results.h"

namespace base::auth {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A body that ends before it has begun.
class Cut final : public http::BodySource {
 public:
  std::optional<uint64_t> size_bytes() const override { return 10; }
  async::Task<Result<http::Piece>> Next() override { co_return http::Piece(); }
};

// As much of Keystone v3 as validation takes. Thread-safe.
class FakeKeystone {
 public:
  FakeKeystone() : pool_("keystone", 4, 64) {
    http::Service service;
    service.name = "identity";
    service.prefix = "/identity";
    service.routes.push_back({.method = "POST",
                              .pattern = "/v3/auth/tokens",
                              .access = http::Access::kPublic,
                              .handler = [this](const http::Request& r) { return LogIn(r); }});
    service.routes.push_back({.method = "GET",
                              .pattern = "/v3/auth/tokens",
                              .access = http::Access::kPublic,
                              .handler = [this](const http::Request& r) { return Validate(r); }});
    router_.Mount(std::move(service));
    server_ = std::move(*http::Server::Start({}, router_, pool_, metrics_));
  }

  std::string auth_url() const { return "http://" + server_->address() + "/identity/v3"; }
  http::Server& server() { return *server_; }

  std::atomic<int> logins = 0;
  std::atomic<int> validations = 0;
  std::atomic<bool> revoked = false;         // the user's token
  std::atomic<bool> forget_service = false;  // service tokens made before are refused, once
  std::atomic<int> broken_status = 0;
  std::atomic<bool> any_password = false;
  std::atomic<bool> break_off = false;  // in the middle of the answer to a validation
  std::atomic<bool> hold = false;       // answers to validations wait

 private:
  Result<http::Response> LogIn(const http::Request& request) {
    ++logins;
    ASSIGN_OR_RETURN(const Json body, ParseJson(request.body));
    boost::system::error_code none;
    const Json* password = body.find_pointer("/auth/identity/password/user/password", none);
    const Json* domain = body.find_pointer("/auth/scope/project/domain/name", none);
    const Json* method = body.find_pointer("/auth/identity/methods/0", none);
    if (password == nullptr || (*password != "right" && !any_password) || domain == nullptr ||
        *domain != "Default" || method == nullptr || *method != "password")
      return http::Response::Text(401, "{}", "application/json");
    http::Response response = http::Response::Text(201, Token("service"), "application/json");
    response.headers.Add("X-Subject-Token", "service-token-" + std::to_string(logins));
    return response;
  }

  Result<http::Response> Validate(const http::Request& request) {
    ++validations;
    while (hold) std::this_thread::yield();
    if (break_off) {
      http::Response response;
      response.source = std::make_unique<Cut>();
      return response;
    }
    if (broken_status != 0) return http::Response::Text(broken_status, "?", "text/plain");
    if (!request.headers.Get("X-Auth-Token").starts_with("service-token-") ||
        forget_service.exchange(false))
      return http::Response::Text(401, "{}", "application/json");
    if (request.headers.Get("X-Subject-Token") == "ruled-token" &&
        request.headers.Has("OpenStack-Identity-Access-Rules"))
      return http::Response::Text(200, Token("alice", kWithRules), "application/json");
    if (revoked || request.headers.Get("X-Subject-Token") != "user-token")
      return http::Response::Text(404, "{}", "application/json");
    return http::Response::Text(200, Token("alice"), "application/json");
  }

  static constexpr char kWithRules[] = R"("application_credential": {"id": "c1", "access_rules": [
      {"id": "r1", "service": "image", "method": "GET", "path": "/v2/images"}]},)";

  // `more`: further members.
  static std::string Token(const std::string& user, const std::string& more = "") {
    return R"({"token": {)" + more + R"("user": {"id": "u1", "name": ")" + user +
           R"(", "domain": {"id": "default"}}, "project": {"id": "p1", "name": "proj",
           "domain": {"id": "d2"}}, "roles": [{"id": "1", "name": "admin"}],
           "expires_at": "2030-01-01T00:00:00.000000Z"}})";
  }

  http::Router router_;
  async::Pool pool_;
  Metrics metrics_;
  std::unique_ptr<http::Server> server_;
};

class KeystoneVerifierTest : public testing::Test {
 protected:
  std::unique_ptr<TokenVerifier> Make(const std::string& password = "right", size_t entries = 100) {
    return MakeKeystoneVerifier({.auth_url = keystone_.auth_url() + "/",
                                 .username = "glance",
                                 .password = password,
                                 .cache_entries = entries},
                                clock_);
  }

  FakeKeystone keystone_;
  ManualClock clock_;
};

TEST_F(KeystoneVerifierTest, TellsWhoCalls) {
  const auto verifier = Make();
  ASSERT_OK_AND_ASSIGN(const auto caller, verifier->Verify("user-token"));
  EXPECT_EQ(caller->user_id, "u1");
  EXPECT_EQ(caller->user_name, "alice");
  EXPECT_EQ(caller->user_domain_id, "default");
  EXPECT_EQ(caller->project_id, "p1");
  EXPECT_EQ(caller->project_domain_id, "d2");
  EXPECT_THAT(caller->roles, ElementsAre("admin", "member", "reader"));
  EXPECT_TRUE(caller->IsAdmin());
  EXPECT_FALSE(caller->system_scope);
}

TEST_F(KeystoneVerifierTest, AccessRulesComeWithTheCaller) {
  const auto verifier = Make();
  ASSERT_OK_AND_ASSIGN(const auto caller, verifier->Verify("ruled-token"));
  ASSERT_TRUE(caller->access_rules.has_value());
  ASSERT_EQ(caller->access_rules->size(), 1u);
  EXPECT_EQ(caller->access_rules->front().service, "image");
  EXPECT_EQ(caller->access_rules->front().method, "GET");
  EXPECT_EQ(caller->access_rules->front().path, "/v2/images");
  ASSERT_OK_AND_ASSIGN(const auto free, verifier->Verify("user-token"));
  EXPECT_FALSE(free->access_rules.has_value());
}

TEST_F(KeystoneVerifierTest, TheVersionMayBeLeftOutOfTheUrl) {
  const std::string whole = keystone_.auth_url();
  const auto verifier = MakeKeystoneVerifier(
      {.auth_url = whole.substr(0, whole.size() - 3), .username = "glance", .password = "right"},
      clock_);
  EXPECT_OK(verifier->Verify("user-token"));
}

TEST_F(KeystoneVerifierTest, UnknownTokensAreUnauthenticated) {
  const auto verifier = Make();
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnauthenticated);
  const int asked = keystone_.validations;
  for (const char* malformed : {"", "a b", "a\r\nX: y", "\xff"})
    EXPECT_ERROR(verifier->Verify(malformed), Code::kUnauthenticated);
  EXPECT_EQ(keystone_.validations, asked);
}

TEST_F(KeystoneVerifierTest, BelievesAnAnswerForItsTimeOnly) {
  const auto verifier = Make();
  for (int i = 0; i < 5; ++i) ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_EQ(keystone_.validations, 1);
  keystone_.revoked = true;
  clock_.AdvanceUs(999'000);
  EXPECT_OK(verifier->Verify("user-token"));
  clock_.AdvanceUs(1'000);
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnauthenticated);
  EXPECT_EQ(keystone_.logins, 1);
}

TEST_F(KeystoneVerifierTest, ForgetsWhatWasUsedLeast) {
  const auto verifier = Make("right", 2);
  ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_ERROR(verifier->Verify("a"), Code::kUnauthenticated);
  ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_ERROR(verifier->Verify("b"), Code::kUnauthenticated);  // drops "a"
  EXPECT_EQ(keystone_.validations, 3);
  ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_EQ(keystone_.validations, 3);
  EXPECT_ERROR(verifier->Verify("a"), Code::kUnauthenticated);
  EXPECT_EQ(keystone_.validations, 4);
}

TEST_F(KeystoneVerifierTest, LogsInAgainWhenItsTokenIsRefusedOrEnds) {
  const auto verifier = Make();
  ASSERT_OK(verifier->Verify("user-token"));
  keystone_.forget_service = true;
  clock_.AdvanceUs(2 * kSecondUs);
  ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_EQ(keystone_.logins, 2);
  ASSERT_OK_AND_ASSIGN(const int64_t end_us, ParseTime("2030-01-01T00:00:00Z"));
  clock_.AdvanceUs(end_us - clock_.NowUs() - 30 * kSecondUs);
  ASSERT_OK(verifier->Verify("user-token"));
  EXPECT_EQ(keystone_.logins, 3);
}

TEST_F(KeystoneVerifierTest, AWrongServiceUserIsNotTheCallersFault) {
  const auto verifier = Make("wrong-secret");
  const auto answer = verifier->Verify("user-token");
  EXPECT_ERROR(answer, Code::kUnavailable);
  EXPECT_THAT(answer.error().message(), HasSubstr("check the service user"));
  EXPECT_THAT(answer.error().message(), testing::Not(HasSubstr("wrong-secret")));
}

TEST_F(KeystoneVerifierTest, AKeystoneThatFailsIsUnavailableAndNotRemembered) {
  const auto verifier = Make();
  keystone_.broken_status = 500;
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  keystone_.broken_status = 200;  // no token in it
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  keystone_.broken_status = 0;
  EXPECT_OK(verifier->Verify("user-token"));
  keystone_.server().Stop();
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnavailable);
}

TEST_F(KeystoneVerifierTest, AsksOnceForAllWhoWantTheSame) {
  const auto verifier = Make();
  keystone_.hold = true;
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      if (verifier->Verify("user-token").has_value()) ++good;
    });
  }
  while (keystone_.validations == 0) std::this_thread::yield();
  keystone_.hold = false;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(keystone_.validations, 1);  // those that came late found it in the cache
}

// Takes connections, as the kernel does for whoever listens, and never says a word.
class SilentKeystone {
 public:
  SilentKeystone() {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 100), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/v3";
  }
  ~SilentKeystone() { ::close(listener_); }
  const std::string& url() const { return url_; }
  // Waits for the next connection.
  int Accept() { return ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC); }
  // How many more connections have come.
  int Waiting() {
    int count = 0;
    pollfd ready{listener_, POLLIN, 0};
    while (::poll(&ready, 1, 0) == 1) {
      ::close(Accept());
      ++count;
    }
    return count;
  }

 private:
  int listener_ = -1;
  std::string url_;
};

TEST(SilentKeystoneTest, OneLoginFailsForAllAndThenAtOnce) {
  SilentKeystone keystone;
  ManualClock clock;
  const auto verifier = MakeKeystoneVerifier({.auth_url = keystone.url(),
                                              .username = "glance",
                                              .password = "right",
                                              .timeout_ms = 300,
                                              .max_waiting = 100},
                                             clock);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_ERROR(verifier->Verify("token-" + std::to_string(i)), Code::kUnavailable);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(keystone.Waiting(), 1);
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  EXPECT_EQ(keystone.Waiting(), 0);  // told without asking
  clock.AdvanceUs(kKeystoneFailFastMs * 1000);
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  EXPECT_EQ(keystone.Waiting(), 1);
}

TEST(SilentKeystoneTest, OneAsksAgainWhileTheOthersAreTold) {
  SilentKeystone keystone;
  ManualClock clock;
  const auto verifier = MakeKeystoneVerifier({.auth_url = keystone.url(),
                                              .username = "glance",
                                              .password = "right",
                                              .timeout_ms = 600'000},
                                             clock);
  std::thread first([&] { EXPECT_ERROR(verifier->Verify("first"), Code::kUnavailable); });
  ::close(keystone.Accept());  // breaks off: a failure
  first.join();
  clock.AdvanceUs(kKeystoneFailFastMs * 1000);
  std::thread probe([&] { EXPECT_ERROR(verifier->Verify("probe"), Code::kUnavailable); });
  const int probing = keystone.Accept();
  for (int i = 0; i < 100; ++i)
    EXPECT_ERROR(verifier->Verify("token-" + std::to_string(i)), Code::kUnavailable);
  EXPECT_EQ(keystone.Waiting(), 0);
  ::close(probing);
  probe.join();
}

TEST(SilentKeystoneTest, OnlySoManyWaitForLong) {
  constexpr int64_t kLongMs = 600'000;
  SilentKeystone keystone;
  ManualClock clock;
  const auto verifier = MakeKeystoneVerifier({.auth_url = keystone.url(),
                                              .username = "glance",
                                              .password = "right",
                                              .timeout_ms = kLongMs,
                                              .max_waiting = 1},
                                             clock);
  std::thread patient([&] { EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable); });
  const int asked = keystone.Accept();
  // While that one waits on: for the same token, for another, and for the login that both need.
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnavailable);
  ::close(asked);
  patient.join();
}

TEST_F(KeystoneVerifierTest, AConnectionThatBreaksOffTurnsNobodyElseAway) {
  const auto verifier = Make();
  ASSERT_OK(verifier->Verify("user-token"));
  keystone_.break_off = true;
  const int asked = keystone_.validations;
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnavailable);
  EXPECT_GT(keystone_.validations, asked);
  keystone_.break_off = false;
  EXPECT_ERROR(verifier->Verify("another"), Code::kUnauthenticated);
}

TEST_F(KeystoneVerifierTest, AKeystoneThatAnswersAgainIsAskedByAll) {
  const auto verifier = Make("wrong-secret");
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  EXPECT_EQ(keystone_.logins, 1);
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnavailable);
  EXPECT_EQ(keystone_.logins, 1);  // a wrong password is not tried with each request
  keystone_.any_password = true;
  clock_.AdvanceUs(kKeystoneFailFastMs * 1000 - 1);
  EXPECT_ERROR(verifier->Verify("user-token"), Code::kUnavailable);
  clock_.AdvanceUs(1);
  EXPECT_OK(verifier->Verify("user-token"));
  EXPECT_ERROR(verifier->Verify("other"), Code::kUnauthenticated);
}

TEST_F(KeystoneVerifierTest, ServesManyThreads) {
  const auto verifier = Make();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        EXPECT_OK(verifier->Verify("user-token"));
        EXPECT_ERROR(verifier->Verify("no-" + std::to_string(t) + "-" + std::to_string(i)),
                     Code::kUnauthenticated);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace base::auth
