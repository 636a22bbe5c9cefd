#pragma once

#include <optional>
#include <utility>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "base/async/task.h"

namespace base::async {

// Runs a task to its end on this thread, on an executor of its own: for a test, or a tool that has
// no server. Blocks.
template <typename T>
T RunToEnd(Task<T> task) {
  std::optional<T> result;
  auto wait = [](Task<T> inner, std::optional<T>* outcome) -> Task<void> {
    T value = co_await std::move(inner);
    outcome->emplace(std::move(value));
  };
  boost::asio::io_context context;
  Task<void> whole = wait(std::move(task), &result);
  boost::asio::co_spawn(context, std::move(whole), boost::asio::detached);
  context.run();
  return *std::move(result);
}

}  // namespace base::async
