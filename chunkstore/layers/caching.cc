#include "chunkstore/layers/caching.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/check.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_log.h"
#include "chunkstore/layers/cache_counts.h"
#include "chunkstore/layers/fetching.h"
#include "chunkstore/layers/flights.h"
#include "chunkstore/layers/pins.h"
#include "chunkstore/layers/place_index.h"
#include "chunkstore/local/store_lock.h"

namespace chunkstore::layers {

using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

constexpr std::string_view kLockFile = "lock";
constexpr std::string_view kBlocksFile = "blocks";
constexpr std::string_view kLostAndFound = "lost+found";  // of a file system of its own
// What of the limit is not blocks: lists of pinned ones; the extents of the file of blocks, which
// file systems count as its; the directory and the lock.
constexpr uint64_t kPinFilesDivisor = 128;
constexpr uint64_t kExtentsDivisor = 128;
constexpr uint64_t kFixedBytes = 64 * base::kKiB;
// A block that is moved while it is read is looked for again.
constexpr int kReadTries = 3;

// What a thread reads stored bytes into, and plain ones of which not all are wanted.
struct Scratch {
  std::array<uint8_t, kMaxBlockBytes> stored;
  std::array<uint8_t, kMaxBlockBytes> plain;
};

Scratch& ThreadScratch() {
  thread_local const auto scratch = std::make_unique<Scratch>();
  return *scratch;
}

bool SameBlock(const BlockInfo& a, const BlockInfo& b) {
  return a.name == b.name && a.plain_length == b.plain_length && a.hash == b.hash;
}

Result<void> CheckOptions(const BlockDiskCacheOptions& options) {
  if (options.limit_bytes >= BlockDiskCache::kMinLimitBytes &&
      options.limit_bytes <= BlockDiskCache::kMaxLimitBytes)
    return {};
  return Error(Code::kInvalidArgument,
               fmt::format("a cache of {} bytes can't be: from {}MiB to {}TiB will do",
                           options.limit_bytes, BlockDiskCache::kMinLimitBytes / base::kMiB,
                           BlockDiskCache::kMaxLimitBytes / base::kTiB));
}

// A directory with other files is somebody's mistake, and not to be filled.
Result<void> CheckDirectory(base::Files& files, const std::string& directory) {
  RETURN_IF_ERROR(files.CreateDirs(directory));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files.List(directory));
  for (const std::string& name : names) {
    if (name == kLockFile || name == kBlocksFile || name == kLostAndFound || Pins::IsOurs(name))
      continue;
    return Error(Code::kConflict, fmt::format("{} holds {}, which is not of a cache: give the "
                                              "cache a directory of its own",
                                              directory, name));
  }
  return {};
}

}  // namespace

struct BlockDiskCache::Impl {
  Impl(const BlockDiskCacheOptions& cache_options, base::Metrics& metrics,
       local::StoreLock store_lock)
      : options(cache_options), lock(std::move(store_lock)), counts(metrics) {}

  enum class OnDisk {
    kNo,     // or not any more
    kAhead,  // fetched before anybody read it, and read now for the first time
    kYes,
  };
  OnDisk ReadFromDisk(const Wanted& wanted, size_t number);
  Result<void> Bring(const Wanted& wanted, std::vector<size_t> numbers);
  Result<void> Await(const Wanted& wanted, size_t number, Flight& flight,
                     std::vector<size_t>* again);
  uint64_t disk_bytes() const { return log->file_bytes() + pins->file_bytes() + kFixedBytes; }
  void UpdateGauges();

  const BlockDiskCacheOptions options;
  const local::StoreLock lock;
  CacheCounts counts;
  PlaceIndex index;
  std::unique_ptr<Pins> pins;
  std::unique_ptr<BlockLog> log;
  Flights flights;
};

// --- opening

Result<std::unique_ptr<BlockDiskCache>> BlockDiskCache::Open(const BlockDiskCacheOptions& options,
                                                             base::Metrics& metrics,
                                                             base::Files& files,
                                                             const base::Clock& clock) {
  RETURN_IF_ERROR(CheckOptions(options));
  const std::string& directory = options.directory;
  RETURN_IF_ERROR(CheckDirectory(files, directory));
  ASSIGN_OR_RETURN(local::StoreLock lock,
                   local::StoreLock::Acquire(files, fmt::format("{}/{}", directory, kLockFile))
                       .Annotate("the cache is in use"));
  auto impl = std::make_unique<Impl>(options, metrics, std::move(lock));
  const uint64_t pin_files_bytes = options.limit_bytes / kPinFilesDivisor;
  ASSIGN_OR_RETURN(impl->pins, Pins::Open(files, directory,
                                          {.pinned_bytes = options.limit_bytes / kPinnedDivisor,
                                           .file_bytes = pin_files_bytes}));
  const BlockLog::Options log_options{.path = fmt::format("{}/{}", directory, kBlocksFile),
                                      .limit_bytes = options.limit_bytes,
                                      .max_file_bytes = options.limit_bytes - pin_files_bytes -
                                                        options.limit_bytes / kExtentsDivisor -
                                                        kFixedBytes,
                                      .retry_write_ms = options.retry_write_ms};
  ASSIGN_OR_RETURN(impl->log, BlockLog::Open(log_options, files, clock, impl->index, *impl->pins,
                                             impl->counts.evicted_blocks));
  impl->counts.limit_bytes.Set(static_cast<double>(options.limit_bytes));
  impl->UpdateGauges();
  return std::unique_ptr<BlockDiskCache>(new BlockDiskCache(std::move(impl)));
}

BlockDiskCache::BlockDiskCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BlockDiskCache::~BlockDiskCache() = default;

// --- reading

Result<void> BlockDiskCache::Read(BlockSource& source, uint64_t index,
                                  std::span<const BlockInfo> table, uint32_t offset,
                                  MutableByteView into) {
  ASSIGN_OR_RETURN(const uint32_t length, CheckTable(table));
  if (offset > length || into.size() > length - offset) {
    return Error(Code::kInvalidArgument,
                 fmt::format("{} bytes from {} on are not in chunk {}, which has {}", into.size(),
                             offset, index, length));
  }
  if (into.empty()) return {};
  const Wanted wanted(source, index, table, offset, into);
  std::vector<size_t> missing;
  uint64_t missing_bytes = 0;
  uint64_t ahead_blocks = 0;
  uint64_t ahead_bytes = 0;
  for (const size_t number : wanted.numbers()) {
    const Impl::OnDisk on_disk = impl_->ReadFromDisk(wanted, number);
    if (on_disk == Impl::OnDisk::kYes) continue;
    if (on_disk == Impl::OnDisk::kNo) {
      missing.push_back(number);
      missing_bytes += wanted.BytesOf(number);
    } else {
      ++ahead_blocks;
      ahead_bytes += wanted.BytesOf(number);
    }
  }
  CacheCounts& counts = impl_->counts;
  counts.hit_blocks.Add(wanted.numbers().size() - missing.size() - ahead_blocks);
  counts.hit_plain_bytes.Add(into.size() - missing_bytes - ahead_bytes);
  counts.ahead_blocks.Add(ahead_blocks);
  counts.ahead_plain_bytes.Add(ahead_bytes);
  if (missing.empty()) return {};
  counts.miss_blocks.Add(missing.size());
  counts.miss_plain_bytes.Add(missing_bytes);
  return impl_->Bring(wanted, std::move(missing));
}

Result<void> BlockDiskCache::Warm(BlockSource& source, uint64_t index,
                                  std::span<const BlockInfo> table,
                                  std::span<const size_t> numbers) {
  RETURN_IF_ERROR(CheckTable(table));
  std::vector<size_t> missing;
  for (const size_t number : numbers) {
    if (number >= table.size() || (!missing.empty() && number <= missing.back())) {
      return Error(Code::kInvalidArgument,
                   fmt::format("chunk {} has {} blocks, and they are fetched in ascending order",
                               index, table.size()));
    }
    if (!impl_->index.Find(KeyOf(table[number].name))) missing.push_back(number);
  }
  if (missing.empty()) return {};
  return impl_->Bring(Wanted(source, index, table), std::move(missing));
}

BlockDiskCache::Impl::OnDisk BlockDiskCache::Impl::ReadFromDisk(const Wanted& wanted,
                                                                size_t number) {
  const BlockInfo& info = wanted.table[number];
  const BlockKey key = KeyOf(info.name);
  for (int tries = 0; tries < kReadTries; ++tries) {
    const auto found = index.Find(key);
    if (!found) return OnDisk::kNo;
    if (found->place.length == info.stored_length) {
      Scratch& scratch = ThreadScratch();
      const MutableByteView stored = MutableByteView(scratch.stored).first(info.stored_length);
      const MutableByteView room = wanted.RoomFor(number);
      const MutableByteView plain =
          room.empty() ? MutableByteView(scratch.plain).first(info.plain_length) : room;
      if (log->ReadAt(found->place, stored) && DecodeBlock(info, stored, plain)) {
        if (room.empty()) wanted.Deliver(number, plain);
        log->NoteUse(key, *found);
        const bool first = found->ahead && index.ClearAhead(key, found->place);
        return first ? OnDisk::kAhead : OnDisk::kYes;
      }
    }
    const auto again = index.Find(key);
    if (!again || again->place != found->place) continue;  // it was moved meanwhile
    log->DropDamaged(key, found->place);
    counts.damaged_blocks.Add(1);
    return OnDisk::kNo;
  }
  return OnDisk::kNo;
}

// Fetches what nobody else is fetching, then waits for what others are.
Result<void> BlockDiskCache::Impl::Bring(const Wanted& wanted, std::vector<size_t> numbers) {
  while (!numbers.empty()) {
    Fetching fetching(flights, *log, counts, wanted);
    std::vector<std::pair<size_t, std::shared_ptr<Flight>>> theirs;
    std::vector<size_t> here, again;
    for (const size_t number : numbers) {
      const BlockInfo& info = wanted.table[number];
      Flights::Claim claim = flights.Join(wanted.source, info,
                                          [&] { return index.Find(KeyOf(info.name)).has_value(); });
      if (!claim.flight) {
        here.push_back(number);
      } else if (claim.ours) {
        fetching.Add(number, std::move(claim.flight));
      } else {
        theirs.emplace_back(number, std::move(claim.flight));
      }
    }
    Result<void> fetched = fetching.Run();
    UpdateGauges();
    RETURN_IF_ERROR(fetched);
    for (const size_t number : here)
      if (wanted.reads() && ReadFromDisk(wanted, number) == OnDisk::kNo) again.push_back(number);
    for (const auto& [number, flight] : theirs)
      RETURN_IF_ERROR(Await(wanted, number, *flight, &again));
    std::ranges::sort(again);
    numbers = std::move(again);
  }
  return {};
}

Result<void> BlockDiskCache::Impl::Await(const Wanted& wanted, size_t number, Flight& flight,
                                         std::vector<size_t>* again) {
  const Result<base::ByteView> plain = flight.Wait();
  if (plain && SameBlock(flight.info(), wanted.table[number])) {
    wanted.Deliver(number, *plain);
    return {};
  }
  if (!plain && flight.source() == &wanted.source) return plain.error();
  // Another image's troubles: it may be deleted, or not ours to read.
  flight.WaitEnded();
  again->push_back(number);
  return {};
}

// --- upkeep

Result<void> BlockDiskCache::Pin(const std::string& group, std::span<const BlockInfo> blocks) {
  if (group.empty() || group.size() > kMaxGroupNameBytes) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the name of what is pinned has {} bytes: 1 to {} will do",
                             group.size(), kMaxGroupNameBytes));
  }
  PinGroup pinned{.name = group, .blocks = {}};
  pinned.blocks.reserve(blocks.size());
  for (const BlockInfo& info : blocks) {
    RETURN_IF_ERROR(CheckTable({&info, 1}));
    pinned.blocks.push_back({.key = KeyOf(info.name), .stored_length = info.stored_length});
  }
  Result<void> done = impl_->pins->Pin(std::move(pinned));
  impl_->UpdateGauges();
  return done;
}

Result<void> BlockDiskCache::Unpin(const std::string& group) {
  Result<void> done = impl_->pins->Unpin(group);
  impl_->UpdateGauges();
  return done;
}

std::vector<BlockDiskCache::PinnedGroup> BlockDiskCache::PinnedGroups() const {
  std::vector<PinnedGroup> groups;
  for (Pins::Group& group : impl_->pins->groups())
    groups.push_back({.name = std::move(group.name), .blocks = group.blocks, .bytes = group.bytes});
  return groups;
}

Result<BlockDiskCache::Dropped> BlockDiskCache::Drop(std::span<const BlockName> names) {
  std::vector<BlockKey> keys;
  keys.reserve(names.size());
  for (const BlockName& name : names) keys.push_back(KeyOf(name));
  const Result<BlockLog::Dropped> dropped = impl_->log->Drop(keys);
  impl_->UpdateGauges();
  if (!dropped) return dropped.error();
  return Dropped{dropped->blocks, dropped->bytes, dropped->pinned_blocks};
}

Result<BlockDiskCache::Dropped> BlockDiskCache::DropAll() {
  const Result<BlockLog::Dropped> dropped = impl_->log->DropAll();
  impl_->UpdateGauges();
  if (!dropped) return dropped.error();
  return Dropped{dropped->blocks, dropped->bytes, dropped->pinned_blocks};
}

void BlockDiskCache::Impl::UpdateGauges() {
  counts.disk_bytes.Set(static_cast<double>(disk_bytes()));
  counts.used_bytes.Set(static_cast<double>(index.bytes()));
  counts.blocks.Set(static_cast<double>(index.blocks()));
  counts.pinned_bytes.Set(static_cast<double>(pins->bytes()));
}

BlockDiskCache::Stats BlockDiskCache::stats() const {
  const CacheCounts& counts = impl_->counts;
  return {.limit_bytes = impl_->options.limit_bytes,
          .disk_bytes = impl_->disk_bytes(),
          .blocks = impl_->index.blocks(),
          .used_bytes = impl_->index.bytes(),
          .pinned_blocks = impl_->pins->blocks(),
          .pinned_bytes = impl_->pins->bytes(),
          .hit_blocks = counts.hit_blocks.get(),
          .hit_plain_bytes = counts.hit_plain_bytes.get(),
          .ahead_blocks = counts.ahead_blocks.get(),
          .ahead_plain_bytes = counts.ahead_plain_bytes.get(),
          .miss_blocks = counts.miss_blocks.get(),
          .miss_plain_bytes = counts.miss_plain_bytes.get(),
          .fetched_blocks = counts.fetched_blocks.get(),
          .fetched_bytes = counts.fetched_bytes.get(),
          .ahead_fetched_bytes = counts.ahead_fetched_bytes.get(),
          .evicted_blocks = counts.evicted_blocks.get(),
          .damaged_blocks = counts.damaged_blocks.get(),
          .unkept_blocks = counts.unkept_blocks.get(),
          .writing = !impl_->log->resting()};
}

}  // namespace chunkstore::layers
