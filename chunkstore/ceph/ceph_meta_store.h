#pragma once

#include <cstdint>
#include <memory>

#include "chunkstore/ceph/cluster.h"
#include "chunkstore/ceph/objects.h"
#include "chunkstore/meta_store.h"

namespace chunkstore::ceph {

// Sizes that only tests make smaller.
struct CephMetaOptions {
  // A head with more keys is emptied into its partition's shards. About: a commit in so many looks.
  size_t head_keys = 20'000;
  // A shard with more is split. Ceph warns of objects with 200,000 keys.
  size_t shard_keys = 50'000;
  // Keys that one read asks for; OSDs answer with 1024 at most by default.
  size_t page_keys = 512;
  // How long a spiller that says nothing is left alone.
  int64_t lease_ms = 30'000;
};

// A MetaStore in the omaps of RADOS objects; README.md tells how, and why it is right. Any number
// of processes may use one at the same time.
//
// It promises more than the contract in one way: what a Commit acknowledged is durable, on as many
// OSDs as the pool's min_size; Sync has nothing to do. A Commit that is kUnavailable or kIo may
// have happened, all of it, or happen soon. A partition that others change without end is
// kUnavailable after some seconds.
//
// One thread of its own moves keys out of heads that have grown (a failure is logged, and tried
// again after further commits).
base::Result<std::unique_ptr<MetaStore>> OpenCephMetaStore(std::shared_ptr<Cluster> cluster,
                                                           const CephMetaOptions& options = {});

// The same over any objects, for tests.
std::unique_ptr<MetaStore> NewOmapMetaStore(std::unique_ptr<Objects> objects,
                                            const CephMetaOptions& options);

}  // namespace chunkstore::ceph
