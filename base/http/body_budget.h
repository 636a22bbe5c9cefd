#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "base/metrics.h"
#include "base/result.h"

namespace base::http {

// A body up to this size is read whatever others hold, so that a login always gets through: with
// kMaxConnections of them that is bounded as well.
constexpr size_t kFreeBodyBytes = 8 * kKiB;

// The memory of all request bodies that are read whole, from the first byte until the handler is
// done with them. Nobody waits for it: who finds it used up is told to come again. Internal to
// base/http. Thread-safe.
class BodyBudget {
 public:
  // `used` and `refused` are borrowed and outlive it.
  BodyBudget(uint64_t limit_bytes, Gauge& used, Counter& refused)
      : limit_bytes_(limit_bytes), used_gauge_(used), refused_(refused) {}

  // What one body has of it; given back at its end. One thread; borrows the budget.
  class Share {
   public:
    explicit Share(BodyBudget& budget) : budget_(budget) {}
    ~Share() { budget_.Return(held_bytes_); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

    // From here on the body may have that many bytes. kUnavailable: there is no room for them.
    Result<void> GrowTo(size_t bytes);

   private:
    BodyBudget& budget_;
    size_t held_bytes_ = 0;
  };

 private:
  bool Take(size_t bytes);
  void Return(size_t bytes);

  const uint64_t limit_bytes_;
  std::atomic<uint64_t> used_bytes_ = 0;
  Gauge& used_gauge_;
  Counter& refused_;
};

}  // namespace base::http
