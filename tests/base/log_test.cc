#include "base/log.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace base {
namespace {

using testing::HasSubstr;
using testing::Not;

// What `write` logs.
template <typename Write>
std::string Logged(Write write) {
  testing::internal::CaptureStderr();
  write();
  return testing::internal::GetCapturedStderr();
}

TEST(Log, WritesALineWithTimeLevelAndRoom) {
  std::string line = Logged([] { LOG(kInfo, "imaged", "image {} became active", 7); });
  EXPECT_THAT(line, testing::MatchesRegex("[0-9-]+T[0-9:.]+Z INFO imaged image 7 became active\n"));
}

TEST(Log, EscapesControlCharacters) {
  std::string line = Logged([] { LOG(kWarn, "imaged", "name {}", "x\n2026 forged\x7f\x1b[1m"); });
  EXPECT_THAT(line, HasSubstr("WARN imaged name x\\x0a2026 forged\\x7f\\x1b[1m\n"));
}

TEST(Log, TakesTextAsItIs) {
  EXPECT_THAT(Logged([] { LogLine(LogLevel::kError, "room", "{} %v %n"); }),
              HasSubstr("ERROR room {} %v %n\n"));
}

TEST(Log, LeavesOutWhatIsBelowTheLevel) {
  ASSERT_TRUE(SetLogLevel("warn"));
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  EXPECT_EQ(Logged([] { LOG(kInfo, "room", "quiet"); }), "");
  ASSERT_TRUE(SetLogLevel("debug"));
  EXPECT_THAT(Logged([] { LOG(kDebug, "room", "loud"); }), HasSubstr("DEBUG room loud"));
  EXPECT_FALSE(SetLogLevel("verbose"));
  ASSERT_TRUE(SetLogLevel("error"));
  EXPECT_FALSE(LogEnabled(LogLevel::kWarn));
  ASSERT_TRUE(SetLogLevel("info"));
}

TEST(Log, ContextEndsTheLinesOfItsThreadAndNests) {
  auto log = [] { LOG(kInfo, "room", "event"); };
  ScopedLogContext outer("req-1");
  EXPECT_THAT(Logged(log), HasSubstr("event req-1\n"));
  {
    ScopedLogContext inner("req-2");
    EXPECT_THAT(Logged(log), HasSubstr("event req-2\n"));
    EXPECT_THAT(Logged([&] { std::thread(log).join(); }), Not(HasSubstr("req-")));
  }
  EXPECT_THAT(Logged(log), HasSubstr("event req-1\n"));
}

}  // namespace
}  // namespace base
