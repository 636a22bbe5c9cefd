#include "controlplane/embedded_store.h"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/config.h"
#include "base/files.h"
#include "base/uuid.h"
#include "blockd/backup/home.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"
#include "controlplane/credentials.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

namespace {

// The metadata stops some way before the end of the disk; a deletion must find room above that.
constexpr char kAdvised[] = "fsck --rebuild-index";
constexpr uint64_t kLeastReserveBytes = 32 * base::kMiB;
constexpr uint64_t kLeastRoomBytes = 8 * base::kMiB;
// Backups are read from end to end, once.
constexpr uint64_t kBackupCacheBytes = 8 * base::kMiB;

// Nothing but its trailer and its index says what a blob is for. Without the index all of them look
// like garbage, so a lost or half made one is told before anything is opened.
Result<void> CheckIndex(base::Files& files, const std::string& dir) {
  const std::string advice =
      fmt::format("run `quarry fsck --rebuild-index --data-dir {}`, to its end", dir);
  if (files.Stat(RebuildMarker(dir)).has_value()) {
    return Error(Code::kCorruption,
                 fmt::format("the index of {} was only half made again: {}", dir, advice));
  }
  if (files.Stat(dir + "/meta/CURRENT").has_value()) return {};
  const Result<std::vector<std::string>> folders = files.List(dir + "/blobs");
  if (!folders.has_value()) return {};
  for (const std::string& folder : *folders) {
    ASSIGN_OR_RETURN(const auto names, files.List(dir + "/blobs/" + folder));
    if (names.empty()) continue;
    return Error(Code::kCorruption,
                 fmt::format("{0}/meta is gone, but blobs are there: {1}", dir, advice));
  }
  return {};
}

// RocksDB makes files as it opens; Debian's build aborts where it can't. We leave store.reserve
// free, but we are not alone on a disk.
Result<void> CheckRoom(base::Files& files, const std::string& dir) {
  ASSIGN_OR_RETURN(const base::SpaceInfo space, files.Space(dir));
  if (space.available_bytes >= kLeastRoomBytes) return {};
  return Error(Code::kOutOfSpace,
               fmt::format("the disk of {} is full: {} are left, and {} are needed to open the "
                           "index. Make room, then start again; nothing is lost",
                           dir, base::FormatBytes(space.available_bytes),
                           base::FormatBytes(kLeastRoomBytes)));
}

// Somebody else has it open: what to do depends on what was asked for.
Error ExplainHeld(Error error, const std::string& dir, EmbeddedStore::Purpose purpose) {
  using Purpose = EmbeddedStore::Purpose;
  if (error.code() != Code::kConflict) return error;
  std::string what;
  if (purpose == Purpose::kBackups) {
    what = fmt::format(
        "block.backup-dir: {} is in use: it must be another directory than --data-dir, and of one "
        "service",
        dir);
  } else if (purpose == Purpose::kServe) {
    what = fmt::format(
        "{} is in use: stop that process first, or serve another directory with --data-dir", dir);
  } else if (purpose == Purpose::kInspect && blockd::backup::IsHome(dir)) {
    what = fmt::format(
        "{} holds the backups of a service that runs: ask that, with --backups and with --data-dir "
        "at its own directory",
        dir);
  } else {
    what =
        fmt::format("{} is in use by a process that can't be asked to do this: stop it first", dir);
  }
  return Error(error.code(), fmt::format("{}\n  ({})", what, error.message()));
}

}  // namespace

base::Error ExplainDamage(base::Error error, const std::string& data_dir) {
  // Some that say more of the damage bring their own advice.
  if (error.code() != Code::kCorruption || error.message().find(kAdvised) != std::string::npos)
    return error;
  return Error(error.code(),
               fmt::format("the index in {0}/meta is damaged: run `quarry fsck --rebuild-index "
                           "--data-dir {0}`, which makes it again from the blobs\n  ({1})",
                           data_dir, error.message()));
}

Result<void> ReadIndex(chunkstore::MetaStore& meta) {
  ASSIGN_OR_RETURN(const std::vector<std::string> partitions, meta.Partitions(""));
  for (const std::string& partition : partitions) {
    RETURN_IF_ERROR(meta.Scan(partition, "", "", SIZE_MAX,
                              [](std::string_view, std::string_view) { return true; }));
  }
  return {};
}

Result<std::string> SetIndexAside(const std::string& data_dir) {
  const std::string aside = fmt::format("{}/meta.damaged-{}", data_dir, base::NewUuid());
  RETURN_IF_ERROR(base::WriteFileDurably(RebuildMarker(data_dir),
                                         "the index was damaged; a rebuild of it is under way\n"));
  RETURN_IF_ERROR(base::SystemFiles().Rename(data_dir + "/meta", aside));
  return aside;
}

std::string LayersDir(const std::string& data_dir) { return data_dir + "/layers"; }

std::string RebuildMarker(const std::string& data_dir) { return data_dir + "/REBUILDING"; }

Result<std::unique_ptr<EmbeddedStore>> EmbeddedStore::Open(const Settings& settings,
                                                           base::Metrics& metrics,
                                                           Purpose purpose) {
  base::Files& files = base::SystemFiles();
  const bool backups = purpose == Purpose::kBackups;
  const std::string& dir = backups ? *settings.block_backup_dir : *settings.data_dir;
  if (purpose != Purpose::kServe && !backups) {
    const Result<base::FileInfo> blobs = files.Stat(dir + "/blobs");
    if (!blobs.has_value() && blobs.error().code() != Code::kNotFound)
      return ExplainDenied(blobs.error(), dir);
    if (!blobs.has_value()) {
      return Error(Code::kNotFound,
                   fmt::format("{} is no data directory of Quarry; name one with --data-dir", dir));
    }
  }
  RETURN_IF_ERROR(files.CreateDirs(dir));
  if (purpose != Purpose::kRebuild) RETURN_IF_ERROR(CheckIndex(files, dir));

  RETURN_IF_ERROR(CheckRoom(files, dir));

  auto store = std::make_unique<EmbeddedStore>();
  auto blobs = chunkstore::local::LocalBlobStore::Open(files, dir);
  if (!blobs.has_value())
    return ExplainDenied(ExplainHeld(std::move(blobs).error(), dir, purpose), dir);
  store->blobs = *std::move(blobs);
  auto meta = chunkstore::local::OpenLocalMetaStore(dir + "/meta", {});
  if (!meta.has_value()) return ExplainHeld(std::move(meta).error(), dir, purpose);
  store->meta = *std::move(meta);
  chunkstore::ChunkStoreOptions options;
  options.compression_level = static_cast<int>(*settings.store_compression_level);
  options.cache_bytes = backups ? kBackupCacheBytes : *settings.store_cache;
  if (*settings.store_reserve < kLeastReserveBytes) {
    return Error(Code::kInvalidArgument,
                 fmt::format("store.reserve is {}: less than {} would leave no room to delete on a "
                             "full disk",
                             base::FormatBytes(*settings.store_reserve),
                             base::FormatBytes(kLeastReserveBytes)));
  }
  options.reserve_bytes = *settings.store_reserve;
  options.lease_ms = *settings.store_lease;
  options.background_bytes_per_s = *settings.store_background_rate;
  ASSIGN_OR_RETURN(store->chunks, chunkstore::ChunkStore::Open(options, *store->blobs, *store->meta,
                                                               base::SystemClock(), metrics));
  return store;
}

}  // namespace controlplane
