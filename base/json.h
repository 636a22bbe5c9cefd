#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "base/result.h"

// JSON for the edges (APIs, the command line, records that people may want to read). Boost.JSON's
// value is the one third-party type that is vocabulary here: wrapping it would only be another JSON
// library.

namespace base {

using Json = boost::json::value;
using JsonObject = boost::json::object;
using JsonArray = boost::json::array;
using JsonString = boost::json::string;

// Depth of nesting that ParseJson follows.
constexpr int kMaxJsonDepth = 32;

// Strict JSON: one value, valid UTF-8, at most kMaxJsonDepth deep; a repeated key keeps the last
// value. kInvalidArgument with the position otherwise. The caller bounds the size of the text.
Result<Json> ParseJson(std::string_view text);

inline std::string ToText(const Json& value) { return boost::json::serialize(value); }

// The member of an object, or nullptr; `value` may be anything.
const Json* Find(const Json& value, std::string_view key);
// The string member of an object, or nothing if it lacks or is no string.
std::optional<std::string> FindString(const Json& value, std::string_view key);
// The member of an object that is a whole number from 0 on, or nothing.
std::optional<uint64_t> FindUint(const Json& value, std::string_view key);
inline std::string_view View(const JsonString& text) { return {text.data(), text.size()}; }

}  // namespace base
