#include "blockd/nbd/memory_budget.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace blockd::nbd {
namespace {

class MemoryBudgetTest : public testing::Test {
 protected:
  std::unique_ptr<MemoryBudget::Line> Line(const std::string& tenant, int* woken = nullptr) {
    return std::make_unique<MemoryBudget::Line>(budget_, tenant, [woken] {
      if (woken != nullptr) ++*woken;
    });
  }

  std::shared_ptr<MemoryBudget> budget_ = std::make_shared<MemoryBudget>(12);
};

TEST_F(MemoryBudgetTest, ATenantHasHalfAndOthersFindSome) {
  const auto red = Line("red");
  MemoryBudget::Share six = red->TryTake(6);
  EXPECT_TRUE(six);
  EXPECT_FALSE(Line("red")->TryTake(1));
  const auto blue = Line("blue");
  EXPECT_TRUE(blue->TryTake(6));  // given back at once
  EXPECT_EQ(budget_->used_bytes(), 6u);
  six = {};
  EXPECT_EQ(budget_->used_bytes(), 0u);
}

TEST_F(MemoryBudgetTest, WhoWaitsIsWokenInTurn) {
  int first_woken = 0;
  int second_woken = 0;
  const auto holder = Line("red");
  const auto first = Line("red", &first_woken);
  const auto second = Line("red", &second_woken);
  MemoryBudget::Share held = holder->TryTake(6);
  EXPECT_FALSE(first->TryTake(4));
  EXPECT_FALSE(second->TryTake(4));
  // One that came later waits behind those, and one of another tenant does not.
  EXPECT_TRUE(Line("blue")->TryTake(3));
  held = {};
  EXPECT_EQ(first_woken, 1);
  EXPECT_EQ(second_woken, 0);
  MemoryBudget::Share taken = first->TryTake(4);
  EXPECT_TRUE(taken);
  EXPECT_FALSE(second->TryTake(4));
  taken = {};
  EXPECT_EQ(second_woken, 1);
  EXPECT_TRUE(second->TryTake(4));
  EXPECT_EQ(budget_->used_bytes(), 0u);
}

TEST_F(MemoryBudgetTest, ManySmallOnesDoNotKeepALargeOneWaiting) {
  const auto red = Line("red");
  const auto blue = Line("blue");
  MemoryBudget::Share reds = red->TryTake(6);
  MemoryBudget::Share blues = blue->TryTake(3);
  int woken = 0;
  const auto large = Line("green", &woken);
  EXPECT_FALSE(large->TryTake(8));
  // What comes back is kept for it.
  blues = {};
  EXPECT_FALSE(blue->TryTake(1));
  EXPECT_EQ(woken, 0);
  reds = {};
  EXPECT_EQ(woken, 1);
  MemoryBudget::Share all = large->TryTake(8);
  EXPECT_TRUE(all);
  EXPECT_TRUE(blue->TryTake(1));  // granted to the line already
}

TEST_F(MemoryBudgetTest, WhoLeavesTheLineHoldsUpNobody) {
  const auto red = Line("red");
  MemoryBudget::Share held = red->TryTake(6);
  int woken = 0;
  const auto next = Line("red", &woken);
  {
    const auto gone = Line("red");
    EXPECT_FALSE(gone->TryTake(6));
    EXPECT_FALSE(next->TryTake(6));
    held = {};
    EXPECT_EQ(woken, 0);  // the first has it, though it did not fetch it
    EXPECT_EQ(budget_->used_bytes(), 6u);
  }
  EXPECT_EQ(woken, 1);
  EXPECT_TRUE(next->TryTake(6));
  // And so does a large one that all wait for.
  MemoryBudget::Share some = red->TryTake(6);
  auto large = Line("green");
  EXPECT_FALSE(large->TryTake(12));
  EXPECT_FALSE(Line("blue")->TryTake(1));
  large.reset();
  EXPECT_TRUE(Line("blue")->TryTake(1));
}

}  // namespace
}  // namespace blockd::nbd
