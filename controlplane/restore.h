#pragma once

#include "base/json.h"
#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "controlplane/store.h"

namespace controlplane {

// Makes the chunk index again from the blobs, then the image records from what the manifests carry.
// The answer is the rebuild report as JSON (admin/reports.h). While it runs, and after it was
// broken off, a marker keeps everybody else from the store; run again, it begins anew. REQUIRES: no
// service uses the store, and it was opened with Purpose::kRebuild.
base::Result<base::Json> RebuildAll(Store& store, const Settings& settings,
                                    const chunkstore::ProgressFn& progress);

// Lets go of the bytes of images that were deleted, where a service that ended before it came to
// that left them. REQUIRES: no service uses the store.
base::Result<void> ReleaseDeletedImages(Store& store);

}  // namespace controlplane
