#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/thread_annotations.h"
#include "chunkstore/jobs/journal.h"

namespace chunkstore::jobs {

// How a handler left its job.
struct Outcome {
  bool done = true;      // the record goes; else it is tried again ...
  int64_t delay_ms = 0;  // ... after so long
};

// What a handler is told while it works. Thread-safe.
class JobControl {
 public:
  // True once the runner stops or the job was lost to another: give up soon. What was begun is
  // finished or rolled back by whoever takes the job next.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  friend class Runner;
  std::atomic<bool> cancelled_{false};
};

struct RunnerOptions {
  size_t threads = 1;
  int64_t lease_ms = 30'000;
  int64_t poll_ms = 1'000;  // how often it looks for jobs of others, or that became due
  bool background = false;  // threads of the lowest priority
  Choose choose;            // which job is next; null: the oldest
  bool by_turns = false;    // instead: those with a queue, by turns (Journal::ClaimByTurns)
};

// Threads that take the jobs of one kind and run them, each under a lease that is kept while the
// handler works. Thread-safe.
class Runner {
 public:
  // An error is logged and the job tried again, later each time (1 s, 2 s, ... at most 60 s): a
  // handler that knows that its work is in vain says so by Outcome{done} after rolling back.
  using Handler = std::function<base::Result<Outcome>(const Job&, const JobControl&)>;

  // `journal` is borrowed and outlives the runner.
  Runner(Journal& journal, std::string kind, RunnerOptions options, Handler handler);
  ~Runner();  // stops
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  void Start();
  // There may be a job: look at once.
  void Wake();
  // Cancels what runs, and waits for it. Idempotent.
  void Stop();

 private:
  struct Running {
    Job job;
    JobControl* control = nullptr;
    int64_t renewed_ns = 0;  // the lease runs from here or later
  };

  void Work();
  void KeepLeases();
  void RunOne(Job job, int64_t claimed_ns);
  void Settle(const Job& job, const base::Result<Outcome>& outcome, bool cancelled);

  Journal& journal_;
  const std::string kind_;
  const RunnerOptions options_;
  const Handler handler_;
  std::vector<std::thread> threads_;
  base::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  uint64_t wakes_ GUARDED_BY(mutex_) = 0;
  // By claim: a job that was lost may be claimed again here before its first handler noticed.
  std::map<uint64_t, Running> running_ GUARDED_BY(mutex_);
  uint64_t claims_ GUARDED_BY(mutex_) = 0;
};

}  // namespace chunkstore::jobs
