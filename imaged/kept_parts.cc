#include "imaged/kept_parts.h"

#include <algorithm>
#include <vector>

#include "base/log.h"
#include "imaged/holder.h"

namespace imaged {

using base::Result;
using chunkstore::ChunkStore;

namespace {

constexpr size_t kPage = 1000;

// Beyond what one project may keep, the oldest go.
Result<void> MakeRoom(ChunkStore& store, const std::string& project_id) {
  const std::string prefix = std::string(kPartHolderPrefix) + project_id + "/";
  ASSIGN_OR_RETURN(std::vector<ChunkStore::Held> held, store.Holders(prefix, "", kPage));
  if (held.size() <= kKeptPartsOfProject) return {};
  std::ranges::sort(held, {}, &ChunkStore::Held::since_us);
  held.resize(held.size() - kKeptPartsOfProject);
  for (const ChunkStore::Held& part : held) RETURN_IF_ERROR(store.Release(part.holder));
  return {};
}

}  // namespace

Result<void> KeepPart(DataPath& path, const std::string& project_id, const std::string& holder,
                      chunkstore::Ingest& ingest, uint64_t size_bytes) {
  RETURN_IF_ERROR(ingest.Finish(size_bytes));
  ASSIGN_OR_RETURN(const chunkstore::Root kept,
                   path.store().HoldAgain(holder, NewPartHolder(project_id), ""));
  LOG(kInfo, "imaged", "of an upload that broke off {} bytes are kept for project {}",
      kept.size_bytes, project_id);
  return MakeRoom(path.store(), project_id);
}

Result<void> ReleaseOldParts(DataPath& path) {
  std::string after;
  for (;;) {
    ASSIGN_OR_RETURN(const auto parts, path.store().Holders(kPartHolderPrefix, after, kPage));
    for (const ChunkStore::Held& part : parts) {
      after = part.holder;
      // What is still on its way has a lease of its own.
      if (!part.root.has_value() || path.clock().NowUs() - part.since_us <= kKeptPartUs) continue;
      RETURN_IF_ERROR(path.store().Release(part.holder));
    }
    if (parts.size() < kPage) return {};
  }
}

}  // namespace imaged
