#include "base/uuid.h"

#include <set>

#include <gtest/gtest.h>

namespace base {
namespace {

TEST(Uuid, IsRandomVersion4) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    std::string uuid = NewUuid();
    EXPECT_TRUE(IsUuid(uuid)) << uuid;
    EXPECT_EQ(uuid.size(), 36u);
    EXPECT_EQ(uuid[14], '4') << uuid;
    EXPECT_NE(std::string("89ab").find(uuid[19]), std::string::npos) << uuid;
    seen.insert(uuid);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Uuid, ComesWithoutDashesToo) {
  std::string uuid = NewUuidHex();
  EXPECT_EQ(uuid.size(), 32u);
  EXPECT_TRUE(IsUuid(uuid));
}

TEST(Uuid, IsTold) {
  EXPECT_TRUE(IsUuid("ABCDEF01-2345-6789-abcd-ef0123456789"));
  EXPECT_TRUE(IsUuid("abcdef0123456789abcdef0123456789"));
  EXPECT_FALSE(IsUuid(""));
  EXPECT_FALSE(IsUuid("abcdef01-2345-6789-abcd-ef012345678"));
  EXPECT_FALSE(IsUuid("abcdef0123456789abcdef012345678g"));
  EXPECT_FALSE(IsUuid("abcdef01x2345-6789-abcd-ef0123456789"));
  EXPECT_FALSE(IsUuid("abcdef0-12345-6789-abcd-ef0123456789"));
}

}  // namespace
}  // namespace base
