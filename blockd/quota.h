#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "blockd/records.h"

// What a project uses and may use. The usage is a record beside the project's volumes, changed in
// the same commit as what changes it: so a limit holds whatever races, and nothing needs counting
// again.

namespace blockd {

// By resource. Of all types together: "volumes", "gigabytes", "snapshots", "backups",
// "backup_gigabytes", "groups". Of one type: TypeResource("volumes", <id of the type>), and the
// same of "gigabytes" and "snapshots". What is absent is 0.
using Amounts = std::map<std::string, int64_t, std::less<>>;

constexpr std::string_view kVolumesResource = "volumes";
constexpr std::string_view kGigabytesResource = "gigabytes";
constexpr std::string_view kSnapshotsResource = "snapshots";
constexpr std::string_view kBackupsResource = "backups";
constexpr std::string_view kBackupGigabytesResource = "backup_gigabytes";
constexpr std::string_view kGroupsResource = "groups";
// A limit of one volume, not of a sum.
constexpr std::string_view kPerVolumeGigabytesResource = "per_volume_gigabytes";

// "volumes:<type id>". The API's "volumes_<type name>" is made at the edge: names change.
std::string TypeResource(std::string_view resource, std::string_view type_id);

// Of what is not set for the project or the class "default": volumes 10, gigabytes 1000, snapshots
// 10, backups 10, backup_gigabytes 1000, groups 10; -1, no limit, for all others.
int64_t BuiltInLimit(std::string_view resource);
constexpr int64_t kUnlimited = -1;

// What one record takes.
Amounts AmountsOf(const VolumeRecord& volume);
Amounts AmountsOf(const SnapshotRecord& snapshot);
Amounts AmountsOf(const BackupRecord& backup);

// a += b * factor; what becomes 0 goes.
void AddAmounts(const Amounts& b, int64_t factor, Amounts* a);

// Refuses what `change` adds to `used` beyond a limit (what shrinks or stays may be over: limits
// are lowered). kQuotaExceeded with Cinder's sentence. `limit_of` answers kUnlimited or a limit.
template <typename LimitOf>
base::Result<void> CheckLimits(const Amounts& used, const Amounts& change, const LimitOf& limit_of);

base::Error OverLimit(std::string_view resource, int64_t limit, int64_t used, int64_t asked);

template <typename LimitOf>
base::Result<void> CheckLimits(const Amounts& used, const Amounts& change,
                               const LimitOf& limit_of) {
  for (const auto& [resource, more] : change) {
    if (more <= 0) continue;
    base::Result<int64_t> limit = limit_of(resource);
    if (!limit.has_value()) return limit.error();
    const auto found = used.find(resource);
    const int64_t present = found == used.end() ? 0 : found->second;
    if (*limit != kUnlimited && (present > *limit || more > *limit - present))
      return OverLimit(resource, *limit, present, more);
  }
  return {};
}

std::string EncodeAmounts(const Amounts& amounts);
base::Result<Amounts> DecodeAmounts(std::string_view bytes);

}  // namespace blockd
