#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/rbd/rbd_world.h"

// A cluster that loses an OSD. $CEPH_TOOL breaks it.

namespace blockd::rbd {
namespace {

using blockd::chunk::testing::ReadAll;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StampOf;

constexpr uint64_t kBytes = 64 * base::kMiB;
constexpr uint64_t kWriteEvery = 4 * base::kMiB;
constexpr uint64_t kPlaces = kBytes / kWriteEvery;
constexpr uint64_t kRounds = 40;  // of all places, while it breaks

void CephTool(const std::string& words) {
  const char* tool = std::getenv("CEPH_TOOL");
  ASSERT_NE(tool, nullptr) << "start it with tests/cluster/with_cluster.py";
  const std::string command = std::string(tool) + " " + words + " > /dev/null 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

TEST(RbdFaults, AnOsdThatIsKilledCostsNoErrorAndNoByte) {
  testing::RbdWorld world;
  const auto store = world.NewStore();
  ASSERT_OK(store->Create({.id = "v", .size_bytes = kBytes}));
  ASSERT_OK_AND_ASSIGN(const auto volume, store->Open("v"));
  std::atomic<bool> broken = false;
  std::thread breaker([&] {
    CephTool("kill osd.0");
    broken = true;
  });
  uint64_t stamp = 0;
  for (uint64_t round = 0; round < kRounds || !broken; ++round) {
    for (uint64_t place = 0; place < kPlaces; ++place)
      ASSERT_OK(volume->Write(place * kWriteEvery, base::AsBytes(SectorOf(++stamp))));
    if (round == kRounds / 2) ASSERT_OK(store->Snapshot("v", "s"));
  }
  breaker.join();
  CephTool("start osd.0");
  for (uint64_t place = 0; place < kPlaces; ++place) {
    EXPECT_EQ(StampOf(ReadAll(*volume, place * kWriteEvery, kSectorBytes)),
              stamp - kPlaces + 1 + place);
  }
}

}  // namespace
}  // namespace blockd::rbd
