#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "imaged/catalog.h"

namespace imaged {

class DataPath;

// Putting right what a crash left behind.
//
// The order in which an upload, an import and a deletion change things leaves only these states to
// find: a record whose upload nobody keeps any more (it goes back to queued); bytes in the chunk
// store that no record names (they are let go); a task whose job is gone (it failed).

enum class Recovery {
  kAfterCrash,  // at start, and nobody else uses the stores: whatever is on its way is dead
  kRunning,     // beside others: only what has a lease that ran out, or is old
};

// Uploads. With kAfterCrash, tasks and orphans too.
base::Result<void> Reconcile(DataPath& path, Recovery recovery);

// Holders of image bytes that no record names, and parts that were kept long enough
// (kept_parts.h). A walk over all holders.
base::Result<void> ReleaseOrphans(DataPath& path, Recovery recovery);

// Tasks that are open and have no job: whoever wrote them died before he wrote that.
base::Result<void> FailLostTasks(DataPath& path, Recovery recovery);

// Lets go, in the chunk store, of what the catalog does not need any more (deleted images), but for
// what is still `in_use` (null: nothing is). A thousand at most; returns how many.
using InUse = std::function<base::Result<bool>(const Catalog::PendingRelease&)>;
base::Result<size_t> ReleaseNoLongerNeeded(chunkstore::ChunkStore& store, Catalog& catalog,
                                           const InUse& in_use);

}  // namespace imaged
