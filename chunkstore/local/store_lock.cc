#include "chunkstore/local/store_lock.h"

#include <cerrno>

#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

namespace chunkstore::local {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr uint64_t kMaxPidBytes = 32;

std::string OwnerIn(const base::File& file) {
  Result<uint64_t> size = file.Size();
  if (!size || *size == 0 || *size > kMaxPidBytes) return "unknown";
  std::string pid(*size, '\0');
  base::MutableByteView into{reinterpret_cast<uint8_t*>(pid.data()), pid.size()};
  if (!file.ReadAt(0, into)) return "unknown";
  return pid;
}

}  // namespace

Result<StoreLock> StoreLock::Acquire(base::Files& files, const std::string& path) {
  ASSIGN_OR_RETURN(auto file, files.Open(path, base::Files::Mode::kCreateOrOpen));
  if (file->descriptor() < 0) return StoreLock(std::move(file));
  if (flock(file->descriptor(), LOCK_EX | LOCK_NB) != 0) {
    int error_number = errno;
    if (error_number != EWOULDBLOCK) return base::ErrnoError(error_number, "lock " + path);
    return Error(Code::kConflict,
                 fmt::format("{} is held: the store is open in process {}", path, OwnerIn(*file)));
  }
  std::string pid = std::to_string(getpid());
  base::ByteView bytes = base::AsBytes(pid);
  // The number is for people: on a full disk the lock holds without it.
  Result<void> written = file->Truncate(0);
  if (written) written = file->WriteAt(0, {&bytes, 1});
  if (!written && written.error().code() != Code::kOutOfSpace) return written.error();
  return StoreLock(std::move(file));
}

}  // namespace chunkstore::local
