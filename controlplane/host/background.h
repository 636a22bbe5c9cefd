#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/thread_annotations.h"

namespace controlplane::host {

// Threads that fetch ahead of those who read, in two lanes: what a reader will want next, and what
// a boot will. While a reader waits for the service himself, only one thread goes on with the
// second, so that most of the link is his. Thread-safe.
class Background {
 public:
  static constexpr size_t kReadaheadThreads = 4;
  static constexpr size_t kLowThreads = 4;
  static constexpr size_t kMaxQueued = 256;  // of a lane

  Background();
  ~Background();  // Stop
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // False, without running it, where too much waits already: it is brought when it is read.
  bool ReadAhead(std::function<void()> job);
  bool RunLow(std::function<void()> job);

  // While one lives, a reader waits for the service.
  class Demand {
   public:
    explicit Demand(Background& background) : background_(background) { background_.Waiting(1); }
    ~Demand() { background_.Waiting(-1); }
    Demand(const Demand&) = delete;
    Demand& operator=(const Demand&) = delete;

   private:
    Background& background_;
  };

  // Returns once nothing waits nor runs: for tests.
  void Drain();
  // Drops what waits, and returns when nothing runs any more. Idempotent.
  void Stop();

 private:
  struct Lane {
    std::deque<std::function<void()>> jobs;
    size_t running = 0;
  };

  void Waiting(int change);
  bool MayRunLow() const REQUIRES(mutex_);
  void RunReadahead();
  void RunLowJobs();

  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  int waiting_ GUARDED_BY(mutex_) = 0;
  Lane readahead_ GUARDED_BY(mutex_);
  Lane low_ GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace controlplane::host
