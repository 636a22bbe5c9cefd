#pragma once

#include <vector>

#include "base/http/router.h"
#include "imaged/data_path.h"

namespace imaged {

// See DataPath::Routes. What each answers is in API.md.
std::vector<base::http::Route> DataRoutes(DataPath& path);

}  // namespace imaged
