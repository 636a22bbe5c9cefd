#pragma once

#include "base/result.h"
#include "blockd/context.h"

namespace blockd {

constexpr uint64_t kMaxVolumeGb = kMaxVolumeBytes / base::kGiB;

// POST volumes: from nothing, an image, a snapshot, a volume or a backup.
base::Result<base::http::Response> CreateVolume(const Context& context, const api::Call& call);
// The same with the object that stands under "volume": its record, and a job that makes it.
base::Result<VolumeRecord> MakeVolume(const Context& context, const api::Call& call,
                                      const base::JsonObject& body);

// A limit of one volume, that no sum keeps. kQuotaExceeded.
base::Result<void> CheckVolumeSize(const Context& context, std::string_view project_id,
                                   uint64_t size_gb);

}  // namespace blockd
