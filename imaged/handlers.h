#pragma once

#include <vector>

#include "base/http/router.h"
#include "imaged/context.h"

// The routes of this folder but the data path's, one function a file (handlers_*.cc).

namespace imaged {

using Routes = std::vector<base::http::Route>;

void AppendDiscoveryRoutes(const Context& context, Routes* routes);  // versions, schemas, info
void AppendImageRoutes(const Context& context, Routes* routes);      // images, tags, actions
void AppendMemberRoutes(const Context& context, Routes* routes);
void AppendMetadefRoutes(const Context& context, Routes* routes);

}  // namespace imaged
