#include "controlplane/restore.h"

#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/files.h"
#include "base/uuid.h"
#include "blockd/chunk/holders.h"
#include "blockd/chunk/records.h"
#include "controlplane/admin/reports.h"
#include "controlplane/compose.h"
#include "controlplane/embedded_store.h"
#include "imaged/catalog.h"
#include "imaged/data_options.h"
#include "imaged/reconcile.h"
#include "imaged/restore.h"

namespace controlplane {
namespace {

using base::Code;
using base::Result;

// Where holders of lost volumes are kept, so that no start takes them for leftovers.
constexpr char kLostHolders[] = "lost/";
constexpr size_t kHoldersAtOnce = 1000;

Result<bool> HasVolumeRecords(chunkstore::MetaStore& meta) {
  bool found = false;
  RETURN_IF_ERROR(meta.Scan(blockd::chunk::kPartition, "", "", 1,
                            [&](std::string_view, std::string_view) { return !(found = true); }));
  return found;
}

// Files of layers with something in them; those that are made in advance are empty.
Result<bool> HasWrittenLayers(const std::string& dir) {
  base::Files& files = base::SystemFiles();
  const Result<std::vector<std::string>> names = files.List(dir);
  if (!names.has_value() && names.error().code() == Code::kNotFound) return false;
  if (!names.has_value()) return names.error();
  for (const std::string& name : *names) {
    ASSIGN_OR_RETURN(const base::FileInfo info, files.Stat(dir + "/" + name));
    if (name.ends_with(".data") && info.allocated_bytes > 0) return true;
  }
  return false;
}

Result<size_t> KeepLostHolders(chunkstore::ChunkStore& chunks) {
  size_t kept = 0;
  while (true) {
    ASSIGN_OR_RETURN(const auto held,
                     chunks.Holders(blockd::chunk::kLayerHolders, "", kHoldersAtOnce));
    if (held.empty()) return kept;
    for (const chunkstore::ChunkStore::Held& one : held) {
      if (one.root.has_value()) {
        const auto again = chunks.HoldAgain(one.holder, kLostHolders + one.holder, one.attributes);
        if (!again.has_value() && again.error().code() != Code::kAlreadyExists)
          return again.error();
        ++kept;
      }
      RETURN_IF_ERROR(chunks.Release(one.holder));
    }
  }
}

// The records of volumes lie in the index alone. Where they are gone, what the next start would
// take for leftovers and remove is the only copy of somebody's data.
Result<void> SetVolumesAside(Store& store, const std::string& data_dir, base::JsonObject* report) {
  ASSIGN_OR_RETURN(const bool known, HasVolumeRecords(*store.meta));
  if (known) return {};
  ASSIGN_OR_RETURN(const size_t kept, KeepLostHolders(*store.chunks));
  if (kept > 0) (*report)["lost_volume_layers"] = kept;
  ASSIGN_OR_RETURN(const bool written, HasWrittenLayers(LayersDir(data_dir)));
  if (!written) return {};
  const std::string aside = LayersDir(data_dir) + ".lost-" + base::NewUuid();
  RETURN_IF_ERROR(base::SystemFiles().Rename(LayersDir(data_dir), aside));
  (*report)["volumes_set_aside"] = aside;
  return {};
}

}  // namespace

base::Result<base::Json> RebuildAll(Store& store, const Settings& settings,
                                    const chunkstore::ProgressFn& progress) {
  const std::string marker = RebuildMarker(*settings.data_dir);
  RETURN_IF_ERROR(base::WriteFileDurably(marker, "a rebuild of the index is under way\n"));
  ASSIGN_OR_RETURN(const auto rebuilt, store.chunks->Rebuild(progress));
  base::JsonObject volumes;
  RETURN_IF_ERROR(SetVolumesAside(store, *settings.data_dir, &volumes));
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
  for (const auto& [key, value] : volumes) report.as_object()[key] = value;
  report.as_object()["images"] = std::move(images);
  report.as_object()["owners"] = std::move(owners);
  report.as_object()["skipped"] = std::move(skipped);
  return report;
}

base::Result<void> ReleaseDeletedImages(Store& store) {
  imaged::Catalog catalog(*store.meta, base::SystemClock());
  while (true) {
    ASSIGN_OR_RETURN(const size_t released,
                     imaged::ReleaseNoLongerNeeded(*store.chunks, catalog, nullptr));
    if (released == 0) return {};
  }
}

}  // namespace controlplane
