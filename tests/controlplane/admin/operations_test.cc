#include "controlplane/admin/operations.h"

#include <future>
#include <string>

#include <gtest/gtest.h>

#include "base/check.h"
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
  EXPECT_LE(operations.DescribeAll().as_array().size(), Operations::kMaxFinished + 1);
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

}  // namespace
}  // namespace controlplane::admin
