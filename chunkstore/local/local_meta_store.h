#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "chunkstore/meta_store.h"

namespace chunkstore::local {

struct LocalMetaStoreOptions {
  // Block cache and write buffers together: a hard limit but for what a scan pins.
  uint64_t memory_bytes = 64 * base::kMiB;
};

// A MetaStore on RocksDB in DIR (made if it is missing). One process at a time.
//
// It promises more than the contract in one way: after a crash of the machine, what is left is a
// prefix of all commits, over all partitions. Damage is kCorruption when it is read, and at Open if
// commits that a Sync acknowledged are missing from the log. While less than a quarter of
// `memory_bytes` is left on the disk, every commit (removals too) is kOutOfSpace; when there is
// space again, they work again. Bytes go through RocksDB's own file layer, not through base::Files.
//
// kConflict if the store is open already; kCorruption, kIo.
base::Result<std::unique_ptr<MetaStore>> OpenLocalMetaStore(const std::string& dir,
                                                            const LocalMetaStoreOptions& options);

}  // namespace chunkstore::local
