#pragma once

#include <string>
#include <utility>

#include "blockd/types/handlers.h"

namespace blockd::types {

using HandlerFunction = api::ContextHandler<Context>;

// A route for administrators, unless it says otherwise.
inline api::Route MakeRoute(const Context& context, std::string method, std::string pattern,
                            HandlerFunction handler,
                            base::http::Access access = base::http::Access::kAdmin, int since = 0) {
  return api::MakeRoute(context, std::move(method), std::move(pattern), handler, access, since);
}

}  // namespace blockd::types
