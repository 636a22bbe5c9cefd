#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace base::async {

// A fixed number of threads and a bounded queue. Jobs may block on disk, never on a client's
// socket. Thread-safe. The destructor runs what is queued, then joins.
class Pool {
 public:
  Pool(std::string name, size_t threads, size_t queue_limit);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // False, without running it, when the queue is full or the pool is stopping: the caller answers
  // 503.
  bool TrySubmit(std::function<void()> job);

  size_t threads() const;
  size_t queued() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace base::async
