#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/command.h"
#include "controlplane/cli/image_transfer.h"
#include "controlplane/cli/progress.h"
#include "controlplane/credentials.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::cli {
namespace {

using base::Code;
using testing::HasSubstr;
using testing::Not;

// What a command line answers, and the texts it prints.
struct Outcome {
  int exit_code = 0;
  std::string out;
  std::string err;
};

Outcome RunCaptured(const std::vector<std::string>& args) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.exit_code = cli::Run(args);
  std::fflush(stdout);
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

// No OS_ variable of whoever runs the test is seen.
class CloudTest : public testing::Test {
 protected:
  CloudTest() {
    for (const char* name : {"OS_CLOUD", "OS_CLIENT_CONFIG_FILE", "OS_AUTH_URL", "OS_USERNAME",
                             "OS_PASSWORD", "OS_PROJECT_NAME", "OS_REGION_NAME"}) {
      unsetenv(name);
    }
    setenv("HOME", dir_.path().c_str(), 1);
  }
  support::TempDir dir_;
};

TEST_F(CloudTest, FindsWhatTheServiceWroteDown) {
  ASSERT_OK(WriteCredentials(dir_.path(), "http://127.0.0.1:1234", "RegionOne", "s3cret"));
  struct stat info{};
  ASSERT_EQ(stat((dir_ / "clouds.yaml").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);

  ASSERT_OK_AND_ASSIGN(const Cloud cloud, FindCloud({.data_dir = dir_.path()}));
  EXPECT_EQ(cloud.auth_url, "http://127.0.0.1:1234/identity/v3");
  EXPECT_EQ(cloud.username, "admin");
  EXPECT_EQ(cloud.password, "s3cret");
  EXPECT_EQ(cloud.project, "admin");
  ASSERT_OK_AND_ASSIGN(const auto password, ReadAdminPassword(dir_.path()));
  EXPECT_EQ(password, "s3cret");
}

TEST_F(CloudTest, AMissingFileIsNoPassword) {
  ASSERT_OK_AND_ASSIGN(const auto password, ReadAdminPassword(dir_.path()));
  EXPECT_FALSE(password.has_value());
}

TEST_F(CloudTest, ANamedCloudComesFromTheConfigurationFile) {
  const std::string path = dir_ / "mine.yaml";
  ASSERT_OK(base::WriteFileDurably(path,
                                   "clouds:\n  far:\n    region_name: North\n    auth:\n"
                                   "      auth_url: http://far:5000/v3\n      username: u\n"
                                   "      password: 'p'\n      project_name: x\n"));
  setenv("OS_CLIENT_CONFIG_FILE", path.c_str(), 1);
  ASSERT_OK_AND_ASSIGN(const Cloud cloud, FindCloud({.cloud = "far"}));
  EXPECT_EQ(cloud.auth_url, "http://far:5000/v3");
  EXPECT_EQ(cloud.region, "North");
  EXPECT_EQ(cloud.user_domain, "Default");
  EXPECT_ERROR(FindCloud({.cloud = "near"}), Code::kNotFound);
  ASSERT_OK(base::WriteFileDurably(path, "clouds: ["));
  EXPECT_ERROR(FindCloud({.cloud = "far"}), Code::kInvalidArgument);
}

TEST_F(CloudTest, TheEnvironmentNamesACloudToo) {
  setenv("OS_AUTH_URL", "http://there:5000/v3", 1);
  setenv("OS_USERNAME", "me", 1);
  ASSERT_OK_AND_ASSIGN(const Cloud cloud, FindCloud({}));
  EXPECT_EQ(cloud.auth_url, "http://there:5000/v3");
  EXPECT_EQ(cloud.username, "me");
  // A directory that the command line names wins: a command never goes to another cloud than it
  // was told. One that always holds does not: whoever sources an openrc expects that cloud.
  ASSERT_OK(WriteCredentials(dir_.path(), "http://127.0.0.1:1234", "RegionOne", "s3cret"));
  ASSERT_OK_AND_ASSIGN(const Cloud named, FindCloud({.data_dir = dir_.path()}));
  EXPECT_EQ(named.username, "admin");
  ASSERT_OK_AND_ASSIGN(const Cloud sourced, FindCloud({.usual_data_dir = dir_.path()}));
  EXPECT_EQ(sourced.username, "me");
  setenv("OS_CLOUD", "elsewhere", 1);
  EXPECT_ERROR(FindCloud({.usual_data_dir = dir_.path()}), Code::kNotFound);
  unsetenv("OS_CLOUD");
  unsetenv("OS_AUTH_URL");
  ASSERT_OK_AND_ASSIGN(const Cloud usual, FindCloud({.usual_data_dir = dir_.path()}));
  EXPECT_EQ(usual.username, "admin");
}

// As a command finds its cloud: QUARRY_DATA_DIR is set, OS_AUTH_URL too, and then --data-dir.
TEST_F(CloudTest, SourcedVariablesComeAfterTheCommandLineAndBeforeTheUsualDirectory) {
  ASSERT_OK(WriteCredentials(dir_.path(), "http://127.0.0.1:1", "RegionOne", "s3cret"));
  setenv("QUARRY_DATA_DIR", dir_.path().c_str(), 1);
  const std::string usual = RunCaptured({"volume", "ls"}).err;
  setenv("OS_AUTH_URL", "http://127.0.0.1:2/v3", 1);
  const std::string sourced = RunCaptured({"volume", "ls"}).err;
  const std::string told = RunCaptured({"volume", "ls", "--data-dir", dir_.path()}).err;
  unsetenv("QUARRY_DATA_DIR");
  EXPECT_THAT(usual, HasSubstr("tried http://127.0.0.1:1/"));
  EXPECT_THAT(sourced, HasSubstr("tried http://127.0.0.1:2/"));
  EXPECT_THAT(told, HasSubstr("tried http://127.0.0.1:1/"));
}

TEST_F(CloudTest, WithoutAnyItSaysWhatToDo) {
  const auto missing = FindCloud({});
  ASSERT_ERROR(missing, Code::kNotFound);
  EXPECT_NE(missing.error().message().find("--data-dir"), std::string::npos);
}

TEST(Credentials, PasswordsAreLongAndDiffer) {
  const std::string a = NewPassword();
  EXPECT_GE(a.size(), 30u);
  EXPECT_NE(a, NewPassword());
}

TEST(Progress, FormatsTimes) {
  EXPECT_EQ(FormatSeconds(0.2), "0 s");
  EXPECT_EQ(FormatSeconds(59), "59 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 5 s");
  EXPECT_EQ(FormatSeconds(3840), "1 h 4 min");
}

TEST(GuessDiskFormat, LooksAtTheFirstBytes) {
  support::TempDir dir;
  const std::string path = dir / "disk";
  const auto guess = [&](const std::string& content) {
    EXPECT_TRUE(support::IsOk(base::WriteFileDurably(path, content)));
    return GuessDiskFormat(path).value_or("error");
  };
  EXPECT_EQ(guess(""), "raw");
  EXPECT_EQ(guess(std::string("QFI\xfb\0\0\0\3", 8)), "qcow2");
  EXPECT_EQ(guess("KDMV and more"), "vmdk");
  EXPECT_EQ(guess(std::string(64, 'x') + "\x7f\x10\xda\xbe"), "vdi");
  EXPECT_EQ(guess(std::string(32769, '\0') + "CD001"), "iso");
  EXPECT_EQ(guess(std::string(100'000, 'x')), "raw");
  EXPECT_ERROR(GuessDiskFormat(dir / "nosuch"), Code::kNotFound);
}

TEST(Commands, AGroupAloneTeachesItsSubcommands) {
  const Outcome alone = RunCaptured({"image"});
  EXPECT_EQ(alone.exit_code, kUsage);
  EXPECT_THAT(alone.err, HasSubstr("image push     FILE"));
  EXPECT_THAT(alone.err, HasSubstr("quarry image push debian.raw"));
  EXPECT_THAT(alone.err, Not(HasSubstr("scrub")));
  const Outcome asked = RunCaptured({"image", "--help"});
  EXPECT_EQ(asked.exit_code, kOk);
  EXPECT_EQ(asked.out, alone.err);
}

TEST(Commands, ACommandThatIsAGroupAsWellNamesWhatIsBelowIt) {
  const std::string host = RunCaptured({"host", "--help"}).out;
  EXPECT_THAT(host, HasSubstr("--cache-size"));
  EXPECT_THAT(host, HasSubstr("\n  quarry host attach "));
  EXPECT_THAT(host, HasSubstr("\n  quarry host ls "));
  EXPECT_THAT(host, Not(HasSubstr("quarry cache")));
  EXPECT_THAT(RunCaptured({"host", "ls", "--help"}).out, Not(HasSubstr("host detach")));
}

// Where a line's last column begins: after the last run of two blanks.
size_t LastColumn(const std::string& line) { return line.rfind("  ") + 2; }

TEST(Commands, HelpHasStraightColumnsAndAnExampleOfEach) {
  const std::string all = RunCaptured({"--help"}).out;
  const std::string volumes = RunCaptured({"help", "volume"}).out;
  for (const auto& [text, begin] : {std::pair(&all, "  "), {&volumes, "  volume "}}) {
    std::set<size_t> columns;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with(begin)) columns.insert(LastColumn(line));
    EXPECT_EQ(columns.size(), 1u) << *text;
  }
  for (const Command& command : Commands()) {
    std::vector<std::string> asked = {"help"};
    std::istringstream words{std::string(command.name)};
    for (std::string word; words >> word;) asked.push_back(word);
    const std::string help = RunCaptured(asked).out;
    EXPECT_THAT(help, HasSubstr("for example: quarry " + std::string(command.name) + " ")) << help;
  }
}

TEST(Commands, ANearMissIsGuessedAndAFarOneIsNot) {
  EXPECT_THAT(RunCaptured({"stat"}).err, HasSubstr("did you mean `quarry stats`?"));
  EXPECT_THAT(RunCaptured({"push"}).err, HasSubstr("did you mean `quarry image push`?"));
  EXPECT_THAT(RunCaptured({"image", "lst"}).err, HasSubstr("did you mean `quarry image ls`?"));
  EXPECT_EQ(RunCaptured({"frobnicate"}).err,
            "quarry: no command 'frobnicate'; `quarry --help` lists all\n");
  EXPECT_THAT(RunCaptured({"gc", "--orphan"}).err, HasSubstr("did you mean '--orphans'?"));
  EXPECT_THAT(RunCaptured({"gc", "--frobnicate"}).err, Not(HasSubstr("did you mean")));
}

TEST(Commands, HelpListsOnlyWhatTheCommandUses) {
  const std::string gc = RunCaptured({"gc", "--help"}).out;
  EXPECT_THAT(gc, HasSubstr("--store.background-rate"));
  EXPECT_THAT(gc, HasSubstr("`quarry serve --help` has them"));
  for (const char* other : {"--listen", "--http.", "--image.", "--identity.", "AUTH"}) {
    EXPECT_THAT(gc, Not(HasSubstr(other)));
  }
  const Outcome refused = RunCaptured({"gc", "--listen=127.0.0.1:0"});
  EXPECT_EQ(refused.exit_code, kUsage);
  EXPECT_THAT(refused.err, HasSubstr("'--listen' is a setting that this command has no use for"));
  const std::string serve = RunCaptured({"serve", "--help"}).out;
  EXPECT_THAT(serve, HasSubstr("\nidentity:\n  --identity.token-lifetime"));
  EXPECT_THAT(serve, Not(HasSubstr("has them")));
}

TEST(Commands, WordsTooManyAndTooFewAreNamed) {
  EXPECT_THAT(RunCaptured({"image", "pull", "x"}).err, HasSubstr("missing after 'x'"));
  EXPECT_THAT(RunCaptured({"gc", "now"}).err, HasSubstr("'now' is one word too many"));
  EXPECT_THAT(RunCaptured({"stats", "--data-dir"}).err, HasSubstr("--data-dir needs a value"));
}

TEST_F(CloudTest, NobodyAtTheEndpointIsToldWithWhatWasTriedAndWhereItIsFrom) {
  // A port that is ours and does not listen.
  const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(bind(descriptor, generic, length), 0);
  ASSERT_EQ(getsockname(descriptor, generic, &length), 0);
  const std::string url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  ASSERT_OK(WriteCredentials(dir_.path(), url, "RegionOne", "s3cret"));
  const Outcome outcome = RunCaptured({"image", "ls", "--data-dir", dir_.path()});
  close(descriptor);
  EXPECT_EQ(outcome.exit_code, kFailed);
  EXPECT_THAT(outcome.err, HasSubstr("tried " + url + "/identity/v3"));
  EXPECT_THAT(outcome.err, HasSubstr("from cloud 'quarry' in " + dir_.path()));
  EXPECT_THAT(outcome.err, HasSubstr("quarry serve --data-dir"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("s3cret")));
}

TEST(Commands, UnknownOnesAndHelpHaveTheirExitCodes) {
  EXPECT_EQ(cli::Run({}), kUsage);
  EXPECT_EQ(cli::Run({"frobnicate"}), kUsage);
  EXPECT_EQ(cli::Run({"image", "frobnicate"}), kUsage);
  EXPECT_EQ(cli::Run({"--help"}), kOk);
  for (const Command& command : Commands()) {
    std::vector<std::string> args;
    const std::string name(command.name);
    const size_t space = name.find(' ');
    args.push_back(name.substr(0, space));
    if (space != std::string::npos) args.push_back(name.substr(space + 1));
    args.push_back("--help");
    EXPECT_EQ(cli::Run(args), kOk) << name;
    args.back() = "--no-such-option";
    EXPECT_EQ(cli::Run(args), kUsage) << name;
  }
}

}  // namespace
}  // namespace controlplane::cli
