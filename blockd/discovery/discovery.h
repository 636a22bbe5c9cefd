#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/http/router.h"
#include "base/result.h"
#include "blockd/api/route.h"
#include "blockd/context.h"

// What a client or an administrator asks about the service itself: versions, zones, services,
// hosts, pools, capabilities, and lists that are empty here (groups, clusters).

namespace blockd::discovery {

// Of the disk or pool that volumes lie on.
struct Capacity {
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
};

// Borrowed, as long as the service.
struct Context {
  const ServiceOptions& options;
  Catalog& catalog;
  // Of a pool, by the name of its back end; nothing: "unknown". Blocking, Thread-safe; may be
  // empty, then nothing is known of any.
  std::function<base::Result<std::optional<Capacity>>(const std::string& back_end)> capacity;
};

// "quarry@store#store" taken apart.
struct HostName {
  std::string pool;     // "quarry@store#store"
  std::string backend;  // "quarry@store"
  std::string node;     // "quarry"
  std::string name;     // "store"
};
HostName ParseHost(std::string_view host);

// Outside of projects, and without a token: GET / and GET /v3/.
void AppendVersionRoutes(std::string_view prefix, std::vector<base::http::Route>* routes);
// services, hosts, zones, pools, capabilities
void AppendServiceRoutes(const Context& context, std::vector<api::Route>* routes);
// extensions, resource filters, groups, group types, clusters
void AppendListRoutes(std::vector<api::Route>* routes);

}  // namespace blockd::discovery
