#pragma once

#include <vector>

#include "blockd/api/route.h"
#include "controlplane/snapshot_lookup.h"
#include "imaged/data_path.h"

namespace controlplane {

// Snapshots as the blocks that are stored, for compute hosts: what imaged/API.md ("Chunk transfer"
// and "Blocks") says of images, in the same words, behind routes of the Block Storage API:
//   GET  /quarry/snapshots/{snapshot_id}/chunks?from=N
//   POST /quarry/snapshots/{snapshot_id}/blocks
// with the rights of showing the snapshot. `path` (its memory, its threads, its secret) is
// borrowed, and so is what `where` has.
std::vector<blockd::api::Route> SnapshotBlockRoutes(const SnapshotLookup& where,
                                                    imaged::DataPath& path);

}  // namespace controlplane
