#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "blockd/remote/changed_map.h"
#include "blockd/remote/remote_volume.h"
#include "blockd/volume.h"

namespace blockd::remote {

// The metadata context of Quarry's server that tells where a volume may differ from an image:
// RemoteSettings::context for a volume whose origin is that image. It is not offered for what the
// volume's project may not read, or what has other bytes than a disk (qcow2).
//
// `data_name` is what the service calls the image's bytes (imaged/API.md, "Forms of blocks"), as 32
// hex digits: then it is not offered either if the image with this id has other bytes by now.
// Empty: whatever it has.
std::string ChangedSinceImage(const std::string& image_id, const std::string& data_name = "");

// What is remembered of which blocks changed takes at most this much memory for one volume: up to
// 256 GiB of origin are known by 4 KiB, more by 8 KiB and so on.
constexpr size_t kMaxChangedMapBytes = 8 * base::kMiB;

// A volume elsewhere that began as an image whose bytes are at hand: a copy-on-write boot volume of
// a compute host. What is still as in the origin is read from there (a cache on this host), all
// else and every write goes to the server, which has the whole volume and all that is durable.
//
// What changed is asked at opening; from then on a bit is set before a write leaves, and never
// cleared. So a read that begins after a write was acknowledged is answered by the server, and a
// read beside it sees old or new sectors. REQUIRES therefore: nobody else writes the volume while
// this is open (no volume that several may attach).
//
// What the origin can't give (its cache and its service are down, its bytes are damaged) the server
// gives. Thread-safe. Errors: those of RemoteVolume.
class DerivedVolume : public Volume {
 public:
  // `origin`: the bytes of the image, read-only; of its last 4 KiB if they are not whole nothing is
  // used. `remote` was opened with the context of this image. kNotFound if the server does not
  // offer it: then use `remote` alone.
  static base::Result<std::shared_ptr<DerivedVolume>> Open(std::shared_ptr<Volume> origin,
                                                           std::shared_ptr<RemoteVolume> remote);

  uint64_t size_bytes() const override { return remote_->size_bytes(); }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override { return remote_->Flush(); }
  void Prefetch(uint64_t offset, uint64_t length) override;
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override {
    return remote_->VisitExtents(offset, length, visit);
  }

  // Since the opening; for metrics.
  struct Counts {
    uint64_t origin_bytes = 0;  // read from the origin
    uint64_t remote_bytes = 0;  // read from the server
    uint64_t failed_over = 0;   // reads that the origin could not answer
  };
  Counts counts() const;
  uint64_t changed_bytes() const;  // of the origin's range, as far as is known

 private:
  using Part = RemoteVolume::Part;
  // Who reads what of a range.
  struct Plan {
    std::vector<Part> origin;
    std::vector<Part> remote;
  };
  DerivedVolume(std::shared_ptr<Volume> origin, std::shared_ptr<RemoteVolume> remote);
  base::Result<void> CheckRange(uint64_t offset, uint64_t length) const;
  Plan PlanRead(uint64_t offset, base::MutableByteView into) const;

  const std::shared_ptr<Volume> origin_;
  const std::shared_ptr<RemoteVolume> remote_;
  ChangedMap changed_;
  std::atomic<uint64_t> origin_bytes_ = 0;
  std::atomic<uint64_t> remote_bytes_ = 0;
  std::atomic<uint64_t> failed_over_ = 0;
  std::atomic<bool> failing_ = false;  // the origin, the last time
};

}  // namespace blockd::remote
