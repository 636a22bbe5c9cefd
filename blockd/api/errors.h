#pragma once

#include <string>
#include <string_view>

#include "base/http/message.h"
#include "base/result.h"

// Errors as clients of the Block Storage API read them:
//   {"itemNotFound": {"code": 404, "message": "Volume x could not be found."}}
// The name goes with the status; over quota (and only there) "retryAfter" stands beside it.

namespace blockd::api {

// The service's ErrorRenderer, but for WWW-Authenticate. What is our own fault shows no detail.
base::http::Response RenderError(const base::http::Request& request, int status,
                                 const base::Error& error);

// {"<name>": {"code": status, "message": message}} with the version's headers.
base::http::Response ErrorBody(const base::http::Request& request, int status,
                               std::string_view message);

// kInvalidArgument and kNotFound: what handlers need most.
base::Error Bad(std::string message);
// "<kind> <id> could not be found."; the id is cut to what may be echoed.
base::Error NotFound(std::string_view kind, std::string_view id);

// At most this much of what a client sent stands in a message to it.
std::string Echo(std::string_view text);

}  // namespace blockd::api
