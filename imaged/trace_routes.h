#pragma once

#include <vector>

#include "base/http/router.h"
#include "imaged/data_path.h"

namespace imaged {

// PUT, GET and DELETE /v2/quarry/images/{image_id}/trace: which blocks a boot of the image reads
// first (API.md, "Boot traces"). Kept beside the image's record, gone with it. Who may download the
// image reads it; who may change the image writes it, and so does a service that may download it.
// Jobs of the pool.
std::vector<base::http::Route> TraceRoutes(DataPath& path);

}  // namespace imaged
