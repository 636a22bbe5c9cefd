#pragma once

#include <string_view>

#include "base/auth/caller.h"

namespace base::auth {

// Whether the caller's application credential lets him make this call: always, if it has no access
// rules. Else one of them must name the service's type ("image"; a service without one can't be
// called), the method, and a pattern of the path, as keystonemiddleware reads it:
//
//   *  or {name}   one or more characters without a slash
//   **             any characters
//   anything else  itself
//
// `path` as it came, without the query. Since all services share one port here, a pattern may
// begin behind the service's `prefix`, as the documentation of OpenStack writes it ("/v2/images"),
// or with it ("/image/v2/images"). Validating a token is always fine. Thread-safe.
bool Allows(const Caller& caller, std::string_view service_type, std::string_view prefix,
            std::string_view method, std::string_view path);

// Takes time in proportion to the product of both lengths at most.
bool PathMatches(std::string_view path, std::string_view pattern);

}  // namespace base::auth
