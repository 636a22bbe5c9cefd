#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

// The request target taken apart, and the small text rules of HTTP that several files here need.
// All input is hostile; all functions are pure and Thread-safe.

namespace base::http {

// The longest request target that is looked at; beyond it: 414. Image filters by name can be long.
constexpr size_t kMaxTargetBytes = 16 * 1024;

using QueryFields = std::vector<std::pair<std::string, std::string>>;

// Views into the target that came.
struct Target {
  std::string_view path;   // still encoded, begins with '/'
  std::string_view query;  // still encoded, without '?'
};

// Origin form ("/a?b") or absolute form ("http://host/a?b", RFC 9112 section 3.2.2: the authority
// in it is passed over). kInvalidArgument for anything else, and for a '#': a request target has no
// fragment, and whoever read one apart from us would see another path.
Result<Target> SplitTarget(std::string_view target);

// "a%20b" to "a b"; nothing if a '%' is not followed by two hex digits, or the outcome holds NUL or
// is no UTF-8.
std::optional<std::string> DecodePercent(std::string_view text, bool plus_is_space = false);

// For a path's segment or a query's value: all but letters, digits and "-._" as %XX.
std::string EncodePercent(std::string_view text);

// "a=1&b=%20&c" in order; '+' is a space. kInvalidArgument names the field that can't be decoded.
Result<QueryFields> ParseQuery(std::string_view query);

// Valid UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(std::string_view text);

// A Host field's value: letters, digits, ".-_~:[]%" only, so that it can stand in a link.
bool IsHost(std::string_view text);

// A well-formed "host" or "host:port": a name, an IPv4 address, or an IPv6 address in brackets; the
// port from 1 to 65535. Stricter than IsHost: for what others put into links.
bool IsHostAndPort(std::string_view text);

// ASCII only, as HTTP's names compare.
bool EqualsNoCase(std::string_view a, std::string_view b);

}  // namespace base::http
