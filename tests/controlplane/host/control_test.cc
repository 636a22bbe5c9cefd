#include "controlplane/host/control.h"

#include <latch>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

const ControlOutput kGoOn = {.progress = [](uint64_t, uint64_t) { return true; }, .bytes = {}};

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
                       ControlServer::Start(path, [](const Json& request, const auto& output) {
                         EXPECT_TRUE(output.progress(1, 2));
                         EXPECT_TRUE(output.progress(2, 2));
                         return Result<Json>(JsonObject{{"echo", request}});
                       }));
  struct stat there{};
  ASSERT_EQ(::stat(path.c_str(), &there), 0);
  EXPECT_EQ(there.st_mode & 0777, 0600);
  uint64_t heard = 0;
  ASSERT_OK_AND_ASSIGN(const Json answer, AskAgent(path, JsonObject{{"do", "ls"}},
                                                   {.progress =
                                                        [&](uint64_t done, uint64_t) {
                                                          heard = done;
                                                          return true;
                                                        },
                                                    .bytes = {}}));
  EXPECT_EQ(base::ToText(answer), R"({"echo":{"do":"ls"}})");
  EXPECT_EQ(heard, 2);
}

TEST(Control, ErrorsKeepTheirCodeAndSentence) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  ASSERT_OK_AND_ASSIGN(const auto server, ControlServer::Start(path, [](const Json&, const auto&) {
                         return Result<Json>(Error(Code::kQuotaExceeded, "say \"less\"\n"));
                       }));
  const Result<Json> answer = AskAgent(path, JsonObject(), kGoOn);
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
  const auto handler = [](const Json&, const ControlOutput&) { return Result<Json>(Json(1)); };
  EXPECT_ERROR(AskAgent(path, JsonObject(), kGoOn), Code::kUnavailable);
  {
    ASSERT_OK_AND_ASSIGN(const auto first, ControlServer::Start(path, handler));
    EXPECT_ERROR(ControlServer::Start(path, handler), Code::kConflict);
  }
  EXPECT_ERROR(AskAgent(path, JsonObject(), kGoOn), Code::kUnavailable);
  ASSERT_OK_AND_ASSIGN(const auto second, ControlServer::Start(path, handler));
  EXPECT_OK(AskAgent(path, JsonObject(), kGoOn));
  EXPECT_ERROR(ControlServer::Start(std::string(200, 'x'), handler), Code::kInvalidArgument);
}

TEST(Control, WorkNoticesThatItsClientLeft) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  std::latch noticed(1);
  ASSERT_OK_AND_ASSIGN(const auto server,
                       ControlServer::Start(path, [&](const Json&, const auto& output) {
                         while (output.progress(1, 2)) {
                         }
                         noticed.count_down();
                         return Result<Json>(Json(1));
                       }));
  const ControlOutput leave = {.progress = [](uint64_t, uint64_t) { return false; }, .bytes = {}};
  EXPECT_ERROR(AskAgent(path, JsonObject(), leave), Code::kCancelled);
  noticed.wait();
}

TEST(Control, BytesComeWithWhatTheyAre) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  // Lines in them are none; all sizes, beyond what one read of a socket brings.
  std::vector<std::string> sent = {"", "\n{\"ok\":1}\n", std::string(kMaxControlPieceBytes, '\n')};
  ASSERT_OK_AND_ASSIGN(const auto server,
                       ControlServer::Start(path, [&](const Json&, const auto& output) {
                         for (size_t i = 0; i < sent.size(); ++i)
                           if (!output.progress(i, sent.size()) ||
                               !output.bytes({{"piece", i}}, base::AsBytes(sent[i])))
                             break;
                         return Result<Json>(Json("all"));
                       }));
  std::vector<std::string> came;
  ControlOutput output = kGoOn;
  EXPECT_ERROR(AskAgent(path, JsonObject(), output), Code::kIo) << "nobody asked for bytes";
  output.bytes = [&](const JsonObject& head, base::ByteView bytes) {
    EXPECT_EQ(base::FindUint(head, "piece"), came.size() % sent.size());
    came.emplace_back(base::AsText(bytes));
    return came.size() != 5;
  };
  ASSERT_OK_AND_ASSIGN(const Json answer, AskAgent(path, JsonObject(), output));
  EXPECT_EQ(answer, Json("all"));
  EXPECT_EQ(came, sent);
  EXPECT_ERROR(AskAgent(path, JsonObject(), output), Code::kCancelled);
}

// Says one thing to whoever connects, once.
class OneAnswer {
 public:
  OneAnswer(const std::string& path, std::string answer) {
    ::unlink(path.c_str());
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_, 1), 0);
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      EXPECT_EQ(::send(client, answer.data(), answer.size(), MSG_NOSIGNAL), answer.size());
      char request[256];
      EXPECT_GT(::recv(client, request, sizeof(request), 0), 0);
      ::close(client);
    });
  }
  ~OneAnswer() {
    thread_.join();
    ::close(listener_);
  }

 private:
  int listener_ = -1;
  std::thread thread_;
};

TEST(Control, BytesOfALengthThatNoAgentSendsAreNotTaken) {
  const support::TempDir dir;
  const std::string path = dir / "control.sock";
  for (const std::string_view line :
       {R"({"bytes": 4194305})", R"({"bytes": 18446744073709551615})", R"({"bytes": 10})"}) {
    const OneAnswer server(path, std::string(line) + "\nshort");
    ControlOutput output = kGoOn;
    output.bytes = [](const JsonObject&, base::ByteView) {
      ADD_FAILURE() << "there were not as many";
      return true;
    };
    EXPECT_FALSE(AskAgent(path, JsonObject(), output).has_value()) << line;
  }
}

}  // namespace
}  // namespace controlplane::host
