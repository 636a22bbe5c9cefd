#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread_annotations.h"
#include "blockd/qos/budget.h"
#include "blockd/qos/limiter.h"
#include "blockd/qos/limits.h"

namespace blockd::qos {

class Project;
class Timer;

// A volume's limits, and what waits for them: first come, first served within a direction; reads
// and writes wait for each other only where a limit is on both. Make it once a volume and keep it
// while the volume exists: the budget is the same for all connections, and for those that come
// back.
class VolumeLimiter : public Limiter {
 public:
  ~VolumeLimiter() override;

  bool TryPass(Direction direction, uint64_t bytes) override;
  void Wait(Direction direction, uint64_t bytes, std::shared_ptr<Waiter> waiter) override;

  // From now on, for what waits too. Thread-safe.
  void SetLimits(const Limits& limits);

 private:
  friend class Project;

  struct Waiting {
    uint64_t arrival;
    uint64_t bytes;
    std::shared_ptr<Waiter> waiter;
  };

  // Guarded by the project's mutex, all of it.
  struct State {
    Budget budget;
    std::deque<Waiting> queues[2];  // by Direction
    int64_t window_begin_ns = 0;    // of the measurement
    int64_t waited_ns = 0;          // in it: how long something waited
    int64_t looked_ns = 0;
    bool waiting() const { return !queues[0].empty() || !queues[1].empty(); }
  };

  explicit VolumeLimiter(std::shared_ptr<Project> project) : project_(std::move(project)) {}

  const std::shared_ptr<Project> project_;
  State state_;
  std::atomic<bool> limited_{false};  // by itself; read without the lock
  std::shared_ptr<base::Histogram> delivered_;
  std::shared_ptr<base::Counter> throttled_;
};

// The limits that the volumes of one project share, if any; each volume belongs to one, and an I/O
// passes its volume's limits and its project's, or neither. Volumes take turns. Volumes of
// different projects have nothing in common but the timer's thread. Thread-safe.
class Project : public std::enable_shared_from_this<Project> {
 public:
  // `timer` may be null: then somebody calls Pump. Both, and the registry, outlive it.
  static std::shared_ptr<Project> Create(const base::Clock& clock, Timer* timer);

  void SetLimits(const Limits& limits);
  // `registry` may be null. The volume's metrics are there as long as its limiter.
  std::shared_ptr<VolumeLimiter> AddVolume(const std::string& volume_id, const Limits& limits,
                                           base::Metrics* registry);

  // Lets go what may; returns when to call again, INT64_MAX if nothing waits.
  int64_t Pump();

 private:
  friend class VolumeLimiter;
  using Ready = std::vector<std::shared_ptr<Waiter>>;

  Project(const base::Clock& clock, Timer* timer) : clock_(clock), timer_(timer) {}

  bool TryPass(VolumeLimiter& volume, Direction direction, uint64_t bytes);
  void Wait(VolumeLimiter& volume, Direction direction, uint64_t bytes,
            std::shared_ptr<Waiter> waiter);
  void SetVolumeLimits(VolumeLimiter& volume, const Limits& limits);
  void Remove(VolumeLimiter& volume);

  int64_t ReadyAt(const VolumeLimiter& volume, Direction direction, int64_t now_ns) const
      REQUIRES(mutex_);
  void Charge(VolumeLimiter& volume, Direction direction, uint64_t bytes, int64_t now_ns)
      REQUIRES(mutex_);
  bool TakeOne(VolumeLimiter& volume, int64_t now_ns, Ready* ready, int64_t* next_ns)
      REQUIRES(mutex_);
  int64_t TakeReady(Ready* ready) REQUIRES(mutex_);
  void Measure(VolumeLimiter& volume, int64_t now_ns) REQUIRES(mutex_);

  const base::Clock& clock_;
  Timer* const timer_;
  std::atomic<bool> limited_{false};

  base::Mutex mutex_;
  Budget budget_ GUARDED_BY(mutex_);
  std::vector<VolumeLimiter*> volumes_ GUARDED_BY(mutex_);
  size_t turn_ GUARDED_BY(mutex_) = 0;
  uint64_t arrivals_ GUARDED_BY(mutex_) = 0;
};

}  // namespace blockd::qos
