#include "blockd/chunk/live_pages.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <climits>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"

#ifndef STATX_MNT_ID_UNIQUE  // Linux 6.8: one that no later mount gets
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

namespace blockd::chunk {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr std::string_view kMagic = "QRLIVE\n";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kFirstValid = 1;  // page of the file where the bits of valid pages begin
constexpr uint64_t kBitsPerPage = kMapPageBytes * 8;
constexpr uint64_t kBitsPerWord = 64;
constexpr uint64_t kFirstPage = kFirstValid + kMaxMapPages / kBitsPerPage;
constexpr uint64_t kMappedBytes = (kFirstPage + kMaxMapPages) * kMapPageBytes;

static_assert(sizeof(MapWords) == kMapPageBytes && MapWords::value_type::is_always_lock_free);

Error LastError(std::string_view operation, const std::string& what) {
  const int error_number = errno;
  return base::ErrnoError(error_number, std::string(operation) + " " + what);
}

// The number that the kernel gave the mounted file system of a device: that of its directory in
// sysfs, which is the same in every mount namespace and never given twice in a boot (kernfs). 0:
// the file system has none there.
uint64_t MountedNumber(uint32_t major, uint32_t minor) {
  std::array<char, PATH_MAX> link;
  const std::string device = fmt::format("/sys/dev/block/{}:{}", major, minor);
  const ssize_t length = ::readlink(device.c_str(), link.data(), link.size());
  if (length <= 0) return 0;
  const std::string_view target(link.data(), static_cast<size_t>(length));
  for (const char* type : {"ext4", "xfs"}) {
    struct stat found{};
    const std::string path =
        fmt::format("/sys/fs/{}/{}", type, target.substr(target.rfind('/') + 1));
    if (::stat(path.c_str(), &found) == 0) return found.st_ino;
  }
  return 0;
}

// Which file it is, and which time its file system was mounted; empty if that can't be told.
std::string IdentityOf(const base::File& file) {
  struct statx found{};
  if (file.descriptor() < 0) return "";
  const unsigned int wanted = STATX_INO | STATX_BTIME | STATX_MNT_ID;
  // The unique one takes the place of the other where the kernel knows it.
  if (::statx(file.descriptor(), "", AT_EMPTY_PATH, wanted | STATX_MNT_ID_UNIQUE, &found) != 0)
    return "";
  const uint64_t mounted = MountedNumber(found.stx_dev_major, found.stx_dev_minor);
  std::string identity(mounted != 0 ? "mounted" : "mount");
  base::PutFixed<uint64_t>(&identity, mounted != 0 ? mounted : found.stx_mnt_id);
  base::PutFixed<uint32_t>(&identity, found.stx_mask & (wanted | STATX_MNT_ID_UNIQUE));
  base::PutFixed<uint32_t>(&identity, found.stx_dev_major);
  base::PutFixed<uint32_t>(&identity, found.stx_dev_minor);
  base::PutFixed<uint64_t>(&identity, found.stx_ino);
  base::PutFixed<uint64_t>(&identity, static_cast<uint64_t>(found.stx_btime.tv_sec));
  base::PutFixed<uint32_t>(&identity, found.stx_btime.tv_nsec);
  return identity;
}

std::string HeaderFor(const LiveDir& dir, const std::string& id, const base::File& data) {
  const std::string identity = IdentityOf(data);
  if (dir.descriptor() < 0 || identity.empty()) return "";
  std::string header(kMagic);
  base::PutFixed<uint32_t>(&header, kVersion);
  base::PutString(&header, dir.boot_id());
  base::PutString(&header, id);
  base::PutString(&header, identity);
  const uint64_t hash = base::Xxh3(base::AsBytes(header)).low;
  base::PutFixed<uint64_t>(&header, hash);
  CHECK(header.size() <= kMapPageBytes);
  header.resize(kMapPageBytes, '\0');
  return header;
}

// As much of it as there is.
Result<uint64_t> ReadUpTo(int descriptor, uint64_t offset, base::MutableByteView into) {
  uint64_t done = 0;
  while (done < into.size()) {
    const ssize_t got = ::pread(descriptor, into.data() + done, into.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return LastError("read", "live pages");
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  return done;
}

}  // namespace

Result<std::unique_ptr<LivePages>> LivePages::Open(std::shared_ptr<LiveDir> dir,
                                                   const std::string& id, const base::File& data) {
  if (dir == nullptr) return Private();
  std::string header = HeaderFor(*dir, id, data);
  std::unique_ptr<LivePages> pages(new LivePages(std::move(dir), id, std::move(header)));
  Result<void> adopted = pages->Adopt();
  if (adopted || adopted.error().code() == Code::kNotFound) return pages;
  if (adopted.error().code() != Code::kCorruption) return std::move(adopted).error();
  pages->DropFound(adopted.error().message());
  return pages;
}

std::unique_ptr<LivePages> LivePages::Private() {
  return std::unique_ptr<LivePages>(new LivePages(nullptr, "", ""));
}

LivePages::~LivePages() {
  base::MutexLock lock(mutex_);
  CloseFile();
  if (dir_ != nullptr) dir_->RemovePrivatePages(counted_);
}

Result<void> LivePages::OpenFile(int flags) {
  descriptor_ = ::openat(dir_->descriptor(), id_.c_str(), flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC,
                         S_IRUSR | S_IWUSR);
  if (descriptor_ < 0) return LastError("open", dir_->path() + "/" + id_);
  // Of addresses alone: the file is as large as what was taken of it.
  void* const mapped =
      ::mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (mapped == MAP_FAILED) return LastError("map", dir_->path() + "/" + id_);
  mapped_ = static_cast<uint8_t*>(mapped);
  return {};
}

void LivePages::CloseFile() {
  if (mapped_ != nullptr) ::munmap(mapped_, kMappedBytes);
  if (descriptor_ >= 0) ::close(descriptor_);
  mapped_ = nullptr;
  descriptor_ = -1;
}

MapWords* LivePages::At(uint64_t file_page) {
  return reinterpret_cast<MapWords*>(mapped_ + file_page * kMapPageBytes);
}

Result<void> LivePages::TakeSpace(uint64_t file_page) {
  const auto offset = static_cast<off_t>(file_page * kMapPageBytes);
  while (::fallocate(descriptor_, 0, offset, kMapPageBytes) != 0) {
    if (errno != EINTR) return LastError("take space of", dir_->path() + "/" + id_);
  }
  return {};
}

// ---- what a process before this one left

Result<void> LivePages::Adopt() {
  base::MutexLock lock(mutex_);
  if (dir_->descriptor() < 0) return {};
  RETURN_IF_ERROR(OpenFile(0));
  ASSIGN_OR_RETURN(const bool begun, ReadHeader());
  if (begun) return ReadFound();
  CloseFile();
  dir_->Remove(id_);
  return {};
}

// False: killed between making the file and the end of its header. No page was in it yet.
Result<bool> LivePages::ReadHeader() {
  struct stat file{};
  if (::fstat(descriptor_, &file) != 0) return LastError("stat", id_);
  std::string header(kMapPageBytes, '\0');
  ASSIGN_OR_RETURN(
      const uint64_t length,
      ReadUpTo(descriptor_, 0, {reinterpret_cast<uint8_t*>(header.data()), header.size()}));
  const bool own = S_ISREG(file.st_mode) && file.st_uid == ::geteuid();
  if (own && length == header.size() && header == header_) return true;
  const bool unfinished = std::ranges::equal(
      header, header_, [](char found, char meant) { return found == meant || found == '\0'; });
  if (own && unfinished && static_cast<uint64_t>(file.st_size) <= kMapPageBytes) return false;
  return Error(
      Code::kCorruption,
      "it is of another boot, of another file, or of another mount of its file system, or damaged");
}

Result<void> LivePages::ReadFound() {
  struct stat file{};
  if (::fstat(descriptor_, &file) != 0) return LastError("stat", id_);
  std::vector<uint64_t> valid(kMaxMapPages / kBitsPerWord);
  ASSIGN_OR_RETURN(const uint64_t length,
                   ReadUpTo(descriptor_, kFirstValid * kMapPageBytes,
                            {reinterpret_cast<uint8_t*>(valid.data()), kMaxMapPages / 8}));
  for (uint64_t word = 0; word < length / sizeof(uint64_t); ++word) {
    for (uint64_t bits = valid[word]; bits != 0; bits &= bits - 1) {
      const uint64_t number = word * kBitsPerWord + static_cast<uint64_t>(std::countr_zero(bits));
      const uint64_t page = kFirstPage + number;
      if ((page + 1) * kMapPageBytes > static_cast<uint64_t>(file.st_size))
        return Error(Code::kCorruption, "it is cut short");
      // It has it, unless somebody punched a hole.
      if (!TakeSpace(page)) return Error(Code::kCorruption, "it has a hole");
      found_.push_back({number, At(page)});
    }
  }
  return {};
}

void LivePages::DropFound(const std::string& why) {
  base::MutexLock lock(mutex_);
  LOG(kWarn, "blockd",
      "what a process before this one left of layer {} in {} is not used, so writes that were not "
      "flushed are as after a power loss: {}",
      id_, dir_->path(), why);
  found_.clear();
  CloseFile();
  dir_->Remove(id_);
}

// ---- new pages

Result<void> LivePages::Create() {
  RETURN_IF_ERROR(OpenFile(O_CREAT | O_EXCL));
  RETURN_IF_ERROR(TakeSpace(0));
  std::copy(header_.begin(), header_.end(), mapped_);
  return {};
}

Result<MapWords*> LivePages::MakeLive(uint64_t number, const Words& words) {
  if (header_.empty()) return Error(Code::kIo, "the file system can't tell which file is which");
  if (mapped_ == nullptr) {
    Result<void> created = Create();
    if (!created) {
      CloseFile();
      dir_->Remove(id_);
      return std::move(created).error();
    }
  }
  const uint64_t valid_page = kFirstValid + number / kBitsPerPage;
  RETURN_IF_ERROR(TakeSpace(valid_page));
  RETURN_IF_ERROR(TakeSpace(kFirstPage + number));
  MapWords* const page = At(kFirstPage + number);
  for (size_t i = 0; i < words.size(); ++i) (*page)[i].store(words[i], std::memory_order_relaxed);
  const uint64_t bit = number % kBitsPerPage;
  (*At(valid_page))[bit / kBitsPerWord].fetch_or(uint64_t{1} << bit % kBitsPerWord);
  return page;
}

MapWords* LivePages::Make(uint64_t number, const Words& words) {
  CHECK(number < kMaxMapPages);
  base::MutexLock lock(mutex_);
  if (dir_ != nullptr && !discarded_) {
    Result<MapWords*> made = MakeLive(number, words);
    if (made) return *made;
    ++counted_;
    dir_->AddPrivatePage(made.error().ToString());
  }
  private_.push_back(std::make_unique<MapWords>());
  MapWords* const page = private_.back().get();
  for (size_t i = 0; i < words.size(); ++i) (*page)[i].store(words[i], std::memory_order_relaxed);
  return page;
}

void LivePages::Discard() {
  base::MutexLock lock(mutex_);
  discarded_ = true;
  if (dir_ != nullptr) dir_->Remove(id_);
}

}  // namespace blockd::chunk
