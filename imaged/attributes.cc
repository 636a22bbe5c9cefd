#include "imaged/attributes.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "base/coding.h"
#include "base/uuid.h"
#include "imaged/errors.h"
#include "imaged/policy.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Json;
using base::Result;
using base::auth::Caller;

constexpr std::string_view kWritable[] = {
    "container_format", "disk_format", "id",        "locations", "min_disk",  "min_ram", "name",
    "os_hidden",        "owner",       "protected", "tags",      "visibility"};
constexpr std::string_view kReadOnly[] = {
    "checksum", "created_at", "direct_url", "file",   "os_hash_algo", "os_hash_value", "schema",
    "self",     "size",       "status",     "stores", "updated_at",   "virtual_size",
};
constexpr std::string_view kReserved[] = {"deleted", "deleted_at", "location"};

constexpr std::string_view kDiskFormats[] = {"ami", "ari",   "aki", "vhd", "vhdx", "vmdk",
                                             "raw", "qcow2", "vdi", "iso", "ploop"};
constexpr std::string_view kContainerFormats[] = {"ami", "ari", "aki",    "bare",
                                                  "ovf", "ova", "docker", "compressed"};
constexpr std::string_view kVisibilities[] = {"community", "public", "private", "shared"};

bool IsOneOf(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A value as the sentence quotes it, cut: it came from outside and may be anything.
std::string Quoted(const Json& value) {
  constexpr size_t kShown = 100;
  std::string text =
      value.is_string() ? std::string(base::View(value.get_string())) : base::ToText(value);
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return value.is_string() ? "'" + text + "'" : text;
}

Error Mismatch(std::string_view name, const Json& value, std::string_view expected) {
  return Error(Code::kInvalidArgument,
               "Provided object does not match schema 'image': " + Quoted(value) + " is not " +
                   std::string(expected) + " (" + std::string(name) + ")");
}

std::string ListOf(std::span<const std::string_view> names) {
  std::string list = "one of [";
  for (std::string_view name : names) {
    if (list.back() != '[') list += ", ";
    list.append("'").append(name).append("'");
  }
  return list + "]";
}

Result<bool> Boolean(std::string_view name, const Json& value) {
  if (!value.is_bool()) return Mismatch(name, value, "of type 'boolean'");
  return value.get_bool();
}

Result<int32_t> Megas(std::string_view name, const Json& value) {
  if (!value.is_int64() && !value.is_uint64()) return Mismatch(name, value, "of type 'integer'");
  if (value.is_uint64() || value.get_int64() < 0 ||
      value.get_int64() > std::numeric_limits<int32_t>::max())
    return Mismatch(name, value, "between 0 and 2147483647");
  return static_cast<int32_t>(value.get_int64());
}

// Null or a string within the length.
Result<std::optional<std::string>> ShortText(std::string_view name, const Json& value) {
  if (value.is_null()) return std::optional<std::string>();
  if (!value.is_string()) return Mismatch(name, value, "of type 'null', 'string'");
  RETURN_IF_ERROR(CheckLength(name, base::View(value.get_string())));
  return std::optional<std::string>(base::View(value.get_string()));
}

Result<std::optional<std::string>> Choice(std::string_view name, const Json& value,
                                          std::span<const std::string_view> choices) {
  if (value.is_null()) return std::optional<std::string>();
  if (!value.is_string() || !IsOneOf(choices, base::View(value.get_string())))
    return Mismatch(name, value, ListOf(choices));
  return std::optional<std::string>(base::View(value.get_string()));
}

// A format tells how the bytes are read: it may not change under them.
Result<void> SetFormat(std::string_view name, const Json& value,
                       std::span<const std::string_view> choices, Status status,
                       std::optional<std::string>* format) {
  ASSIGN_OR_RETURN(std::optional<std::string> chosen, Choice(name, value, choices));
  if (status != Status::kQueued && chosen != *format)
    return Error(Code::kPermissionDenied,
                 "Attribute " + std::string(name) + " can be only replaced for a queued image.");
  *format = std::move(chosen);
  return {};
}

Result<void> SetOwner(const Caller& caller, const Json& value, Image* image) {
  ASSIGN_OR_RETURN(const std::optional<std::string> owner, ShortText("owner", value));
  if (owner.value_or("") == image->owner) return {};
  if (!caller.IsAdmin())
    return Error(Code::kPermissionDenied, "Owner can't be updated by non admin.");
  image->owner = owner.value_or("");
  return {};
}

Result<void> SetVisibility(const Caller& caller, const Json& value, Image* image) {
  std::optional<Visibility> visibility;
  if (value.is_string()) visibility = ParseVisibility(base::View(value.get_string()));
  if (!visibility.has_value()) return Mismatch("visibility", value, ListOf(kVisibilities));
  if (*visibility == image->visibility) return {};
  RETURN_IF_ERROR(CheckVisibility(caller, *visibility));
  image->visibility = *visibility;
  return {};
}

Result<void> SetTags(const Json& value, Image* image) {
  if (!value.is_array()) return Mismatch("tags", value, "of type 'array'");
  image->tags.clear();
  for (const Json& tag : value.get_array()) {
    if (!tag.is_string()) return Mismatch("tags", tag, "of type 'string'");
    RETURN_IF_ERROR(AddTag(base::View(tag.get_string()), image));
  }
  return {};
}

Result<void> SetProperty(std::string_view name, const Json& value, Image* image) {
  RETURN_IF_ERROR(CheckLength("the name of a property", name));
  const bool is_image_id = name == "kernel_id" || name == "ramdisk_id";
  std::optional<std::string> text;
  if (value.is_string())
    text = std::string(base::View(value.get_string()));
  else if (!is_image_id || !value.is_null())
    return Mismatch(name, value, "of type 'string'");
  if (is_image_id && text.has_value() && (text->size() != 36 || !base::IsUuid(*text)))
    return Mismatch(name, value, "the id of an image");
  if (text.has_value() && text->size() > kMaxPropertyBytes)
    return Error(Code::kInvalidArgument, "The property " + std::string(name) + " has more than " +
                                             std::to_string(kMaxPropertyBytes) + " bytes.");
  image->properties.insert_or_assign(std::string(name), std::move(text));
  const auto reserved = [](const auto& property) { return IsReservedProperty(property.first); };
  const size_t reserved_count = static_cast<size_t>(
      std::count_if(image->properties.begin(), image->properties.end(), reserved));
  if (image->properties.size() - reserved_count > kMaxProperties)
    return Error(Code::kTooLarge,
                 "The limit has been exceeded on the number of allowed image properties. "
                 "Attempted: " +
                     std::to_string(image->properties.size() - reserved_count) +
                     ", Maximum: " + std::to_string(kMaxProperties));
  return {};
}

}  // namespace

AttributeKind KindOf(std::string_view name) {
  if (IsOneOf(kWritable, name)) return AttributeKind::kWritable;
  if (IsOneOf(kReadOnly, name)) return AttributeKind::kReadOnly;
  if (IsOneOf(kReserved, name) || IsReservedProperty(name)) return AttributeKind::kReserved;
  return AttributeKind::kProperty;
}

Result<void> CheckWritable(std::string_view name) {
  switch (KindOf(name)) {
    case AttributeKind::kReadOnly:
      return Error(Code::kPermissionDenied, "Attribute '" + std::string(name) + "' is read-only.");
    case AttributeKind::kReserved:
      return DetailedError(Code::kPermissionDenied, "Access was denied to this resource.",
                           "Attribute '" + std::string(name) + "' is reserved.");
    case AttributeKind::kWritable:
    case AttributeKind::kProperty:
      break;
  }
  if (name == "locations")
    return Error(Code::kPermissionDenied,
                 "It's not allowed to add locations if locations are invisible.");
  return {};
}

Result<void> CheckLength(std::string_view what, std::string_view text) {
  if (base::CountCharacters(text) <= kMaxNameCharacters) return {};
  return Error(Code::kInvalidArgument,
               "Provided object does not match schema 'image': " + std::string(what) +
                   " is longer than " + std::to_string(kMaxNameCharacters) + " characters");
}

Result<void> AddTag(std::string_view tag, Image* image) {
  RETURN_IF_ERROR(CheckLength("tag", tag));
  const auto place = std::lower_bound(image->tags.begin(), image->tags.end(), tag);
  if (place != image->tags.end() && *place == tag) return {};
  if (image->tags.size() >= kMaxTags)
    return Error(Code::kTooLarge,
                 "The limit has been exceeded on the number of allowed image tags. Attempted: " +
                     std::to_string(image->tags.size() + 1) +
                     ", Maximum: " + std::to_string(kMaxTags));
  image->tags.emplace(place, tag);
  return {};
}

Result<void> SetAttribute(const Caller& caller, std::string_view name, const Json& value,
                          Image* image) {
  if (name == "name") {
    ASSIGN_OR_RETURN(image->name, ShortText(name, value));
  } else if (name == "owner") {
    return SetOwner(caller, value, image);
  } else if (name == "visibility") {
    return SetVisibility(caller, value, image);
  } else if (name == "protected") {
    ASSIGN_OR_RETURN(image->is_protected, Boolean(name, value));
  } else if (name == "os_hidden") {
    ASSIGN_OR_RETURN(image->is_hidden, Boolean(name, value));
  } else if (name == "min_disk") {
    ASSIGN_OR_RETURN(image->min_disk_gb, Megas(name, value));
  } else if (name == "min_ram") {
    ASSIGN_OR_RETURN(image->min_ram_mb, Megas(name, value));
  } else if (name == "disk_format") {
    return SetFormat(name, value, kDiskFormats, image->status, &image->disk_format);
  } else if (name == "container_format") {
    return SetFormat(name, value, kContainerFormats, image->status, &image->container_format);
  } else if (name == "tags") {
    return SetTags(value, image);
  } else {
    return SetProperty(name, value, image);
  }
  return {};
}

}  // namespace imaged
