#include "base/clock.h"

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base {
namespace {

constexpr int64_t kExampleUs = 1'795'231'764'000'000;  // date -u -d 2026-11-21T03:29:24Z +%s

TEST(Clock, SystemClockMovesForward) {
  const Clock& clock = SystemClock();
  EXPECT_GT(clock.NowUs(), kExampleUs - 366ll * 86400 * kSecondUs * 10);
  int64_t before = clock.MonotonicNs();
  EXPECT_GE(clock.MonotonicNs(), before);
}

TEST(Clock, ManualClockStandsStillUntilTold) {
  ManualClock clock(5);
  EXPECT_EQ(clock.NowUs(), 5);
  clock.AdvanceUs(10);
  EXPECT_EQ(clock.NowUs(), 15);
  EXPECT_EQ(clock.MonotonicNs(), 15'000);
}

TEST(FormatTime, LooksAsTheClientsExpect) {
  EXPECT_EQ(FormatTimeSeconds(kExampleUs + 999'999), "2026-11-21T03:29:24Z");
  EXPECT_EQ(FormatTimeMicros(kExampleUs), "2026-11-21T03:29:24.000000Z");
  EXPECT_EQ(FormatTimeMicros(kExampleUs + 42), "2026-11-21T03:29:24.000042Z");
  EXPECT_EQ(FormatTimeSeconds(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(FormatTimeMicros(-1), "1969-12-31T23:59:59.999999Z");
}

TEST(ParseTime, ReadsTheFormsOfIso8601) {
  const std::pair<const char*, int64_t> kForms[] = {
      {"2026-11-21T03:29:24Z", kExampleUs},
      {"2026-11-21T03:29:24", kExampleUs},
      {"2026-11-21 03:29:24", kExampleUs},
      {"2026-11-21T03:29:24.000000Z", kExampleUs},
      {"2026-11-21T03:29:24.5", kExampleUs + 500'000},
      {"2026-11-21T03:29:24.1234567Z", kExampleUs + 123'456},
      {"2026-11-21T04:29:24+01:00", kExampleUs},
      {"2026-11-21T04:29:24+0100", kExampleUs},
      {"2026-11-21T04:29:24+01", kExampleUs},
      {"2026-11-20T22:59:24-04:30", kExampleUs},
      {"2026-11-21T03:29", kExampleUs - 24 * kSecondUs},
      {"1970-01-01", 0},
      {"2024-02-29", 1'709'164'800ll * kSecondUs},
  };
  for (auto [text, time_us] : kForms) {
    ASSERT_OK_AND_ASSIGN(int64_t parsed, ParseTime(text));
    EXPECT_EQ(parsed, time_us) << text;
  }
}

TEST(ParseTime, RefusesAllElse) {
  const char* const kBad[] = {"",
                              "now",
                              "2026",
                              "2026-13-01",
                              "2026-02-29",
                              "2026-11-31",
                              "0000-01-01",
                              "2026-1-1",
                              "2026-11-21T",
                              "2026-11-21T24:00:00Z",
                              "2026-11-21T03:60:00Z",
                              "2026-11-21T03:29:60Z",
                              "2026-11-21T03:29:24.Z",
                              "2026-11-21T03:29:24+1",
                              "2026-11-21T03:29:24+01:",
                              "2026-11-21T03:29:24+24:00",
                              "2026-11-21T03:29:24ZZ",
                              "2026-11-21T03:29:24Z ",
                              "+026-11-21",
                              "0001-01-01T00:00:00+00:01",
                              "9999-12-31T23:59:59-00:01",
                              "2026-11-21T03:29:24 01:00"};
  for (const char* text : kBad) EXPECT_ERROR(ParseTime(text), Code::kInvalidArgument);
}

TEST(ParseTime, ReadsWhatWasFormatted) {
  for (int64_t time_us : {int64_t{0}, kExampleUs + 1, int64_t{-62135596800} * kSecondUs,
                          int64_t{253402300799} * kSecondUs}) {
    ASSERT_OK_AND_ASSIGN(int64_t parsed, ParseTime(FormatTimeMicros(time_us)));
    EXPECT_EQ(parsed, time_us);
  }
}

}  // namespace
}  // namespace base
