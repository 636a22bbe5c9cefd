#include "controlplane/restore.h"

#include <string>

#include "base/clock.h"
#include "base/files.h"
#include "controlplane/admin/reports.h"
#include "controlplane/compose.h"
#include "imaged/catalog.h"
#include "imaged/data_options.h"
#include "imaged/reconcile.h"
#include "imaged/restore.h"

namespace controlplane {
base::Result<base::Json> RebuildAll(EmbeddedStore& store, const Settings& settings,
                                    const chunkstore::ProgressFn& progress) {
  const std::string marker = RebuildMarker(*settings.data_dir);
  RETURN_IF_ERROR(base::WriteFileDurably(marker, "a rebuild of the index is under way\n"));
  ASSIGN_OR_RETURN(const auto rebuilt, store.chunks->Rebuild(progress));
  imaged::Catalog catalog(*store.meta, base::SystemClock());
  imaged::DataOptions options;
  options.hash_algorithm = *settings.image_hash_algorithm;
  options.checksum = ChecksumOf(*settings.image_checksum);
  uint64_t done = 0;
  const auto go_on = [&] {
    return !progress || progress({.phase = "images", .done = done++, .total = 0});
  };
  ASSIGN_OR_RETURN(const auto restored,
                   imaged::RestoreImages(*store.chunks, *store.meta, catalog, options, go_on));
  RETURN_IF_ERROR(store.meta->Sync());
  RETURN_IF_ERROR(base::SystemFiles().Remove(marker));
  base::Json report = admin::ToJson(rebuilt);
  base::JsonArray images;
  for (const std::string& id : restored.restored) images.emplace_back(id);
  base::JsonArray skipped;
  for (const std::string& reason : restored.skipped) skipped.emplace_back(reason);
  base::JsonObject owners;
  for (const auto& [project, count] : restored.owners) owners.emplace(project, count);
  report.as_object()["images"] = std::move(images);
  report.as_object()["owners"] = std::move(owners);
  report.as_object()["skipped"] = std::move(skipped);
  return report;
}

base::Result<void> ReleaseDeletedImages(EmbeddedStore& store) {
  imaged::Catalog catalog(*store.meta, base::SystemClock());
  while (true) {
    ASSIGN_OR_RETURN(const size_t released,
                     imaged::ReleaseNoLongerNeeded(*store.chunks, catalog, nullptr));
    if (released == 0) return {};
  }
}

}  // namespace controlplane
