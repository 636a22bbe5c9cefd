#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "blockd/api/route.h"

// Bodies of requests, and their members with the sentences that Cinder's clients know. All errors
// are kInvalidArgument.

namespace blockd::api {

constexpr size_t kMaxIdCharacters = 64;
constexpr size_t kMaxNameCharacters = 255;
constexpr size_t kMaxTextCharacters = 255;   // a description
constexpr size_t kMaxKeyCharacters = 255;    // of metadata and specs
constexpr size_t kMaxValueCharacters = 255;  // of metadata and specs
constexpr size_t kMaxPairs = 128;            // in one map of such

using TextMap = std::map<std::string, std::string>;

// The whole body: JSON by its Content-Type (where there is one), without NUL in a text. "Malformed
// request body", or what is wrong with it.
base::Result<base::Json> ParseAnyBody(const Call& call);
// The same, an object.
base::Result<base::JsonObject> ParseBody(const Call& call);
// The object that stands under `member` of the body: {"volume": {...}}.
base::Result<base::JsonObject> ParseBody(const Call& call, std::string_view member);

// What must be an object below the body, as the argument of an action: "Malformed request body".
base::Result<base::JsonObject> ObjectOf(const base::Json& value);

// "Invalid input for field/attribute size. Value: 0. <why>".
base::Error BadField(std::string_view name, const base::Json& value, std::string_view why);
// "'size' is a required property".
base::Error Missing(std::string_view name);

// A member that is missing or null is nothing. Text is counted in characters.
base::Result<std::optional<std::string>> OptionalText(const base::JsonObject& object,
                                                      std::string_view name, size_t max_characters);
// At least one character that is not a space; spaces around it are cut off.
base::Result<std::string> RequiredName(const base::JsonObject& object, std::string_view name,
                                       size_t max_characters = kMaxNameCharacters);
// A whole number, also written as a string.
base::Result<std::optional<int64_t>> OptionalInt(const base::JsonObject& object,
                                                 std::string_view name, int64_t min, int64_t max);
// true, false, or what Cinder takes for these: "true", "1", "yes", "on", 1, ... in any case.
base::Result<std::optional<bool>> OptionalBool(const base::JsonObject& object,
                                               std::string_view name);

// An object of short texts: metadata, extra specs. Keys are of [A-Za-z0-9_.:/-] and spaces, not
// empty (a CSI driver's have a slash); a value may also be a number or a boolean and is kept as
// text.
base::Result<TextMap> ParseTextMap(const base::Json& value, std::string_view name);
base::JsonObject ToJson(const TextMap& map);

// A boolean of a query.
base::Result<bool> ParseBool(std::string_view text, std::string_view name);

}  // namespace blockd::api
