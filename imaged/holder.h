#pragma once

#include <string>
#include <string_view>

#include "base/uuid.h"

// The names under which images keep their bytes in the chunk store: "image/<image id>/<upload id>".
// One for each upload, so that what a failed one left can never be taken for what a later one
// stored. They stand in the store's manifests: the form is for ever.

namespace imaged {

constexpr std::string_view kHolderPrefix = "image/";

// The disk that an image describes, where its bytes are in another form: "image-raw/<image id>/<a
// new id>". It can be made again at any time.
constexpr std::string_view kRawHolderPrefix = "image-raw/";

// What a negotiated upload had brought when it broke off (kept_parts.h): "image-part/<id of the
// project that sent it>/<a new id>".
constexpr std::string_view kPartHolderPrefix = "image-part/";

// What the holders of one image begin with.
inline std::string HolderPrefix(std::string_view image_id) {
  return std::string(kHolderPrefix).append(image_id).append("/");
}

// A new one for an image.
inline std::string NewHolder(std::string_view image_id) {
  return HolderPrefix(image_id) + base::NewUuidHex();
}

inline std::string NewRawHolder(std::string_view image_id) {
  return std::string(kRawHolderPrefix).append(image_id).append("/") + base::NewUuidHex();
}

inline std::string NewPartHolder(std::string_view project_id) {
  return std::string(kPartHolderPrefix).append(project_id).append("/") + base::NewUuidHex();
}

namespace internal {
inline std::string_view IdBehind(std::string_view prefix, std::string_view holder) {
  if (!holder.starts_with(prefix)) return {};
  holder.remove_prefix(prefix.size());
  const size_t slash = holder.find('/');
  return slash == std::string_view::npos ? std::string_view() : holder.substr(0, slash);
}
}  // namespace internal

// The id of the image; empty for what does not hold an image's own bytes.
inline std::string_view ImageOfHolder(std::string_view holder) {
  return internal::IdBehind(kHolderPrefix, holder);
}
// The id of the image; empty for what holds no image's raw form.
inline std::string_view ImageOfRawHolder(std::string_view holder) {
  return internal::IdBehind(kRawHolderPrefix, holder);
}
// The id of the project that sent it; empty for what holds no part of a broken-off upload.
inline std::string_view ProjectOfPartHolder(std::string_view holder) {
  return internal::IdBehind(kPartHolderPrefix, holder);
}

}  // namespace imaged
