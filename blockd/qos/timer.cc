#include "blockd/qos/timer.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"

namespace blockd::qos {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

}  // namespace

base::Result<std::unique_ptr<Timer>> Timer::Create() {
  const int descriptor = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (descriptor < 0) return base::ErrnoError(errno, "timerfd_create");
  return std::unique_ptr<Timer>(new Timer(descriptor));
}

Timer::Timer(int descriptor) : descriptor_(descriptor), thread_([this] { Run(); }) {}

Timer::~Timer() {
  {
    base::MutexLock lock(mutex_);
    over_ = true;
    Set();
  }
  thread_.join();
  ::close(descriptor_);
}

void Timer::CallAt(int64_t at_ns, std::weak_ptr<Project> project) {
  base::MutexLock lock(mutex_);
  const auto [place, added] = due_ns_.emplace(std::move(project), at_ns);
  if (!added && place->second <= at_ns) return;
  place->second = at_ns;
  if (at_ns < set_for_ns_) Set();
}

// For the earliest, or at once when it is over.
void Timer::Set() {
  int64_t at_ns = over_ ? 1 : INT64_MAX;
  for (const auto& [project, due_ns] : due_ns_) at_ns = std::min(at_ns, due_ns);
  set_for_ns_ = at_ns;
  if (at_ns == INT64_MAX) return;
  at_ns = std::max<int64_t>(at_ns, 1);  // zero would disarm it
  itimerspec when{};
  when.it_value.tv_sec = at_ns / kSecondNs;
  when.it_value.tv_nsec = at_ns % kSecondNs;
  ::timerfd_settime(descriptor_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void Timer::Run() {
  pthread_setname_np(pthread_self(), "qos-timer");
  while (true) {
    uint64_t expirations = 0;
    [[maybe_unused]] const ssize_t ignored = ::read(descriptor_, &expirations, sizeof(expirations));
    std::vector<std::shared_ptr<Project>> due;
    {
      base::MutexLock lock(mutex_);
      if (over_) return;
      const int64_t now_ns = base::SystemClock().MonotonicNs();
      std::erase_if(due_ns_, [&](const auto& entry) {
        if (entry.second > now_ns) return false;
        if (std::shared_ptr<Project> project = entry.first.lock()) due.push_back(project);
        return true;
      });
      Set();
    }
    for (const std::shared_ptr<Project>& project : due) project->Pump();
  }
}

}  // namespace blockd::qos
