#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"
#include "controlplane/settings.h"

namespace controlplane {

// The embedded back end of one data directory: files, RocksDB, and the chunk store over them. At
// most one process has it open. Members are destroyed in the right order.
struct EmbeddedStore {
  // kConflict if another process has it open; kNotFound if `create` is false and there is none.
  static base::Result<std::unique_ptr<EmbeddedStore>> Open(const Settings& settings,
                                                           base::Metrics& metrics, bool create);

  std::unique_ptr<chunkstore::BlobStore> blobs;
  std::unique_ptr<chunkstore::MetaStore> meta;
  std::unique_ptr<chunkstore::ChunkStore> chunks;
};

}  // namespace controlplane
