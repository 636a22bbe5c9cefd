#include "controlplane/convert/sandbox.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "controlplane/convert/syscall_filter.h"

namespace controlplane::convert {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr int kLookMs = 100;  // how often it is asked whether to go on
constexpr int kSignalBase = 128;
constexpr int kFilterDescriptor = STDERR_FILENO + 1;  // in bubblewrap
constexpr std::string_view kSandboxSays = "bwrap: ";  // its own errors begin so

// Owns a descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// What the program is in. /usr has it and its libraries; the links beside are how names lead there.
constexpr std::string_view kNamespaces =
    "--unshare-all --unshare-user --disable-userns --uid 65534 --gid 65534 --cap-drop ALL "
    "--die-with-parent --as-pid-1 --clearenv --setenv LC_ALL C";
constexpr std::string_view kRootDirectory =
    "--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --dev /dev";

// Guests' disks come first.
constexpr std::string_view kAfterOthers = "/usr/bin/nice -n 10";

void AppendWords(std::string_view words, std::vector<std::string>* line) {
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    line->emplace_back(words.substr(0, end));
    words.remove_prefix(std::min(end + 1, words.size()));
  }
}

std::vector<std::string> CommandLine(const SandboxOptions& options,
                                     const std::vector<std::string>& command) {
  std::vector<std::string> line = {options.bwrap};
  AppendWords(kNamespaces, &line);
  AppendWords(kRootDirectory, &line);
  line.insert(line.end(), {"--ro-bind", options.directory, kSandboxDirectory, "--seccomp",
                           std::to_string(kFilterDescriptor)});
  AppendWords("--remount-ro / --chdir / --", &line);
  AppendWords(kAfterOthers, &line);
  const int64_t cpu_s = std::max<int64_t>(1, options.time_ms / 1000);
  line.insert(line.end(), {options.prlimit, fmt::format("--as={}", options.memory_bytes),
                           fmt::format("--cpu={}", cpu_s)});
  AppendWords("--fsize=0 --core=0 --nofile=64 --", &line);
  line.insert(line.end(), command.begin(), command.end());
  return line;
}

// A file in memory that bubblewrap reads the filter from.
Result<int> FilterFile() {
  const std::string filter = SyscallFilter();
  const int fd = ::memfd_create("syscall filter", MFD_CLOEXEC);
  if (fd < 0) return Error(Code::kIo, fmt::format("make a memfd: {}", std::strerror(errno)));
  if (::pwrite(fd, filter.data(), filter.size(), 0) == static_cast<ssize_t>(filter.size()))
    return fd;
  const int failed = errno;
  ::close(fd);
  return Error(Code::kIo, fmt::format("write a memfd: {}", std::strerror(failed)));
}

Result<pid_t> Spawn(const std::vector<std::string>& line, int output, int filter) {
  std::vector<char*> arguments;
  arguments.reserve(line.size() + 1);
  for (const std::string& word : line) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::array<char*, 1> environment = {nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  // Whatever else this process has open is none of its business, close-on-exec or not.
  posix_spawn_file_actions_adddup2(&actions, filter, kFilterDescriptor);
  posix_spawn_file_actions_addclosefrom_np(&actions, kFilterDescriptor + 1);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  sigset_t all;
  sigfillset(&all);
  posix_spawnattr_setsigdefault(&attributes, &all);
  // A session of its own: it has no terminal, and can be killed as a group.
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, line[0].c_str(), &actions, &attributes, arguments.data(),
                                   environment.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == 0) return child;
  if (failed == ENOENT) {
    return Error(Code::kIo,
                 line[0] +
                     " is not there: images are converted inside of it; install the package "
                     "bubblewrap, and qemu-utils with it");
  }
  return Error(Code::kIo, fmt::format("start {}: {}", line[0], std::strerror(failed)));
}

// Waits a little for what comes on the pipe; false when nobody has its other end any more.
bool Look(int fd, std::string* output) {
  pollfd look = {fd, POLLIN, 0};
  if (::poll(&look, 1, kLookMs) <= 0) return true;
  std::array<char, 4096> piece;
  const ssize_t got = ::read(fd, piece.data(), piece.size());
  if (got < 0) return errno == EINTR;
  const size_t room = kMaxSandboxOutputBytes - output->size();
  output->append(piece.data(), std::min<size_t>(room, static_cast<size_t>(got)));
  return got > 0;
}

int Reap(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? kSignalBase + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

Result<SandboxExit> RunConfined(const SandboxOptions& options,
                                const std::vector<std::string>& command,
                                const std::function<bool()>& cancelled) {
  std::array<int, 2> ends = {-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return Error(Code::kIo, fmt::format("make a pipe: {}", std::strerror(errno)));
  const Descriptor reader(ends[0]);
  Descriptor writer(ends[1]);
  ASSIGN_OR_RETURN(const int filter_file, FilterFile());
  const Descriptor filter(filter_file);
  ASSIGN_OR_RETURN(const pid_t child,
                   Spawn(CommandLine(options, command), writer.get(), filter.get()));
  writer.Close();

  const auto started = std::chrono::steady_clock::now();
  const auto past = [&started](int64_t limit_ms) {
    return std::chrono::steady_clock::now() - started > std::chrono::milliseconds(limit_ms);
  };
  SandboxExit exit;
  std::optional<Error> broken_off;
  // Every process of the sandbox has the pipe: it ends with the last of them.
  do {
    if (cancelled()) broken_off = Error(Code::kCancelled, "called off");
    if (past(options.time_ms))
      broken_off = Error(Code::kTooLarge,
                         fmt::format("not done after the {} s allowed", options.time_ms / 1000));
    if (!broken_off.has_value()) continue;
    // The first process of the sandbox is in this group, and everything in it goes with that.
    ::kill(-child, SIGKILL);
    std::string unread;
    while (Look(reader.get(), &unread)) unread.clear();
    break;
  } while (Look(reader.get(), &exit.output));
  exit.code = Reap(child);
  if (broken_off.has_value()) return *broken_off;
  if (exit.output.starts_with(kSandboxSays))
    return Error(Code::kIo, "the sandbox for conversions can't be made here: " + exit.output);
  return exit;
}

}  // namespace controlplane::convert
