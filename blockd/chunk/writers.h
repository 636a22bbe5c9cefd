#pragma once

#include <atomic>
#include <cstdint>

#include "base/thread_annotations.h"

namespace blockd::chunk {

// Counts who is writing to a layer, so that one to which no new write comes can be waited for: how
// a snapshot knows that its layer changes no more, without holding up anybody. Two atomic steps a
// write. Thread-safe.
class Writers {
 public:
  void Enter() { inside_.fetch_add(1); }
  void Leave() EXCLUDES(mutex_) {
    // Counted first, looked second; Await does it the other way round: one sees the other.
    if (inside_.fetch_sub(1) != 1 || !awaited_.load()) return;
    base::MutexLock lock(mutex_);
    left_.NotifyAll();
  }
  // Until nobody is inside. REQUIRES: nobody enters any more, or the wait has no end.
  void Await() EXCLUDES(mutex_) {
    base::MutexLock lock(mutex_);
    awaited_.store(true);
    while (inside_.load() != 0) left_.Wait(mutex_);
  }

 private:
  std::atomic<uint64_t> inside_ = 0;
  std::atomic<bool> awaited_ = false;
  base::Mutex mutex_;
  base::CondVar left_;
};

}  // namespace blockd::chunk
