#include "base/fair_shares.h"

#include <gtest/gtest.h>

namespace base {
namespace {

using Refusal = FairShares::Refusal;

uint64_t TakeAll(FairShares* shares, std::string_view project, uint64_t at_once) {
  uint64_t count = 0;
  while (!shares->TryTake(project, at_once).has_value()) ++count;
  return count;
}

TEST(FairShares, AProjectHoldsNoMoreThanItLeaves) {
  FairShares shares(12);
  EXPECT_EQ(TakeAll(&shares, "a", 1), 6u);
  EXPECT_EQ(TakeAll(&shares, "b", 1), 3u);
  EXPECT_EQ(shares.TryTake("a", 1), Refusal::kShare);
  EXPECT_EQ(shares.HeldBy("a"), 6u);
  // Whoever holds nothing may have the rest; then there is none.
  EXPECT_EQ(shares.TryTake("c", 4), Refusal::kLimit);
  EXPECT_EQ(shares.TryTake("c", 3), std::nullopt);
  EXPECT_EQ(shares.TryTake("d", 1), Refusal::kLimit);
  EXPECT_EQ(shares.TryTake("d", 0), std::nullopt);
  EXPECT_EQ(shares.used(), 12u);
}

TEST(FairShares, WhatIsGivenBackIsThereForOthers) {
  FairShares shares(12);
  TakeAll(&shares, "a", 3);
  EXPECT_EQ(shares.HeldBy("a"), 6u);
  shares.Give("a", 6);
  EXPECT_EQ(shares.used(), 0u);
  EXPECT_EQ(shares.HeldBy("a"), 0u);
  EXPECT_EQ(TakeAll(&shares, "b", 6), 1u);
}

}  // namespace
}  // namespace base
