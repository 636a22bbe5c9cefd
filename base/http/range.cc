#include "base/http/range.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/http/target.h"
#include "base/text.h"

namespace base::http {
namespace {

constexpr std::string_view kBlanks = " \t";

// Digits only: from_chars alone would take "-5" apart differently than a person reads it.
std::optional<uint64_t> ParsePosition(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
    return std::nullopt;
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // So many digits that 64 bits do not hold them: beyond the end of any body.
  if (error == std::errc::result_out_of_range) return UINT64_MAX;
  return value;
}

Error Unsatisfiable(std::string_view header, uint64_t size_bytes) {
  return Error(Code::kInvalidArgument, "range not satisfiable: \"" + std::string(header) +
                                           "\" of " + std::to_string(size_bytes) + " bytes");
}

}  // namespace

Result<std::optional<ByteRange>> ParseRange(std::string_view header, uint64_t size_bytes) {
  constexpr std::string_view kUnit = "bytes=";
  const std::optional<ByteRange> whole;
  if (header.size() < kUnit.size() || !EqualsNoCase(header.substr(0, kUnit.size()), kUnit))
    return whole;
  std::string_view spec = Trim(header.substr(kUnit.size()), kBlanks);
  if (spec.find(',') != std::string_view::npos) return whole;

  const size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return Unsatisfiable(header, size_bytes);
  const std::string_view first_text = Trim(spec.substr(0, dash), kBlanks);
  const std::string_view last_text = Trim(spec.substr(dash + 1), kBlanks);
  const std::optional<uint64_t> first = ParsePosition(first_text);
  const std::optional<uint64_t> last = ParsePosition(last_text);
  if ((!first && !first_text.empty()) || (!last && !last_text.empty()) || (!first && !last))
    return Unsatisfiable(header, size_bytes);

  if (!first) {  // the last N bytes
    if (*last == 0 || size_bytes == 0) return Unsatisfiable(header, size_bytes);
    const uint64_t length = std::min(*last, size_bytes);
    return std::optional(ByteRange{size_bytes - length, length});
  }
  if (*first >= size_bytes || (last && *last < *first)) return Unsatisfiable(header, size_bytes);
  const uint64_t end = last ? std::min(*last, size_bytes - 1) : size_bytes - 1;
  return std::optional(ByteRange{*first, end - *first + 1});
}

}  // namespace base::http
