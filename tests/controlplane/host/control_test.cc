#include "controlplane/host/control.h"

#include <latch>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::JsonObject;
using base::Result;

bool GoOn(uint64_t, uint64_t) { return true; }

// What a client sends by hand, and the first of what it is answered.
std::string Say(const std::string& path, const std::string& text) {
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  for (size_t at = 0; at < text.size();) {
    const ssize_t sent = ::send(descriptor, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) break;
    at += static_cast<size_t>(sent);
  }
  ::shutdown(descriptor, SHUT_WR);
  std::string answer;
  char piece[4096];
  for (ssize_t count = 0; (count = ::recv(descriptor, piece, sizeof(piece), 0)) > 0;)
    answer.append(piece, static_cast<size_t>(count));
  ::close(descriptor);
  return answer;
}

TEST(Control, AsksTellsHowFarItIsAndAnswers) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  ASSERT_OK_AND_ASSIGN(const auto server,
                       ControlServer::Start(path, [](const Json& request, const auto& progress) {
                         EXPECT_TRUE(progress(1, 2));
                         EXPECT_TRUE(progress(2, 2));
                         return Result<Json>(JsonObject{{"echo", request}});
                       }));
  struct stat there{};
  ASSERT_EQ(::stat(path.c_str(), &there), 0);
  EXPECT_EQ(there.st_mode & 0777, 0600);
  uint64_t heard = 0;
  ASSERT_OK_AND_ASSIGN(const Json answer,
                       AskAgent(path, JsonObject{{"do", "ls"}}, [&](uint64_t done, uint64_t) {
                         heard = done;
                         return true;
                       }));
  EXPECT_EQ(base::ToText(answer), R"({"echo":{"do":"ls"}})");
  EXPECT_EQ(heard, 2);
}

TEST(Control, ErrorsKeepTheirCodeAndSentence) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  ASSERT_OK_AND_ASSIGN(const auto server, ControlServer::Start(path, [](const Json&, const auto&) {
                         return Result<Json>(Error(Code::kQuotaExceeded, "say \"less\"\n"));
                       }));
  const Result<Json> answer = AskAgent(path, JsonObject(), GoOn);
  ASSERT_ERROR(answer, Code::kQuotaExceeded);
  EXPECT_EQ(answer.error().message(), "say \"less\"\n");
}

TEST(Control, NonsenseIsRefused) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  ASSERT_OK_AND_ASSIGN(const auto server, ControlServer::Start(path, [](const Json&, const auto&) {
                         return Result<Json>(Json("done"));
                       }));
  EXPECT_NE(Say(path, "attach everything\n").find("INVALID_ARGUMENT"), std::string::npos);
  EXPECT_EQ(Say(path, ""), "");
  EXPECT_EQ(Say(path, "{\"do\": \"ls\"}"), "") << "a line that does not end is no request";
  EXPECT_EQ(Say(path, std::string(2 * kMaxControlLineBytes, 'x')), "");
  EXPECT_EQ(Say(path, "{}\n"), "{\"ok\":\"done\"}\n") << "it still works";
}

TEST(Control, OneAgentASocketAndAStaleOneIsReplaced) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  const auto handler = [](const Json&, const ControlProgress&) { return Result<Json>(Json(1)); };
  EXPECT_ERROR(AskAgent(path, JsonObject(), GoOn), Code::kUnavailable);
  {
    ASSERT_OK_AND_ASSIGN(const auto first, ControlServer::Start(path, handler));
    EXPECT_ERROR(ControlServer::Start(path, handler), Code::kConflict);
  }
  EXPECT_ERROR(AskAgent(path, JsonObject(), GoOn), Code::kUnavailable);
  ASSERT_OK_AND_ASSIGN(const auto second, ControlServer::Start(path, handler));
  EXPECT_OK(AskAgent(path, JsonObject(), GoOn));
  EXPECT_ERROR(ControlServer::Start(std::string(200, 'x'), handler), Code::kInvalidArgument);
}

TEST(Control, WorkNoticesThatItsClientLeft) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  std::latch noticed(1);
  ASSERT_OK_AND_ASSIGN(const auto server,
                       ControlServer::Start(path, [&](const Json&, const auto& progress) {
                         while (progress(1, 2)) {
                         }
                         noticed.count_down();
                         return Result<Json>(Json(1));
                       }));
  EXPECT_ERROR(AskAgent(path, JsonObject(), [](uint64_t, uint64_t) { return false; }),
               Code::kCancelled);
  noticed.wait();
}

}  // namespace
}  // namespace controlplane::host
