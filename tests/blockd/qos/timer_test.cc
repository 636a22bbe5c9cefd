#include "blockd/qos/timer.h"

#include <future>
#include <memory>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace blockd::qos {
namespace {

class Signal : public Waiter {
 public:
  bool Wanted() const override { return true; }
  void Go() override { done.set_value(); }
  std::promise<void> done;
};

TEST(Timer, LetsGoWhatWaits) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Timer> timer, Timer::Create());
  const auto project = Project::Create(base::SystemClock(), timer.get());
  Limits limits;
  limits.iops[2].per_second = 200;
  const auto volume = project->AddVolume("v", limits, nullptr);
  std::vector<std::shared_ptr<Signal>> signals;
  for (int i = 0; i < 20; ++i) {
    signals.push_back(std::make_shared<Signal>());
    volume->Wait(Direction::kRead, 512, signals.back());
  }
  for (const auto& signal : signals) signal->done.get_future().wait();
}

TEST(Timer, EndsWithProjectsThatAreGone) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Timer> timer, Timer::Create());
  auto project = Project::Create(base::SystemClock(), timer.get());
  timer->CallAt(base::SystemClock().MonotonicNs() + 1'000'000, project);
  project.reset();
}

}  // namespace
}  // namespace blockd::qos
