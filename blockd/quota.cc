#include "blockd/quota.h"

#include <algorithm>

#include "base/json.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;
using base::Result;

struct BuiltIn {
  std::string_view resource;
  int64_t limit;
};
constexpr BuiltIn kBuiltIn[] = {
    {kVolumesResource, 10}, {kGigabytesResource, 1000},       {kSnapshotsResource, 10},
    {kBackupsResource, 10}, {kBackupGigabytesResource, 1000}, {kGroupsResource, 10},
};

// "volumes" of "volumes" and of "volumes:<type>".
std::string_view WholeResource(std::string_view resource) {
  return resource.substr(0, resource.find(':'));
}

}  // namespace

std::string TypeResource(std::string_view resource, std::string_view type_id) {
  return std::string(resource).append(":").append(type_id);
}

int64_t BuiltInLimit(std::string_view resource) {
  for (const BuiltIn& entry : kBuiltIn)
    if (entry.resource == resource) return entry.limit;
  return kUnlimited;
}

Amounts AmountsOf(const VolumeRecord& volume) {
  const int64_t gigabytes = static_cast<int64_t>(std::max(volume.size_gb, volume.reserved_size_gb));
  return {{std::string(kVolumesResource), 1},
          {TypeResource(kVolumesResource, volume.type_id), 1},
          {std::string(kGigabytesResource), gigabytes},
          {TypeResource(kGigabytesResource, volume.type_id), gigabytes}};
}

Amounts AmountsOf(const SnapshotRecord& snapshot) {
  const int64_t gigabytes = static_cast<int64_t>(snapshot.size_gb);
  return {{std::string(kSnapshotsResource), 1},
          {TypeResource(kSnapshotsResource, snapshot.type_id), 1},
          {std::string(kGigabytesResource), gigabytes},
          {TypeResource(kGigabytesResource, snapshot.type_id), gigabytes}};
}

Amounts AmountsOf(const BackupRecord& backup) {
  return {{std::string(kBackupsResource), 1},
          {std::string(kBackupGigabytesResource), static_cast<int64_t>(backup.size_gb)}};
}

void AddAmounts(const Amounts& b, int64_t factor, Amounts* a) {
  for (const auto& [resource, amount] : b) {
    int64_t& sum = (*a)[resource];
    sum += amount * factor;
    if (sum == 0) a->erase(resource);
  }
}

Error OverLimit(std::string_view resource, int64_t limit, int64_t used, int64_t asked) {
  const std::string_view whole = WholeResource(resource);
  std::string text;
  if (whole == kGigabytesResource) {
    text = "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed " +
           std::string(resource) + " quota. Requested " + std::to_string(asked) + "G, quota is " +
           std::to_string(limit) + "G and " + std::to_string(used) + "G has been consumed.";
  } else if (whole == kBackupGigabytesResource) {
    text =
        "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup "
        "gigabytes quota. Requested " +
        std::to_string(asked) + "G, quota is " + std::to_string(limit) + "G and " +
        std::to_string(used) + "G has been consumed.";
  } else if (whole == kVolumesResource) {
    text = "VolumeLimitExceeded: Maximum number of volumes allowed (" + std::to_string(limit) +
           ") exceeded for quota '" + std::string(resource) + "'.";
  } else if (whole == kSnapshotsResource) {
    text = "SnapshotLimitExceeded: Maximum number of snapshots allowed (" + std::to_string(limit) +
           ") exceeded";
  } else if (whole == kBackupsResource) {
    text = "BackupLimitExceeded: Maximum number of backups allowed (" + std::to_string(limit) +
           ") exceeded";
  } else {
    text = "Maximum number of " + std::string(resource) + " allowed (" + std::to_string(limit) +
           ") exceeded";
  }
  return Error(Code::kQuotaExceeded, std::move(text));
}

std::string EncodeAmounts(const Amounts& amounts) {
  base::JsonObject object;
  for (const auto& [resource, amount] : amounts) object.emplace(resource, amount);
  return base::ToText(object);
}

Result<Amounts> DecodeAmounts(std::string_view bytes) {
  const Error bad(Code::kCorruption, "a record of usage or limits is not readable");
  const Result<base::Json> json = base::ParseJson(bytes);
  if (!json.has_value() || !json->is_object()) return bad;
  Amounts amounts;
  for (const auto& [resource, amount] : json->get_object()) {
    if (!amount.is_int64()) return bad;
    amounts.emplace(resource, amount.get_int64());
  }
  return amounts;
}

}  // namespace blockd
