#include "blockd/nbd/opener.h"

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {
namespace {

using Opened = base::Result<std::shared_ptr<const Export>>;

base::Error TooLate() {
  return base::Error(base::Code::kUnavailable,
                     "the volume's disk does not answer in time; connect again");
}

}  // namespace

// Shared with the threads that open, which may outlive the server.
struct Opener::State {
  base::Mutex mutex;
  base::CondVar ended;
  std::set<std::string, std::less<>> under_way GUARDED_BY(mutex);

  // False when the time is over.
  bool WaitUntil(int64_t deadline_ns) REQUIRES(mutex) {
    const int64_t left_ns = deadline_ns - base::SystemClock().MonotonicNs();
    if (left_ns <= 0) return false;
    ended.WaitForMs(mutex, left_ns / 1'000'000 + 1);
    return true;
  }
};

Opener::Opener(std::shared_ptr<ExportProvider> provider, Workers& workers, int64_t deadline_ms)
    : provider_(std::move(provider)),
      workers_(workers),
      deadline_ms_(deadline_ms),
      state_(std::make_shared<State>()) {}

Opened Opener::Open(std::string_view name) {
  const int64_t deadline_ns = base::SystemClock().MonotonicNs() + deadline_ms_ * 1'000'000;
  const auto answer = std::make_shared<std::optional<Opened>>();  // guarded by the mutex, too
  {
    base::MutexLock lock(state_->mutex);
    while (state_->under_way.contains(name) || state_->under_way.size() >= kMaxAtOnce)
      if (!state_->WaitUntil(deadline_ns)) return TooLate();
    state_->under_way.emplace(name);
  }
  workers_.Submit(workers_.NewLane(),
                  [state = state_, provider = provider_, answer, mine = std::string(name)] {
                    Opened opened = provider->Open(mine);
                    base::MutexLock lock(state->mutex);
                    state->under_way.erase(mine);
                    *answer = std::move(opened);
                    state->ended.NotifyAll();
                  });
  base::MutexLock lock(state_->mutex);
  while (!answer->has_value())
    if (!state_->WaitUntil(deadline_ns)) return TooLate();
  return *std::move(*answer);
}

}  // namespace blockd::nbd
