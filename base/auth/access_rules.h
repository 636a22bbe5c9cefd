#pragma once

#include <cstddef>
#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"

namespace base::auth {

// What a pattern may have, and how long a path may be that patterns are asked about. With these a
// request costs its caller's rules a few milliseconds at most, whatever both look like.
constexpr size_t kMaxPatternBytes = 255;
constexpr size_t kMaxPatternWildcards = 16;
constexpr size_t kMaxRulePathBytes = 4096;

// Whether the caller's application credential lets him make this call: always, if it has no access
// rules. Else one of them must name the service's type ("image"; a service without one can't be
// called), the method, and a pattern of the path, as keystonemiddleware reads it:
//
//   *  or {name}   one or more characters without a slash
//   **             any characters
//   anything else  itself
//
// `path` is the one that the router matched: decoded, and without the service's `prefix`
// (http::Request::path). Since all services share one port here, a pattern may begin behind the
// prefix, as the documentation of OpenStack writes it ("/v2/images"), or with it
// ("/image/v2/images"). Validating a token is always fine. Thread-safe.
bool Allows(const Caller& caller, std::string_view service_type, std::string_view prefix,
            std::string_view method, std::string_view path);

// Takes time in proportion to the path's length, and no memory. What is beyond the limits of bytes
// fits nothing.
bool PathMatches(std::string_view path, std::string_view pattern);

// kInvalidArgument says which limit a new pattern exceeds.
Result<void> CheckPattern(std::string_view pattern);

}  // namespace base::auth
