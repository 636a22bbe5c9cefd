#include "controlplane/errands.h"

#include <atomic>
#include <future>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace controlplane {
namespace {

using base::Code;
using base::Error;
using base::Result;

// Asks until nothing of that name is on its way; what it was told last.
Error AskUntilItEnds(Errands& errands, const std::string& name) {
  while (true) {
    const Error told =
        errands.Ask(name, "p", [](const Cancelled&) { return Error(Code::kConflict, "2"); });
    if (told.code() != Code::kUnavailable) return told;
    std::this_thread::yield();
  }
}

TEST(ErrandsTest, OneOfANameHoweverManyAsk) {
  Errands errands(4, base::SystemClock());
  std::promise<void> go_on;
  std::shared_future<void> told_to = go_on.get_future().share();
  std::atomic<int> runs{0};
  std::promise<void> ran;
  for (int i = 0; i < 100; ++i) {
    const Error told = errands.Ask("a", "p", [&](const Cancelled&) -> Result<void> {
      if (++runs == 1) ran.set_value();
      told_to.wait();
      return Error(Code::kTooLarge, "x");
    });
    EXPECT_EQ(told.code(), Code::kUnavailable);
  }
  ran.get_future().wait();
  go_on.set_value();
  EXPECT_EQ(AskUntilItEnds(errands, "a").code(), Code::kTooLarge);
  EXPECT_EQ(runs, 1);
}

TEST(ErrandsTest, WhatFailedIsToldForAWhileAndThenBegunAnew) {
  base::ManualClock clock;
  Errands errands(1, clock);
  const auto fail = [](const Cancelled&) { return Error(Code::kInvalidArgument, "bad"); };
  (void)errands.Ask("a", "p", fail);
  EXPECT_EQ(AskUntilItEnds(errands, "a").code(), Code::kInvalidArgument);
  clock.AdvanceUs(kErrandErrorMs * 1000 - 1);
  EXPECT_EQ(errands.Ask("a", "p", fail).code(), Code::kInvalidArgument);
  clock.AdvanceUs(1);
  EXPECT_EQ(AskUntilItEnds(errands, "a").code(), Code::kConflict) << "the work of the new asker";
}

// Or who asks could not tell it from "on its way".
TEST(ErrandsTest, WhatWasUnavailableToTheWorkIsTold) {
  Errands errands(1, base::SystemClock());
  (void)errands.Ask("a", "p",
                    [](const Cancelled&) { return Error(Code::kUnavailable, "no bwrap"); });
  const Error told = AskUntilItEnds(errands, "a");
  EXPECT_EQ(told.code(), Code::kIo);
  EXPECT_EQ(told.message(), "no bwrap");
}

TEST(ErrandsTest, WhatIsDroppedEndsBeforeDropReturns) {
  Errands errands(1, base::SystemClock());
  std::promise<void> ran;
  std::atomic<bool> ended{false};
  std::atomic<bool> second{false};
  (void)errands.Ask("a", "p", [&](const Cancelled& cancelled) -> Result<void> {
    ran.set_value();
    while (!cancelled()) std::this_thread::yield();
    ended = true;
    return Error(Code::kCancelled, "");
  });
  (void)errands.Ask("b", "p", [&](const Cancelled&) -> Result<void> {
    second = true;
    return {};
  });
  ran.get_future().wait();
  errands.Drop("b");
  errands.Drop("a");
  EXPECT_TRUE(ended);
  errands.Drop("unknown");
  // Begun anew, not told of the end of what was dropped.
  EXPECT_EQ(AskUntilItEnds(errands, "a").code(), Code::kConflict);
  EXPECT_FALSE(second);
}

TEST(ErrandsTest, AStopBreaksOffWhatRunsAndDropsWhatWaits) {
  std::promise<void> ran;
  std::atomic<bool> second{false};
  {
    Errands errands(1, base::SystemClock());
    (void)errands.Ask("a", "p", [&](const Cancelled& cancelled) -> Result<void> {
      ran.set_value();
      while (!cancelled()) std::this_thread::yield();
      return Error(Code::kCancelled, "");
    });
    (void)errands.Ask("b", "p", [&](const Cancelled&) -> Result<void> {
      second = true;
      return {};
    });
    ran.get_future().wait();
    errands.Stop();
    EXPECT_EQ(errands.Ask("c", "p", nullptr).code(), Code::kUnavailable);
  }
  EXPECT_FALSE(second);
}

TEST(ErrandsTest, OneProjectLeavesThreadsForTheOthers) {
  Errands errands(4, base::SystemClock());
  std::promise<void> go_on;
  std::shared_future<void> told_to = go_on.get_future().share();
  std::atomic<int> mine{0};
  std::atomic<bool> too_many{false};
  for (int i = 0; i < 10; ++i) {
    (void)errands.Ask("mine " + std::to_string(i), "p1", [&](const Cancelled&) -> Result<void> {
      if (++mine > 2) too_many = true;
      told_to.wait();
      --mine;
      return {};
    });
  }
  // Asked for last, and needed for the others to end.
  (void)errands.Ask("yours", "p2", [&](const Cancelled&) -> Result<void> {
    go_on.set_value();
    return {};
  });
  told_to.wait();
  errands.Stop();
  EXPECT_FALSE(too_many);
}

}  // namespace
}  // namespace controlplane
