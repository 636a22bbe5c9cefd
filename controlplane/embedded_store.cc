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

constexpr uint64_t kLeastRoomBytes = 8 * base::kMiB;

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
Error ExplainHeld(Error error, const std::string& dir, StorePurpose purpose) {
  if (error.code() != Code::kConflict) return error;
  std::string what;
  if (purpose == StorePurpose::kBackups) {
    what = fmt::format(
        "block.backup-dir: {} is in use: it must be another directory than --data-dir, and of one "
        "service",
        dir);
  } else if (purpose == StorePurpose::kServe) {
    what = fmt::format(
        "{} is in use: stop that process first, or serve another directory with --data-dir", dir);
  } else if (purpose == StorePurpose::kInspect && blockd::backup::IsHome(dir)) {
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

Result<std::string> SetIndexAside(const std::string& data_dir) {
  const std::string aside = fmt::format("{}/meta.damaged-{}", data_dir, base::NewUuid());
  RETURN_IF_ERROR(base::WriteFileDurably(RebuildMarker(data_dir),
                                         "the index was damaged; a rebuild of it is under way\n"));
  RETURN_IF_ERROR(base::SystemFiles().Rename(data_dir + "/meta", aside));
  return aside;
}

std::string LayersDir(const std::string& data_dir) { return data_dir + "/layers"; }

std::string RebuildMarker(const std::string& data_dir) { return data_dir + "/REBUILDING"; }

Result<std::unique_ptr<Store>> OpenEmbeddedStore(const std::string& dir, StorePurpose purpose) {
  base::Files& files = base::SystemFiles();
  if (purpose == StorePurpose::kInspect || purpose == StorePurpose::kRebuild) {
    const Result<base::FileInfo> blobs = files.Stat(dir + "/blobs");
    if (!blobs.has_value() && blobs.error().code() != Code::kNotFound)
      return ExplainDenied(blobs.error(), dir);
    if (!blobs.has_value()) {
      return Error(Code::kNotFound,
                   fmt::format("{} is no data directory of Quarry; name one with --data-dir", dir));
    }
  }
  RETURN_IF_ERROR(files.CreateDirs(dir));
  if (purpose != StorePurpose::kRebuild) RETURN_IF_ERROR(CheckIndex(files, dir));

  RETURN_IF_ERROR(CheckRoom(files, dir));

  auto store = std::make_unique<Store>();
  auto blobs = chunkstore::local::LocalBlobStore::Open(files, dir);
  if (!blobs.has_value())
    return ExplainDenied(ExplainHeld(std::move(blobs).error(), dir, purpose), dir);
  store->blobs = *std::move(blobs);
  auto meta = chunkstore::local::OpenLocalMetaStore(dir + "/meta", {});
  if (!meta.has_value()) return ExplainHeld(std::move(meta).error(), dir, purpose);
  store->meta = *std::move(meta);
  return store;
}

}  // namespace controlplane
