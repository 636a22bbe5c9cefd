#pragma once

#include <string>
#include <utility>

#include "blockd/types/handlers.h"

namespace blockd::types {

using HandlerFunction = base::Result<base::http::Response> (*)(const Context&, const api::Call&);

// A route with its context bound.
inline api::Route MakeRoute(const Context& context, std::string method, std::string pattern,
                            HandlerFunction handler,
                            base::http::Access access = base::http::Access::kAdmin, int since = 0) {
  api::Route route;
  route.method = std::move(method);
  route.pattern = std::move(pattern);
  route.access = access;
  route.since = since;
  route.handler = [context, handler](const api::Call& call) { return handler(context, call); };
  return route;
}

}  // namespace blockd::types
