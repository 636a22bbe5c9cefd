#pragma once

#include <atomic>
#include <bitset>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "blockd/volume.h"

namespace blockd::memory {

// A volume in memory, complete: for tests and measurements, and what the seam means. Nothing is
// durable; a Flush only counts. Space is taken by blocks that were written. Thread-safe.
class MemoryVolume : public Volume {
 public:
  explicit MemoryVolume(uint64_t size_bytes);
  ~MemoryVolume() override;

  uint64_t size_bytes() const override { return size_bytes_.load(); }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override;
  void Prefetch(uint64_t offset, uint64_t length) override {}
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  // At most to four times the size it was made with.
  void Grow(uint64_t size_bytes);
  uint64_t flushes() const { return flushes_.load(); }

 private:
  struct Stripe;

  base::Result<void> CheckRange(uint64_t offset, uint64_t length) const;
  Stripe* Find(uint64_t number) const;
  Stripe& FindOrMake(uint64_t number);

  std::atomic<uint64_t> size_bytes_;
  std::atomic<uint64_t> flushes_{0};
  // Fixed for life, so that nothing moves under a reader: kMaxVolumeBytes would be 32 MiB of it.
  std::vector<std::atomic<Stripe*>> stripes_;
};

}  // namespace blockd::memory
