#include "base/async/pool.h"

#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>

#include "base/check.h"
#include "base/thread_annotations.h"

namespace base::async {

struct Pool::Impl {
  const size_t queue_limit;
  mutable Mutex mutex;
  CondVar changed;
  std::deque<std::function<void()>> queue GUARDED_BY(mutex);
  bool stopping GUARDED_BY(mutex) = false;
  std::vector<std::thread> threads;

  explicit Impl(size_t limit) : queue_limit(limit) {}

  // False when there is nothing left to do, ever.
  bool TakeJob(std::function<void()>* job) {
    MutexLock lock(mutex);
    while (queue.empty() && !stopping) changed.Wait(mutex);
    if (queue.empty()) return false;
    *job = std::move(queue.front());
    queue.pop_front();
    return true;
  }

  void Run(const std::string& name) {
    pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());  // the kernel's limit
    std::function<void()> job;
    while (TakeJob(&job)) {
      job();
      job = nullptr;  // what the job owns goes now, not when the next one comes
    }
  }
};

Pool::Pool(std::string name, size_t threads, size_t queue_limit)
    : impl_(std::make_unique<Impl>(queue_limit)) {
  CHECK(threads > 0);
  for (size_t i = 0; i < threads; ++i)
    impl_->threads.emplace_back([impl = impl_.get(), name] { impl->Run(name); });
}

Pool::~Pool() {
  {
    MutexLock lock(impl_->mutex);
    impl_->stopping = true;
    impl_->changed.NotifyAll();
  }
  for (std::thread& thread : impl_->threads) thread.join();
}

bool Pool::TrySubmit(std::function<void()> job) {
  MutexLock lock(impl_->mutex);
  if (impl_->stopping || impl_->queue.size() >= impl_->queue_limit) return false;
  impl_->queue.push_back(std::move(job));
  impl_->changed.NotifyOne();
  return true;
}

size_t Pool::threads() const { return impl_->threads.size(); }

size_t Pool::queued() const {
  MutexLock lock(impl_->mutex);
  return impl_->queue.size();
}

}  // namespace base::async
