#pragma once

#include "base/http/message.h"
#include "base/json.h"
#include "base/result.h"

// What holds for a client's JSON beside that it is JSON.

namespace base::http {

// Whether the Content-Type of a request lets its body be JSON: it is not there, or
// "application/json", or an "application/...+json". Keystone and Cinder look at it, Glance does
// not.
bool MayBeJson(const Headers& headers);

// Refuses a value in which a string or a key holds NUL: names and texts go to tools and files,
// where that ends them. kInvalidArgument. For what comes in only: what is stored may be older than
// this rule.
Result<void> CheckNoNul(const Json& value);

}  // namespace base::http
