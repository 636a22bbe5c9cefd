#include "blockd/chunk/live_dir.h"

#include <cerrno>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "base/result.h"

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr char kMarkName[] = "/live";
constexpr uint64_t kMaxMarkBytes = 8192;
constexpr mode_t kOthersMayWrite = S_IWGRP | S_IWOTH;

Error LastError(std::string_view operation, const std::string& path) {
  const int error_number = errno;
  return base::ErrnoError(error_number, std::string(operation) + " " + path);
}

// A descriptor of a directory that is ours alone.
Result<int> OpenOurs(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return LastError("open", path);
  struct stat found{};
  const bool ours = ::fstat(descriptor, &found) == 0 && found.st_uid == ::geteuid() &&
                    (found.st_mode & kOthersMayWrite) == 0;
  if (ours) return descriptor;
  ::close(descriptor);
  return Error(Code::kPermissionDenied,
               path + " is not ours alone: somebody else owns it, or may write to it");
}

std::vector<std::string> NamesIn(int directory) {
  std::vector<std::string> names;
  const int again = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const entries = again < 0 ? nullptr : ::fdopendir(again);
  if (entries == nullptr) {
    if (again >= 0) ::close(again);
    return names;
  }
  while (const dirent* entry = ::readdir(entries)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(entries);
  return names;
}

Result<int> MakeOurs(const std::string& path) {
  if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) return LastError("mkdir", path);
  return OpenOurs(path);
}

// What the directory of these layers is called, wherever it is: moved layers keep it, and a copy of
// them (with the mark) must not take it from those it was copied from.
Result<std::string> NameFor(const std::string& layers) {
  struct stat found{};
  if (::stat(layers.c_str(), &found) != 0) return LastError("stat", layers);
  return fmt::format("/quarry-{}-{:x}-{:x}", ::geteuid(), found.st_dev, found.st_ino);
}

// The directory that a process of this boot named and didn't take back; empty if there is none.
std::string Marked(const std::string& mark, const std::string& boot_id, const std::string& name) {
  const Result<std::string> text = base::ReadWholeFile(mark, kMaxMarkBytes);
  const std::string begin = boot_id + "\n";
  if (boot_id.empty() || !text || !text->starts_with(begin) || !text->ends_with(name + "\n"))
    return "";
  return text->substr(begin.size(), text->size() - begin.size() - 1);
}

void RemoveAllIn(int directory) {
  for (const std::string& name : NamesIn(directory)) (void)::unlinkat(directory, name.c_str(), 0);
}

// What lies there without a mark is of no use: nobody knows who has changed the layers since.
Result<int> MakeAndMark(const std::string& path, const std::string& mark,
                        const std::string& boot_id) {
  if (boot_id.empty()) return Error(Code::kIo, "this machine does not tell its boot id");
  ASSIGN_OR_RETURN(const int directory, MakeOurs(path));
  RemoveAllIn(directory);
  Result<void> marked =
      base::WriteFileDurably(mark, boot_id + "\n" + path + "\n", S_IRUSR | S_IWUSR);
  if (marked) return directory;
  ::close(directory);
  return std::move(marked).error();
}

}  // namespace

std::string LiveDir::BootId() {
  Result<std::string> text = base::ReadWholeFile("/proc/sys/kernel/random/boot_id", 64);
  if (!text) return "";
  return text->substr(0, text->find('\n'));
}

std::shared_ptr<LiveDir> LiveDir::Open(const std::string& layers, const std::string& parent,
                                       base::Gauge& private_pages, const std::string& boot_id) {
  const std::string mark = layers + kMarkName;
  const Result<std::string> name = NameFor(layers);
  const std::string left = name ? Marked(mark, boot_id, *name) : "";
  if (!left.empty()) {
    const Result<int> opened = OpenOurs(left);
    if (opened)
      return std::shared_ptr<LiveDir>(new LiveDir(left, *opened, mark, boot_id, private_pages));
  }
  if (parent.empty()) return nullptr;
  const std::string path = parent + name.value_or("");
  const Result<int> made = name ? MakeAndMark(path, mark, boot_id) : Result<int>(name.error());
  if (!made) {
    LOG(kError, "blockd",
        "maps of layers are in the process's memory alone, so a kill of the service loses writes "
        "that were not flushed, until this is mended (see block.live_dir): {}",
        made.error().ToString());
  }
  return std::shared_ptr<LiveDir>(
      new LiveDir(path, made.value_or(-1), mark, boot_id, private_pages));
}

LiveDir::~LiveDir() {
  private_pages_.Add(-static_cast<double>(private_now_.load()));
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (::rmdir(path_.c_str()) == 0) ::unlink(mark_.c_str());
}

std::vector<std::string> LiveDir::Ids() const { return NamesIn(descriptor_); }

void LiveDir::Remove(const std::string& id) {
  if (descriptor_ < 0 || ::unlinkat(descriptor_, id.c_str(), 0) == 0 || errno == ENOENT) return;
  LOG(kError, "blockd", "{}", LastError("remove", path_ + "/" + id).ToString());
}

void LiveDir::AddPrivatePage(const std::string& why) {
  private_pages_.Add(1);
  const bool first = private_now_.fetch_add(1) == 0;
  if (!first || descriptor_ < 0) return;  // that it can't be used was said
  LOG(kError, "blockd",
      "pages of layers' maps have to be in the process's memory, so a kill of the service loses "
      "writes there that were not flushed (quarry_volumes_private_map_pages counts them): {}",
      why);
}

void LiveDir::RemovePrivatePages(size_t pages) {
  private_pages_.Add(-static_cast<double>(pages));
  private_now_.fetch_sub(pages);
}

}  // namespace blockd::chunk
