#pragma once

#include <string_view>

#include "base/http/message.h"

// What a client says that it takes (RFC 9110 section 12.5).

namespace base::http {

// Whether an Accept-Encoding names this coding, with a weight above 0. "*" does not count: whoever
// knows the coding names it.
bool AcceptsCoding(const Headers& headers, std::string_view coding);

// Whether the Accept header lets an answer of this media type pass ("application/json"): nothing is
// said, or it is named, or "*/*" or its half ("application/*") is, with a weight above 0.
bool AcceptsType(const Headers& headers, std::string_view type);

}  // namespace base::http
