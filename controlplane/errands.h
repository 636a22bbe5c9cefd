#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace controlplane {

// Asked now and then by long work: true when it is to stop. Thread-safe.
using Cancelled = std::function<bool()>;

// Beyond it nothing new is taken.
constexpr size_t kMaxErrands = 10'000;
// So long who asks again for what failed is told that, and it isn't begun anew.
constexpr int64_t kErrandErrorMs = 10'000;

// Long work by name, on a few threads of its own: one of a name at a time, however many ask. In the
// order in which it was asked for, but whoever shares a thread's time with others (a project) has
// half of the threads at most: some are left for the rest. Nothing is kept across a restart:
// whoever needs the work asks again, and sees from his records whether it is done. Thread-safe.
class Errands {
 public:
  using Work = std::function<base::Result<void>(const Cancelled& cancelled)>;

  // `clock` is borrowed and outlives it.
  Errands(size_t threads, const base::Clock& clock);
  ~Errands();  // stops

  // Begins the work, for `sharer`, if none of that name is on its way; never waits for it. Always
  // an error: kUnavailable when it is on its way (ask again), or what it has just failed with (what
  // was kUnavailable to the work is kIo then, so that one can tell). When it went well that is seen
  // elsewhere, and nobody asks.
  base::Error Ask(const std::string& name, const std::string& sharer, Work work);

  // The work of that name is not wanted any more: dropped or broken off. Returns once it doesn't
  // run.
  void Drop(const std::string& name);

  // Breaks off what runs, drops what waits, waits. Idempotent.
  void Stop();

 private:
  struct Errand {
    std::string sharer;
    Work work;
    bool running = false;
    std::atomic<bool> dropped{false};
    std::optional<base::Error> error;  // it failed ...
    int64_t failed_ns = 0;             // ... then
  };

  void Run();
  // Whose turn it is, taken from those who wait; nothing: nobody's.
  std::optional<std::string> TakeNext() REQUIRES(mutex_);
  void ForgetOldErrors() REQUIRES(mutex_);

  const base::Clock& clock_;
  const size_t share_;  // threads that one sharer may have
  base::Mutex mutex_;
  base::CondVar changed_;
  std::atomic<bool> stopping_{false};
  std::map<std::string, Errand> errands_ GUARDED_BY(mutex_);
  std::deque<std::string> waiting_ GUARDED_BY(mutex_);
  std::map<std::string, size_t> running_ GUARDED_BY(mutex_);  // by sharer
  std::vector<std::thread> threads_;
};

}  // namespace controlplane
