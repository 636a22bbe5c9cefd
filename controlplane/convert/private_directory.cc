#include "controlplane/convert/private_directory.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace controlplane::convert {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr std::string_view kPrefix = "quarry-convert-";

std::string TemporaryFiles() {
  std::error_code failed;
  const std::string path = std::filesystem::temp_directory_path(failed).string();
  return failed ? "/tmp" : path;
}

// A descriptor of the directory that holds its lock; -1: another has it, or it is none.
int Lock(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || ::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return -1;
}

bool IsOurs(int fd) {
  struct stat info{};
  return ::fstat(fd, &info) == 0 && info.st_uid == ::geteuid();
}

void Remove(const std::string& path) {
  std::error_code ignored;
  std::filesystem::remove_all(path, ignored);
}

}  // namespace

Result<std::unique_ptr<PrivateDirectory>> PrivateDirectory::Make() {
  constexpr int kAttempts = 8;
  std::string path;
  for (int i = 0; i < kAttempts; ++i) {
    path = fmt::format("{}/{}XXXXXX", TemporaryFiles(), kPrefix);
    if (::mkdtemp(path.data()) == nullptr)
      return Error(Code::kIo, fmt::format("make a directory {}: {}", path, std::strerror(errno)));
    const int lock = Lock(path);
    struct stat info{};
    // Without its lock it looked abandoned for a moment.
    if (lock >= 0 && ::fstat(lock, &info) == 0 && info.st_nlink > 0)
      return std::unique_ptr<PrivateDirectory>(new PrivateDirectory(std::move(path), lock));
    if (lock >= 0) ::close(lock);
  }
  return Error(Code::kIo, path + ": somebody else removes or locks such directories");
}

PrivateDirectory::~PrivateDirectory() {
  Remove(path_);
  ::close(lock_);
}

void RemoveAbandonedDirectories() {
  std::error_code failed;
  std::filesystem::directory_iterator entries(TemporaryFiles(), failed);
  for (; !failed && entries != std::filesystem::directory_iterator(); entries.increment(failed)) {
    const std::string path = entries->path().string();
    if (!entries->path().filename().string().starts_with(kPrefix)) continue;
    const int lock = Lock(path);
    if (lock < 0) continue;
    if (IsOurs(lock)) Remove(path);
    ::close(lock);
  }
}

}  // namespace controlplane::convert
