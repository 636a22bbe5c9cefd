#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/thread_annotations.h"
#include "blockd/chunk/headroom.h"
#include "blockd/chunk/stack.h"
#include "blockd/volume.h"

namespace blockd::chunk {

// A stretch of a volume inside which writes are one after the other.
constexpr uint64_t kStripeBytes = 4 * base::kMiB;

// An open volume on the chunk store. Thread-safe; locks are taken in the order stripe, stack, then
// those inside a layer; no call holds two stripes.
//
// A call works stripe by stripe. In one, writes exclude each other (so a sub-block write, which
// reads its block, patches it and writes it whole, never undoes another's), and a read that met a
// write reads again: so no sector is ever a mixture. A read takes no lock unless that happens
// twice.
class ChunkVolume : public Volume {
 public:
  // `keep_space`: zeroed ranges keep their place on the disk (thick volumes). `headroom`: what new
  // space is taken from; borrowed. None where space was taken beforehand.
  ChunkVolume(std::shared_ptr<const Stack> stack, uint64_t size_bytes, bool keep_space,
              Headroom* headroom)
      : stack_(std::move(stack)),
        size_bytes_(size_bytes),
        keep_space_(keep_space),
        headroom_(headroom) {}

  uint64_t size_bytes() const override { return size_bytes_.load(); }
  base::Result<void> Read(uint64_t offset, base::MutableByteView into) override;
  base::Result<bool> TryRead(uint64_t offset, base::MutableByteView into) override;
  base::Result<void> Write(uint64_t offset, base::ByteView data) override;
  base::Result<void> Zero(uint64_t offset, uint64_t length, bool free_space) override;
  base::Result<void> Flush() override;
  void Prefetch(uint64_t offset, uint64_t length) override;
  base::Result<void> VisitExtents(uint64_t offset, uint64_t length,
                                  const ExtentVisitor& visit) override;

  // For the store of volumes.
  std::shared_ptr<const Stack> stack() const EXCLUDES(stack_mutex_);
  // To a stack that reads the same. With a new head, this is a point in time: what was acknowledged
  // before is in the old head, what begins after goes to the new one, and what is under way goes
  // (stripe by stripe) to either. So the old head changes no more once its writers() have left.
  void Replace(std::shared_ptr<const Stack> stack) EXCLUDES(stack_mutex_);
  void Grow(uint64_t size_bytes) { size_bytes_.store(size_bytes); }
  // Gives back the space of some of what was trimmed (in one stripe). False: there was nothing.
  bool PunchSome();
  bool has_holes() const { return stack()->head().holes().size() > 0; }

 private:
  struct alignas(64) Stripe {
    base::Mutex mutex;
    std::atomic<uint64_t> version = 0;  // odd while a write runs
  };
  static constexpr size_t kStripes = 256;
  class StripeWrite;

  Stripe& StripeOf(uint64_t offset) { return stripes_[offset / kStripeBytes % kStripes]; }
  // The stack to write to, whose head counts one writer more.
  std::shared_ptr<const Stack> EnterHead() EXCLUDES(stack_mutex_);
  base::Result<void> CheckRange(uint64_t offset, uint64_t length) const;
  base::Result<void> WriteStripe(const Stack& stack, uint64_t offset, base::ByteView data);
  base::Result<void> TakeSpace(Layer& head, uint64_t offset, uint64_t length);
  base::Result<void> ReadStripe(uint64_t offset, base::MutableByteView into);
  base::Result<void> ZeroStripe(const Stack& stack, uint64_t offset, uint64_t length,
                                bool free_space);
  static BlockRange StripeBlocks(uint64_t block);

  mutable base::Mutex stack_mutex_;
  std::shared_ptr<const Stack> stack_ GUARDED_BY(stack_mutex_);
  std::atomic<uint64_t> size_bytes_;
  const bool keep_space_;
  Headroom* const headroom_;
  std::array<Stripe, kStripes> stripes_;
};

}  // namespace blockd::chunk
