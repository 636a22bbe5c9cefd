#pragma once

#include <string_view>

#include "base/auth/caller.h"
#include "base/json.h"
#include "base/result.h"
#include "imaged/image.h"

// What a client may write of an image, name by name: the one table behind POST and PATCH. Types and
// limits are those of the schema that schemas.h serves.

namespace imaged {

// Limits of one image; Glance's defaults.
constexpr size_t kMaxProperties = 128;
constexpr size_t kMaxTags = 128;
constexpr size_t kMaxMembers = 128;
constexpr size_t kMaxNameCharacters = 255;  // of names, owners, tags, members, names of properties
constexpr size_t kMaxPropertyBytes = 64 * 1024 - 1;

enum class AttributeKind : uint8_t {
  kWritable,  // one of Glance's own
  kReadOnly,  // kPermissionDenied "Attribute 'x' is read-only."
  kReserved,  // kPermissionDenied "Attribute 'x' is reserved."
  kProperty,  // any other name: a custom property, a string
};
AttributeKind KindOf(std::string_view name);

// kPermissionDenied if a client may not write `name` at all.
base::Result<void> CheckWritable(std::string_view name);

// Sets one attribute or property from JSON. Checks the type and the limits (kInvalidArgument,
// kTooLarge), and who may make an image public or give it to another project (kPermissionDenied).
// REQUIRES: CheckWritable(name).
base::Result<void> SetAttribute(const base::auth::Caller& caller, std::string_view name,
                                const base::Json& value, Image* image);

// Adds a tag if it is not there. kInvalidArgument, kTooLarge.
base::Result<void> AddTag(std::string_view tag, Image* image);
// kInvalidArgument over kMaxNameCharacters characters (not bytes), naming `what`.
base::Result<void> CheckLength(std::string_view what, std::string_view text);

}  // namespace imaged
