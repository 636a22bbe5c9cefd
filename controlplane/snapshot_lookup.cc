#include "controlplane/snapshot_lookup.h"

#include <string>

#include <fmt/format.h>

#include "blockd/api/errors.h"
#include "blockd/catalog_keys.h"
#include "blockd/policy.h"

namespace controlplane {

using base::Code;
using base::Result;
using blockd::SnapshotRecord;

Result<chunkstore::Root> FindSnapshot(const SnapshotLookup& where, const base::auth::Caller& caller,
                                      std::string_view id) {
  ASSIGN_OR_RETURN(const SnapshotRecord snapshot, where.catalog.GetSnapshot(id));
  if (!blockd::MaySee(caller, snapshot.project_id)) return blockd::NotThere<SnapshotRecord>(id);
  if (snapshot.status != blockd::SnapshotStatus::kAvailable)
    return blockd::api::Bad(fmt::format(
        "Invalid snapshot: Snapshot status must be available, but current status is {}.",
        blockd::SnapshotStatusName(snapshot.status)));
  ASSIGN_OR_RETURN(const std::string holder, where.volumes.SnapshotHolder(snapshot.id));
  const auto held = where.store.FindHolder(holder);
  if (held.has_value() && held->root.has_value()) return *held->root;
  // Deleted between the two.
  if (held.has_value() || held.error().code() == Code::kNotFound)
    return blockd::NotThere<SnapshotRecord>(id);
  return held.error();
}

}  // namespace controlplane
