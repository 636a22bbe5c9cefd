// The forms of coroutine code that GCC 12 miscompiles without a word (double frees, jumps into
// nothing). The compiler that builds Quarry must run each of them rightly; the address sanitizer
// watches.

#include <memory>
#include <string>
#include <vector>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <gtest/gtest.h>

#include "base/async/offload.h"

namespace base::async {
namespace {

// Long enough to live on the heap, so that a double free shows.
const std::string kText = "a text that is longer than what a string keeps in itself";

struct Request {
  std::string name;
  std::vector<std::string> tags;
};

class CoroutineForms : public testing::Test {
 protected:
  // A real suspension: to another thread and back.
  Task<size_t> Measure(Request request) {
    auto job = [request]() -> Result<size_t> { return request.name.size() + request.tags.size(); };
    Result<size_t> measured = co_await Offload(pool_, job);
    co_return measured.value();
  }

  template <typename Job>
  Task<std::invoke_result_t<Job>> Run(Job job) {
    Result<int> hop = co_await Offload(pool_, []() -> Result<int> { return 1; });
    EXPECT_TRUE(hop.has_value());
    co_return job();
  }

  Task<bool> CountDown(int* left) {
    Request request{kText, {}};
    size_t size = co_await Measure(request);
    EXPECT_EQ(size, kText.size());
    co_return --*left > 0;
  }

  Task<void> LoopWithoutLocals(int* left) {
    while (co_await CountDown(left)) {
    }
  }

  void Finish(Task<void> task) {
    bool finished = false;
    context_.restart();
    boost::asio::co_spawn(context_, std::move(task), [&finished](std::exception_ptr error) {
      EXPECT_EQ(error, nullptr);
      finished = true;
    });
    context_.run();
    EXPECT_TRUE(finished);
  }

  boost::asio::io_context context_;  // outlives the pool, whose threads post into it
  Pool pool_{"forms", 2, 100};
};

TEST_F(CoroutineForms, AggregateBuiltInsideAnAwait) {
  auto body = [this]() -> Task<void> {
    size_t designated = co_await Measure({.name = kText, .tags = {kText, kText}});
    EXPECT_EQ(designated, kText.size() + 2);
    size_t named = co_await Measure(Request{kText, {kText}});
    EXPECT_EQ(named, kText.size() + 1);
  };
  Finish(body());
}

TEST_F(CoroutineForms, LambdaThatOwnsItsCapturesInsideAnAwait) {
  auto body = [this]() -> Task<void> {
    std::string text = kText;
    auto owned = std::make_shared<std::string>(kText);
    size_t size = co_await Run([text, owned] { return text.size() + owned->size(); });
    EXPECT_EQ(size, 2 * kText.size());
    EXPECT_EQ(owned.use_count(), 1);
  };
  Finish(body());
}

TEST_F(CoroutineForms, ChoiceBetweenTwoAwaits) {
  auto body = [this](bool first) -> Task<void> {
    Request one{kText, {}};
    Request two{kText, {kText}};
    size_t size = first ? co_await Measure(one) : co_await Measure(two);
    EXPECT_EQ(size, kText.size() + (first ? 0 : 1));
  };
  Finish(body(true));
  Finish(body(false));
}

TEST_F(CoroutineForms, AwaitAsTheConditionOfALoop) {
  int left = 10;
  Finish(LoopWithoutLocals(&left));
  EXPECT_EQ(left, 0);
}

}  // namespace
}  // namespace base::async
