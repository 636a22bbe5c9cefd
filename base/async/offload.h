#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/async/pool.h"
#include "base/async/task.h"
#include "base/result.h"

namespace base::async {

// Runs `job` (a callable without arguments that returns Result<T>) on `pool` and resumes on the
// executor that awaited. A full pool answers kUnavailable without running it. The job owns what it
// needs: the awaiting coroutine may be destroyed meanwhile only at the end of the process.
//
//   auto job = [this, id] { return catalog_.Get(id); };
//   Result<Image> image = co_await Offload(pool_, std::move(job));
//
// The pool outlives what awaits it: services drain before their pool goes.
template <typename Job>
Task<std::invoke_result_t<Job>> Offload(Pool& pool, Job job) {
  using R = std::invoke_result_t<Job>;
  auto initiate = [&pool](auto handler, Job work) {
    auto executor = boost::asio::get_associated_executor(handler);
    // No work guard: the coroutine that waits is its context's work already, and a guard would be
    // let go here after the result was posted, when that context may be gone.
    auto shared_handler = std::make_shared<decltype(handler)>(std::move(handler));
    auto shared_work = std::make_shared<Job>(std::move(work));
    auto run = [shared_handler, shared_work, executor]() mutable {
      auto result = std::make_shared<std::optional<R>>((*shared_work)());
      shared_work.reset();
      boost::asio::post(executor, [shared_handler, result]() mutable {
        std::move (*shared_handler)(std::move(*result));
      });
    };
    if (pool.TrySubmit(std::move(run))) return;
    boost::asio::post(executor, [shared_handler]() mutable {
      std::optional<R> refused(
          Error(Code::kUnavailable, "the service has more work than it can take now; try again"));
      std::move (*shared_handler)(std::move(refused));
    });
  };
  std::optional<R> result =
      co_await boost::asio::async_initiate<decltype(boost::asio::use_awaitable),
                                           void(std::optional<R>)>(
          std::move(initiate), boost::asio::use_awaitable, std::move(job));
  co_return std::move(*result);
}

}  // namespace base::async
