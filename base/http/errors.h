#pragma once

#include <string_view>

#include "base/http/message.h"
#include "base/result.h"

namespace base::http {

// The one table from codes to HTTP statuses: kNotFound 404, kAlreadyExists 409, kConflict 409,
// kInvalidArgument 400, kUnauthenticated 401, kPermissionDenied 403, kQuotaExceeded 413, kTooLarge
// 413, kUnavailable 503, kOutOfSpace 507, kCorruption 500, kIo 500, kCancelled 499.
int HttpStatus(Code code);

// "Not Found" for 404.
std::string_view ReasonPhrase(int status);

// {"error": {code, title, message}}: the answer where no service speaks for itself.
Response PlainError(int status, std::string_view message);

}  // namespace base::http
