#include "base/async/pool.h"

#include <atomic>
#include <future>
#include <memory>
#include <optional>

#include <gtest/gtest.h>

namespace base::async {
namespace {

TEST(Pool, RunsAllJobsBeforeItGoes) {
  std::atomic<int> done = 0;
  {
    Pool pool("test", 3, 1000);
    EXPECT_EQ(pool.threads(), 3u);
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(pool.TrySubmit([&done] { ++done; }));
  }
  EXPECT_EQ(done, 1000);
}

TEST(Pool, RefusesWhatItsQueueCannotHold) {
  std::promise<void> running;
  std::promise<void> release;
  std::atomic<int> done = 0;
  {
    Pool pool("test", 1, 2);
    ASSERT_TRUE(pool.TrySubmit([&] {
      running.set_value();
      release.get_future().wait();
    }));
    running.get_future().wait();
    EXPECT_TRUE(pool.TrySubmit([&done] { ++done; }));
    EXPECT_TRUE(pool.TrySubmit([&done] { ++done; }));
    EXPECT_EQ(pool.queued(), 2u);
    EXPECT_FALSE(pool.TrySubmit([&done] { ++done; }));
    release.set_value();
  }
  EXPECT_EQ(done, 2);
}

TEST(Pool, LetsGoOfAJobAsSoonAsItRan) {
  Pool pool("a name longer than the kernel takes", 1, 10);
  auto owned = std::make_shared<int>(1);
  std::weak_ptr<int> watched = owned;
  std::promise<bool> gone;
  ASSERT_TRUE(pool.TrySubmit([job_owns = std::move(owned)] {}));
  ASSERT_TRUE(pool.TrySubmit([&] { gone.set_value(watched.expired()); }));
  EXPECT_TRUE(gone.get_future().get());
}

TEST(Pool, RefusesWhileItStops) {
  std::optional<bool> taken;
  {
    Pool pool("test", 1, 10);
    // Runs during the destructor at the latest, which waits for it.
    ASSERT_TRUE(pool.TrySubmit([&] {
      while (pool.TrySubmit([] {})) {
      }
      taken = false;
    }));
  }
  EXPECT_EQ(taken, false);
}

}  // namespace
}  // namespace base::async
