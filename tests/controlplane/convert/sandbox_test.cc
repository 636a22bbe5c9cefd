#include "controlplane/convert/sandbox.h"

#include <atomic>
#include <string>

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "controlplane/convert/to_raw.h"
#include "tests/controlplane/convert/disk_images.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace controlplane::convert {
namespace {

using base::Code;
using base::Result;

bool Never() { return false; }

class SandboxTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string why = WhyNotTested();
    if (!why.empty()) GTEST_SKIP() << why;
  }

  Result<SandboxExit> Shell(const std::string& script) {
    return RunConfined(options_, {"/usr/bin/bash", "-c", script}, Never);
  }

  const support::TempDir directory_;
  SandboxOptions options_ = {Programs().bwrap, Programs().prlimit, directory_.path(), base::kGiB,
                             30'000};
};

TEST_F(SandboxTest, TellsHowTheProgramEnded) {
  ASSERT_OK_AND_ASSIGN(const SandboxExit fine, Shell("echo out; echo err >&2"));
  EXPECT_EQ(fine.code, 0);
  EXPECT_EQ(fine.output, "out\nerr\n");
  ASSERT_OK_AND_ASSIGN(const SandboxExit failed, Shell("exit 3"));
  EXPECT_EQ(failed.code, 3);
}

TEST_F(SandboxTest, KeepsOnlySoMuchOfWhatItSays) {
  ASSERT_OK_AND_ASSIGN(const SandboxExit exit, Shell("head -c 1000000 /dev/zero | tr '\\0' x"));
  EXPECT_EQ(exit.code, 0);
  EXPECT_EQ(exit.output, std::string(kMaxSandboxOutputBytes, 'x'));
}

TEST_F(SandboxTest, SeesItsDirectoryAndNoOtherFile) {
  const support::TempDir elsewhere;
  WriteFile(elsewhere / "secret", "s3cret");
  WriteFile(directory_ / "mine", "mine");
  ASSERT_OK_AND_ASSIGN(const SandboxExit mine, Shell("cat /job/mine"));
  EXPECT_EQ(mine.output, "mine");
  for (const std::string& path :
       {elsewhere / "secret", std::string("/etc/passwd"), std::string("/proc/self/status"),
        std::string("/proc/1/root/etc/passwd"), directory_.path() + "/mine"}) {
    ASSERT_OK_AND_ASSIGN(const SandboxExit exit, Shell("cat " + path + " >/dev/null"));
    EXPECT_NE(exit.code, 0) << path;
  }
  ASSERT_OK_AND_ASSIGN(const SandboxExit root, Shell("echo /*"));
  EXPECT_EQ(root.output, "/dev /job /lib /lib64 /usr\n");
}

TEST_F(SandboxTest, WritesNothing) {
  for (const char* path : {"/job/new", "/new", "/usr/new", "/dev/shm/new", "/dev/new"}) {
    ASSERT_OK_AND_ASSIGN(const SandboxExit exit,
                         Shell(fmt::format("(echo x > {0}) 2>/dev/null; test -s {0}", path)));
    EXPECT_NE(exit.code, 0) << path;
  }
}

TEST_F(SandboxTest, HasNoNetworkAndNoPrivileges) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof(address);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const std::string connect = fmt::format("echo > /dev/tcp/127.0.0.1/{}", ntohs(address.sin_port));
  RunTool({"bash", "-c", connect});  // where there is a network, this ends well
  ASSERT_OK_AND_ASSIGN(const SandboxExit net, Shell(connect));
  EXPECT_NE(net.code, 0);
  ::close(listener);
  ASSERT_OK_AND_ASSIGN(const SandboxExit id, Shell("id -u; id -g"));
  EXPECT_EQ(id.output, "65534\n65534\n");
  for (const char* attempt : {"mount -t tmpfs x /job", "unshare -U true", "unshare -n true"}) {
    ASSERT_OK_AND_ASSIGN(const SandboxExit exit, Shell(std::string(attempt) + " 2>/dev/null"));
    EXPECT_NE(exit.code, 0) << attempt;
  }
  ASSERT_OK_AND_ASSIGN(const SandboxExit environment,
                       Shell("echo \"$HOME$USER$QUARRY_AUTH_PASSWORD\""));
  EXPECT_EQ(environment.output, "\n");
}

// Calls that the namespaces alone would let through, or leave to the kernel's own checks.
TEST_F(SandboxTest, AsksLittleOfTheKernel) {
  const std::string python = R"(
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def says(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall(number, *arguments)
    return errno.errorcode.get(ctypes.get_errno(), "done")
for name, arguments in (CALLS):
    print(name, says(*arguments))
try:
    socket.socket(socket.AF_INET)
    print("inet done")
except OSError as error:
    print("inet", errno.errorcode[error.errno])
socket.socketpair(socket.AF_UNIX)
)";
  const std::string calls = fmt::format(
      "('ptrace', ({}, 0, 0, 0, 0)), ('keyctl', ({}, 0, -3, 0)), ('personality', ({}, "
      "0xffffffff)), "
      "('io_uring', ({}, 1, 0)), ('new user', ({}, 0x10000000 | 17, 0, 0, 0, 0)), "
      "('clone3', ({}, 0, 0))",
      SYS_ptrace, SYS_keyctl, SYS_personality, SYS_io_uring_setup, SYS_clone, SYS_clone3);
  std::string script = python;
  script.replace(script.find("CALLS"), 5, calls);
  WriteFile(directory_ / "ask.py", script);
  ASSERT_OK_AND_ASSIGN(
      const SandboxExit exit,
      RunConfined(options_, {"/usr/bin/python3", "-I", "-S", "/job/ask.py"}, Never));
  EXPECT_EQ(exit.output,
            "ptrace EPERM\nkeyctl EPERM\npersonality EPERM\nio_uring EPERM\nnew user EPERM\n"
            "clone3 ENOSYS\ninet EAFNOSUPPORT\n");
  EXPECT_EQ(exit.code, 0);
}

TEST_F(SandboxTest, HasOnlySoMuchMemory) {
  const std::string script = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}";
  ASSERT_OK_AND_ASSIGN(const SandboxExit enough, Shell(script));
  EXPECT_EQ(enough.output, "60000000\n");
  options_.memory_bytes = 50 * base::kMiB;
  ASSERT_OK_AND_ASSIGN(const SandboxExit exit, Shell(script));
  EXPECT_EQ(exit.output.find("60000000"), std::string::npos);
}

// A process that outlived the sandbox would hold the pipe, and the call would not come back.
TEST_F(SandboxTest, EndsEverythingWhenItsTimeIsOver) {
  options_.time_ms = 300;
  EXPECT_ERROR(Shell("(setsid sleep 1000 &) ; sleep 1000"), Code::kTooLarge);
}

TEST_F(SandboxTest, EndsEverythingWhenItIsCalledOff) {
  std::atomic<int> asked{0};
  const auto cancelled = [&asked] { return ++asked > 2; };
  EXPECT_ERROR(
      RunConfined(options_, {"/usr/bin/bash", "-c", "setsid sleep 1000 & sleep 1000"}, cancelled),
      Code::kCancelled);
}

// The program holds a FIFO open for as long as it lives.
TEST_F(SandboxTest, DiesWithTheProcessThatBeganIt) {
  ASSERT_EQ(::mkfifo((directory_ / "fifo").c_str(), 0666), 0);
  const pid_t service = ::fork();
  ASSERT_GE(service, 0);
  if (service == 0) {
    (void)Shell("exec 3< /job/fifo; sleep 1000").has_value();
    ::_exit(0);
  }
  const int fifo = ::open((directory_ / "fifo").c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fifo, 0);
  ::kill(service, SIGKILL);
  ::waitpid(service, nullptr, 0);
  pollfd look = {fifo, 0, 0};
  ASSERT_EQ(::poll(&look, 1, 60'000), 1) << "it lives on";
  EXPECT_TRUE(look.revents & POLLERR);
  ::close(fifo);
}

TEST_F(SandboxTest, SaysWhatIsMissing) {
  options_.bwrap = directory_ / "no-bwrap";
  const auto missing = Shell("true");
  ASSERT_ERROR(missing, Code::kIo);
  EXPECT_NE(missing.error().message().find("bubblewrap"), std::string::npos);
  // And what a bubblewrap says that may not do its work is no word of the program's.
  WriteFile(directory_ / "refused", "#!/bin/sh\necho 'bwrap: No permissions' >&2; exit 1\n");
  ASSERT_EQ(::chmod((directory_ / "refused").c_str(), 0755), 0);
  options_.bwrap = directory_ / "refused";
  EXPECT_ERROR(Shell("true"), Code::kIo);
}

}  // namespace
}  // namespace controlplane::convert
