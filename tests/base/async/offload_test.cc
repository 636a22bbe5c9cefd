#include "base/async/offload.h"

#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "base/async/run.h"
#include "tests/support/results.h"

namespace base::async {
namespace {

struct Threads {
  std::thread::id job;
  std::thread::id after;
};

Task<Result<Threads>> WhereItRuns(Pool* pool) {
  auto job = []() -> Result<std::thread::id> { return std::this_thread::get_id(); };
  Result<std::thread::id> ran = co_await Offload(*pool, job);
  CO_ASSIGN_OR_RETURN(std::thread::id id, std::move(ran));
  Threads threads{id, std::this_thread::get_id()};
  co_return threads;
}

TEST(Offload, RunsOnThePoolAndResumesWhereItWasAwaited) {
  Pool pool("test", 1, 10);
  ASSERT_OK_AND_ASSIGN(Threads threads, RunToEnd(WhereItRuns(&pool)));
  EXPECT_NE(threads.job, std::this_thread::get_id());
  EXPECT_EQ(threads.after, std::this_thread::get_id());
}

TEST(Offload, PassesErrorsAndMoveOnlyValues) {
  Pool pool("test", 2, 10);
  auto fail = []() -> Result<int> { return Error(Code::kCorruption, "broken"); };
  EXPECT_ERROR(RunToEnd(Offload(pool, fail)), Code::kCorruption);
  auto owned = std::make_unique<int>(5);
  auto pass = [owned = std::move(owned)]() mutable -> Result<std::unique_ptr<int>> {
    return std::move(owned);
  };
  ASSERT_OK_AND_ASSIGN(auto back, RunToEnd(Offload(pool, std::move(pass))));
  EXPECT_EQ(*back, 5);
  auto nothing = []() -> Result<void> { return {}; };
  EXPECT_OK(RunToEnd(Offload(pool, nothing)));
}

TEST(Offload, AFullPoolIsUnavailableAndTheJobDoesNotRun) {
  std::promise<void> running;
  std::promise<void> release;
  Pool pool("test", 1, 1);
  ASSERT_TRUE(pool.TrySubmit([&] {
    running.set_value();
    release.get_future().wait();
  }));
  running.get_future().wait();
  ASSERT_TRUE(pool.TrySubmit([] {}));
  bool ran = false;
  auto job = [&ran]() -> Result<int> {
    ran = true;
    return 1;
  };
  EXPECT_ERROR(RunToEnd(Offload(pool, job)), Code::kUnavailable);
  EXPECT_FALSE(ran);
  release.set_value();
}

TEST(Offload, ManyCoroutinesShareAPool) {
  Pool pool("test", 2, 1000);
  boost::asio::io_context context;
  int done = 0;
  auto one = [](Pool* shared, int i, int* counter) -> Task<void> {
    auto job = [i]() -> Result<int> { return i * 2; };
    Result<int> doubled = co_await Offload(*shared, job);
    if (doubled.has_value() && *doubled == i * 2) ++*counter;
  };
  for (int i = 0; i < 500; ++i) {
    boost::asio::co_spawn(context, one(&pool, i, &done), [](std::exception_ptr) {});
  }
  context.run();
  EXPECT_EQ(done, 500);
}

}  // namespace
}  // namespace base::async
