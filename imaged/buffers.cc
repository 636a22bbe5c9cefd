#include "imaged/buffers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/async/sleep.h"

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

bool BufferPool::TryTake(const std::string& project, Buffer* buffer, Refusal* why) {
  {
    MutexLock lock(mutex_);
    const std::optional<Refusal> refusal = shares_.TryTake(project, 1);
    if (refusal.has_value()) {
      if (why != nullptr) *why = *refusal;
      return false;
    }
    most_in_use_ = std::max<size_t>(most_in_use_, shares_.used());
    if (!idle_.empty()) {
      *buffer = std::move(idle_.back());
      idle_.pop_back();
      return true;
    }
  }
  *buffer = Buffer(chunkstore::kChunkBytes);
  return true;
}

void BufferPool::Give(const std::string& project, Buffer buffer) {
  MutexLock lock(mutex_);
  shares_.Give(project, 1);
  idle_.push_back(std::move(buffer));
}

size_t BufferPool::in_use() const {
  MutexLock lock(mutex_);
  return shares_.used();
}

size_t BufferPool::most_in_use() const {
  MutexLock lock(mutex_);
  return most_in_use_;
}

ChunkBuffer::~ChunkBuffer() {
  if (lane != nullptr) lane->Return(std::move(buffer));
}

BufferLane::BufferLane(std::shared_ptr<BufferPool> pool, std::string project, Buffer first)
    : pool_(std::move(pool)), project_(std::move(project)) {
  MutexLock lock(mutex_);
  idle_.push_back(std::move(first));
}

BufferLane::~BufferLane() {
  MutexLock lock(mutex_);
  for (Buffer& buffer : idle_) pool_->Give(project_, std::move(buffer));
}

std::shared_ptr<BufferLane> BufferLane::TryAdmit(std::shared_ptr<BufferPool> pool,
                                                 std::string project, Refusal* why) {
  Buffer first;
  if (!pool->TryTake(project, &first, why)) return nullptr;
  return std::shared_ptr<BufferLane>(
      new BufferLane(std::move(pool), std::move(project), std::move(first)));
}

Error BufferLane::Refused(Refusal why) {
  return Error(Code::kUnavailable,
               why == Refusal::kShare
                   ? "this project's uploads have its share of the service's memory; try again"
                   : "as many uploads as the service has memory for are on their way; try again");
}

Task<Result<std::shared_ptr<BufferLane>>> BufferLane::Admit(std::shared_ptr<BufferPool> pool,
                                                            std::string project, int64_t wait_ms) {
  Refusal why = Refusal::kLimit;
  for (int64_t waited_ms = 0;; waited_ms += kAdmissionPollMs) {
    std::shared_ptr<BufferLane> lane = TryAdmit(pool, project, &why);
    if (lane != nullptr) co_return lane;
    if (waited_ms >= wait_ms) break;
    co_await base::async::SleepMs(kAdmissionPollMs);
  }
  co_return Refused(why);
}

std::shared_ptr<ChunkBuffer> BufferLane::TryTake() {
  auto chunk = std::make_shared<ChunkBuffer>();
  {
    MutexLock lock(mutex_);
    if (in_use_ >= kMaxBuffersOfUpload) return nullptr;
    if (!idle_.empty()) {
      chunk->buffer = std::move(idle_.back());
      idle_.pop_back();
    } else if (!pool_->TryTake(project_, &chunk->buffer)) {
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
    if (--in_use_ == 0) {
      idle_.push_back(std::move(buffer));
    } else {
      pool_->Give(project_, std::move(buffer));
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
    const std::optional<Refusal> refusal = shares_.TryTake(project, bytes);
    if (refusal.has_value()) {
      if (why != nullptr) *why = *refusal;
      return nullptr;
    }
  }
  if (in_use_ != nullptr) in_use_->Add(static_cast<double>(bytes));
  return std::make_shared<Taken>(shared_from_this(), project, bytes);
}

void FairBudget::Give(const std::string& project, uint64_t bytes) {
  if (in_use_ != nullptr) in_use_->Add(-static_cast<double>(bytes));
  MutexLock lock(mutex_);
  shares_.Give(project, bytes);
}

uint64_t FairBudget::used_bytes() const {
  MutexLock lock(mutex_);
  return shares_.used();
}

}  // namespace imaged
