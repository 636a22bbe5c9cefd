#include "controlplane/identity/apis.h"

// Unified limits: Quarry's quotas do not live in identity, so these lists are empty and cannot be
// added to.

namespace controlplane::identity {

void AddLimitApi(Routes& routes) {
  for (std::string_view collection : {"limits", "registered_limits"})
    routes.Add(
        "GET", "/" + std::string(collection), Access::kToken,
        [collection](Call& call) -> Result { return ListResponse(call, collection, JsonArray()); });
  routes.Add("GET", "/limits/model", Access::kToken, [](Call& call) -> Result {
    return Response::OfJson(
        200, JsonObject{{"model", JsonObject{{"name", "flat"},
                                             {"description",
                                              "Limits are compared with usage, project by "
                                              "project."}}}});
  });
}

}  // namespace controlplane::identity
