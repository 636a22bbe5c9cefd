#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "blockd/api/route.h"

// Pieces that the answers of the Block Storage API have in common.

namespace blockd::api {

// [{"rel": "self", ...}, {"rel": "bookmark", ...}] of one thing: `collection` is "volumes". The
// project stands in them if it stood in the request.
base::JsonArray LinksOf(const Call& call, std::string_view collection, std::string_view id);

// "2026-11-21T03:29:25.000000": UTC, with neither Z nor offset.
std::string FormatTime(int64_t time_us);
// The same, or null for 0.
base::Json TimeOrNull(int64_t time_us);
// The text, or null for an empty one.
base::Json TextOrNull(std::string_view text);

// 202 without a body, as most of what begins something is answered.
base::http::Response Accepted();

}  // namespace blockd::api
