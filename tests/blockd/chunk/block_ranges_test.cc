#include "blockd/chunk/block_ranges.h"

#include <random>
#include <set>

#include <gtest/gtest.h>

namespace blockd::chunk {
namespace {

using Ranges = std::vector<BlockRange>;

TEST(BlockRangesTest, NeighboursAreOne) {
  BlockRanges ranges;
  EXPECT_EQ(ranges.First(), std::nullopt);
  ranges.Add({8, 12});
  ranges.Add({4, 8});
  ranges.Add({20, 30});
  ranges.Add({7, 7});
  EXPECT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges.First(), 4u);
  ranges.Add({10, 22});
  EXPECT_EQ(ranges.Take({0, 100}), (Ranges{{4, 30}}));
  EXPECT_EQ(ranges.size(), 0u);
}

TEST(BlockRangesTest, WhatLiesOutsideStays) {
  BlockRanges ranges;
  ranges.Add({10, 20});
  ranges.Add({30, 40});
  EXPECT_EQ(ranges.Take({12, 14}), (Ranges{{12, 14}}));
  EXPECT_EQ(ranges.Take({12, 14}), Ranges());
  EXPECT_EQ(ranges.Take({0, 11}), (Ranges{{10, 11}}));
  EXPECT_EQ(ranges.Take({13, 35}), (Ranges{{14, 20}, {30, 35}}));
  EXPECT_EQ(ranges.Take({0, 100}), (Ranges{{11, 12}, {35, 40}}));
}

TEST(BlockRangesTest, IsWhatASetIs) {
  std::mt19937_64 random(3);
  BlockRanges ranges;
  std::set<uint64_t> model;
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t begin = random() % 200;
    const BlockRange range = {begin, begin + random() % 20};
    if (random() % 2 == 0) {
      ranges.Add(range);
      for (uint64_t block = range.begin; block < range.end; ++block) model.insert(block);
      continue;
    }
    std::set<uint64_t> taken;
    for (const BlockRange& one : ranges.Take(range))
      for (uint64_t block = one.begin; block < one.end; ++block) taken.insert(block);
    std::set<uint64_t> expected;
    for (uint64_t block = range.begin; block < range.end; ++block)
      if (model.erase(block) > 0) expected.insert(block);
    ASSERT_EQ(taken, expected) << step;
    const auto first = model.empty() ? std::nullopt : std::optional<uint64_t>(*model.begin());
    ASSERT_EQ(ranges.First(), first) << step;
  }
}

}  // namespace
}  // namespace blockd::chunk
