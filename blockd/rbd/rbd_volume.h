#pragma once

#include <memory>

#include "blockd/rbd/image.h"
#include "blockd/volume.h"

namespace blockd::rbd {

// An open volume: an RBD image whose exclusive lock we have. Everything that was acknowledged is in
// the cluster: there is no cache here, and Flush waits for what is under way. Another process that
// took the volume over ends it: kUnavailable from then on.
class RbdVolume : public Volume {
 public:
  explicit RbdVolume(std::shared_ptr<Image> image) : image_(std::move(image)) {}

  uint64_t size_bytes() const override { return image_->size_bytes(); }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;  // false
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  bool is_remote() const override { return true; }
  void ReadAsync(uint64_t offset, base::MutableByteView into, Done done) override;
  void WriteAsync(uint64_t offset, base::ByteView data, Done done) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override;
  void Prefetch(uint64_t offset, uint64_t length) override {}
  // By whole objects (4 MiB), from the object maps.
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

 private:
  base::Result<void> Check(uint64_t offset, uint64_t length) const;

  const std::shared_ptr<Image> image_;
};

}  // namespace blockd::rbd
