#pragma once

#include <string>
#include <string_view>

#include "base/http/client.h"
#include "base/json.h"
#include "base/result.h"
#include "controlplane/cli/cloud.h"

// What the commands that ask the volume service have in common.

namespace controlplane::cli {

// A request to the volume service, in the version that all of them speak; `path` is what follows
// its endpoint. kNotFound: the cloud has none.
base::Result<base::http::ClientRequest> VolumeRequest(const ApiClient& client, std::string method,
                                                      const std::string& path,
                                                      const base::Json& body = nullptr);

// The list `name` of what a GET of the path answers. kIo: it answers something else.
base::Result<base::JsonArray> ListOf(ApiClient& client, const std::string& path,
                                     std::string_view name);

// What `text` may mean among the volumes or snapshots (`kind`: "volume", "snapshot"): the one of
// this id, else those of this name, of which there may be none or several.
base::Result<base::JsonArray> FindByIdOrName(ApiClient& client, const std::string& kind,
                                             const std::string& text);

}  // namespace controlplane::cli
