#include "chunkstore/jobs/runner.h"

#include <algorithm>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"

namespace chunkstore::jobs {

using base::Code;
using base::Result;

namespace {

constexpr int64_t kMaxRetryMs = 60'000;
constexpr int kLowestPriority = 19;
constexpr int64_t kNsPerMs = 1'000'000;

int64_t RetryDelayMs(int attempts) {
  int doublings = std::clamp(attempts - 1, 0, 6);
  return std::min(kMaxRetryMs, int64_t{1000} << doublings);
}

}  // namespace

Runner::Runner(Journal& journal, std::string kind, RunnerOptions options, Handler handler)
    : journal_(journal),
      kind_(std::move(kind)),
      options_(std::move(options)),
      handler_(std::move(handler)) {}

Runner::~Runner() { Stop(); }

void Runner::Start() {
  threads_.emplace_back([this] { KeepLeases(); });
  for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Work(); });
}

void Runner::Wake() {
  base::MutexLock lock(mutex_);
  ++wakes_;
  changed_.NotifyAll();
}

void Runner::Stop() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
    for (auto& [id, running] : running_) running.control->cancelled_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Runner::Work() {
  // The threads of Linux have priorities of their own; a failure to lower one costs nothing.
  if (options_.background) setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kLowestPriority);
  for (;;) {
    uint64_t wakes_seen = 0;
    {
      base::MutexLock lock(mutex_);
      if (stopping_) return;
      wakes_seen = wakes_;
    }
    const int64_t claimed_ns = base::SystemClock().MonotonicNs();
    Result<std::optional<Job>> claimed =
        options_.by_turns ? journal_.ClaimByTurns(kind_, options_.lease_ms)
                          : journal_.Claim(kind_, options_.lease_ms, options_.choose);
    if (!claimed.has_value()) {
      LOG(kError, "jobs", "looking for jobs of kind {}: {}", kind_, claimed.error().ToString());
    } else if (claimed->has_value()) {
      RunOne(std::move(**claimed), claimed_ns);
      continue;
    }
    base::MutexLock lock(mutex_);
    if (!stopping_ && wakes_ == wakes_seen) changed_.WaitForMs(mutex_, options_.poll_ms);
  }
}

void Runner::RunOne(Job job, int64_t claimed_ns) {
  JobControl control;
  uint64_t claim = 0;
  {
    base::MutexLock lock(mutex_);
    if (stopping_) control.cancelled_ = true;
    claim = ++claims_;
    running_[claim] = Running{job, &control, claimed_ns};
  }
  base::ScopedLogContext context("job-" + job.id);
  Result<Outcome> outcome = handler_(job, control);
  Job latest;
  {
    base::MutexLock lock(mutex_);
    latest = std::move(running_[claim].job);
    running_.erase(claim);
  }
  Settle(latest, outcome, control.cancelled());
}

void Runner::Settle(const Job& job, const Result<Outcome>& outcome, bool cancelled) {
  Result<void> settled;
  if (outcome.has_value() && outcome->done) {
    settled = journal_.Remove(job);
  } else if (outcome.has_value()) {
    settled = journal_.Postpone(job, outcome->delay_ms, false);
  } else {
    // A stop is no failure: whoever starts next takes the job at once.
    int64_t delay_ms = cancelled ? 0 : RetryDelayMs(job.attempts);
    if (!cancelled) {
      LOG(kWarn, "jobs", "{} job {} failed, attempt {}: {}; again in {} ms", kind_, job.id,
          job.attempts, outcome.error().ToString(), delay_ms);
    }
    settled = journal_.Postpone(job, delay_ms, !cancelled);
  }
  if (!settled.has_value() && settled.error().code() != Code::kConflict) {
    LOG(kError, "jobs", "{} job {} could not be settled: {}", kind_, job.id,
        settled.error().ToString());
  }
}

void Runner::KeepLeases() {
  const int64_t due_ns = options_.lease_ms * kNsPerMs / 3;
  base::MutexLock lock(mutex_);
  while (!stopping_) {
    changed_.WaitForMs(mutex_, options_.lease_ms / 3);
    for (auto& [claim, running] : running_) {
      const int64_t now_ns = base::SystemClock().MonotonicNs();
      if (now_ns - running.renewed_ns < due_ns) continue;  // it was woken for something else
      // Under the lock, so that Settle sees the job as it was renewed last. It is one commit.
      Result<void> renewed = journal_.Renew(&running.job, options_.lease_ms);
      if (renewed.has_value()) {
        running.renewed_ns = now_ns;
      } else if (renewed.error().code() == Code::kConflict ||
                 now_ns - running.renewed_ns > options_.lease_ms * kNsPerMs) {
        // Somebody has taken it, or may have.
        running.control->cancelled_ = true;
      }
    }
  }
}

}  // namespace chunkstore::jobs
