#include "blockd/nbd/memory_budget.h"

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace blockd::nbd {

using Refusal = base::FairShares::Refusal;

MemoryBudget::Share::~Share() {
  if (owner_ != nullptr) owner_->budget->Give(owner_->tenant, bytes_);
}

MemoryBudget::Line::Line(std::shared_ptr<MemoryBudget> budget, std::string tenant,
                         std::function<void()> wake)
    : owner_(std::make_shared<const Owner>(Owner{std::move(budget), std::move(tenant)})),
      wake_(std::move(wake)) {}

MemoryBudget::Share MemoryBudget::Line::TryTake(uint64_t bytes) {
  return owner_->budget->TryTake(*this, bytes);
}

void MemoryBudget::Line::Leave() { owner_->budget->Leave(*this); }

MemoryBudget::Share MemoryBudget::TryTake(Line& line, uint64_t bytes) {
  const std::string& tenant = line.owner_->tenant;
  base::MutexLock lock(mutex_);
  if (line.waits_for_bytes_ != 0) {
    CHECK(line.waits_for_bytes_ == bytes);
    if (!line.granted_) return {};
    line.granted_ = false;
    line.waits_for_bytes_ = 0;
    return Share(line.owner_, bytes);
  }
  auto queue = QueueOf(tenant);
  if (queue == queues_.end()) {
    if (!exhausted_ && !shares_.TryTake(tenant, bytes).has_value()) {
      return Share(line.owner_, bytes);
    }
    queue = queues_.insert(queue, Queue{tenant, {}});
  }
  line.waits_for_bytes_ = bytes;
  queue->lines.push_back(&line);
  if (!exhausted_) Serve();
  return {};
}

void MemoryBudget::Leave(Line& line) {
  base::MutexLock lock(mutex_);
  const uint64_t bytes = std::exchange(line.waits_for_bytes_, 0);
  if (bytes == 0) return;
  const std::string& tenant = line.owner_->tenant;
  if (std::exchange(line.granted_, false)) {
    shares_.Give(tenant, bytes);
  } else {
    const auto queue = QueueOf(tenant);
    std::erase(queue->lines, &line);
    if (queue->lines.empty()) queues_.erase(queue);
  }
  Serve();
}

void MemoryBudget::Give(const std::string& tenant, uint64_t bytes) {
  base::MutexLock lock(mutex_);
  shares_.Give(tenant, bytes);
  Serve();
}

// In the order in which tenants began to wait.
void MemoryBudget::Serve() {
  exhausted_ = false;
  for (auto queue = queues_.begin(); queue != queues_.end();) {
    std::optional<Refusal> refusal;
    while (!queue->lines.empty() && !refusal.has_value()) {
      Line& first = *queue->lines.front();
      refusal = shares_.TryTake(queue->tenant, first.waits_for_bytes_);
      if (refusal.has_value()) break;
      queue->lines.pop_front();
      first.granted_ = true;
      first.wake_();
    }
    if (refusal == Refusal::kLimit) {
      exhausted_ = true;
      queues_.splice(queues_.begin(), queues_, queue);
      return;
    }
    queue = queue->lines.empty() ? queues_.erase(queue) : std::next(queue);
  }
}

std::list<MemoryBudget::Queue>::iterator MemoryBudget::QueueOf(const std::string& tenant) {
  return std::find_if(queues_.begin(), queues_.end(),
                      [&](const Queue& queue) { return queue.tenant == tenant; });
}

uint64_t MemoryBudget::used_bytes() const {
  base::MutexLock lock(mutex_);
  return shares_.used();
}

}  // namespace blockd::nbd
