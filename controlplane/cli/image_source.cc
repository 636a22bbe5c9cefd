#include "controlplane/cli/image_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "controlplane/cli/interrupt.h"

namespace controlplane::cli {
namespace {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

Error SystemError(const std::string& path, const char* what) {
  const Code code = errno == ENOENT ? Code::kNotFound : Code::kIo;
  return Error(code, fmt::format("{} {}: {}", what, path, std::strerror(errno)));
}

class FileSource : public ImageSource {
 public:
  FileSource(std::unique_ptr<base::File> file, const struct stat& state)
      : file_(std::move(file)), state_(state) {}

  Result<void> ReadHead() {
    head_.resize(std::min<uint64_t>(kHeadBytes, size_bytes()));
    return file_->ReadAt(0, head_);
  }

  const base::File* file() const override { return file_.get(); }
  uint64_t size_bytes() const override { return static_cast<uint64_t>(state_.st_size); }
  ByteView head() const override { return head_; }

  Result<size_t> Next(MutableByteView into) override {
    const size_t length = std::min<uint64_t>(into.size(), size_bytes() - offset_);
    const Result<void> read = file_->ReadAt(offset_, into.first(length));
    if (!read.has_value()) {
      if (read.error().code() == Code::kCorruption) return ChangedMeanwhile("it is shorter now");
      return read.error();
    }
    offset_ += length;
    if (offset_ == size_bytes()) RETURN_IF_ERROR(CheckUnchanged());
    return length;
  }

  uint64_t NextData(uint64_t offset) const override {
    const off_t next = ::lseek(file_->descriptor(), static_cast<off_t>(offset), SEEK_DATA);
    if (next >= 0) return static_cast<uint64_t>(next);
    return errno == ENXIO ? size_bytes() : offset;  // else a file system that does not know
  }

  Result<void> CheckUnchanged() const override {
    struct stat now{};
    if (::fstat(file_->descriptor(), &now) != 0) return SystemError("the file", "looking at");
    const auto same = [](const timespec& a, const timespec& b) {
      return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
    };
    if (now.st_size == state_.st_size && same(now.st_mtim, state_.st_mtim)) return {};
    return ChangedMeanwhile("");
  }

 private:
  const std::unique_ptr<base::File> file_;
  const struct stat state_;
  std::vector<uint8_t> head_;
  uint64_t offset_ = 0;
};

class PipeSource : public ImageSource {
 public:
  PipeSource(int descriptor, bool owned) : descriptor_(descriptor), owned_(owned) {}
  ~PipeSource() override {
    if (owned_) ::close(descriptor_);
  }

  Result<void> ReadHead() {
    head_.resize(kHeadBytes);
    ASSIGN_OR_RETURN(const size_t length, Fill(head_));
    head_.resize(length);
    return {};
  }

  const base::File* file() const override { return nullptr; }
  uint64_t size_bytes() const override { return 0; }
  ByteView head() const override { return head_; }

  Result<size_t> Next(MutableByteView into) override {
    const size_t kept = std::min(into.size(), head_.size() - given_);
    if (kept == 0) return Fill(into);
    std::copy_n(head_.begin() + static_cast<ptrdiff_t>(given_), kept, into.begin());
    given_ += kept;
    return kept;
  }
  uint64_t NextData(uint64_t offset) const override { return offset; }
  Result<void> CheckUnchanged() const override { return {}; }

 private:
  // As far as the pipe goes.
  Result<size_t> Fill(MutableByteView into) const {
    size_t done = 0;
    while (done < into.size()) {
      const ssize_t count = ::read(descriptor_, into.data() + done, into.size() - done);
      if (count < 0 && errno == EINTR) {
        RETURN_IF_ERROR(CheckInterrupt());
        continue;
      }
      if (count < 0) return SystemError("the pipe", "reading");
      if (count == 0) break;
      done += static_cast<size_t>(count);
    }
    return done;
  }

  const int descriptor_;
  const bool owned_;
  std::vector<uint8_t> head_;
  size_t given_ = 0;
};

}  // namespace

Error ChangedMeanwhile(const std::string& where) {
  return Error(Code::kCancelled, fmt::format("the file changed while it was pushed{}{}: push it "
                                             "when nobody writes to it",
                                             where.empty() ? "" : ": ", where));
}

Result<std::unique_ptr<ImageSource>> ImageSource::Open(const std::string& path) {
  struct stat state{};
  const int looked = path == "-" ? ::fstat(STDIN_FILENO, &state) : ::stat(path.c_str(), &state);
  if (looked != 0) return SystemError(path, "opening");
  if (S_ISDIR(state.st_mode)) {
    return Error(Code::kInvalidArgument, fmt::format("{} is a directory, not a disk image", path));
  }
  if (path == "-" || !S_ISREG(state.st_mode)) {
    const int descriptor = path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return SystemError(path, "opening");
    auto pipe = std::make_unique<PipeSource>(descriptor, path != "-");
    RETURN_IF_ERROR(pipe->ReadHead());
    return std::unique_ptr<ImageSource>(std::move(pipe));
  }
  ASSIGN_OR_RETURN(auto file, base::SystemFiles().Open(path, base::Files::Mode::kRead));
  if (::fstat(file->descriptor(), &state) != 0) return SystemError(path, "looking at");
  auto source = std::make_unique<FileSource>(std::move(file), state);
  RETURN_IF_ERROR(source->ReadHead());
  return std::unique_ptr<ImageSource>(std::move(source));
}

}  // namespace controlplane::cli
