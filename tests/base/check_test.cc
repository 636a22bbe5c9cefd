#include "base/check.h"

#include <gtest/gtest.h>

namespace base {
namespace {

TEST(CheckDeathTest, SaysWhereAndWhatAndAborts) {
  int apples = 3;
  EXPECT_DEATH(CHECK(apples == 4), "CHECK failed: .*check_test.cc:[0-9]+: apples == 4");
}

TEST(Check, EvaluatesItsConditionOnce) {
  int count = 0;
  CHECK(++count == 1);
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace base
