#include "controlplane/admin/operations.h"

#include <future>
#include <string>

#include <gtest/gtest.h>

#include "base/check.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/support/results.h"

namespace controlplane::admin {
namespace {

using base::Code;
using base::Json;
using base::JsonObject;
using base::Result;
using chunkstore::ProgressFn;

std::string State(const Operations& operations, const std::string& id) {
  const Result<Json> state = operations.Describe(id);
  CHECK(state.has_value());
  return base::FindString(*state, "state").value_or("");
}

// Work that reports once, then waits until it is let go.
struct Held {
  std::promise<void> began;
  std::promise<void> may_end;

  Operations::Work work() {
    return [this](const ProgressFn& progress) -> Result<Json> {
      const bool go_on = progress({.phase = "half", .done = 5, .total = 10});
      began.set_value();
      may_end.get_future().wait();
      if (!go_on || !progress({.phase = "end", .done = 10, .total = 10})) {
        return base::Error(Code::kCancelled, "called off");
      }
      return JsonObject{{"answer", 42}};
    };
  }
};

void WaitUntilEnded(const Operations& operations, const std::string& id) {
  while (State(operations, id) == "running") std::this_thread::yield();
}

TEST(Operations, RunAndAreDescribedWithTheirReport) {
  Held held;
  Operations operations(base::SystemClock());
  ASSERT_OK_AND_ASSIGN(const std::string id, operations.Start("gc", held.work()));
  held.began.get_future().wait();
  ASSERT_OK_AND_ASSIGN(const Json running, operations.Describe(id));
  EXPECT_EQ(base::FindString(running, "state"), "running");
  EXPECT_EQ(base::FindString(running, "phase"), "half");
  EXPECT_EQ(running.at("done").to_number<int>(), 5);
  held.may_end.set_value();
  WaitUntilEnded(operations, id);
  ASSERT_OK_AND_ASSIGN(const Json done, operations.Describe(id));
  EXPECT_EQ(base::FindString(done, "state"), "done");
  EXPECT_EQ(done.at("report").at("answer").to_number<int>(), 42);
}

TEST(Operations, OneOfAKindAtATime) {
  Held gc;  // before `operations`, whose end waits for their work
  Held scrub;
  Operations operations(base::SystemClock());
  ASSERT_OK_AND_ASSIGN(const std::string id, operations.Start("gc", gc.work()));
  const Result<std::string> second = operations.Start("gc", gc.work());
  ASSERT_ERROR(second, Code::kConflict);
  EXPECT_NE(second.error().message().find(id), std::string::npos);
  ASSERT_OK(operations.Start("scrub", scrub.work()));
  gc.may_end.set_value();
  scrub.may_end.set_value();
}

TEST(Operations, AFailureIsTold) {
  Operations operations(base::SystemClock());
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       operations.Start("gc", [](const ProgressFn&) -> Result<Json> {
                         return base::Error(Code::kIo, "the disk is gone");
                       }));
  WaitUntilEnded(operations, id);
  ASSERT_OK_AND_ASSIGN(const Json failed, operations.Describe(id));
  EXPECT_EQ(base::FindString(failed, "state"), "failed");
  EXPECT_EQ(base::FindString(failed, "error"), "the disk is gone");
}

TEST(Operations, CancelEndsTheWorkAtItsNextStep) {
  Held held;
  Operations operations(base::SystemClock());
  ASSERT_OK_AND_ASSIGN(const std::string id, operations.Start("gc", held.work()));
  held.began.get_future().wait();
  ASSERT_OK(operations.Cancel(id));
  held.may_end.set_value();
  WaitUntilEnded(operations, id);
  EXPECT_EQ(State(operations, id), "failed");
  EXPECT_ERROR(operations.Cancel("nosuch"), Code::kNotFound);
}

TEST(Operations, OnlyTheLastEndedAreRemembered) {
  Operations operations(base::SystemClock());
  std::string first;
  for (size_t i = 0; i < Operations::kMaxFinished + 5; ++i) {
    ASSERT_OK_AND_ASSIGN(
        const std::string id,
        operations.Start("gc", [](const ProgressFn&) -> Result<Json> { return JsonObject{}; }));
    if (i == 0) first = id;
    WaitUntilEnded(operations, id);
  }
  EXPECT_ERROR(operations.Describe(first), Code::kNotFound);
  EXPECT_LE(operations.DescribeAll()->as_array().size(), Operations::kMaxFinished + 1);
}

TEST(Operations, AStopCancelsAndRefusesMore) {
  Operations operations(base::SystemClock());
  std::promise<void> began;
  ASSERT_OK(operations.Start("gc", [&](const ProgressFn& progress) -> Result<Json> {
    began.set_value();
    while (progress({})) std::this_thread::yield();
    return base::Error(Code::kCancelled, "called off");
  }));
  began.get_future().wait();
  operations.Stop();
  EXPECT_ERROR(operations.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); }),
               Code::kUnavailable);
}

// --- Two processes over one store ---

class SharedOperationsTest : public testing::Test {
 protected:
  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  SharedOperations of_one_{meta_, clock_};
  SharedOperations of_two_{meta_, clock_};
  Operations one_{clock_, &of_one_};
  Operations two_{clock_, &of_two_};
};

TEST_F(SharedOperationsTest, EitherAnswersForBoth) {
  Held held;
  ASSERT_OK_AND_ASSIGN(const std::string id, one_.Start("gc", held.work()));
  held.began.get_future().wait();
  EXPECT_EQ(State(two_, id), "running");
  ASSERT_OK_AND_ASSIGN(const Json all, two_.DescribeAll());
  EXPECT_EQ(all.as_array().size(), 1U);
  const auto second = two_.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); });
  ASSERT_ERROR(second, Code::kConflict);
  EXPECT_NE(second.error().message().find(id), std::string::npos);
  held.may_end.set_value();
  WaitUntilEnded(two_, id);
  ASSERT_OK_AND_ASSIGN(const Json done, two_.Describe(id));
  EXPECT_EQ(done.at("report").at("answer").to_number<int>(), 42);
  EXPECT_OK(two_.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); }));
  EXPECT_ERROR(two_.Describe("nothing"), Code::kNotFound);
}

TEST_F(SharedOperationsTest, EitherCallsItOff) {
  Held held;
  ASSERT_OK_AND_ASSIGN(const std::string id, one_.Start("scrub", held.work()));
  held.began.get_future().wait();
  ASSERT_OK(two_.Cancel(id));
  clock_.AdvanceUs(2 * base::kSecondUs);
  held.may_end.set_value();
  WaitUntilEnded(two_, id);
  EXPECT_EQ(State(one_, id), "failed");
  EXPECT_EQ(State(two_, id), "failed");
}

TEST_F(SharedOperationsTest, ADeadOneIsInNobodysWay) {
  // Its process is gone: nothing is reported any more.
  ASSERT_OK(of_one_.Begin("gc", "dead", JsonObject{{"id", "dead"}, {"state", "running"}}));
  EXPECT_ERROR(two_.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); }),
               Code::kConflict);
  clock_.AdvanceUs(SharedOperations::kOperationLeaseUs + 1);
  EXPECT_EQ(State(two_, "dead"), "failed");
  ASSERT_OK_AND_ASSIGN(const std::string id,
                       two_.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); }));
  // And if it was not: it hears that it is to end, and its end takes nothing from the other.
  ASSERT_OK_AND_ASSIGN(const bool goes_on, of_one_.Report("gc", "dead", JsonObject{}));
  EXPECT_FALSE(goes_on);
  ASSERT_OK(of_one_.End("gc", "dead", JsonObject{{"id", "dead"}, {"state", "done"}}));
  WaitUntilEnded(two_, id);
  EXPECT_EQ(State(two_, id), "done");
}

TEST_F(SharedOperationsTest, OldOnesAreForgotten) {
  for (int i = 0; i < 200; ++i) {
    ASSERT_OK_AND_ASSIGN(
        const std::string id,
        one_.Start("gc", [](const ProgressFn&) -> Result<Json> { return Json(); }));
    WaitUntilEnded(two_, id);
    clock_.AdvanceUs(base::kSecondUs);
  }
  ASSERT_OK_AND_ASSIGN(const Json all, two_.DescribeAll());
  EXPECT_LE(all.as_array().size(), SharedOperations::kMaxKept + 1);
  EXPECT_GE(all.as_array().size(), SharedOperations::kMaxKept / 2);
}

TEST_F(SharedOperationsTest, OneHasTheTurn) {
  SharedTurn one(&meta_, clock_, "gc");
  SharedTurn two(&meta_, clock_, "gc");
  EXPECT_EQ(one.Take(1000), true);
  EXPECT_EQ(two.Take(1000), false);
  clock_.AdvanceUs(1'000'000);
  EXPECT_EQ(two.Take(1000), true);
  EXPECT_EQ(one.Take(1000), false);
  clock_.AdvanceUs(-3600 * base::kSecondUs);
  EXPECT_EQ(one.Take(1000), true) << "a clock that was set back";
  EXPECT_EQ(SharedTurn(nullptr, clock_, "gc").Take(1000), true);
}

}  // namespace
}  // namespace controlplane::admin
