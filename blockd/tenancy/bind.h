#pragma once

#include <string>
#include <utility>

#include "blockd/tenancy/tenancy.h"

namespace blockd::tenancy {

using HandlerFunction = base::Result<base::http::Response> (*)(const Context&, const api::Call&);

// A route with its context bound.
inline api::Route MakeRoute(const Context& context, std::string method, std::string pattern,
                            HandlerFunction handler,
                            base::http::Access access = base::http::Access::kToken, int since = 0) {
  return {std::move(method), std::move(pattern), access, since,
          [context, handler](const api::Call& call) { return handler(context, call); }};
}

}  // namespace blockd::tenancy
