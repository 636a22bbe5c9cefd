#include "base/bytes.h"

#include <vector>

#include <gtest/gtest.h>

namespace base {
namespace {

TEST(IsZero, FindsAnyByteAtAnyPlace) {
  for (size_t size : {0, 1, 2, 15, 16, 17, 31, 32, 33, 100, 4096}) {
    std::vector<uint8_t> bytes(size);
    EXPECT_TRUE(IsZero(bytes)) << size;
    for (size_t i = 0; i < size; ++i) {
      bytes[i] = 0x80;
      EXPECT_FALSE(IsZero(bytes)) << i << " of " << size;
      bytes[i] = 0;
    }
  }
}

TEST(IsZero, WorksAtOddAddresses) {
  std::vector<uint8_t> bytes(100);
  bytes[0] = 1;
  bytes[99] = 1;
  EXPECT_TRUE(IsZero(ByteView(bytes).subspan(1, 98)));
  EXPECT_FALSE(IsZero(ByteView(bytes).subspan(1)));
}

TEST(Buffer, IsPageAlignedAndWritable) {
  Buffer buffer(5000);
  EXPECT_EQ(buffer.size(), 5000u);
  EXPECT_EQ(buffer.view().size(), 5000u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
  buffer.data()[4999] = 7;
  EXPECT_EQ(static_cast<const Buffer&>(buffer).view()[4999], 7);
}

TEST(Buffer, MovesAndLeavesNothingBehind) {
  Buffer buffer(100);
  buffer.data()[0] = 9;
  Buffer moved(std::move(buffer));
  EXPECT_EQ(moved.data()[0], 9);
  EXPECT_EQ(buffer.size(), 0u);  // NOLINT(bugprone-use-after-move): what the header promises
  EXPECT_EQ(buffer.data(), nullptr);
  Buffer assigned(10);
  assigned = std::move(moved);
  EXPECT_EQ(assigned.size(), 100u);
  EXPECT_EQ(moved.size(), 0u);  // NOLINT(bugprone-use-after-move)
}

TEST(Buffer, MayBeEmpty) {
  Buffer none(0);
  EXPECT_EQ(none.size(), 0u);
  EXPECT_EQ(Buffer().size(), 0u);
}

TEST(Views, GoBetweenTextAndBytes) {
  std::string_view text = "a\0b";
  EXPECT_EQ(AsText(AsBytes(text)), text);
}

}  // namespace
}  // namespace base
