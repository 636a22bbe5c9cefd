#pragma once

#include "base/json.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"

namespace controlplane {

// Layers of volumes hold bytes under names that say nothing to a person. Adds to a report of the
// store's maintenance (admin/reports.h), which names holders in "shared_with" or in the "holders"
// of its findings, what stands on those of them that are layers:
//   "layers": {HOLDER: [{"kind": "volume" | "snapshot", "id", "name"}, ...], ...}
// with at most kMaxLayerUsers each; "name" is missing where there is no record (it is on its way).
// Reads all records of layers once, if the report names any. `meta` is of the store that the report
// is about; a service may be at work on it.
constexpr size_t kMaxLayerUsers = 20;
base::Result<void> NameLayers(chunkstore::MetaStore& meta, base::Json* report);

}  // namespace controlplane
