#pragma once

#include <string>

#include "base/http/message.h"
#include "base/result.h"
#include "imaged/query.h"

// The query string of GET /v2/images.

namespace imaged {

constexpr size_t kDefaultListLimit = 25;
constexpr size_t kMaxListLimit = 1000;
constexpr size_t kMaxListTerms =
    200;  // sort keys, tags, values of an in: filter and the like, together

// kInvalidArgument, in Glance's words where it has some. REQUIRES: the request has a caller.
base::Result<ListQuery> ParseListRequest(const base::http::Request& request);

// "/v2/images?limit=1&sort=name%3Aasc": the same query without its marker, or with another one.
std::string ListLink(const base::http::Request& request, std::string_view marker);

}  // namespace imaged
