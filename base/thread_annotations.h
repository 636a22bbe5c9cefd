#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

// clang's thread-safety analysis (-Wthread-safety): a field that a mutex guards says so, and the
// compiler checks every access. Mutex and MutexLock are std::mutex with those annotations.

#define QUARRY_CAPABILITY(x) __attribute__((capability(x)))
#define QUARRY_SCOPED_CAPABILITY __attribute__((scoped_lockable))
#define GUARDED_BY(x) __attribute__((guarded_by(x)))
#define REQUIRES(...) __attribute__((requires_capability(__VA_ARGS__)))
#define EXCLUDES(...) __attribute__((locks_excluded(__VA_ARGS__)))
#define QUARRY_ACQUIRE(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define QUARRY_RELEASE(...) __attribute__((release_capability(__VA_ARGS__)))
#define NO_THREAD_SAFETY_ANALYSIS __attribute__((no_thread_safety_analysis))

namespace base {

class QUARRY_CAPABILITY("mutex") Mutex {
 public:
  void Lock() QUARRY_ACQUIRE() { mutex_.lock(); }
  void Unlock() QUARRY_RELEASE() { mutex_.unlock(); }
  // For CondVar and std::unique_lock.
  void lock() QUARRY_ACQUIRE() { mutex_.lock(); }
  void unlock() QUARRY_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class QUARRY_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) QUARRY_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() QUARRY_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Wait with the mutex held; loop on the condition around it.
class CondVar {
 public:
  void Wait(Mutex& mutex) REQUIRES(mutex) { condition_.wait(mutex); }
  // False when the time ran out.
  bool WaitForMs(Mutex& mutex, int64_t timeout_ms) REQUIRES(mutex) {
    return condition_.wait_for(mutex, std::chrono::milliseconds(timeout_ms)) ==
           std::cv_status::no_timeout;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

}  // namespace base
