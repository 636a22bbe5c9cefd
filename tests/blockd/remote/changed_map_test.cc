#include "blockd/remote/changed_map.h"

#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace blockd::remote {
namespace {

constexpr size_t kMuch = 8 * base::kMiB;

TEST(ChangedMapTest, WhatIsBeyondWholeBlocksCountsAsChanged) {
  ChangedMap map(3 * kBlockBytes + 512, kMuch);
  EXPECT_EQ(map.size_bytes(), 3 * kBlockBytes);
  const ChangedMap::Run run = map.RunAt(512, base::kMiB);
  EXPECT_FALSE(run.changed);
  EXPECT_EQ(run.length, 3 * kBlockBytes - 512);
  EXPECT_TRUE(map.RunAt(3 * kBlockBytes, base::kMiB).changed);
  EXPECT_EQ(map.RunAt(3 * kBlockBytes, base::kMiB).length, base::kMiB);
  map.Mark(3 * kBlockBytes, 512);
  map.Mark(0, 0);
  EXPECT_EQ(map.CountChangedBytes(), 0u);
  map.Mark(2 * kBlockBytes + 4095, 2);
  EXPECT_EQ(map.CountChangedBytes(), kBlockBytes);
  EXPECT_EQ(map.RunAt(2 * kBlockBytes, base::kMiB).length, base::kMiB) << "joined with the end";
  ChangedMap none(512, kMuch);
  EXPECT_TRUE(none.RunAt(0, 512).changed);
}

TEST(ChangedMapTest, BlocksGrowWithTheVolumeSoThatMemoryDoesNot) {
  EXPECT_EQ(ChangedMap(256 * base::kGiB, kMuch).block_bytes(), kBlockBytes);
  EXPECT_EQ(ChangedMap(257 * base::kGiB, kMuch).block_bytes(), 2 * kBlockBytes);
  ChangedMap large(kMaxVolumeBytes, kMuch);
  EXPECT_EQ(large.block_bytes(), 64 * kBlockBytes);
  large.Mark(kMaxVolumeBytes - 512, 512);
  EXPECT_EQ(large.CountChangedBytes(), large.block_bytes());
  EXPECT_EQ(large.RunAt(0, kMaxVolumeBytes).length, kMaxVolumeBytes - large.block_bytes());
}

TEST(ChangedMapTest, AsAListOfBitsWouldSay) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const uint64_t blocks = 1 + random() % 300;
    ChangedMap map(blocks * kBlockBytes, kMuch);
    std::vector<bool> model(blocks + 64, false);
    for (uint64_t i = blocks; i < model.size(); ++i) model[i] = true;
    for (int step = 0; step < 20; ++step) {
      const uint64_t offset = random() % (blocks * 8) * 512;
      const uint64_t length = (1 + random() % (random() % 2 == 0 ? 20 : 900)) * 512;
      map.Mark(offset, length);
      for (uint64_t i = offset / kBlockBytes; i <= (offset + length - 1) / kBlockBytes; ++i)
        if (i < model.size()) model[i] = true;
      const uint64_t from = random() % (blocks * 8) * 512;
      const uint64_t most = (1 + random() % 500) * 512;
      const ChangedMap::Run run = map.RunAt(from, most);
      ASSERT_GT(run.length, 0u);
      ASSERT_LE(run.length, most);
      for (uint64_t at = from; at < from + run.length; at += 512)
        ASSERT_EQ(model[at / kBlockBytes], run.changed) << round << " " << at;
      if (run.length < most) ASSERT_NE(model[(from + run.length) / kBlockBytes], run.changed);
    }
  }
}

}  // namespace
}  // namespace blockd::remote
