#pragma once

#include <optional>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "base/async/task.h"

namespace base::async {

// Runs a task to its end on this thread, on an executor of its own: for a test, or a tool that has
// no server. Blocks. Not to be called from within a task.
template <typename T>
T RunToEnd(Task<T> task) {
  std::optional<T> result;
  auto wait = [](Task<T> inner, std::optional<T>* outcome) -> Task<void> {
    T value = co_await std::move(inner);
    outcome->emplace(std::move(value));
  };
  // Lives as long as the thread: whoever posted the last result from a pool may still be inside the
  // context when run() is back.
  thread_local boost::asio::io_context context;
  context.restart();
  Task<void> whole = wait(std::move(task), &result);
  boost::asio::co_spawn(context, std::move(whole), boost::asio::detached);
  context.run();
  return *std::move(result);
}

}  // namespace base::async
