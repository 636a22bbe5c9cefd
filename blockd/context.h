#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/auth/caller.h"
#include "base/http/router.h"
#include "blockd/catalog.h"
#include "blockd/exports.h"
#include "blockd/image_source.h"
#include "blockd/type_directory.h"
#include "blockd/volume_store.h"

namespace blockd {

class Jobs;

struct ServiceOptions {
  std::string prefix = "/volume";
  // Where a client without a valid token is sent; empty: the identity service beside us.
  std::string auth_url;
  std::string availability_zone = "nova";
  std::string host = "quarry@store#store";  // host@backend#pool, as administrators see it
  std::string service_id;                   // a UUID: service_uuid of volumes
  int64_t attach_lease_ms = 10 * 60'000;    // how long "attaching" may take
};

// What a handler works with: borrowed, as long as the service.
struct Context {
  const ServiceOptions& options;
  Catalog& catalog;
  Jobs& jobs;
  TypeDirectory& types;
  VolumeStore& store;
  Exports& exports;
  ImageSource& images;
};

// One request under /v3, checked: the microversion is negotiated, the project in the path (if any)
// is the caller's.
struct Call {
  const base::http::Request& request;
  const base::auth::Caller& caller;
  int version;  // the microversion's minor number: 0 to api::kMaxVersion
};

using Handler = base::Result<base::http::Response> (*)(const Context&, const Call&);
using Routes = std::vector<base::http::Route>;

// Adds "/v3/{project_id}<path>" and, from 3.67 on, "/v3<path>". A request below `min_version` finds
// nothing: 404. Every answer carries OpenStack-API-Version and Vary.
void AddRoute(const Context& context, std::string method, const std::string& path, Handler handler,
              Routes* routes, base::http::Access access = base::http::Access::kToken,
              int min_version = 0);

}  // namespace blockd
