#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/auth/caller.h"
#include "base/metrics.h"
#include "base/result.h"
#include "blockd/image_source.h"
#include "controlplane/convert/to_raw.h"
#include "controlplane/errands.h"
#include "imaged/catalog.h"
#include "imaged/data_path.h"

namespace controlplane {

struct VolumeImagesOptions {
  convert::Limits convert;
  convert::Programs programs;
  size_t at_once = 4;  // conversions and fills, half of them for one project; the others wait
};

// Images as blockd wants them, over the image registry: what a volume is made of, and what a volume
// becomes. Thread-safe.
//
// What may take long (converting a qcow2; the digest of new bytes) is done by threads of its own,
// once for each image however many ask; whoever asks meanwhile is told kUnavailable and asks again.
// So it holds no lane of volume jobs. Nothing of it is journalled: the job that asks is, and asks
// again after a crash.
//
// The raw form of an image is kept with it (Image::raw) from the first time that somebody wants it,
// and goes with it.
class VolumeImages : public blockd::ImageSource {
 public:
  // Borrowed; they outlive it.
  VolumeImages(const VolumeImagesOptions& options, imaged::Catalog& catalog,
               imaged::DataPath& data_path, base::Metrics& metrics);
  ~VolumeImages() override;  // stops

  // Breaks off what is on its way, which leaves garbage only, and waits for it. Before the data
  // path stops. Idempotent.
  void Stop();

  base::Result<blockd::ImageFacts> Find(const base::auth::Caller& caller,
                                        std::string_view image_id) override;
  base::Result<std::string> RawHolder(std::string_view image_id) override;
  base::Result<std::string> NewImage(const base::auth::Caller& caller, std::string_view name,
                                     std::string_view disk_format,
                                     std::string_view container_format, std::string_view visibility,
                                     bool is_protected) override;
  base::Result<void> Fill(const blockd::ImageUpload& upload) override;
  base::Result<void> Abandon(std::string_view image_id) override;

 private:
  // Of the disk that an image with data describes.
  base::Result<uint64_t> DiskBytes(const imaged::Image& image);
  bool IsGone(const std::string& image_id);
  base::Result<void> Convert(const std::string& image_id, const Cancelled& cancelled);
  base::Result<void> TakeOver(const blockd::ImageUpload& upload, const Cancelled& cancelled);

  const VolumeImagesOptions options_;
  imaged::Catalog& catalog_;
  imaged::DataPath& data_path_;
  base::Counter& converted_;
  base::Counter& failed_;
  Errands errands_;
};

}  // namespace controlplane
