#include "blockd/nbd/workers.h"

#include <chrono>
#include <deque>
#include <system_error>
#include <thread>
#include <utility>

#include <pthread.h>

#include "base/clock.h"
#include "base/thread_annotations.h"

namespace blockd::nbd {

struct Workers::Lane {
  std::deque<std::function<void()>> jobs;
  size_t running = 0;
  bool ready = false;  // stands in State::ready
};

// Shared by the threads, which may outlive the Workers. Lanes are guarded by the mutex too.
struct Workers::State {
  const size_t max_threads;
  const size_t max_running_per_lane;
  base::Mutex mutex;
  base::CondVar work;
  base::CondVar ended;
  std::deque<std::shared_ptr<Lane>> ready GUARDED_BY(mutex);
  size_t threads GUARDED_BY(mutex) = 0;
  size_t idle GUARDED_BY(mutex) = 0;
  bool stopping GUARDED_BY(mutex) = false;

  State(size_t threads_limit, size_t lane_limit)
      : max_threads(threads_limit), max_running_per_lane(lane_limit) {}

  void MakeReady(const std::shared_ptr<Lane>& lane) REQUIRES(mutex) {
    if (lane->ready || lane->jobs.empty() || lane->running >= max_running_per_lane) return;
    lane->ready = true;
    ready.push_back(lane);
  }

  // Null when it is over.
  std::shared_ptr<Lane> TakeJob(std::function<void()>* job) REQUIRES(mutex) {
    ++idle;
    while (ready.empty() && !stopping) work.Wait(mutex);
    --idle;
    if (stopping) return nullptr;
    std::shared_ptr<Lane> lane = std::move(ready.front());
    ready.pop_front();
    lane->ready = false;
    *job = std::move(lane->jobs.front());
    lane->jobs.pop_front();
    ++lane->running;
    MakeReady(lane);
    return lane;
  }

  // Sees to it that somebody takes what is ready. A thread that took one job may hang with it, so
  // it calls this before: of several jobs for one idle thread the next would wait for the first.
  void Summon(const std::shared_ptr<State>& self) REQUIRES(mutex) {
    if (ready.empty()) return;
    if (idle >= ready.size() || threads >= max_threads) {
      work.NotifyOne();
      return;
    }
    ++threads;
    try {
      std::thread([self] { self->Run(self); }).detach();
    } catch (const std::system_error&) {  // no more threads: those that are there take it in turn
      --threads;
      work.NotifyOne();
    }
  }

  void Run(const std::shared_ptr<State>& self) {
    pthread_setname_np(pthread_self(), "nbd-worker");
    std::function<void()> job;
    mutex.Lock();
    while (std::shared_ptr<Lane> lane = TakeJob(&job)) {
      Summon(self);
      mutex.Unlock();
      job();
      job = nullptr;
      mutex.Lock();
      --lane->running;
      MakeReady(lane);
    }
    --threads;
    ended.NotifyAll();
    mutex.Unlock();
  }
};

Workers::Workers(size_t max_threads, size_t max_running_per_lane)
    : state_(std::make_shared<State>(max_threads, max_running_per_lane)) {}

Workers::~Workers() { Stop(0); }

std::shared_ptr<Workers::Lane> Workers::NewLane() { return std::make_shared<Lane>(); }

void Workers::Submit(const std::shared_ptr<Lane>& lane, std::function<void()> job) {
  State& state = *state_;
  base::MutexLock lock(state.mutex);
  if (state.stopping) return;
  lane->jobs.push_back(std::move(job));
  state.MakeReady(lane);
  state.Summon(state_);
}

bool Workers::Stop(int64_t timeout_ms) {
  State& state = *state_;
  const int64_t deadline_ns = base::SystemClock().MonotonicNs() + timeout_ms * 1'000'000;
  std::deque<std::shared_ptr<Lane>> dropped;  // jobs end outside the lock
  base::MutexLock lock(state.mutex);
  state.stopping = true;
  dropped.swap(state.ready);
  state.work.NotifyAll();
  while (state.threads > 0) {
    const int64_t left_ns = deadline_ns - base::SystemClock().MonotonicNs();
    if (left_ns <= 0) return false;
    state.ended.WaitForMs(state.mutex, left_ns / 1'000'000 + 1);
  }
  return true;
}

}  // namespace blockd::nbd
