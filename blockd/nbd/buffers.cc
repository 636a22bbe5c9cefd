#include "blockd/nbd/buffers.h"

#include "base/check.h"
#include "blockd/nbd/protocol.h"

namespace blockd::nbd {
namespace {

constexpr size_t kSmallestBytes = 32 * base::kKiB;

}  // namespace

Buffers::Loan::~Loan() {
  if (owner_ != nullptr) owner_->GiveBack(std::move(memory_));
}

std::shared_ptr<Buffers> Buffers::Create(size_t max_idle_bytes) {
  static_assert(kSmallestBytes << (kClasses - 1) == kMaxIoBytes);
  return std::shared_ptr<Buffers>(new Buffers(max_idle_bytes));
}

size_t Buffers::ClassOf(size_t size_bytes) {
  size_t found = 0;
  while (kSmallestBytes << found < size_bytes) ++found;
  CHECK(found < kClasses);
  return found;
}

uint64_t Buffers::MemoryOf(size_t size_bytes) {
  return size_bytes == 0 ? 0 : kSmallestBytes << ClassOf(size_bytes);
}

Buffers::Loan Buffers::Take(const std::shared_ptr<Buffers>& buffers, size_t size_bytes) {
  Loan loan;
  loan.size_bytes_ = size_bytes;
  if (size_bytes == 0) return loan;
  const size_t kind = ClassOf(size_bytes);
  loan.owner_ = buffers;
  {
    base::MutexLock lock(buffers->mutex_);
    if (!buffers->idle_[kind].empty()) {
      loan.memory_ = std::move(buffers->idle_[kind].back());
      buffers->idle_[kind].pop_back();
      buffers->idle_bytes_ -= loan.memory_.size();
      return loan;
    }
  }
  loan.memory_ = base::Buffer(kSmallestBytes << kind);
  return loan;
}

void Buffers::GiveBack(base::Buffer memory) {
  const size_t size_bytes = memory.size();
  base::MutexLock lock(mutex_);
  if (idle_bytes_ + size_bytes > max_idle_bytes_) return;
  idle_bytes_ += size_bytes;
  idle_[ClassOf(size_bytes)].push_back(std::move(memory));
}

}  // namespace blockd::nbd
