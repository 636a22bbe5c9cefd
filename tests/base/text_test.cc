#include "base/text.h"

#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace base {
namespace {

TEST(Text, TrimsTheNamedBlanksAtBothEndsOnly) {
  EXPECT_EQ(Trim(" \ta b\t ", " \t"), "a b");
  EXPECT_EQ(Trim("\ta ", " "), "\ta");
  EXPECT_EQ(Trim("a", " "), "a");
  EXPECT_EQ(Trim("  ", " "), "");
  EXPECT_EQ(Trim("", " "), "");
}

TEST(Text, ReadsNumbersThatAreAllOfTheText) {
  EXPECT_EQ(ParseNumber<uint16_t>("65535"), 65535);
  EXPECT_EQ(ParseNumber<uint64_t>("007"), 7u);
  EXPECT_EQ(ParseNumber<int64_t>("-9223372036854775808"), std::numeric_limits<int64_t>::min());
  for (const char* text : {"", "-", "+1", " 1", "1 ", "1.0", "0x1", "1e3", "a", "-1", "65536"})
    EXPECT_EQ(ParseNumber<uint16_t>(text), std::nullopt) << text;
  EXPECT_EQ(ParseNumber<int64_t>("9223372036854775808"), std::nullopt);
}

}  // namespace
}  // namespace base
