#pragma once

#include <string>
#include <string_view>

// The JSON schemas that clients fetch before they write: python-glanceclient builds its arguments
// from "image", Tempest asks for each by name. Field names, types and limits are Glance's; the
// descriptions are ours.

namespace imaged {

// The text for /v2/schemas/<name>: "image", "images", "member", "tasks", "metadefs/namespace", ...
// Empty if there is no such schema. Made once; lives for ever. Thread-safe.
std::string_view SchemaText(std::string_view name);

}  // namespace imaged
