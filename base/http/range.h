#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.h"

namespace base::http {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};

// A Range header (RFC 9110 section 14) against a body of `size_bytes`: "bytes=0-99", "bytes=100-",
// "bytes=-5". Nothing: no range applies (no header, another unit, several ranges: the whole body is
// a right answer). kInvalidArgument with code "range not satisfiable" in the message: answer 416
// with "Content-Range: bytes */SIZE".
Result<std::optional<ByteRange>> ParseRange(std::string_view header, uint64_t size_bytes);

}  // namespace base::http
