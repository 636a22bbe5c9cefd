#include "base/clock.h"
#include "bench/nbd/make_store.h"
#include "blockd/rbd/rbd_volume_store.h"

namespace blockd {

base::Result<std::unique_ptr<VolumeStore>> MakeStore(const std::string&,
                                                     chunkstore::ChunkStore& chunks,
                                                     chunkstore::MetaStore& meta,
                                                     base::Metrics& metrics) {
  rbd::Options options;
  options.cluster.pool = "volumes";
  ASSIGN_OR_RETURN(auto store,
                   rbd::RbdVolumeStore::Open(options, chunks, meta, base::SystemClock(), metrics));
  return std::unique_ptr<VolumeStore>(std::move(store));
}

}  // namespace blockd
