#include "base/files.h"
#include "bench/nbd/make_store.h"
#include "blockd/chunk/chunk_volume_store.h"

namespace blockd {

base::Result<std::unique_ptr<VolumeStore>> MakeStore(const std::string& dir,
                                                     chunkstore::ChunkStore& chunks,
                                                     chunkstore::MetaStore& meta,
                                                     base::Metrics& metrics) {
  ASSIGN_OR_RETURN(auto store,
                   chunk::ChunkVolumeStore::Open({.dir = dir + "/layers"}, base::SystemFiles(),
                                                 chunks, meta, metrics));
  return std::unique_ptr<VolumeStore>(std::move(store));
}

}  // namespace blockd
