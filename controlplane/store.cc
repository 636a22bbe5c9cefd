#include "controlplane/store.h"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/config.h"
#include "controlplane/cluster_store.h"
#include "controlplane/embedded_store.h"
#include "imaged/data_options.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

namespace {

constexpr char kAdvised[] = "fsck --rebuild-index";
// The metadata stops some way before the end of the disk; a deletion must find room above that.
constexpr uint64_t kLeastReserveBytes = 32 * base::kMiB;
// Backups are read from end to end, once.
constexpr uint64_t kBackupCacheBytes = 8 * base::kMiB;

Result<chunkstore::ChunkStoreOptions> ChunkOptionsOf(const Settings& settings,
                                                     StorePurpose purpose) {
  if (*settings.store_reserve < kLeastReserveBytes) {
    return Error(Code::kInvalidArgument,
                 fmt::format("store.reserve is {}: less than {} would leave no room to delete on a "
                             "full disk",
                             base::FormatBytes(*settings.store_reserve),
                             base::FormatBytes(kLeastReserveBytes)));
  }
  chunkstore::ChunkStoreOptions options;
  options.compression_level = static_cast<int>(*settings.store_compression_level);
  options.cache_bytes =
      purpose == StorePurpose::kBackups ? kBackupCacheBytes : *settings.store_cache;
  options.reserve_bytes = *settings.store_reserve;
  options.lease_ms = imaged::kStoreLeases * *settings.store_lease;
  options.background_bytes_per_s = *settings.store_background_rate;
  return options;
}

}  // namespace

bool SharesStore(const Settings& settings) { return *settings.store_back_end == "ceph"; }

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

Result<std::unique_ptr<Store>> OpenStore(const Settings& settings, base::Metrics& metrics,
                                         StorePurpose purpose) {
  ASSIGN_OR_RETURN(const auto options, ChunkOptionsOf(settings, purpose));
  const bool backups = purpose == StorePurpose::kBackups;
  const auto open = [&]() -> Result<std::unique_ptr<Store>> {
    if (!backups && SharesStore(settings)) return OpenClusterStore(settings, purpose);
    return OpenEmbeddedStore(backups ? *settings.block_backup_dir : *settings.data_dir, purpose);
  };
  ASSIGN_OR_RETURN(auto store, open());
  ASSIGN_OR_RETURN(store->chunks, chunkstore::ChunkStore::Open(options, *store->blobs, *store->meta,
                                                               base::SystemClock(), metrics));
  return store;
}

}  // namespace controlplane
