#include "controlplane/admin/schedule.h"

#include <algorithm>
#include <limits>

#include "base/config.h"
#include "base/log.h"

namespace controlplane::admin {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr int64_t kNsPerMs = 1'000'000;
constexpr int64_t kLongestWaitMs = 3'600'000;

int64_t Next(int64_t now_ns, int64_t interval_ms) {
  return interval_ms == 0 ? kNever : now_ns + interval_ms * kNsPerMs;
}

}  // namespace

Schedule::Schedule(ScheduleOptions options, chunkstore::ChunkStore& store, AdminService& admin,
                   ScrubLog& scrubs, const base::Clock& clock)
    : options_(options),
      store_(store),
      admin_(admin),
      scrubs_(scrubs),
      clock_(clock),
      collect_turn_(options.shared, clock, "gc"),
      thread_([this] { Run(); }) {}

Schedule::~Schedule() { Stop(); }

void Schedule::Stop() {
  stopping_ = true;
  {
    base::MutexLock lock(mutex_);
    wake_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

// A pass counts from its end, so that a slow one never follows itself at once.
void Schedule::Run() {
  const int64_t start_ns = clock_.MonotonicNs();
  int64_t next_gc_ns = Next(start_ns, options_.gc_interval_ms);
  int64_t next_scrub_ns = NextScrubNs();
  while (!stopping_) {
    const int64_t now_ns = clock_.MonotonicNs();
    if (now_ns >= next_gc_ns) {
      CollectNow();
      next_gc_ns = Next(clock_.MonotonicNs(), options_.gc_interval_ms);
      continue;
    }
    if (now_ns >= next_scrub_ns) {
      // Somebody may have asked for one in the meantime.
      next_scrub_ns = NextScrubNs();
      if (now_ns < next_scrub_ns) continue;
      const base::Result<std::string> started = admin_.StartScrub(false);
      if (!started.has_value()) LOG(kInfo, "admin", "no scrub: {}", started.error().ToString());
      next_scrub_ns = Next(now_ns, options_.scrub_interval_ms);
      continue;
    }
    const int64_t wait_ms = (std::min(next_gc_ns, next_scrub_ns) - now_ns) / kNsPerMs + 1;
    base::MutexLock lock(mutex_);
    if (!stopping_) wake_.WaitForMs(mutex_, std::min(wait_ms, kLongestWaitMs));
  }
}

int64_t Schedule::NextScrubNs() {
  if (options_.scrub_interval_ms == 0) return kNever;
  const base::Result<int64_t> due_in_ms = scrubs_.DueInMs(options_.scrub_interval_ms);
  if (due_in_ms.has_value()) return clock_.MonotonicNs() + *due_in_ms * kNsPerMs;
  LOG(kWarn, "admin", "scrubbing now: {}", due_in_ms.error().ToString());
  return clock_.MonotonicNs();
}

void Schedule::CollectNow() {
  // A little less than the interval: of processes whose times are the same, one has it each time.
  const base::Result<bool> ours =
      collect_turn_.Take(options_.gc_interval_ms - options_.gc_interval_ms / 8);
  if (ours.has_value() && !*ours) return;
  const auto report =
      store_.Collect(false, [this](const chunkstore::Progress&) { return !stopping_; });
  if (!report.has_value()) {
    if (report.error().code() == base::Code::kCancelled) return;
    LOG(kWarn, "admin", "the collector stopped: {}", report.error().ToString());
    return;
  }
  if (report->freed_bytes == 0 && report->abandoned_ingests == 0) return;
  LOG(kInfo, "admin", "collected {}: {} chunks, {} pages, {} abandoned uploads",
      base::FormatBytes(report->freed_bytes), report->removed_chunks, report->removed_pages,
      report->abandoned_ingests);
}

}  // namespace controlplane::admin
