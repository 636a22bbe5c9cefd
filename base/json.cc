#include "base/json.h"

#include <boost/json/stream_parser.hpp>

namespace base {

Result<Json> ParseJson(std::string_view text) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::json::stream_parser parser({}, options);
  boost::system::error_code error;
  size_t read = parser.write_some(text.data(), text.size(), error);
  bool extra = !error && read < text.size();
  if (!error && !extra) parser.finish(error);
  if (!error && !extra) return parser.release();
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

}  // namespace base
