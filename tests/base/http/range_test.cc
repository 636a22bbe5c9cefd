#include "base/http/range.h"

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base::http {
namespace {

TEST(RangeTest, WithoutARangeTheWholeBodyIsRight) {
  for (const char* header : {"", "items=0-5", "bytes", "bytes=0-1,3-4", "bytes=,"}) {
    ASSERT_OK_AND_ASSIGN(auto range, ParseRange(header, 100));
    EXPECT_FALSE(range.has_value()) << header;
  }
}

struct Case {
  const char* header;
  uint64_t size;
  uint64_t offset;
  uint64_t length;
};

TEST(RangeTest, CutsToTheBody) {
  for (const Case& c : {Case{"bytes=0-99", 1000, 0, 100}, Case{"bytes=100-", 1000, 100, 900},
                        Case{"bytes=-5", 1000, 995, 5}, Case{"bytes=0-0", 1, 0, 1},
                        Case{"bytes=-2000", 1000, 0, 1000}, Case{"bytes=999-5000", 1000, 999, 1},
                        Case{"BYTES=1-2", 10, 1, 2}, Case{"bytes= 1 - 2 ", 10, 1, 2},
                        Case{"bytes=0-18446744073709551615", UINT64_MAX, 0, UINT64_MAX},
                        Case{"bytes=5-99999999999999999999999", 10, 5, 5}}) {
    ASSERT_OK_AND_ASSIGN(auto range, ParseRange(c.header, c.size));
    ASSERT_TRUE(range.has_value()) << c.header;
    EXPECT_EQ(range->offset, c.offset) << c.header;
    EXPECT_EQ(range->length, c.length) << c.header;
  }
}

TEST(RangeTest, RefusesWhatCanNotBeSatisfied) {
  for (const char* header : {"bytes=100-", "bytes=100-200", "bytes=5-4", "bytes=-0", "bytes=-",
                             "bytes=", "bytes=a-b", "bytes=1", "bytes=+1-2", "bytes=--5",
                             "bytes=1-2-3", "bytes=99999999999999999999999-", "bytes=0x1-2"}) {
    EXPECT_ERROR(ParseRange(header, 100), Code::kInvalidArgument) << header;
  }
  EXPECT_ERROR(ParseRange("bytes=0-", 0), Code::kInvalidArgument);
  EXPECT_ERROR(ParseRange("bytes=-1", 0), Code::kInvalidArgument);
}

}  // namespace
}  // namespace base::http
