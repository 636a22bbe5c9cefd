#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/auth/caller.h"
#include "base/json.h"
#include "base/result.h"
#include "imaged/image.h"

// Changes of an image as a list of operations: a subset of JSON Patch (RFC 6902), under Glance's
// two media types. v2.1 writes {"op": "replace", "path": "/name", "value": "x"}; v2.0 wrote
// {"replace": "/name", "value": "x"}.

namespace imaged {

enum class PatchVersion : uint8_t { kV20, kV21 };
constexpr std::string_view kPatchTypeV20 = "application/openstack-images-v2.0-json-patch";
constexpr std::string_view kPatchTypeV21 = "application/openstack-images-v2.1-json-patch";

constexpr size_t kMaxPatchOperations = 1000;

struct PatchOperation {
  enum class Kind : uint8_t { kAdd, kReplace, kRemove };
  Kind kind = Kind::kAdd;
  std::string name;  // of the attribute or property: the pointer's only part, decoded
  base::Json value;
};

// Reads a body. The text is hostile. kInvalidArgument with what is wrong; kPermissionDenied for an
// attribute that no client may write; kTooLarge over kMaxPatchOperations.
base::Result<std::vector<PatchOperation>> ParsePatch(PatchVersion version, std::string_view body);

// Applies all of it, or fails and leaves the image half changed (it is a copy: see
// Catalog::Update). Beyond SetAttribute's errors: kConflict "Property x does not exist.",
// kPermissionDenied for removing Glance's own.
base::Result<void> ApplyPatch(const base::auth::Caller& caller,
                              const std::vector<PatchOperation>& operations, Image* image);

}  // namespace imaged
