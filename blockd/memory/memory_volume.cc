#include "blockd/memory/memory_volume.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/check.h"

namespace blockd::memory {
namespace {

constexpr uint64_t kStripeBytes = 1 * base::kMiB;
constexpr uint64_t kStripeBlocks = kStripeBytes / kBlockBytes;
constexpr uint64_t kGrowFactor = 4;  // how far Grow can go

// Calls piece(stripe, offset in it, length, offset in the range) for each stripe of a range.
template <typename Piece>
void ForStripes(uint64_t offset, uint64_t length, const Piece& piece) {
  uint64_t done = 0;
  while (done < length) {
    const uint64_t at = offset + done;
    const uint64_t within = at % kStripeBytes;
    const uint64_t count = std::min(length - done, kStripeBytes - within);
    piece(at / kStripeBytes, within, count, done);
    done += count;
  }
}

}  // namespace

struct MemoryVolume::Stripe {
  mutable std::shared_mutex mutex;
  base::Buffer bytes{kStripeBytes};  // of a block that is not allocated: zeros
  std::bitset<kStripeBlocks> allocated;
};

MemoryVolume::MemoryVolume(uint64_t size_bytes)
    : size_bytes_(size_bytes), stripes_(kGrowFactor * size_bytes / kStripeBytes + 1) {
  CHECK(size_bytes % kSectorBytes == 0);
}

MemoryVolume::~MemoryVolume() {
  for (std::atomic<Stripe*>& stripe : stripes_) delete stripe.load();
}

base::Result<void> MemoryVolume::CheckRange(uint64_t offset, uint64_t length) const {
  const uint64_t size = size_bytes();
  if ((offset | length) % kSectorBytes != 0 || offset > size || length > size - offset) {
    return base::Error(base::Code::kInvalidArgument, "off the sector grid or beyond the end");
  }
  return {};
}

MemoryVolume::Stripe* MemoryVolume::Find(uint64_t number) const {
  return stripes_[number].load(std::memory_order_acquire);
}

MemoryVolume::Stripe& MemoryVolume::FindOrMake(uint64_t number) {
  if (Stripe* there = Find(number)) return *there;
  auto made = std::make_unique<Stripe>();
  std::memset(made->bytes.data(), 0, kStripeBytes);
  Stripe* expected = nullptr;
  if (stripes_[number].compare_exchange_strong(expected, made.get())) return *made.release();
  return *expected;
}

base::Result<void> MemoryVolume::Read(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  ForStripes(offset, into.size(), [&](uint64_t number, uint64_t at, uint64_t count, uint64_t done) {
    const Stripe* stripe = Find(number);
    if (stripe == nullptr) {
      std::memset(into.data() + done, 0, count);
      return;
    }
    std::shared_lock lock(stripe->mutex);
    std::memcpy(into.data() + done, stripe->bytes.data() + at, count);
  });
  return {};
}

base::Result<bool> MemoryVolume::TryRead(uint64_t offset, base::MutableByteView into) {
  RETURN_IF_ERROR(Read(offset, into));
  return true;
}

base::Result<void> MemoryVolume::Write(uint64_t offset, base::ByteView data) {
  RETURN_IF_ERROR(CheckRange(offset, data.size()));
  ForStripes(offset, data.size(), [&](uint64_t number, uint64_t at, uint64_t count, uint64_t done) {
    Stripe& stripe = FindOrMake(number);
    std::unique_lock lock(stripe.mutex);
    std::memcpy(stripe.bytes.data() + at, data.data() + done, count);
    for (uint64_t block = at / kBlockBytes; block * kBlockBytes < at + count; ++block)
      stripe.allocated.set(block);
  });
  return {};
}

base::Result<void> MemoryVolume::Zero(uint64_t offset, uint64_t length, bool free_space) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  ForStripes(offset, length, [&](uint64_t number, uint64_t at, uint64_t count, uint64_t) {
    if (free_space && Find(number) == nullptr) return;
    Stripe& stripe = FindOrMake(number);
    std::unique_lock lock(stripe.mutex);
    std::memset(stripe.bytes.data() + at, 0, count);
    for (uint64_t block = at / kBlockBytes; block * kBlockBytes < at + count; ++block) {
      const bool whole = block * kBlockBytes >= at && (block + 1) * kBlockBytes <= at + count;
      if (!free_space) stripe.allocated.set(block);
      if (free_space && whole) stripe.allocated.reset(block);
    }
  });
  return {};
}

base::Result<void> MemoryVolume::Flush() {
  flushes_.fetch_add(1);
  return {};
}

base::Result<void> MemoryVolume::VisitExtents(uint64_t offset, uint64_t length,
                                              const ExtentVisitor& visit) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  Extent extent{offset, 0, false, true};
  bool stopped = false;
  const auto add = [&](uint64_t count, bool allocated) {
    if (stopped) return;
    if (extent.length > 0 && extent.allocated != allocated) {
      stopped = !visit(extent);
      extent = {extent.offset + extent.length, 0, allocated, !allocated};
    }
    extent.length += count;
    extent.allocated = allocated;
    extent.zero = !allocated;
  };
  ForStripes(offset, length, [&](uint64_t number, uint64_t at, uint64_t count, uint64_t) {
    const Stripe* stripe = Find(number);
    if (stripe == nullptr) return add(count, false);
    std::shared_lock lock(stripe->mutex);
    for (uint64_t done = 0; done < count && !stopped;) {
      const uint64_t block = (at + done) / kBlockBytes;
      const uint64_t step = std::min(count - done, (block + 1) * kBlockBytes - (at + done));
      add(step, stripe->allocated.test(block));
      done += step;
    }
  });
  if (!stopped && extent.length > 0) visit(extent);
  return {};
}

void MemoryVolume::Grow(uint64_t size_bytes) {
  CHECK(size_bytes >= this->size_bytes() && size_bytes / kStripeBytes < stripes_.size());
  size_bytes_.store(size_bytes);
}

}  // namespace blockd::memory
