#include "controlplane/embedded_store.h"

#include <utility>

#include <fmt/format.h>

#include "base/files.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/local/local_meta_store.h"

namespace controlplane {

using base::Code;
using base::Error;
using base::Result;

Result<std::unique_ptr<EmbeddedStore>> EmbeddedStore::Open(const Settings& settings,
                                                           base::Metrics& metrics, bool create) {
  base::Files& files = base::SystemFiles();
  const std::string& dir = *settings.data_dir;
  if (!create && !files.Stat(dir + "/blobs").has_value()) {
    return Error(Code::kNotFound,
                 fmt::format("{} is no data directory of Quarry; name one with --data-dir", dir));
  }
  RETURN_IF_ERROR(files.CreateDirs(dir));

  auto store = std::make_unique<EmbeddedStore>();
  ASSIGN_OR_RETURN(store->blobs, chunkstore::local::LocalBlobStore::Open(files, dir));
  ASSIGN_OR_RETURN(store->meta, chunkstore::local::OpenLocalMetaStore(dir + "/meta", {}));
  chunkstore::ChunkStoreOptions options;
  options.compression_level = static_cast<int>(*settings.store_compression_level);
  options.cache_bytes = *settings.store_cache;
  options.reserve_bytes = *settings.store_reserve;
  options.lease_ms = *settings.store_lease;
  options.background_bytes_per_s = *settings.store_background_rate;
  ASSIGN_OR_RETURN(store->chunks, chunkstore::ChunkStore::Open(options, *store->blobs, *store->meta,
                                                               base::SystemClock(), metrics));
  return store;
}

}  // namespace controlplane
