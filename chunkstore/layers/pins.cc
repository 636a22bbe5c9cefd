#include "chunkstore/layers/pins.h"

#include <algorithm>

#include <boost/unordered/unordered_flat_map.hpp>
#include <fmt/format.h>

#include "base/coding.h"
#include "base/hash.h"
#include "base/log.h"

namespace chunkstore::layers {

using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;

namespace {

constexpr std::string_view kPrefix = "pins-";
constexpr std::string_view kNewSuffix = ".new";
constexpr size_t kHashBytes = 16;
constexpr uint64_t kFileGridBytes = 4 * base::kKiB;  // what files take is a multiple of this

uint64_t OnDisk(uint64_t size_bytes) {
  return (size_bytes + kFileGridBytes - 1) / kFileGridBytes * kFileGridBytes;
}

uint64_t SumOf(const std::vector<PinnedBlock>& blocks) {
  uint64_t sum = 0;
  for (const PinnedBlock& block : blocks) sum += block.stored_length;
  return sum;
}

// Each block once.
void Normalize(std::vector<PinnedBlock>& blocks) {
  std::ranges::sort(blocks, {}, &PinnedBlock::key);
  const auto same = std::ranges::unique(blocks, {}, &PinnedBlock::key);
  blocks.erase(same.begin(), same.end());
  blocks.shrink_to_fit();
}

}  // namespace

// How many groups want a block.
struct Pins::Counts {
  struct Wanted {
    uint32_t groups = 0;
    uint32_t stored_length = 0;
  };
  boost::unordered_flat_map<BlockKey, Wanted> blocks;
};

Pins::Pins(base::Files& files, std::string directory, const Limits& limits)
    : files_(files),
      directory_(std::move(directory)),
      limits_(limits),
      counts_(std::make_unique<Counts>()) {}

Pins::~Pins() = default;

bool Pins::IsOurs(const std::string& file_name) { return file_name.starts_with(kPrefix); }

std::string Pins::PathOf(const std::string& name) const {
  const base::Digest256 hash = base::Sha256(base::AsBytes(name));
  return fmt::format("{}/{}{}", directory_, kPrefix,
                     base::ToHex(hash.view().substr(0, kHashBytes)));
}

// --- what is there at the start

Result<std::unique_ptr<Pins>> Pins::Open(base::Files& files, const std::string& directory,
                                         const Limits& limits) {
  std::unique_ptr<Pins> pins(new Pins(files, directory, limits));
  RETURN_IF_ERROR(pins->Load());
  return pins;
}

Result<void> Pins::Load() {
  ASSIGN_OR_RETURN(std::vector<std::string> names, files_.List(directory_));
  std::ranges::sort(names);
  for (const std::string& file : names) {
    if (!IsOurs(file)) continue;
    const std::string path = directory_ + "/" + file;
    Result<void> taken;
    if (file.ends_with(kNewSuffix)) {
      RETURN_IF_ERROR(files_.Remove(path));  // never finished
      continue;
    }
    Result<PinGroup> group = Read(path);
    if (group && PathOf(group->name) != path)
      group = Error(Code::kCorruption, "it has the name of another group");
    if (group) {
      Normalize(group->blocks);
      const uint64_t bytes = SumOf(group->blocks);
      const uint64_t file_bytes = OnDisk(EncodePins(*group).size());
      Result<Stored> before =
          Exchange(group->name,
                   {.file_bytes = file_bytes, .blocks = std::move(group->blocks), .bytes = bytes});
      if (!before) taken = before.error();
    } else {
      taken = group.error();
    }
    if (taken) continue;
    LOG(kWarn, "chunkstore", "what {} pinned in the cache is pinned no more: {}", path,
        taken.error().message());
    RETURN_IF_ERROR(files_.Remove(path));
  }
  return {};
}

Result<PinGroup> Pins::Read(const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, files_.Open(path, base::Files::Mode::kRead));
  ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > limits_.file_bytes) {
    return Error(Code::kTooLarge,
                 fmt::format("{} bytes of lists are more than the limit has room for", size));
  }
  std::string bytes(size, '\0');
  RETURN_IF_ERROR(file->ReadAt(0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return DecodePins(bytes);
}

// --- changes

Result<void> Pins::Pin(PinGroup group) {
  MutexLock change(change_mutex_);
  Normalize(group.blocks);
  const std::string bytes = EncodePins(group);
  const uint64_t sum = SumOf(group.blocks);
  ASSIGN_OR_RETURN(Stored before, Exchange(group.name, {.file_bytes = OnDisk(bytes.size()),
                                                        .blocks = std::move(group.blocks),
                                                        .bytes = sum}));
  Result<void> written = WriteFile(PathOf(group.name), bytes);
  MutexLock lock(mutex_);
  file_bytes_ -= before.file_bytes;
  if (written) return {};
  Take(group.name);
  file_bytes_ -= OnDisk(bytes.size());
  if (before.file_bytes == 0) return written;
  file_bytes_ += before.file_bytes;
  Put(group.name, std::move(before));
  return written;
}

Result<Pins::Stored> Pins::Exchange(const std::string& name, Stored stored) {
  MutexLock lock(mutex_);
  Stored before = Take(name);
  const uint64_t file_bytes = stored.file_bytes;
  Put(name, std::move(stored));
  Result<void> fits;
  if (bytes_ > limits_.pinned_bytes) {
    fits = Error(Code::kTooLarge,
                 fmt::format("{} bytes would be pinned, and half the limit of the cache, {}, is "
                             "what may be: unpin something, or raise the limit",
                             bytes_, limits_.pinned_bytes));
  } else if (file_bytes_ + file_bytes > limits_.file_bytes) {
    fits = Error(Code::kTooLarge,
                 fmt::format("the lists of pinned blocks would take {} bytes, and {} is what they "
                             "may take: unpin something, or raise the limit of the cache",
                             file_bytes_ + file_bytes, limits_.file_bytes));
  }
  if (fits) {
    file_bytes_ += file_bytes;
    return before;
  }
  Take(name);
  if (before.file_bytes > 0) Put(name, std::move(before));
  return fits.error();
}

Result<void> Pins::WriteFile(const std::string& path, std::string_view bytes) {
  const std::string beside = path + std::string(kNewSuffix);
  const auto write = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(auto file, files_.Open(beside, base::Files::Mode::kCreateOrOpen));
    RETURN_IF_ERROR(file->Truncate(0));
    const base::ByteView piece = base::AsBytes(bytes);
    RETURN_IF_ERROR(file->WriteAt(0, {&piece, 1}));
    RETURN_IF_ERROR(file->Sync());
    RETURN_IF_ERROR(files_.Rename(beside, path));
    return files_.SyncDir(directory_);
  };
  Result<void> written = write();
  if (!written) (void)files_.Remove(beside);
  return std::move(written).Annotate("write the list of pinned blocks");
}

Result<void> Pins::Unpin(const std::string& name) {
  MutexLock change(change_mutex_);
  {
    MutexLock lock(mutex_);
    if (!groups_.contains(name))
      return Error(Code::kNotFound, fmt::format("nothing is pinned under the name {}", name));
  }
  Result<void> removed = files_.Remove(PathOf(name));
  if (!removed && removed.error().code() != Code::kNotFound) return removed;
  RETURN_IF_ERROR(files_.SyncDir(directory_));
  MutexLock lock(mutex_);
  file_bytes_ -= Take(name).file_bytes;
  return {};
}

void Pins::Put(const std::string& name, Stored stored) {
  for (const PinnedBlock& block : stored.blocks) {
    auto [it, added] = counts_->blocks.try_emplace(block.key);
    if (added) {
      it->second.stored_length = block.stored_length;
      bytes_ += block.stored_length;
    }
    ++it->second.groups;
  }
  groups_[name] = std::move(stored);
}

Pins::Stored Pins::Take(const std::string& name) {
  const auto group = groups_.extract(name);
  if (group.empty()) return {};
  for (const PinnedBlock& block : group.mapped().blocks) {
    const auto it = counts_->blocks.find(block.key);
    if (--it->second.groups > 0) continue;
    bytes_ -= it->second.stored_length;
    counts_->blocks.erase(it);
  }
  return std::move(group.mapped());
}

// --- looking

std::vector<Pins::Group> Pins::groups() const {
  MutexLock lock(mutex_);
  std::vector<Group> groups;
  for (const auto& [name, stored] : groups_)
    groups.push_back({.name = name, .blocks = stored.blocks.size(), .bytes = stored.bytes});
  return groups;
}

bool Pins::Has(BlockKey key) const {
  MutexLock lock(mutex_);
  return counts_->blocks.contains(key);
}

uint64_t Pins::blocks() const {
  MutexLock lock(mutex_);
  return counts_->blocks.size();
}

uint64_t Pins::bytes() const {
  MutexLock lock(mutex_);
  return bytes_;
}

uint64_t Pins::file_bytes() const {
  MutexLock lock(mutex_);
  return file_bytes_;
}

}  // namespace chunkstore::layers
