#include "base/shared_mutex.h"

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace base {
namespace {

struct Pair {
  SharedMutex mutex;
  int left GUARDED_BY(mutex) = 0;
  int right GUARDED_BY(mutex) = 0;
};

TEST(SharedMutex, WritersAreAloneAndReadersAreNot) {
  Pair pair;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&pair, i] {
      for (int round = 0; round < 2000; ++round) {
        if (i < 2) {
          WriterLock lock(pair.mutex);
          ++pair.left;
          ++pair.right;
        } else {
          ReaderLock lock(pair.mutex);
          ASSERT_EQ(pair.left, pair.right);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  {
    ReaderLock lock(pair.mutex);
    EXPECT_EQ(pair.left, 4000);
    std::thread([&pair] {
      ReaderLock beside(pair.mutex);
      EXPECT_EQ(pair.right, 4000);
    }).join();
  }
}

}  // namespace
}  // namespace base
