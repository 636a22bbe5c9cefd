#include "base/files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/uuid.h"

namespace base {
namespace {

constexpr mode_t kFileMode = 0600;  // tenants' bytes: nobody else's business
constexpr mode_t kDirMode = 0700;
constexpr size_t kMaxPieces = 64;  // pieces for one system call; more take several

Error LastError(std::string_view operation, const std::string& path) {
  int error_number = errno;
  return ErrnoError(error_number, std::string(operation) + " " + path);
}

// Owns a descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

int OpenRetrying(const std::string& path, int flags, mode_t mode) {
  int descriptor;
  do {
    descriptor = open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

Result<void> WriteFully(int descriptor, const std::string& path, uint64_t offset,
                        std::span<const ByteView> pieces) {
  size_t skip = 0;  // bytes of pieces[0] that are written
  while (!pieces.empty()) {
    std::array<iovec, kMaxPieces> vectors;
    size_t count = std::min(pieces.size(), kMaxPieces);
    for (size_t i = 0; i < count; ++i) {
      ByteView piece = i == 0 ? pieces[i].subspan(skip) : pieces[i];
      vectors[i] = {const_cast<uint8_t*>(piece.data()), piece.size()};
    }
    ssize_t put =
        pwritev(descriptor, vectors.data(), static_cast<int>(count), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return LastError("write", path);
    offset += static_cast<uint64_t>(put);
    size_t left = static_cast<size_t>(put);
    while (!pieces.empty() && left >= pieces[0].size() - skip) {
      left -= pieces[0].size() - skip;
      skip = 0;
      pieces = pieces.subspan(1);
    }
    skip += left;
  }
  return {};
}

// Bulk that is on the grid of pages, in memory and in the file, goes past the page cache: copying
// it there costs more than all else of a write (a fifth of the whole work of an upload), and
// whoever writes so much at once syncs it and does not read it back soon. Returns how many bytes of
// `bulk` are written, possibly none: where the file system has no direct I/O, and after an error,
// the rest is written as ever (and the error, if it stays, is told there).
size_t WriteDirect(int descriptor, uint64_t offset, ByteView bulk) {
  constexpr size_t kPageBytes = 4096;
  constexpr size_t kLeastBytes = 1 * kMiB;
  bool aligned =
      offset % kPageBytes == 0 && reinterpret_cast<uintptr_t>(bulk.data()) % kPageBytes == 0;
  if (!aligned || bulk.size() < kLeastBytes) return 0;
  // A second open file for the same inode, so that the flag is nobody else's.
  std::string self = "/proc/self/fd/" + std::to_string(descriptor);
  Descriptor direct(open(self.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC));
  if (direct.get() < 0) return 0;
  size_t whole = bulk.size() / kPageBytes * kPageBytes;
  size_t done = 0;
  while (done < whole && done % kPageBytes == 0) {
    ssize_t put =
        pwrite(direct.get(), bulk.data() + done, whole - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) break;
    done += static_cast<size_t>(put);
  }
  return done;
}

class SystemFile : public File {
 public:
  SystemFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  Result<void> ReadAt(uint64_t offset, MutableByteView into) const override {
    while (!into.empty()) {
      ssize_t got = pread(descriptor_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return LastError("read", path_);
      if (got == 0) return Error(Code::kCorruption, path_ + " is cut short");
      offset += static_cast<uint64_t>(got);
      into = into.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  Result<bool> TryReadAt(uint64_t offset, MutableByteView into) const override {
    while (!into.empty()) {
      iovec vector = {into.data(), into.size()};
      ssize_t got = preadv2(descriptor_.get(), &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) return false;
      if (got < 0) return LastError("read", path_);
      if (got == 0) return Error(Code::kCorruption, path_ + " is cut short");
      offset += static_cast<uint64_t>(got);
      into = into.subspan(static_cast<size_t>(got));
    }
    return true;
  }

  Result<void> WriteAt(uint64_t offset, std::span<const ByteView> pieces) override {
    return WriteFully(descriptor_.get(), path_, offset, pieces);
  }

  Result<void> WriteBulkAt(uint64_t offset, std::span<const ByteView> pieces) override {
    if (pieces.empty()) return {};
    size_t direct = WriteDirect(descriptor_.get(), offset, pieces[0]);
    if (direct == 0) return WriteFully(descriptor_.get(), path_, offset, pieces);
    std::vector<ByteView> rest(pieces.begin(), pieces.end());
    rest[0] = rest[0].subspan(direct);
    return WriteFully(descriptor_.get(), path_, offset + direct, rest);
  }

  Result<void> PunchHole(uint64_t offset, uint64_t length) override {
    if (length == 0) return {};
    return Fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  Result<void> Allocate(uint64_t size_bytes) override {
    if (size_bytes == 0) return {};
    return Fallocate(0, 0, size_bytes);
  }

  Result<void> Sync() override {
    if (fdatasync(descriptor_.get()) != 0) return LastError("sync", path_);
    return {};
  }

  void StartWriteback() override {
    sync_file_range(descriptor_.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }

  void WillRead(uint64_t offset, uint64_t length) const override {
    posix_fadvise(descriptor_.get(), static_cast<off_t>(offset), static_cast<off_t>(length),
                  POSIX_FADV_WILLNEED);
  }

  Result<void> Truncate(uint64_t size_bytes) override {
    if (ftruncate(descriptor_.get(), static_cast<off_t>(size_bytes)) != 0)
      return LastError("truncate", path_);
    return {};
  }

  Result<uint64_t> Size() const override {
    struct stat info;
    if (fstat(descriptor_.get(), &info) != 0) return LastError("stat", path_);
    return static_cast<uint64_t>(info.st_size);
  }

  int descriptor() const override { return descriptor_.get(); }

 private:
  Result<void> Fallocate(int mode, uint64_t offset, uint64_t length) {
    int failed;
    do {
      failed = fallocate(descriptor_.get(), mode, static_cast<off_t>(offset),
                         static_cast<off_t>(length));
    } while (failed != 0 && errno == EINTR);
    if (failed != 0) return LastError("allocate or punch", path_);
    return {};
  }

  Descriptor descriptor_;
  std::string path_;
};

int OpenFlags(Files::Mode mode) {
  switch (mode) {
    case Files::Mode::kRead:
      return O_RDONLY;
    case Files::Mode::kReadWrite:
      return O_RDWR;
    case Files::Mode::kCreateNew:
      return O_RDWR | O_CREAT | O_EXCL;
    case Files::Mode::kCreateOrOpen:
      return O_RDWR | O_CREAT;
  }
  return O_RDONLY;
}

class MachineFiles : public Files {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, Mode mode) override {
    int descriptor = OpenRetrying(path, OpenFlags(mode), kFileMode);
    if (descriptor < 0) return LastError("open", path);
    return std::unique_ptr<File>(std::make_unique<SystemFile>(descriptor, path));
  }

  Result<void> Remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0) return LastError("remove", path);
    return {};
  }

  Result<void> Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) != 0) return LastError("rename to " + to, from);
    return {};
  }

  Result<void> CreateDirs(const std::string& path) override {
    for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      std::string prefix = path.substr(0, end);
      if (mkdir(prefix.c_str(), kDirMode) != 0 && errno != EEXIST)
        return LastError("create directory", prefix);
      if (end == std::string::npos) break;
    }
    ASSIGN_OR_RETURN(FileInfo info, Stat(path));
    if (!info.is_directory) return ErrnoError(ENOTDIR, "create directory " + path);
    return {};
  }

  Result<void> SyncDir(const std::string& path) override {
    Descriptor directory(OpenRetrying(path, O_RDONLY | O_DIRECTORY, 0));
    if (directory.get() < 0) return LastError("open directory", path);
    if (fsync(directory.get()) != 0) return LastError("sync directory", path);
    return {};
  }

  Result<std::vector<std::string>> List(const std::string& dir) override {
    auto close_directory = [](DIR* directory) { closedir(directory); };
    std::unique_ptr<DIR, decltype(close_directory)> directory(opendir(dir.c_str()),
                                                              close_directory);
    if (directory == nullptr) return LastError("list", dir);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      dirent* entry = readdir(directory.get());
      if (entry == nullptr && errno != 0) return LastError("list", dir);
      if (entry == nullptr) return names;
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
  }

  Result<FileInfo> Stat(const std::string& path) override {
    struct stat found;
    if (stat(path.c_str(), &found) != 0) return LastError("stat", path);
    FileInfo info;
    info.size_bytes = static_cast<uint64_t>(found.st_size);
    info.allocated_bytes = static_cast<uint64_t>(found.st_blocks) * 512;  // st_blocks' unit
    info.modified_us = found.st_mtim.tv_sec * 1'000'000 + found.st_mtim.tv_nsec / 1000;
    info.is_directory = S_ISDIR(found.st_mode);
    return info;
  }

  Result<SpaceInfo> Space(const std::string& path) override {
    struct statvfs found;
    if (statvfs(path.c_str(), &found) != 0) return LastError("ask for free space of", path);
    SpaceInfo info;
    info.capacity_bytes = static_cast<uint64_t>(found.f_blocks) * found.f_frsize;
    info.available_bytes = static_cast<uint64_t>(found.f_bavail) * found.f_frsize;
    return info;
  }
};

std::string DirectoryOf(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> WriteNewFile(const std::string& path, std::string_view content, int mode) {
  Descriptor file(OpenRetrying(path, O_WRONLY | O_CREAT | O_EXCL, static_cast<mode_t>(mode)));
  if (file.get() < 0) return LastError("create", path);
  // Whatever the umask: the caller said which.
  if (fchmod(file.get(), static_cast<mode_t>(mode)) != 0) return LastError("set mode of", path);
  ByteView bytes = AsBytes(content);
  RETURN_IF_ERROR(WriteFully(file.get(), path, 0, std::span<const ByteView>(&bytes, 1)));
  if (fsync(file.get()) != 0) return LastError("sync", path);
  return {};
}

}  // namespace

Files& SystemFiles() {
  static MachineFiles files;
  return files;
}

Result<std::string> ReadWholeFile(const std::string& path, uint64_t limit_bytes) {
  Descriptor file(OpenRetrying(path, O_RDONLY, 0));
  if (file.get() < 0) return LastError("open", path);
  std::string content;
  std::array<char, 64 * 1024> piece;
  for (;;) {
    ssize_t got = read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return LastError("read", path);
    if (got == 0) return content;
    content.append(piece.data(), static_cast<size_t>(got));
    if (content.size() > limit_bytes) {
      return Error(Code::kTooLarge, path + " is longer than the " + std::to_string(limit_bytes) +
                                        " bytes that are read at most");
    }
  }
}

Result<void> WriteFileDurably(const std::string& path, std::string_view content, int mode) {
  std::string beside = path + ".new-" + NewUuidHex();
  Result<void> written = WriteNewFile(beside, content, mode);
  if (written.has_value()) written = SystemFiles().Rename(beside, path);
  if (!written.has_value()) {
    unlink(beside.c_str());
    return written;
  }
  return SystemFiles().SyncDir(DirectoryOf(path));
}

}  // namespace base
