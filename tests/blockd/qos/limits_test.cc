#include "blockd/qos/limits.h"

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace blockd::qos {
namespace {

constexpr int kRead = 0;
constexpr int kWrite = 1;
constexpr int kTotal = 2;

TEST(ParseSpec, ReadsCindersKeys) {
  ASSERT_OK_AND_ASSIGN(const Limits limits, ParseSpec({{"read_iops_sec", "2000"},
                                                       {"read_iops_sec_max", "3000"},
                                                       {"read_iops_sec_max_length", "7"},
                                                       {"write_iops_sec", "1000"},
                                                       {"total_bytes_sec", "1048576"},
                                                       {"size_iops_sec", "4096"},
                                                       {"consumer", "front-end"}},
                                                      10));
  EXPECT_EQ(limits.iops[kRead], (Rate{2000, 3000, 7}));
  EXPECT_EQ(limits.iops[kWrite], (Rate{1000, 0, 1}));
  EXPECT_FALSE(limits.iops[kTotal].limited());
  EXPECT_EQ(limits.bytes[kTotal].per_second, 1048576u);
  EXPECT_EQ(limits.size_iops_bytes, 4096u);
  EXPECT_TRUE(limits.limited());
}

TEST(ParseSpec, NothingIsNoLimit) {
  ASSERT_OK_AND_ASSIGN(const Limits limits, ParseSpec({}, 10));
  EXPECT_FALSE(limits.limited());
  ASSERT_OK_AND_ASSIGN(const Limits zero, ParseSpec({{"total_iops_sec", "0"}}, 10));
  EXPECT_FALSE(zero.limited());
}

TEST(ParseSpec, RatesPerGigabyteGrowWithTheVolume) {
  const Spec spec = {{"total_iops_sec_per_gb", "30"},
                     {"total_iops_sec_per_gb_min", "100"},
                     {"total_iops_sec_max", "5000"}};
  const auto rate_at = [&](uint64_t size_gb) { return ParseSpec(spec, size_gb)->iops[kTotal]; };
  EXPECT_EQ(rate_at(1), (Rate{100, 0, 1}));
  EXPECT_EQ(rate_at(10), (Rate{300, 0, 1}));
  EXPECT_EQ(rate_at(1000), (Rate{5000, 0, 1}));
}

TEST(ParseSpec, SaysWhichKeyIsWrong) {
  const std::pair<Spec, const char*> bad[] = {
      {{{"read_iops_sec", "many"}}, "read_iops_sec"},
      {{{"read_iops_sec", "-1"}}, "read_iops_sec"},
      {{{"read_iops_sec", "1.5"}}, "read_iops_sec"},
      {{{"read_iops_sec", ""}}, "read_iops_sec"},
      {{{"read_iops_sec", "99999999999999999999"}}, "read_iops_sec"},
      {{{"total_iops_sec", "1"}, {"read_iops_sec", "1"}}, "total_iops_sec"},
      {{{"total_bytes_sec", "1"}, {"write_bytes_sec", "1"}}, "total_bytes_sec"},
      {{{"write_bytes_sec_max", "5"}}, "write_bytes_sec_max"},
      {{{"write_bytes_sec", "6"}, {"write_bytes_sec_max", "5"}}, "write_bytes_sec_max"},
      {{{"read_iops_sec", "1"}, {"read_iops_sec_max", "2"}, {"read_iops_sec_max_length", "0"}},
       "read_iops_sec_max_length"},
      {{{"read_iops_sec", "1"}, {"read_iops_sec_per_gb", "2"}}, "read_iops_sec"},
      {{{"size_iops_sec", "x"}}, "size_iops_sec"},
  };
  for (const auto& [spec, key] : bad) {
    const auto parsed = ParseSpec(spec, 10);
    ASSERT_ERROR(parsed, base::Code::kInvalidArgument) << key;
    EXPECT_NE(parsed.error().message().find(key), std::string::npos) << parsed.error().message();
  }
}

}  // namespace
}  // namespace blockd::qos
