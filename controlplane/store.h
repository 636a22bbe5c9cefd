#pragma once

#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/result.h"
#include "chunkstore/blob_store.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"
#include "controlplane/settings.h"

namespace controlplane {

// A chunk store and what it stands on. Members are destroyed in the right order.
struct Store {
  std::unique_ptr<chunkstore::BlobStore> blobs;
  std::unique_ptr<chunkstore::MetaStore> meta;
  std::unique_ptr<chunkstore::ChunkStore> chunks;
};

enum class StorePurpose {
  kServe,    // makes what is missing
  kBackups,  // the same for settings.block_backup_dir, with little memory
  kInspect,  // kNotFound if there is none
  kRebuild,  // kInspect, and the index may be lost or half made
};

// The store that the settings name. kConflict if another process has it open and must not;
// kCorruption if the index is lost or only half made again: whoever went on with it would take all
// blobs for garbage. kInvalidArgument names the option that is wrong.
base::Result<std::unique_ptr<Store>> OpenStore(const Settings& settings, base::Metrics& metrics,
                                               StorePurpose purpose);

// Whether other processes may be at work on the same store.
bool SharesStore(const Settings& settings);

// The error with what to do, where it says that the index is damaged (kCorruption) and not what to
// do; else as it is.
base::Error ExplainDamage(base::Error error, const std::string& data_dir);

// Reads all of the index. kCorruption.
base::Result<void> ReadIndex(chunkstore::MetaStore& meta);

}  // namespace controlplane
