#include "base/json.h"

#include <algorithm>
#include <cmath>

#include <boost/json/stream_parser.hpp>

namespace base {
namespace {

// The library reads 1e400 as infinity, writes that as 1e99999 and refuses to read it again: a
// record that held one would be lost.
bool HasInfinity(const Json& value) {
  if (const double* number = value.if_double()) return !std::isfinite(*number);
  if (const JsonArray* array = value.if_array())
    return std::any_of(array->begin(), array->end(), HasInfinity);
  const JsonObject* object = value.if_object();
  return object != nullptr && std::any_of(object->begin(), object->end(), [](const auto& member) {
           return HasInfinity(member.value());
         });
}

}  // namespace

Result<Json> ParseJson(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::json::stream_parser parser({}, options);
  boost::system::error_code error;
  size_t read = parser.write_some(text.data(), text.size(), error);
  bool extra = !error && read < text.size();
  if (!error && !extra) parser.finish(error);
  if (!error && !extra) {
    Json value = parser.release();
    if (!HasInfinity(value)) return value;
    return Error(Code::kInvalidArgument, "malformed JSON: a number is too large");
  }
  std::string reason = extra ? "something follows the end of the value" : error.message();
  return Error(Code::kInvalidArgument,
               "malformed JSON at byte " + std::to_string(read) + ": " + reason);
}

const Json* Find(const Json& value, std::string_view key) {
  const JsonObject* object = value.if_object();
  return object == nullptr ? nullptr : object->if_contains(key);
}

std::optional<std::string> FindString(const Json& value, std::string_view key) {
  const Json* member = Find(value, key);
  if (member == nullptr || !member->is_string()) return std::nullopt;
  return std::string(View(member->get_string()));
}

std::optional<uint64_t> FindUint(const Json& value, std::string_view key) {
  const Json* member = Find(value, key);
  if (member == nullptr) return std::nullopt;
  if (member->is_uint64()) return member->get_uint64();
  if (!member->is_int64() || member->get_int64() < 0) return std::nullopt;
  return static_cast<uint64_t>(member->get_int64());
}

}  // namespace base
