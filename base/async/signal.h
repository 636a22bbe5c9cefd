#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/async/task.h"
#include "base/thread_annotations.h"

namespace base::async {

// Tells one coroutine that something has changed: it looks, and if what it needs is not there,
// waits and looks again. Whoever changed something notifies, on any thread. A notice given while
// nobody waits is kept (one, however many were given), so none is missed between the look and the
// wait.
//
//   while (!state->Ready()) co_await state->changed.Wait();
//
// Notify is Thread-safe; one coroutine at a time waits, and resumes on its own executor. The signal
// must outlive both: keep it in what they share.
class Signal {
 public:
  void Notify() {
    std::function<void()> resume;
    {
      MutexLock lock(mutex_);
      if (waiter_ == nullptr) {
        noticed_ = true;
        return;
      }
      resume = std::exchange(waiter_, nullptr);
    }
    resume();
  }

  Task<void> Wait() {
    auto initiate = [this](auto handler) {
      auto executor = boost::asio::get_associated_executor(handler);
      auto guard = boost::asio::make_work_guard(executor);
      auto shared_handler = std::make_shared<decltype(handler)>(std::move(handler));
      std::function<void()> resume = [shared_handler, guard] {
        boost::asio::post(guard.get_executor(),
                          [shared_handler] { std::move (*shared_handler)(); });
      };
      {
        MutexLock lock(mutex_);
        if (!std::exchange(noticed_, false)) {
          waiter_ = std::move(resume);
          return;
        }
      }
      resume();
    };
    co_await boost::asio::async_initiate<decltype(boost::asio::use_awaitable), void()>(
        std::move(initiate), boost::asio::use_awaitable);
  }

 private:
  Mutex mutex_;
  bool noticed_ GUARDED_BY(mutex_) = false;
  std::function<void()> waiter_ GUARDED_BY(mutex_);
};

}  // namespace base::async
