#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "tests/blockd/world.h"

// Projects take turns within a lane.

namespace blockd {
namespace {

// The first creations hold every thread until all have one; then who came last, with a long queue
// of another project before him, must be among them.
TEST(JobsTurnsTest, OneVolumeOfMineDoesNotWaitForAThousandOfYours) {
  JobOptions options;
  constexpr size_t kThreads = 4;
  options.threads = {kThreads, 1, 1, 1};
  BlockWorld world(options);
  ASSERT_OK(world.catalog->SetLimits(kYourProject, {{"volumes", kUnlimited}}));
  constexpr int kMany = 60;
  std::vector<std::string> ids;
  for (int i = 0; i < kMany; ++i) ids.push_back(world.CreateVolume(MemberOf(kYourProject)));
  const std::string mine = world.CreateVolume(MemberOf());
  ids.push_back(mine);

  std::mutex mutex;
  std::condition_variable all_there;
  std::vector<std::string> started;
  world.store.on_create = [&](const std::string& id) {
    std::unique_lock<std::mutex> lock(mutex);
    started.push_back(id);
    all_there.notify_all();
    all_there.wait(lock, [&] { return started.size() >= kThreads; });
  };
  world.jobs->Start();
  const auto done = [&] {
    return std::all_of(ids.begin(), ids.end(),
                       [&](const std::string& id) { return world.StatusOf(id) == "available"; });
  };
  EXPECT_TRUE(world.jobs->Await(done, 60'000));
  world.jobs->Stop();
  ASSERT_EQ(started.size(), size_t{kMany + 1});
  EXPECT_NE(std::find(started.begin(), started.begin() + kThreads, mine),
            started.begin() + kThreads);
  world.ExpectSettled();
}

}  // namespace
}  // namespace blockd
