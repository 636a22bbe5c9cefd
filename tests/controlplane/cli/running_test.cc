#include "controlplane/cli/running.h"

#include <cstdlib>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/async/pool.h"
#include "base/files.h"
#include "base/http/server.h"
#include "controlplane/credentials.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::cli {
namespace {

using base::Code;
using testing::HasSubstr;

// Answers one status to whoever asks for its identity service, and to logins.
class Answering {
 public:
  explicit Answering(int status) : pool_("answers", 1, 16) {
    base::http::Service service;
    service.name = "identity";
    service.prefix = "/identity";
    const auto answer = [status](const base::http::Request& request) {
      const bool login = request.method == "POST";
      return base::http::Response::Text(login ? 401 : status, "{}", "application/json");
    };
    for (const auto& [method, pattern] : {std::pair("GET", "/v3"), {"POST", "/v3/auth/tokens"}}) {
      service.routes.push_back({.method = method,
                                .pattern = pattern,
                                .access = base::http::Access::kPublic,
                                .handler = answer});
    }
    router_.Mount(std::move(service));
    server_ = std::move(*base::http::Server::Start({}, router_, pool_, metrics_));
  }
  std::string base_url() const { return "http://" + server_->address(); }
  void Stop() { server_->Stop(); }

 private:
  base::http::Router router_;
  base::async::Pool pool_;
  base::Metrics metrics_;
  std::unique_ptr<base::http::Server> server_;
};

class RunningTest : public testing::Test {
 protected:
  RunningTest() {
    for (const char* name : {"OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_AUTH_URL"}) unsetenv(name);
    setenv("HOME", dir_.path().c_str(), 1);
  }
  void WriteDown(const std::string& base_url) {
    ASSERT_OK(base::WriteFileDurably(dir_ / "endpoint", base_url + "\n"));
    ASSERT_OK(WriteCredentials(dir_.path(), "http://proxy.test:1", "RegionOne", "s3cret"));
  }
  support::TempDir dir_;
};

TEST_F(RunningTest, NoneRunsWhereNothingIsWrittenDownOrNobodyAnswers) {
  ASSERT_OK_AND_ASSIGN(const auto nothing, FindRunning(dir_.path()));
  EXPECT_FALSE(nothing.has_value());
  Answering gone(200);
  WriteDown(gone.base_url());
  gone.Stop();
  ASSERT_OK_AND_ASSIGN(const auto killed, FindRunning(dir_.path()));
  EXPECT_FALSE(killed.has_value());
}

TEST_F(RunningTest, ABusyServiceRuns) {
  Answering busy(503);
  WriteDown(busy.base_url());
  const auto running = FindRunning(dir_.path());
  ASSERT_ERROR(running, Code::kUnavailable);
  EXPECT_THAT(running.error().message(), HasSubstr("runs on " + busy.base_url()));
  EXPECT_THAT(running.error().message(), HasSubstr("busy"));
}

TEST_F(RunningTest, AServiceThatRefusesOurPasswordRuns) {
  Answering service(200);
  WriteDown(service.base_url());
  EXPECT_ERROR(FindRunning(dir_.path()), Code::kUnauthenticated);
}

TEST_F(RunningTest, BesideAKeystoneTheEnvironmentSaysWhoAsks) {
  Answering service(404);
  WriteDown(service.base_url());
  const auto running = FindRunning(dir_.path());
  ASSERT_ERROR(running, Code::kNotFound);
  EXPECT_THAT(running.error().message(), HasSubstr("OS_AUTH_URL"));
}

}  // namespace
}  // namespace controlplane::cli
