#include "blockd/qos/project.h"

#include <algorithm>
#include <utility>

#include "blockd/qos/timer.h"

namespace blockd::qos {
namespace {

constexpr int64_t kWindowNs = 1'000'000'000;
// A window counts if something waited this much of it: else the client, not the limit, set the
// pace.
constexpr double kBusyShare = 0.9;

std::vector<double> ShareBuckets() { return {0.5, 0.9, 0.95, 0.99, 1.01, 1.05, 1.1, 1.5, 2, 5}; }

}  // namespace

VolumeLimiter::~VolumeLimiter() { project_->Remove(*this); }

bool VolumeLimiter::TryPass(Direction direction, uint64_t bytes) {
  if (!limited_.load(std::memory_order_acquire) &&
      !project_->limited_.load(std::memory_order_acquire)) {
    return true;
  }
  return project_->TryPass(*this, direction, bytes);
}

void VolumeLimiter::Wait(Direction direction, uint64_t bytes, std::shared_ptr<Waiter> waiter) {
  project_->Wait(*this, direction, bytes, std::move(waiter));
}

void VolumeLimiter::SetLimits(const Limits& limits) { project_->SetVolumeLimits(*this, limits); }

std::shared_ptr<Project> Project::Create(const base::Clock& clock, Timer* timer) {
  return std::shared_ptr<Project>(new Project(clock, timer));
}

void Project::SetLimits(const Limits& limits) {
  {
    base::MutexLock lock(mutex_);
    budget_.Set(limits, clock_.MonotonicNs());
    limited_.store(limits.limited(), std::memory_order_release);
  }
  Pump();
}

void Project::SetVolumeLimits(VolumeLimiter& volume, const Limits& limits) {
  {
    base::MutexLock lock(mutex_);
    const int64_t now_ns = clock_.MonotonicNs();
    volume.state_.budget.Set(limits, now_ns);
    volume.state_.window_begin_ns = now_ns;
    volume.state_.waited_ns = 0;
    volume.limited_.store(limits.limited(), std::memory_order_release);
  }
  Pump();
}

std::shared_ptr<VolumeLimiter> Project::AddVolume(const std::string& volume_id,
                                                  const Limits& limits, base::Metrics* registry) {
  std::shared_ptr<VolumeLimiter> volume(new VolumeLimiter(shared_from_this()));
  if (registry != nullptr) {
    volume->delivered_ = registry->ShareHistogram(
        "quarry_qos_delivered_ratio",
        "What was delivered of what was promised, by seconds in which a volume wanted all of it.",
        ShareBuckets(), {{"volume", volume_id}});
    volume->throttled_ = registry->ShareCounter("quarry_qos_waited_requests_total",
                                                "Requests that had to wait for a volume's limits.",
                                                {{"volume", volume_id}});
  }
  {
    base::MutexLock lock(mutex_);
    volumes_.push_back(volume.get());
  }
  SetVolumeLimits(*volume, limits);
  return volume;
}

void Project::Remove(VolumeLimiter& volume) {
  base::MutexLock lock(mutex_);
  std::erase(volumes_, &volume);
}

int64_t Project::ReadyAt(const VolumeLimiter& volume, Direction direction, int64_t now_ns) const {
  return std::max(volume.state_.budget.ReadyAt(direction, now_ns),
                  budget_.ReadyAt(direction, now_ns));
}

void Project::Charge(VolumeLimiter& volume, Direction direction, uint64_t bytes, int64_t now_ns) {
  volume.state_.budget.Charge(direction, bytes, now_ns);
  budget_.Charge(direction, bytes, now_ns);
}

bool Project::TryPass(VolumeLimiter& volume, Direction direction, uint64_t bytes) {
  base::MutexLock lock(mutex_);
  const int64_t now_ns = clock_.MonotonicNs();
  Measure(volume, now_ns);
  if (!volume.state_.queues[static_cast<int>(direction)].empty()) return false;
  if (ReadyAt(volume, direction, now_ns) > now_ns) return false;
  Charge(volume, direction, bytes, now_ns);
  return true;
}

void Project::Wait(VolumeLimiter& volume, Direction direction, uint64_t bytes,
                   std::shared_ptr<Waiter> waiter) {
  if (volume.throttled_ != nullptr) volume.throttled_->Add();
  bool first = false;
  {
    base::MutexLock lock(mutex_);
    Measure(volume, clock_.MonotonicNs());
    auto& queue = volume.state_.queues[static_cast<int>(direction)];
    first = queue.empty();
    queue.push_back({arrivals_++, bytes, std::move(waiter)});
  }
  // Behind another the time to look again is known already.
  if (first) Pump();
}

// Counts the time since it was looked at last, and closes a window that is over.
void Project::Measure(VolumeLimiter& volume, int64_t now_ns) {
  VolumeLimiter::State& state = volume.state_;
  if (state.waiting()) state.waited_ns += now_ns - std::max(state.looked_ns, state.window_begin_ns);
  state.looked_ns = now_ns;
  const int64_t elapsed_ns = now_ns - state.window_begin_ns;
  if (elapsed_ns < kWindowNs) return;
  const double use = state.budget.TakeUse(elapsed_ns);
  const bool busy =
      static_cast<double>(state.waited_ns) >= kBusyShare * static_cast<double>(elapsed_ns);
  if (busy && use > 0 && volume.delivered_ != nullptr) volume.delivered_->Observe(use);
  state.window_begin_ns = now_ns;
  state.waited_ns = 0;
}

// The older of the two heads, if one may go. `next_ns` becomes no later than when the other may.
bool Project::TakeOne(VolumeLimiter& volume, int64_t now_ns, Ready* ready, int64_t* next_ns) {
  int chosen = -1;
  for (int i = 0; i < 2; ++i) {
    auto& queue = volume.state_.queues[i];
    while (!queue.empty() && !queue.front().waiter->Wanted()) queue.pop_front();
    if (queue.empty()) continue;
    const int64_t at_ns = ReadyAt(volume, static_cast<Direction>(i), now_ns);
    *next_ns = std::min(*next_ns, at_ns);
    if (at_ns > now_ns) continue;
    if (chosen < 0 || queue.front().arrival < volume.state_.queues[chosen].front().arrival) {
      chosen = i;
    }
  }
  if (chosen < 0) return false;
  auto& queue = volume.state_.queues[chosen];
  Charge(volume, static_cast<Direction>(chosen), queue.front().bytes, now_ns);
  ready->push_back(std::move(queue.front().waiter));
  queue.pop_front();
  return true;
}

// One of each volume in turn, until none may go.
int64_t Project::TakeReady(Ready* ready) {
  const int64_t now_ns = clock_.MonotonicNs();
  for (VolumeLimiter* volume : volumes_) Measure(*volume, now_ns);
  size_t idle = 0;
  int64_t next_ns = INT64_MAX;
  while (idle < volumes_.size()) {
    turn_ = (turn_ + 1) % volumes_.size();
    if (TakeOne(*volumes_[turn_], now_ns, ready, &next_ns)) {
      idle = 0;
      next_ns = INT64_MAX;
    } else {
      ++idle;
    }
  }
  return next_ns;
}

int64_t Project::Pump() {
  Ready ready;
  int64_t next_ns = INT64_MAX;
  {
    base::MutexLock lock(mutex_);
    next_ns = TakeReady(&ready);
  }
  if (timer_ != nullptr && next_ns != INT64_MAX) timer_->CallAt(next_ns, weak_from_this());
  for (const std::shared_ptr<Waiter>& waiter : ready) waiter->Go();
  return next_ns;
}

}  // namespace blockd::qos
