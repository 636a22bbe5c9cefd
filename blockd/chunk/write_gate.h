#pragma once

#include <atomic>
#include <cstdint>

#include "base/thread_annotations.h"

namespace blockd::chunk {

// Lets writes pass, and can be shut for a moment so that none is under way: how a snapshot finds
// one point in time. Passing costs two atomic steps; a closer is never starved by those who pass.
// Thread-safe.
class WriteGate {
 public:
  // While it lives, the gate is not shut. Keep it short: one write of one stripe.
  class Pass {
   public:
    explicit Pass(WriteGate& gate) : gate_(gate) { gate_.Enter(); }
    ~Pass() { gate_.Leave(); }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    WriteGate& gate_;
  };

  // Waits until nobody is inside; who comes then waits for Open. One closer at a time.
  void Close() EXCLUDES(mutex_) {
    base::MutexLock lock(mutex_);
    closed_.store(true);
    while (inside_.load() != 0) drained_.Wait(mutex_);
  }
  void Open() EXCLUDES(mutex_) {
    base::MutexLock lock(mutex_);
    closed_.store(false);
    opened_.NotifyAll();
  }

 private:
  void Enter() EXCLUDES(mutex_) {
    for (;;) {
      // Counted first, looked second; Close does it the other way round: one sees the other.
      inside_.fetch_add(1);
      if (!closed_.load()) return;
      Leave();
      base::MutexLock lock(mutex_);
      while (closed_.load()) opened_.Wait(mutex_);
    }
  }
  void Leave() EXCLUDES(mutex_) {
    if (inside_.fetch_sub(1) != 1 || !closed_.load()) return;
    base::MutexLock lock(mutex_);
    drained_.NotifyAll();
  }

  std::atomic<uint64_t> inside_ = 0;
  std::atomic<bool> closed_ = false;
  base::Mutex mutex_;
  base::CondVar drained_;
  base::CondVar opened_;
};

}  // namespace blockd::chunk
