#include "imaged/buffers.h"

#include <algorithm>
#include <utility>

#include "base/async/sleep.h"
#include "base/check.h"

namespace imaged {

using base::Buffer;
using base::Code;
using base::Error;
using base::MutexLock;
using base::Result;
using base::async::Task;

namespace {

constexpr int64_t kAdmissionPollMs = 50;

}  // namespace

bool BufferPool::TryTake(Buffer* buffer) {
  {
    MutexLock lock(mutex_);
    if (in_use_ >= limit_) return false;
    ++in_use_;
    most_in_use_ = std::max(most_in_use_, in_use_);
    if (!idle_.empty()) {
      *buffer = std::move(idle_.back());
      idle_.pop_back();
      return true;
    }
  }
  *buffer = Buffer(chunkstore::kChunkBytes);
  return true;
}

void BufferPool::Give(Buffer buffer) {
  MutexLock lock(mutex_);
  CHECK(in_use_ > 0);
  --in_use_;
  idle_.push_back(std::move(buffer));
}

size_t BufferPool::in_use() const {
  MutexLock lock(mutex_);
  return in_use_;
}

size_t BufferPool::most_in_use() const {
  MutexLock lock(mutex_);
  return most_in_use_;
}

ChunkBuffer::~ChunkBuffer() {
  if (lane != nullptr) lane->Return(std::move(buffer));
}

BufferLane::BufferLane(std::shared_ptr<BufferPool> pool, Buffer first) : pool_(std::move(pool)) {
  MutexLock lock(mutex_);
  idle_.push_back(std::move(first));
}

BufferLane::~BufferLane() {
  MutexLock lock(mutex_);
  for (Buffer& buffer : idle_) pool_->Give(std::move(buffer));
}

std::shared_ptr<BufferLane> BufferLane::TryAdmit(std::shared_ptr<BufferPool> pool) {
  Buffer first;
  if (!pool->TryTake(&first)) return nullptr;
  return std::shared_ptr<BufferLane>(new BufferLane(std::move(pool), std::move(first)));
}

Task<Result<std::shared_ptr<BufferLane>>> BufferLane::Admit(std::shared_ptr<BufferPool> pool,
                                                            int64_t wait_ms) {
  for (int64_t waited_ms = 0;; waited_ms += kAdmissionPollMs) {
    std::shared_ptr<BufferLane> lane = TryAdmit(pool);
    if (lane != nullptr) co_return lane;
    if (waited_ms >= wait_ms) break;
    co_await base::async::SleepMs(kAdmissionPollMs);
  }
  co_return Error(Code::kUnavailable,
                  "as many uploads as the service has memory for are on their way; try again");
}

std::shared_ptr<ChunkBuffer> BufferLane::TryTake() {
  auto chunk = std::make_shared<ChunkBuffer>();
  {
    MutexLock lock(mutex_);
    if (in_use_ >= kMaxBuffersOfUpload) return nullptr;
    if (!idle_.empty()) {
      chunk->buffer = std::move(idle_.back());
      idle_.pop_back();
    } else if (!pool_->TryTake(&chunk->buffer)) {
      return nullptr;
    }
    ++in_use_;
  }
  chunk->lane = shared_from_this();
  return chunk;
}

void BufferLane::Return(Buffer buffer) {
  {
    MutexLock lock(mutex_);
    --in_use_;
    if (idle_.empty()) {
      idle_.push_back(std::move(buffer));
    } else {
      pool_->Give(std::move(buffer));
    }
  }
  returned_.Notify();
}

struct FairBudget::Taken {
  Taken(std::shared_ptr<FairBudget> from, std::string by, uint64_t count)
      : budget(std::move(from)), project(std::move(by)), bytes(count) {}
  ~Taken() { budget->Give(project, bytes); }
  Taken(const Taken&) = delete;
  Taken& operator=(const Taken&) = delete;

  const std::shared_ptr<FairBudget> budget;
  const std::string project;
  const uint64_t bytes;
};

FairBudget::Share FairBudget::TryTake(const std::string& project, uint64_t bytes, Refusal* why) {
  {
    MutexLock lock(mutex_);
    const uint64_t free_bytes = limit_bytes_ - used_bytes_;
    const auto found = held_bytes_.find(project);
    const uint64_t held_bytes = found == held_bytes_.end() ? 0 : found->second;
    const bool fits = bytes <= free_bytes;
    const bool fair = held_bytes == 0 || (fits && held_bytes + bytes <= free_bytes - bytes);
    if (!fits || !fair) {
      if (why != nullptr) *why = held_bytes == 0 ? Refusal::kMemory : Refusal::kShare;
      return nullptr;
    }
    used_bytes_ += bytes;
    held_bytes_[project] += bytes;
  }
  if (in_use_ != nullptr) in_use_->Add(static_cast<double>(bytes));
  return std::make_shared<Taken>(shared_from_this(), project, bytes);
}

void FairBudget::Give(const std::string& project, uint64_t bytes) {
  if (in_use_ != nullptr) in_use_->Add(-static_cast<double>(bytes));
  MutexLock lock(mutex_);
  used_bytes_ -= bytes;
  const auto held = held_bytes_.find(project);
  held->second -= bytes;
  if (held->second == 0) held_bytes_.erase(held);
}

uint64_t FairBudget::used_bytes() const {
  MutexLock lock(mutex_);
  return used_bytes_;
}

}  // namespace imaged
