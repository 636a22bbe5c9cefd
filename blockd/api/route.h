#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/auth/caller.h"
#include "base/http/router.h"
#include "blockd/api/microversion.h"

// The routes of the Block Storage API, and what is the same for all of them: the microversion, the
// project in the path, the headers of the answer.

namespace blockd::api {

// A request as a handler sees it. Borrowed for the time of the call.
struct Call {
  const base::http::Request& request;
  const base::auth::Caller& caller;  // an empty one on public routes
  Microversion version;
  std::string_view prefix;  // of the service: "/volume"

  // Of the pattern. REQUIRES: it has it.
  const std::string& Param(std::string_view name) const { return request.Param(name); }
};

using Handler = std::function<base::Result<base::http::Response>(const Call& call)>;

struct Route {
  std::string method;
  std::string pattern;  // below the project: "/volumes/{volume_id}"
  base::http::Access access = base::http::Access::kToken;
  int since = 0;  // 3.<since> brought it; an older version is told 404
  Handler handler;
};

// A handler with what it works with, its folder's Context (copied), and a route of the two bound.
template <typename Context>
using ContextHandler = base::Result<base::http::Response> (*)(const Context&, const Call&);
template <typename Context>
Route MakeRoute(const Context& context, std::string method, std::string pattern,
                std::type_identity_t<ContextHandler<Context>> handler,
                base::http::Access access = base::http::Access::kToken, int since = 0) {
  return {std::move(method), std::move(pattern), access, since,
          [context, handler](const Call& call) { return handler(context, call); }};
}

// As the router takes them: each with the project's id in its path, and without (what 3.67
// announces). Another project's id than the token's is 400 "Malformed request url", as in Cinder. A
// version that we don't speak is 406, a malformed one 400.
void AppendRoutes(std::string_view prefix, const std::vector<Route>& routes,
                  std::vector<base::http::Route>* out);

// One that stands outside of any project: the documents of versions.
base::http::Route PublicRoute(std::string_view prefix, std::string method, std::string pattern,
                              Handler handler);

}  // namespace blockd::api
