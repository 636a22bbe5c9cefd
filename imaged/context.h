#pragma once

#include <string>
#include <vector>

#include "base/auth/caller.h"
#include "base/http/router.h"
#include "imaged/catalog.h"
#include "imaged/metadefs.h"

namespace imaged {

// A store as /v2/info/stores shows it.
struct StoreInfo {
  std::string id;
  std::string description;
  bool is_default = false;
};

struct ServiceOptions {
  std::string prefix = "/image";
  // Where a client without a valid token is sent (WWW-Authenticate); empty: the identity service
  // beside us.
  std::string auth_url;
  std::vector<std::string> import_methods;  // of /v2/info/import and the header on create
  std::vector<StoreInfo> stores;
  // Called after a delete made holders pending releases (catalog.h); may be empty. Thread-safe,
  // quick.
  std::function<void()> on_release;
};

// What a handler works with: borrowed, as long as the service.
struct Context {
  const ServiceOptions& options;
  Catalog& catalog;
  Metadefs& metadefs;
};

// A handler with its context bound.
using ContextHandler = base::Result<base::http::Response> (*)(const Context&,
                                                              const base::http::Request&);
inline base::http::Route MakeRoute(const Context& context, std::string method, std::string pattern,
                                   ContextHandler handler,
                                   base::http::Access access = base::http::Access::kToken) {
  base::http::Route route;
  route.method = std::move(method);
  route.pattern = std::move(pattern);
  route.access = access;
  route.handler = [context, handler](const base::http::Request& request) {
    return handler(context, request);
  };
  return route;
}

// A body that must be a JSON object. kInvalidArgument.
base::Result<base::JsonObject> ParseObject(const base::http::Request& request);

}  // namespace imaged
