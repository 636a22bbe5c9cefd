#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "blockd/chunk/chunk_volume_store.h"
#include "tests/blockd/chunk/volume_world.h"
#include "tests/support/fault_files.h"
#include "tests/support/faulty_stores.h"

// A store of volumes on disks in memory that can fail and lose power. Volumes are small.

namespace blockd::chunk::testing {

constexpr uint64_t kVolumeBytes = 5 * base::kMiB;

class StoreWorld {
 public:
  StoreWorld() {
    chunk_options_.background_bytes_per_s = 0;
    chunk_options_.reserve_bytes = 0;
    files_.SetSectorBytes(kSectorBytes);
    EXPECT_OK(files_.CreateDirs("/q"));
    EXPECT_OK(files_.SyncDir("/"));
  }

  base::Result<void> TryOpen() {
    store_.reset();
    chunks_.reset();
    ASSIGN_OR_RETURN(chunks_, chunkstore::ChunkStore::Open(chunk_options_, faulty_blobs_,
                                                           faulty_meta_, clock_, metrics_));
    chunk::ChunkVolumeStoreOptions options;
    options.dir = "/q/layers";
    options.background = false;
    options.seal_bytes_per_s = 0;
    options.reserve_bytes = 0;
    ASSIGN_OR_RETURN(
        store_, chunk::ChunkVolumeStore::Open(options, files_, *chunks_, faulty_meta_, metrics_));
    return {};
  }
  void Open() { ASSERT_OK(TryOpen()); }

  // The machine loses power.
  void Crash(uint64_t seed) {
    plan_.Clear();
    files_.Crash(seed, seed % 2 ? support::FaultFiles::Names::kDropUnsynced
                                : support::FaultFiles::Names::kKeepSome);
    store_.reset();
    chunks_.reset();
    meta_.Crash(seed);
    clock_.AdvanceUs(chunk_options_.lease_ms * 1000 + 1);
  }

  chunk::ChunkVolumeStore& store() { return *store_; }
  chunkstore::ChunkStore& chunks() { return *chunks_; }
  chunkstore::MemoryMetaStore& meta() { return meta_; }
  chunkstore::MemoryBlobStore& blobs() { return blobs_; }
  support::FaultFiles& files() { return files_; }
  support::FaultPlan& plan() { return plan_; }

  base::Result<void> Make(const std::string& id, VolumeSource source = {},
                          uint64_t size_bytes = kVolumeBytes, bool thick = false) {
    return store().Create({id, size_bytes, thick, std::move(source)});
  }
  // Until nothing is left to do in the background.
  void Settle() {
    while (store().Tidy()) {
    }
    store().Tidy();
  }
  std::string Content(const std::string& id) {
    auto volume = store().Open(id);
    EXPECT_OK(volume);
    return volume ? ReadAll(**volume) : "";
  }
  // By way of a volume that is made of it.
  std::string SnapshotContent(const std::string& id) {
    auto info = store().FindSnapshot(id);
    EXPECT_OK(info);
    if (!info) return "";
    EXPECT_OK(Make("of-" + id, {VolumeSource::Kind::kSnapshot, id}, info->size_bytes));
    std::string content = Content("of-" + id);
    EXPECT_OK(store().Remove("of-" + id));
    return content;
  }

 private:
  base::Metrics metrics_;
  base::ManualClock clock_;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  support::FaultPlan plan_;
  support::FaultyBlobStore faulty_blobs_{blobs_, plan_};
  support::FaultyMetaStore faulty_meta_{meta_, plan_};
  support::FaultFiles files_;
  chunkstore::ChunkStoreOptions chunk_options_;
  std::unique_ptr<chunkstore::ChunkStore> chunks_;
  std::unique_ptr<chunk::ChunkVolumeStore> store_;
};

}  // namespace blockd::chunk::testing
