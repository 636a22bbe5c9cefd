#pragma once

#include "base/result.h"
#include "blockd/context.h"

namespace blockd {

constexpr uint64_t kMaxVolumeGb = kMaxVolumeBytes / base::kGiB;

// POST volumes: from nothing, an image, a snapshot or a volume.
base::Result<base::http::Response> CreateVolume(const Context& context, const api::Call& call);

// A limit of one volume, that no sum keeps. kQuotaExceeded.
base::Result<void> CheckVolumeSize(const Context& context, std::string_view project_id,
                                   uint64_t size_gb);

}  // namespace blockd
