#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/auth/caller.h"
#include "base/result.h"

namespace blockd {

// An image as a volume is made of it.
struct ImageFacts {
  std::string id;
  std::string name;
  uint64_t size_bytes = 0;  // of the raw content
  uint64_t min_disk_gb = 0;
  std::map<std::string, std::string> metadata;  // volume_image_metadata
};

// A volume that becomes an image.
struct ImageUpload {
  std::string image_id;  // as NewImage gave it
  std::string holder;    // of the chunk store, what is to be the image's content
};

// What blockd wants of the image service; put together with it elsewhere. Thread-safe, blocking.
class ImageSource {
 public:
  virtual ~ImageSource() = default;

  // kNotFound for what the caller may not see; kInvalidArgument for what is not active, or has a
  // format that no volume can be made of; kUnavailable for one that can't be converted here.
  virtual base::Result<ImageFacts> Find(const base::auth::Caller& caller,
                                        std::string_view image_id) = 0;

  // The holder in the chunk store of the image's bytes as a disk reads them. If they have to be
  // converted first (once for each image) that is begun, and this answers kUnavailable at once
  // until it is done: ask again. For jobs. kNotFound; what the conversion failed with.
  virtual base::Result<std::string> RawHolder(std::string_view image_id) = 0;

  // A queued image of the caller's, to be filled by a job. Returns its id.
  virtual base::Result<std::string> NewImage(const base::auth::Caller& caller,
                                             std::string_view name, std::string_view disk_format,
                                             std::string_view container_format,
                                             std::string_view visibility, bool is_protected) = 0;
  // Makes it active, by handing over a root; nothing is copied. Again with the same is fine:
  // kUnavailable says that it is on its way (its digest takes time), so ask again.
  virtual base::Result<void> Fill(const ImageUpload& upload) = 0;
  // Gives it up: it never becomes active, and goes. Leaves one alone that is active.
  virtual base::Result<void> Abandon(std::string_view image_id) = 0;
};

}  // namespace blockd
