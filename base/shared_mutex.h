#pragma once

#include <pthread.h>

#include "base/thread_annotations.h"

#define QUARRY_ACQUIRE_SHARED(...) __attribute__((acquire_shared_capability(__VA_ARGS__)))
#define QUARRY_RELEASE_SHARED(...) __attribute__((release_shared_capability(__VA_ARGS__)))

namespace base {

// Many readers or one writer. A writer who waits goes before readers who come later, unlike with
// std::shared_mutex, where readers that overlap keep it out for ever. So nobody may take it twice.
class QUARRY_CAPABILITY("mutex") SharedMutex {
 public:
  SharedMutex() {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&lock_, &attributes);
    pthread_rwlockattr_destroy(&attributes);
  }
  ~SharedMutex() { pthread_rwlock_destroy(&lock_); }
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void Lock() QUARRY_ACQUIRE() { pthread_rwlock_wrlock(&lock_); }
  void Unlock() QUARRY_RELEASE() { pthread_rwlock_unlock(&lock_); }
  void LockShared() QUARRY_ACQUIRE_SHARED() { pthread_rwlock_rdlock(&lock_); }
  void UnlockShared() QUARRY_RELEASE_SHARED() { pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_;
};

class QUARRY_SCOPED_CAPABILITY WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) QUARRY_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~WriterLock() QUARRY_RELEASE() { mutex_.Unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class QUARRY_SCOPED_CAPABILITY ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) QUARRY_ACQUIRE_SHARED(mutex) : mutex_(mutex) {
    mutex_.LockShared();
  }
  ~ReaderLock() QUARRY_RELEASE() { mutex_.UnlockShared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace base
