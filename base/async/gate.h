#pragma once

#include <cstdint>
#include <utility>

#include "base/thread_annotations.h"

namespace base::async {

// Counts what is in progress, so that a stop can let it finish: Enter until Close, then WaitEmpty.
// Thread-safe.
class Gate {
 public:
  // Leaves the gate when destroyed.
  class Pass {
   public:
    Pass() = default;
    explicit Pass(Gate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept;
    ~Pass();
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    Gate* gate_ = nullptr;
  };

  // An empty Pass once closed.
  Pass Enter();
  // No more may enter. Idempotent.
  void Close();
  // Waits until all have left; false when the time ran out.
  bool WaitEmpty(int64_t timeout_ms);
  int64_t inside() const;

 private:
  void Leave();

  mutable Mutex mutex_;
  CondVar changed_;
  int64_t inside_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace base::async
