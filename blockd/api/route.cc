#include "blockd/api/route.h"

#include <utility>

#include "blockd/api/errors.h"

namespace blockd::api {
namespace {

using base::Code;
using base::Error;
using base::Result;
using base::http::Request;
using base::http::Response;

Result<Response> Refuse(const Request& request, const Negotiation& negotiation) {
  if (negotiation.outcome == Negotiation::Outcome::kMalformed)
    return Bad("API Version String " + negotiation.asked +
               " is of invalid format. Must be of format MajorNum.MinorNum.");
  return ErrorBody(request, 406,
                   "Version " + negotiation.asked +
                       " is not supported by the API. Minimum is 3.0 and maximum is " +
                       Microversion{kNewestMinor}.ToString() + ".");
}

Result<void> CheckProject(const Request& request, const base::auth::Caller& caller) {
  const auto project = request.params.find("project_id");
  if (project == request.params.end() || project->second == caller.project_id) return {};
  return Bad("Malformed request url");
}

Result<Response> Run(const Request& request, std::string_view prefix, int since,
                     const Handler& handler) {
  const Negotiation negotiation = Negotiate(request);
  if (negotiation.outcome != Negotiation::Outcome::kAgreed) return Refuse(request, negotiation);
  if (!negotiation.version.AtLeast(since))
    return Error(Code::kNotFound, "API version " + negotiation.version.ToString() +
                                      " is not supported on this method.");
  static const base::auth::Caller kNobody;
  const base::auth::Caller& caller = request.caller == nullptr ? kNobody : *request.caller;
  RETURN_IF_ERROR(CheckProject(request, caller));
  ASSIGN_OR_RETURN(Response response, handler(Call{request, caller, negotiation.version, prefix}));
  AddVersionHeaders(request, negotiation, &response);
  return response;
}

base::http::Route Bind(std::string_view prefix, const Route& route, std::string pattern) {
  base::http::Route bound;
  bound.method = route.method;
  bound.pattern = std::move(pattern);
  bound.access = route.access;
  bound.handler = [prefix = std::string(prefix), since = route.since, handler = route.handler](
                      const Request& request) { return Run(request, prefix, since, handler); };
  return bound;
}

}  // namespace

void AppendRoutes(std::string_view prefix, const std::vector<Route>& routes,
                  std::vector<base::http::Route>* out) {
  for (const Route& route : routes) {
    out->push_back(Bind(prefix, route, "/v3/{project_id}" + route.pattern));
    out->push_back(Bind(prefix, route, "/v3" + route.pattern));
  }
}

base::http::Route PublicRoute(std::string_view prefix, std::string method, std::string pattern,
                              Handler handler) {
  Route route;
  route.method = std::move(method);
  route.access = base::http::Access::kPublic;
  route.handler = std::move(handler);
  return Bind(prefix, route, std::move(pattern));
}

}  // namespace blockd::api
