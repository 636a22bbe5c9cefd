#include "base/http/json_body.h"

#include <algorithm>

#include "base/http/target.h"
#include "base/text.h"

namespace base::http {
namespace {

bool HasNul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

bool HasNul(const Json& value) {
  if (const JsonString* text = value.if_string()) return HasNul(View(*text));
  if (const JsonArray* array = value.if_array())
    return std::any_of(array->begin(), array->end(), [](const Json& item) { return HasNul(item); });
  const JsonObject* object = value.if_object();
  return object != nullptr && std::any_of(object->begin(), object->end(), [](const auto& member) {
           return HasNul(std::string_view(member.key())) || HasNul(member.value());
         });
}

}  // namespace

bool MayBeJson(const Headers& headers) {
  constexpr std::string_view kHalf = "application/";
  constexpr std::string_view kSuffix = "+json";
  const std::string_view value = headers.Get("Content-Type");
  const std::string_view type = Trim(value.substr(0, value.find(';')), " \t");
  if (type.empty() || EqualsNoCase(type, "application/json")) return true;
  return type.size() > kHalf.size() + kSuffix.size() &&
         EqualsNoCase(type.substr(0, kHalf.size()), kHalf) &&
         EqualsNoCase(type.substr(type.size() - kSuffix.size()), kSuffix);
}

Result<void> CheckNoNul(const Json& value) {
  if (!HasNul(value)) return {};
  return Error(Code::kInvalidArgument,
               "The request has a NUL character (\\u0000) in a name or a text: leave it out.");
}

}  // namespace base::http
