#include "blockd/chunk/chunk_volume.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace blockd::chunk {

using base::ByteView;
using base::Code;
using base::Error;
using base::MutableByteView;
using base::Result;

namespace {

// How often a read that met a write tries again before it keeps writes out.
constexpr int kOptimisticReads = 2;
// How long a call gives back space before it leaves the rest of it for later, and how many ranges
// may be left so.
constexpr std::chrono::milliseconds kPunchAtOnce{100};
constexpr size_t kMaxHoles = 16'384;

const std::array<uint8_t, kBlockBytes> kZeroBlock{};

uint64_t ToStripeEnd(uint64_t offset, uint64_t length) {
  return std::min(length, kStripeBytes - offset % kStripeBytes);
}

// A whole block as it reads now, with `patch` at `offset`.
Result<void> Compose(const Stack& stack, uint64_t offset, ByteView patch, MutableByteView block) {
  const uint64_t within = offset % kBlockBytes;
  RETURN_IF_ERROR(stack.Read(offset - within, block));
  std::copy(patch.begin(), patch.end(), block.begin() + static_cast<ptrdiff_t>(within));
  return {};
}

Result<bool> HeadHolds(const Stack& stack, uint64_t offset) {
  ASSIGN_OR_RETURN(const LayerMap::Run run, stack.head().map().RunAt(offset / kBlockBytes, 1));
  return run.state == BlockState::kData;
}

Error OutOfRange(uint64_t offset, uint64_t length, uint64_t size_bytes) {
  return Error(Code::kInvalidArgument,
               fmt::format("{} bytes at {} are not on the grid of {} bytes, or go beyond the {} "
                           "bytes of the volume",
                           length, offset, kSectorBytes, size_bytes));
}

}  // namespace

// A write to one stripe, as far as others are concerned. It finds the stack when it has the stripe:
// so of two writes to a stripe the later one never goes to the older head, where the first would
// hide it.
class ChunkVolume::StripeWrite {
 public:
  StripeWrite(ChunkVolume& volume, uint64_t offset)
      : stripe_(volume.StripeOf(offset)), lock_(stripe_.mutex), stack_(volume.EnterHead()) {
    stripe_.version.fetch_add(1);
  }
  ~StripeWrite() {
    stripe_.version.fetch_add(1);
    stack_->head().writers().Leave();
  }
  StripeWrite(const StripeWrite&) = delete;
  StripeWrite& operator=(const StripeWrite&) = delete;

  const Stack& stack() const { return *stack_; }

 private:
  Stripe& stripe_;
  const std::lock_guard<base::Mutex> lock_;
  const std::shared_ptr<const Stack> stack_;
};

std::shared_ptr<const Stack> ChunkVolume::stack() const {
  base::MutexLock lock(stack_mutex_);
  return stack_;
}

void ChunkVolume::Replace(std::shared_ptr<const Stack> stack) {
  base::MutexLock lock(stack_mutex_);
  stack_.swap(stack);
}

std::shared_ptr<const Stack> ChunkVolume::EnterHead() {
  base::MutexLock lock(stack_mutex_);
  stack_->head().writers().Enter();
  return stack_;
}

Result<void> ChunkVolume::CheckRange(uint64_t offset, uint64_t length) const {
  const uint64_t size = size_bytes();
  const bool on_grid = offset % kSectorBytes == 0 && length % kSectorBytes == 0;
  if (on_grid && offset <= size && length <= size - offset) return {};
  return OutOfRange(offset, length, size);
}

Result<void> ChunkVolume::Read(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  while (!into.empty()) {
    const uint64_t here = ToStripeEnd(offset, into.size());
    RETURN_IF_ERROR(ReadStripe(offset, into.first(here)));
    offset += here;
    into = into.subspan(here);
  }
  return {};
}

Result<void> ChunkVolume::ReadStripe(uint64_t offset, MutableByteView into) {
  Stripe& stripe = StripeOf(offset);
  for (int attempt = 0; attempt < kOptimisticReads; ++attempt) {
    const uint64_t version = stripe.version.load();
    if (version % 2 != 0) break;
    RETURN_IF_ERROR(stack()->Read(offset, into));
    if (stripe.version.load() == version) return {};
  }
  base::MutexLock lock(stripe.mutex);
  return stack()->Read(offset, into);
}

Result<bool> ChunkVolume::TryRead(uint64_t offset, MutableByteView into) {
  RETURN_IF_ERROR(CheckRange(offset, into.size()));
  while (!into.empty()) {
    const uint64_t here = ToStripeEnd(offset, into.size());
    Stripe& stripe = StripeOf(offset);
    const uint64_t version = stripe.version.load();
    if (version % 2 != 0) return false;
    ASSIGN_OR_RETURN(const bool read, stack()->TryRead(offset, into.first(here)));
    if (!read || stripe.version.load() != version) return false;
    offset += here;
    into = into.subspan(here);
  }
  return true;
}

Result<void> ChunkVolume::Write(uint64_t offset, ByteView data) {
  RETURN_IF_ERROR(CheckRange(offset, data.size()));
  while (!data.empty()) {
    const uint64_t here = ToStripeEnd(offset, data.size());
    {
      const StripeWrite writing(*this, offset);
      RETURN_IF_ERROR(WriteStripe(writing.stack(), offset, data.first(here)));
    }
    offset += here;
    data = data.subspan(here);
  }
  return {};
}

// REQUIRES: nobody else writes to these blocks.
Result<void> ChunkVolume::WriteStripe(const Stack& stack, uint64_t offset, ByteView data) {
  std::array<uint8_t, kBlockBytes> first_block;
  std::array<uint8_t, kBlockBytes> last_block;
  std::array<ByteView, 3> pieces;
  const uint64_t before = offset % kBlockBytes;
  const uint64_t end = offset + data.size();
  uint64_t from = offset;
  const bool one_block = before + data.size() < kBlockBytes;
  if (before != 0 || one_block) {
    ASSIGN_OR_RETURN(const bool held, HeadHolds(stack, offset));
    if (!held) {
      const ByteView patch = data.first(std::min<uint64_t>(data.size(), kBlockBytes - before));
      RETURN_IF_ERROR(Compose(stack, offset, patch, first_block));
      pieces[0] = first_block;
      from -= before;
      data = data.subspan(patch.size());
    }
  }
  const uint64_t after = end % kBlockBytes;
  if (after != 0 && data.size() >= after) {
    ASSIGN_OR_RETURN(const bool held, HeadHolds(stack, end));
    if (!held) {
      RETURN_IF_ERROR(Compose(stack, end - after, data.last(after), last_block));
      pieces[2] = last_block;
      data = data.first(data.size() - after);
    }
  }
  pieces[1] = data;
  uint64_t length = 0;
  for (const ByteView piece : pieces) length += piece.size();
  RETURN_IF_ERROR(TakeSpace(stack.head(), from, length));
  return stack.head().Write(from, pieces);
}

// For the blocks of a range that the head has no bytes of yet.
Result<void> ChunkVolume::TakeSpace(Layer& head, uint64_t offset, uint64_t length) {
  if (headroom_ == nullptr) return {};
  uint64_t block = offset / kBlockBytes;
  const uint64_t end = (offset + length + kBlockBytes - 1) / kBlockBytes;
  uint64_t fresh = 0;
  while (block < end) {
    ASSIGN_OR_RETURN(const LayerMap::Run run, head.map().RunAt(block, end - block));
    if (run.state != BlockState::kData) fresh += run.blocks;
    block += run.blocks;
  }
  if (fresh == 0) return {};
  return headroom_->Take(fresh * kBlockBytes);
}

Result<void> ChunkVolume::Zero(uint64_t offset, uint64_t length, bool free_space) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  const auto start = std::chrono::steady_clock::now();
  bool punch_now = true;
  while (length > 0) {
    const uint64_t here = ToStripeEnd(offset, length);
    {
      const StripeWrite writing(*this, offset);
      RETURN_IF_ERROR(ZeroStripe(writing.stack(), offset, here, free_space && !keep_space_));
      Layer& head = writing.stack().head();
      if (punch_now || head.holes().size() > kMaxHoles)
        head.PunchHoles(StripeBlocks(offset / kBlockBytes));
    }
    punch_now = std::chrono::steady_clock::now() - start < kPunchAtOnce;
    offset += here;
    length -= here;
  }
  return {};
}

Result<void> ChunkVolume::ZeroStripe(const Stack& stack, uint64_t offset, uint64_t length,
                                     bool free_space) {
  const uint64_t end = offset + length;
  const uint64_t first_whole = (offset + kBlockBytes - 1) / kBlockBytes;
  const uint64_t end_whole = end / kBlockBytes;
  const ByteView zeros = kZeroBlock;
  const uint64_t before = std::min(first_whole * kBlockBytes, end) - offset;
  if (before > 0) RETURN_IF_ERROR(WriteStripe(stack, offset, zeros.first(before)));
  if (first_whole < end_whole) {
    const BlockState state =
        stack.MayHaveBelow(first_whole) ? BlockState::kZero : BlockState::kAbsent;
    RETURN_IF_ERROR(stack.head().Clear(first_whole, end_whole - first_whole, state, free_space));
  }
  const uint64_t after = end % kBlockBytes;
  if (after == 0 || after > length - before) return {};
  return WriteStripe(stack, end - after, zeros.first(after));
}

BlockRange ChunkVolume::StripeBlocks(uint64_t block) {
  constexpr uint64_t kBlocks = kStripeBytes / kBlockBytes;
  const uint64_t begin = block / kBlocks * kBlocks;
  return {begin, begin + kBlocks};
}

bool ChunkVolume::PunchSome() {
  const std::shared_ptr<const Stack> stack = this->stack();
  const std::optional<uint64_t> block = stack->head().holes().First();
  if (!block) return false;
  // What reads see does not change, so the stripe's version stays.
  base::MutexLock lock(StripeOf(*block * kBlockBytes).mutex);
  stack->head().PunchHoles(StripeBlocks(*block));
  return true;
}

Result<void> ChunkVolume::Flush() {
  const std::shared_ptr<const Stack> stack = this->stack();
  // The frozen ones too: what was written there before a snapshot may not be durable yet.
  for (const std::shared_ptr<Layer>& layer : stack->layers()) RETURN_IF_ERROR(layer->Flush());
  return {};
}

void ChunkVolume::Prefetch(uint64_t offset, uint64_t length) {
  if (CheckRange(offset, length)) stack()->Prefetch(offset, length);
}

Result<void> ChunkVolume::VisitExtents(uint64_t offset, uint64_t length,
                                       const ExtentVisitor& visit) {
  RETURN_IF_ERROR(CheckRange(offset, length));
  std::optional<Extent> pending;
  bool go_on = true;
  const auto merge = [&](const Extent& extent) {
    if (pending && pending->allocated == extent.allocated && pending->zero == extent.zero) {
      pending->length += extent.length;
      return true;
    }
    if (pending) go_on = visit(*pending);
    pending = extent;
    return go_on;
  };
  RETURN_IF_ERROR(stack()->VisitExtents(offset, length, merge));
  if (go_on && pending) visit(*pending);
  return {};
}

}  // namespace blockd::chunk
