#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace blockd::nbd {

// Threads for requests that wait for a disk. Jobs come in lanes, one a volume; lanes take turns,
// and each runs only so many jobs at a time: a volume whose disk hangs holds up only itself.
// Threads are started when needed. Unlike base::async::Pool it can be left behind: a job that never
// comes back doesn't keep Stop from returning. Thread-safe.
class Workers {
 public:
  struct Lane;

  Workers(size_t max_threads, size_t max_running_per_lane);
  ~Workers();  // Stop(0) unless stopped
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  std::shared_ptr<Lane> NewLane();
  // After Stop the job is destroyed without being run. How many wait is the callers' to bound.
  void Submit(const std::shared_ptr<Lane>& lane, std::function<void()> job);

  // Runs no further job; waits for those that run. False if some still do after `timeout_ms`: their
  // threads go on by themselves, and end with them.
  bool Stop(int64_t timeout_ms);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace blockd::nbd
