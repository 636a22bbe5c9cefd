#include "blockd/nbd/workers.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

namespace blockd::nbd {
namespace {

// Jobs that wait for each other end only if all of them run at once.
class Meeting {
 public:
  explicit Meeting(int count) : missing_(count) {}
  bool Come() {
    std::unique_lock lock(mutex_);
    if (--missing_ == 0) changed_.notify_all();
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return missing_ <= 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int missing_;
};

TEST(WorkersTest, JobsThatComeForOneIdleThreadRunBesideEachOther) {
  for (int round = 0; round < 50 && !testing::Test::HasFailure(); ++round) {
    Workers workers(16, 16);
    const auto lane = workers.NewLane();
    const auto first = std::make_shared<Meeting>(2);
    workers.Submit(lane, [first] { (void)first->Come(); });
    EXPECT_TRUE(first->Come());
    // By now, in most rounds, the one thread is idle again.
    for (int i = 0; i < 200; ++i) std::this_thread::yield();
    const auto meeting = std::make_shared<Meeting>(4);
    for (int i = 0; i < 3; ++i) workers.Submit(lane, [meeting] { (void)meeting->Come(); });
    EXPECT_TRUE(meeting->Come()) << "round " << round;
    EXPECT_TRUE(workers.Stop(60'000));
  }
}

TEST(WorkersTest, ALaneHasNoMoreThreadsThanItMay) {
  Workers workers(16, 2);
  const auto lane = workers.NewLane();
  const auto other = workers.NewLane();
  const auto meeting = std::make_shared<Meeting>(3);
  std::mutex mutex;
  int running = 0;
  int most = 0;
  const auto count = [&](int change) {
    std::lock_guard lock(mutex);
    running += change;
    most = std::max(most, running);
  };
  for (int i = 0; i < 2; ++i) {
    workers.Submit(lane, [&, meeting] {
      count(1);
      (void)meeting->Come();
      count(-1);
    });
  }
  for (int i = 0; i < 6; ++i) {
    workers.Submit(lane, [&] {
      count(1);
      count(-1);
    });
  }
  workers.Submit(other, [meeting] { (void)meeting->Come(); });
  const auto last = std::make_shared<Meeting>(2);
  workers.Submit(lane, [last] { (void)last->Come(); });
  EXPECT_TRUE(last->Come());
  EXPECT_TRUE(workers.Stop(60'000));
  EXPECT_EQ(most, 2);
}

}  // namespace
}  // namespace blockd::nbd
