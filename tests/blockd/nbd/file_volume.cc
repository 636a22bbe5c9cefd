#include "tests/blockd/nbd/file_volume.h"

#include <cerrno>

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace blockd::nbd {
namespace {

class FileVolume : public Volume {
 public:
  FileVolume(int descriptor, uint64_t size_bytes)
      : descriptor_(descriptor), size_bytes_(size_bytes) {}
  ~FileVolume() override { ::close(descriptor_); }

  uint64_t size_bytes() const override { return size_bytes_; }

  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override {
    for (size_t done = 0; done < into.size();) {
      const ssize_t count = ::pread(descriptor_, into.data() + done, into.size() - done,
                                    static_cast<off_t>(offset + done));
      if (count <= 0) return base::ErrnoError(count == 0 ? EIO : errno, "read");
      done += static_cast<size_t>(count);
    }
    return {};
  }

  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override {
    const iovec piece{into.data(), into.size()};
    const ssize_t count = ::preadv2(descriptor_, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    // A file system in memory needs no disk, and so doesn't know how not to wait for one.
    if (count < 0 && errno == EOPNOTSUPP) {
      RETURN_IF_ERROR(Read(offset, into));
      return true;
    }
    return count == static_cast<ssize_t>(into.size());
  }

  base::Result<void> Write(uint64_t offset, base::ByteView data) override {
    for (size_t done = 0; done < data.size();) {
      const ssize_t count = ::pwrite(descriptor_, data.data() + done, data.size() - done,
                                     static_cast<off_t>(offset + done));
      if (count < 0) return base::ErrnoError(errno, "write");
      done += static_cast<size_t>(count);
    }
    return {};
  }

  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override {
    if (length == 0) return {};
    const int mode = free_space ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;
    if (::fallocate(descriptor_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) !=
        0) {
      return base::ErrnoError(errno, "fallocate");
    }
    return {};
  }

  base::Result<void> Flush() override {
    if (::fdatasync(descriptor_) != 0) return base::ErrnoError(errno, "fdatasync");
    return {};
  }

  void Prefetch(uint64_t offset, uint64_t length) override {
    ::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(length),
                    POSIX_FADV_WILLNEED);
  }

  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override {
    visit({offset, length, true, false});
    return {};
  }

 private:
  const int descriptor_;
  const uint64_t size_bytes_;
};

}  // namespace

base::Result<std::shared_ptr<Volume>> OpenFileVolume(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return base::ErrnoError(errno, "open " + path);
  struct stat info{};
  ::fstat(descriptor, &info);
  return std::shared_ptr<Volume>(
      std::make_shared<FileVolume>(descriptor, static_cast<uint64_t>(info.st_size)));
}

}  // namespace blockd::nbd
