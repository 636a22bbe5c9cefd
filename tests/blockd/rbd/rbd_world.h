#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/uuid.h"
#include "blockd/rbd/rbd_volume_store.h"
#include "tests/blockd/chunk/volume_world.h"
#include "tests/support/results.h"

// Stores of volumes on a real cluster ($CEPH_CONF, pool "volumes"), each world in an RBD namespace
// of its own, with the records and the chunks in memory. Several stores of a world are several
// processes to each other, but for what dies with a process.

namespace blockd::rbd::testing {

class RbdWorld {
 public:
  RbdWorld() {
    EXPECT_NE(std::getenv("CEPH_CONF"), nullptr) << "start it with tests/cluster/with_cluster.py";
    options_.cluster.pool = "volumes";
    options_.cluster.space = "t" + base::NewUuidHex();
    options_.background = false;
    options_.seal_bytes_per_s = 0;
    options_.parent_idle_ms = 1000;
    chunkstore::ChunkStoreOptions chunk_options;
    chunk_options.background_bytes_per_s = 0;
    chunk_options.reserve_bytes = 0;
    auto chunks = chunkstore::ChunkStore::Open(chunk_options, blobs_, meta_, clock_, metrics_);
    EXPECT_OK(chunks);
    chunks_ = std::move(*chunks);
  }

  // Another process.
  std::unique_ptr<RbdVolumeStore> NewStore() {
    auto store = RbdVolumeStore::Open(options_, *chunks_, meta_, clock_, metrics_);
    EXPECT_OK(store);
    return store ? std::move(*store) : nullptr;
  }
  std::shared_ptr<Cluster> Connect() {
    auto cluster = Cluster::Connect(options_.cluster);
    EXPECT_OK(cluster);
    return cluster ? *cluster : nullptr;
  }
  // Images and holders of the volumes, once what is idle was put away.
  size_t Leftovers(RbdVolumeStore& store) {
    clock_.AdvanceUs(120 * base::kSecondUs);
    while (store.Tidy()) {
    }
    const auto names = Connect()->Names();
    EXPECT_OK(names);
    return names->size() + Connect()->TrashedNames().value().size() +
           chunks_->Holders(kHolders, "", 1000).value().size();
  }

  Options& options() { return options_; }
  base::ManualClock& clock() { return clock_; }
  base::Metrics& metrics() { return metrics_; }
  chunkstore::ChunkStore& chunks() { return *chunks_; }
  chunkstore::MetaStore& meta() { return meta_; }

 private:
  Options options_;
  base::Metrics metrics_;
  base::ManualClock clock_;
  chunkstore::MemoryBlobStore blobs_;
  chunkstore::MemoryMetaStore meta_;
  std::unique_ptr<chunkstore::ChunkStore> chunks_;
};

}  // namespace blockd::rbd::testing
