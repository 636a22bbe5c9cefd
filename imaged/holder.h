#pragma once

#include <string>
#include <string_view>

#include "base/uuid.h"

// The names under which images keep their bytes in the chunk store: "image/<image id>/<upload id>".
// One for each upload, so that what a failed one left can never be taken for what a later one
// stored. They stand in the store's manifests: the form is for ever.

namespace imaged {

constexpr std::string_view kHolderPrefix = "image/";

// What the holders of one image begin with.
inline std::string HolderPrefix(std::string_view image_id) {
  return std::string(kHolderPrefix).append(image_id).append("/");
}

// A new one for an image.
inline std::string NewHolder(std::string_view image_id) {
  return HolderPrefix(image_id) + base::NewUuidHex();
}

// The id of the image; empty for what is no holder of an image.
inline std::string_view ImageOfHolder(std::string_view holder) {
  if (!holder.starts_with(kHolderPrefix)) return {};
  holder.remove_prefix(kHolderPrefix.size());
  const size_t slash = holder.find('/');
  return slash == std::string_view::npos ? std::string_view() : holder.substr(0, slash);
}

}  // namespace imaged
