#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {

// What each write of a connection passes, so that a revocation can say "no write of theirs reaches
// the volume any more". Entering is two atomic operations. Thread-safe.
class Fence {
 public:
  // False once closed; else Leave must follow.
  bool Enter() {
    inside_.fetch_add(1);
    if (!closed_.load()) return true;
    Leave();
    return false;
  }

  void Leave() {
    if (inside_.fetch_sub(1) != 1 || !closed_.load()) return;
    base::MutexLock lock(mutex_);
    empty_.NotifyAll();
  }

  // Idempotent; then nobody enters.
  void Close() { closed_.store(true); }

  // After Close: true when nobody is inside any more, false when that took too long.
  bool WaitEmpty(int64_t timeout_ms) {
    const base::Clock& clock = base::SystemClock();
    const int64_t deadline_ns = clock.MonotonicNs() + timeout_ms * 1'000'000;
    base::MutexLock lock(mutex_);
    while (inside_.load() > 0) {
      const int64_t left_ns = deadline_ns - clock.MonotonicNs();
      if (left_ns <= 0) return false;
      empty_.WaitForMs(mutex_, left_ns / 1'000'000 + 1);
    }
    return true;
  }

 private:
  std::atomic<int64_t> inside_{0};
  std::atomic<bool> closed_{false};
  base::Mutex mutex_;
  base::CondVar empty_;
};

}  // namespace blockd::nbd
