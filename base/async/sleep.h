#pragma once

#include <chrono>
#include <cstdint>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/async/task.h"

namespace base::async {

// Suspends the coroutine for a while: for a limit that is looked at again (memory, a full queue).
inline Task<void> SleepMs(int64_t ms) {
  auto executor = co_await boost::asio::this_coro::executor;
  boost::asio::steady_timer timer(executor);
  timer.expires_after(std::chrono::milliseconds(ms));
  boost::system::error_code ignored;
  auto token = boost::asio::redirect_error(boost::asio::use_awaitable, ignored);
  co_await timer.async_wait(token);
}

}  // namespace base::async
