#include "base/async/gate.h"

#include <chrono>

#include "base/check.h"

namespace base::async {

Gate::Pass& Gate::Pass::operator=(Pass&& other) noexcept {
  if (this == &other) return *this;
  if (gate_ != nullptr) gate_->Leave();
  gate_ = std::exchange(other.gate_, nullptr);
  return *this;
}

Gate::Pass::~Pass() {
  if (gate_ != nullptr) gate_->Leave();
}

Gate::Pass Gate::Enter() {
  MutexLock lock(mutex_);
  if (closed_) return Pass();
  ++inside_;
  return Pass(this);
}

void Gate::Leave() {
  MutexLock lock(mutex_);
  CHECK(inside_ > 0);
  --inside_;
  // Under the lock: a waiter may destroy the gate as soon as it sees it empty.
  if (inside_ == 0) changed_.NotifyAll();
}

void Gate::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
}

bool Gate::WaitEmpty(int64_t timeout_ms) {
  using SteadyClock = std::chrono::steady_clock;
  auto deadline = SteadyClock::now() + std::chrono::milliseconds(timeout_ms);
  MutexLock lock(mutex_);
  while (inside_ > 0) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0) return false;
    changed_.WaitForMs(mutex_, left.count());
  }
  return true;
}

int64_t Gate::inside() const {
  MutexLock lock(mutex_);
  return inside_;
}

}  // namespace base::async
