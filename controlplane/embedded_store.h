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
  enum class Purpose {
    kServe,    // makes the directory if there is none
    kBackups,  // the same for settings.block_backup_dir, with little memory
    kInspect,  // kNotFound if there is none
    kRebuild,  // kInspect, and the index may be lost or half made
  };
  // kConflict if another process has it open; kCorruption if the index is lost or only half made
  // again: whoever went on with it would take all blobs for garbage.
  static base::Result<std::unique_ptr<EmbeddedStore>> Open(const Settings& settings,
                                                           base::Metrics& metrics, Purpose purpose);

  std::unique_ptr<chunkstore::BlobStore> blobs;
  std::unique_ptr<chunkstore::MetaStore> meta;
  std::unique_ptr<chunkstore::ChunkStore> chunks;
};

// The error with what to do, where it says that the index is damaged (kCorruption) and not what to
// do; else as it is.
base::Error ExplainDamage(base::Error error, const std::string& data_dir);

// Reads all of the index. kCorruption.
base::Result<void> ReadIndex(chunkstore::MetaStore& meta);

// Moves the index away, to DIR/meta.damaged-UUID, so that a new one can be made; gives that path.
// Nobody may have the store open. Until the rebuild ends nothing else opens it (RebuildMarker).
base::Result<std::string> SetIndexAside(const std::string& data_dir);

// Where volumes keep what was written to them and is not in the store yet.
std::string LayersDir(const std::string& data_dir);

// A file that stands while the index is made again (restore.h): until it is gone, nothing else may
// open the store.
std::string RebuildMarker(const std::string& data_dir);

}  // namespace controlplane
