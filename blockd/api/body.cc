#include "blockd/api/body.h"

#include <algorithm>
#include <optional>

#include "base/coding.h"
#include "base/http/json_body.h"
#include "base/text.h"
#include "blockd/api/errors.h"

namespace blockd::api {
namespace {

using base::Json;
using base::JsonObject;
using base::Result;

constexpr std::string_view kBlanks = " \t\r\n";

std::string Quoted(std::string_view text) { return "'" + Echo(text) + "'"; }

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::optional<bool> BoolOf(std::string_view text) {
  const std::string lower = Lower(base::Trim(text, kBlanks));
  for (const char* word : {"1", "t", "true", "on", "y", "yes"})
    if (lower == word) return true;
  for (const char* word : {"0", "f", "false", "off", "n", "no"})
    if (lower == word) return false;
  return std::nullopt;
}

bool IsKey(std::string_view key) {
  return !base::Trim(key, kBlanks).empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("_-:./ ").find(c) != std::string_view::npos;
  });
}

Result<std::string> ValueOf(const Json& value, std::string_view name) {
  if (value.is_string()) {
    const std::string_view text = base::View(value.get_string());
    if (base::CountCharacters(text) > kMaxValueCharacters)
      return BadField(name, value, Quoted(text) + " is too long");
    return std::string(text);
  }
  if (value.is_int64() || value.is_uint64() || value.is_double()) return base::ToText(value);
  if (value.is_bool()) return std::string(value.get_bool() ? "True" : "False");
  return BadField(name, value,
                  base::ToText(value).substr(0, kMaxValueCharacters) + " is not of type 'string'");
}

const Json* Member(const JsonObject& object, std::string_view name) {
  const Json* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

}  // namespace

Result<Json> ParseAnyBody(const Call& call) {
  if (!base::http::MayBeJson(call.request.headers)) {
    return Bad("Content-Type " + Quoted(call.request.headers.Get("Content-Type")) +
               " is not application/json. Verify the request body and Content-Type header and try "
               "again.");
  }
  Result<Json> json = base::ParseJson(call.request.body);
  if (!json.has_value()) return Bad("Malformed request body");
  RETURN_IF_ERROR(base::http::CheckNoNul(*json));
  return json;
}

Result<JsonObject> ParseBody(const Call& call) {
  ASSIGN_OR_RETURN(Json json, ParseAnyBody(call));
  if (!json.is_object()) return ObjectOf(nullptr);
  return std::move(json.get_object());
}

Result<JsonObject> ObjectOf(const Json& value) {
  if (!value.is_object()) return Bad("Malformed request body");
  return value.get_object();
}

Result<JsonObject> ParseBody(const Call& call, std::string_view member) {
  ASSIGN_OR_RETURN(JsonObject body, ParseBody(call));
  Json* value = body.if_contains(member);
  if (value == nullptr) return Missing(member);
  if (!value->is_object()) return BadField(member, *value, "It is not of type 'object'");
  return std::move(value->get_object());
}

base::Error BadField(std::string_view name, const Json& value, std::string_view why) {
  std::string shown = "None";
  if (value.is_string()) {
    shown = Echo(base::View(value.get_string()));
  } else if (!value.is_null()) {
    shown = Echo(base::ToText(value));
  }
  return Bad("Invalid input for field/attribute " + Echo(name) + ". Value: " + shown + ". " +
             std::string(why));
}

base::Error Missing(std::string_view name) { return Bad(Quoted(name) + " is a required property"); }

Result<std::optional<std::string>> OptionalText(const JsonObject& object, std::string_view name,
                                                size_t max_characters) {
  const Json* value = Member(object, name);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string()) return BadField(name, *value, "It is not of type 'string'");
  const std::string_view text = base::View(value->get_string());
  if (base::CountCharacters(text) > max_characters)
    return BadField(name, *value, Quoted(text) + " is too long");
  return std::optional<std::string>(text);
}

Result<std::string> RequiredName(const JsonObject& object, std::string_view name,
                                 size_t max_characters) {
  if (!object.contains(name)) return Missing(name);
  ASSIGN_OR_RETURN(const std::optional<std::string> text,
                   OptionalText(object, name, max_characters));
  if (!text.has_value()) return BadField(name, nullptr, "None is not of type 'string'");
  const std::string_view trimmed = base::Trim(*text, kBlanks);
  if (trimmed.empty()) return BadField(name, Json(*text), Quoted(*text) + " is too short");
  return std::string(trimmed);
}

Result<std::optional<int64_t>> OptionalInt(const JsonObject& object, std::string_view name,
                                           int64_t min, int64_t max) {
  const Json* value = Member(object, name);
  if (value == nullptr) return std::optional<int64_t>();
  int64_t number = 0;
  if (value->is_int64()) {
    number = value->get_int64();
  } else if (value->is_string()) {
    const std::string_view text = base::View(value->get_string());
    const std::optional<int64_t> parsed = base::ParseNumber<int64_t>(text);
    if (!parsed.has_value())
      return BadField(name, *value, Quoted(text) + " does not match '^[0-9]+$'");
    number = *parsed;
  } else if (value->is_uint64()) {
    number = INT64_MAX;
  } else {
    return BadField(name, *value, "It is not of type 'integer', 'string'");
  }
  if (number < min)
    return BadField(name, *value,
                    std::to_string(number) + " is less than the minimum of " + std::to_string(min));
  if (number > max)
    return BadField(
        name, *value,
        std::to_string(number) + " is greater than the maximum of " + std::to_string(max));
  return std::optional<int64_t>(number);
}

Result<std::optional<bool>> OptionalBool(const JsonObject& object, std::string_view name) {
  const Json* value = Member(object, name);
  if (value == nullptr) return std::optional<bool>();
  if (value->is_bool()) return std::optional<bool>(value->get_bool());
  std::optional<bool> word;
  if (value->is_string()) word = BoolOf(base::View(value->get_string()));
  if (value->is_int64()) word = BoolOf(std::to_string(value->get_int64()));
  if (!word.has_value()) return BadField(name, *value, "It is not of type 'boolean'");
  return word;
}

Result<TextMap> ParseTextMap(const Json& value, std::string_view name) {
  if (!value.is_object()) {
    const std::string shown = value.is_null() ? "None" : Echo(base::ToText(value));
    return BadField(name, value, shown + " is not of type 'object'");
  }
  if (value.get_object().size() > kMaxPairs)
    return Bad("'" + Echo(name) + "' may have at most " + std::to_string(kMaxPairs) + " members.");
  TextMap map;
  for (const auto& [key, member] : value.get_object()) {
    if (!IsKey(key) || key.size() > kMaxKeyCharacters)
      return BadField(name, value,
                      Quoted(key) + " is no key: 1 to " + std::to_string(kMaxKeyCharacters) +
                          " letters, digits, spaces and any of _-:./");
    ASSIGN_OR_RETURN(std::string text, ValueOf(member, key));
    map.emplace(key, std::move(text));
  }
  return map;
}

JsonObject ToJson(const TextMap& map) {
  JsonObject object;
  for (const auto& [key, value] : map) object.emplace(key, value);
  return object;
}

Result<bool> ParseBool(std::string_view text, std::string_view name) {
  const std::optional<bool> word = BoolOf(text);
  if (word.has_value()) return *word;
  return Bad("Invalid value '" + Echo(text) + "' for '" + Echo(name) +
             "': it must be true or false.");
}

}  // namespace blockd::api
