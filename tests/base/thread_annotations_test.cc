#include "base/thread_annotations.h"

#include <thread>

#include <gtest/gtest.h>

namespace base {
namespace {

struct Mailbox {
  Mutex mutex;
  CondVar changed;
  int letters GUARDED_BY(mutex) = 0;
};

TEST(CondVar, WakesAWaiter) {
  Mailbox box;
  std::thread sender([&box] {
    MutexLock lock(box.mutex);
    box.letters = 1;
    box.changed.NotifyOne();
  });
  {
    MutexLock lock(box.mutex);
    while (box.letters == 0) box.changed.Wait(box.mutex);
    EXPECT_EQ(box.letters, 1);
  }
  sender.join();
}

TEST(CondVar, GivesUpWhenTheTimeIsOver) {
  Mailbox box;
  MutexLock lock(box.mutex);
  EXPECT_FALSE(box.changed.WaitForMs(box.mutex, 1));
}

}  // namespace
}  // namespace base
