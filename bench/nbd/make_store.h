#pragma once

#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/result.h"
#include "blockd/volume_store.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"

namespace blockd {

// The volumes that volume_server.cc serves: on the chunk store, with their layers in `dir`
// (chunk_volumes.cc), or on RBD, in the pool "volumes" of $CEPH_CONF (rbd_volumes.cc).
base::Result<std::unique_ptr<VolumeStore>> MakeStore(const std::string& dir,
                                                     chunkstore::ChunkStore& chunks,
                                                     chunkstore::MetaStore& meta,
                                                     base::Metrics& metrics);

}  // namespace blockd
