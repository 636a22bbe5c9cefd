#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <thread>

#include "base/result.h"
#include "base/thread_annotations.h"
#include "blockd/qos/project.h"

namespace blockd::qos {

// A thread that pumps projects when something of theirs may go. Thread-safe.
class Timer {
 public:
  // Waits with the machine's monotonic clock. kIo when the system is out of descriptors.
  static base::Result<std::unique_ptr<Timer>> Create();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Pumps it at that time or soon after; an earlier call makes a later one needless.
  void CallAt(int64_t at_ns, std::weak_ptr<Project> project);

 private:
  explicit Timer(int descriptor);
  void Run();
  void Set() REQUIRES(mutex_);

  const int descriptor_;  // a timerfd
  base::Mutex mutex_;
  bool over_ GUARDED_BY(mutex_) = false;
  // When each is to be pumped.
  std::map<std::weak_ptr<Project>, int64_t, std::owner_less<>> due_ns_ GUARDED_BY(mutex_);
  int64_t set_for_ns_ GUARDED_BY(mutex_) = INT64_MAX;
  std::thread thread_;
};

}  // namespace blockd::qos
