#pragma once

#include "base/result.h"

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

// Uploads and tasks. With kAfterCrash, orphans too.
base::Result<void> Reconcile(DataPath& path, Recovery recovery);

// Holders of image bytes that no record names. A walk over all holders.
base::Result<void> ReleaseOrphans(DataPath& path, Recovery recovery);

}  // namespace imaged
