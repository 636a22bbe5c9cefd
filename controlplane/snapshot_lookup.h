#pragma once

#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"
#include "blockd/catalog.h"
#include "blockd/volume_store.h"
#include "chunkstore/chunk_store.h"

namespace controlplane {

// Where snapshots are found. Borrowed, all of it.
struct SnapshotLookup {
  chunkstore::ChunkStore& store;
  blockd::Catalog& catalog;
  blockd::VolumeStore& volumes;
};

// The bytes of a snapshot that the caller may read: now, so it is asked for each request.
// kNotFound, also for what the caller may not see; kInvalidArgument for one that is not available;
// kUnavailable for one that is still being put into the chunk store (it comes first then).
base::Result<chunkstore::Root> FindSnapshot(const SnapshotLookup& where,
                                            const base::auth::Caller& caller, std::string_view id);

}  // namespace controlplane
