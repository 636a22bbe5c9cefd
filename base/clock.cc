#include "base/clock.h"

#include <chrono>
#include <optional>

#include <fmt/format.h>

namespace base {
namespace {

class MachineClock : public Clock {
 public:
  int64_t NowUs() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  int64_t MonotonicNs() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

// 0001-01-01 to 9999-12-31: what four digits of a year can say, so that what is read can be
// written.
constexpr int64_t kFirstTimeUs = -62'135'596'800 * kSecondUs;
constexpr int64_t kEndTimeUs = 253'402'300'800 * kSecondUs;

struct CivilTime {
  int year, month, day, hour, minute, second, micros;
};

CivilTime ToCivil(int64_t time_us) {
  using std::chrono::floor;
  std::chrono::sys_time<std::chrono::microseconds> time{std::chrono::microseconds(time_us)};
  auto day = floor<std::chrono::days>(time);
  std::chrono::year_month_day date(day);
  std::chrono::hh_mm_ss clock(time - day);
  return {static_cast<int>(date.year()),
          static_cast<int>(static_cast<unsigned>(date.month())),
          static_cast<int>(static_cast<unsigned>(date.day())),
          static_cast<int>(clock.hours().count()),
          static_cast<int>(clock.minutes().count()),
          static_cast<int>(clock.seconds().count()),
          static_cast<int>(clock.subseconds().count())};
}

// Takes a time apart from its front. One thread.
class TimeReader {
 public:
  explicit TimeReader(std::string_view text) : text_(text) {}

  bool empty() const { return text_.empty(); }
  bool Take(char wanted) {
    if (text_.empty() || text_.front() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }
  // Exactly `digits` digits.
  std::optional<int> Number(size_t digits) {
    if (text_.size() < digits) return std::nullopt;
    int value = 0;
    for (size_t i = 0; i < digits; ++i) {
      if (text_[i] < '0' || text_[i] > '9') return std::nullopt;
      value = value * 10 + (text_[i] - '0');
    }
    text_.remove_prefix(digits);
    return value;
  }
  // One digit or more, of which six count.
  std::optional<int> Fraction() {
    int value = 0;
    int digits = 0;
    while (std::optional<int> digit = Number(1)) {
      if (digits < 6) value = value * 10 + *digit;
      ++digits;
    }
    if (digits == 0) return std::nullopt;
    for (; digits < 6; ++digits) value *= 10;
    return value;
  }

 private:
  std::string_view text_;
};

std::optional<int64_t> ReadDateUs(TimeReader& reader) {
  auto year = reader.Number(4);
  if (!year || !reader.Take('-')) return std::nullopt;
  auto month = reader.Number(2);
  if (!month || !reader.Take('-')) return std::nullopt;
  auto day = reader.Number(2);
  if (!day) return std::nullopt;
  std::chrono::year_month_day date{std::chrono::year(*year),
                                   std::chrono::month(static_cast<unsigned>(*month)),
                                   std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok() || *year == 0) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::sys_days(date).time_since_epoch())
      .count();
}

std::optional<int64_t> ReadClockUs(TimeReader& reader) {
  auto hour = reader.Number(2);
  if (!hour || *hour > 23 || !reader.Take(':')) return std::nullopt;
  auto minute = reader.Number(2);
  if (!minute || *minute > 59) return std::nullopt;
  int64_t time_us = (*hour * 60 + *minute) * 60 * kSecondUs;
  if (!reader.Take(':')) return time_us;
  auto second = reader.Number(2);
  if (!second || *second > 59) return std::nullopt;
  time_us += *second * kSecondUs;
  if (!reader.Take('.')) return time_us;
  auto fraction = reader.Fraction();
  if (!fraction) return std::nullopt;
  return time_us + *fraction;
}

// "Z", "+hh", "+hhmm", "+hh:mm" or nothing: what to subtract.
std::optional<int64_t> ReadOffsetUs(TimeReader& reader) {
  if (reader.empty() || reader.Take('Z') || reader.Take('z')) return 0;
  int sign = reader.Take('+') ? 1 : reader.Take('-') ? -1 : 0;
  auto hours = reader.Number(2);
  if (sign == 0 || !hours || *hours > 23) return std::nullopt;
  int minutes = 0;
  if (!reader.empty()) {
    reader.Take(':');
    auto read = reader.Number(2);
    if (!read || *read > 59) return std::nullopt;
    minutes = *read;
  }
  return sign * (*hours * 60 + minutes) * 60 * kSecondUs;
}

}  // namespace

const Clock& SystemClock() {
  static const MachineClock clock;
  return clock;
}

std::string FormatTimeSeconds(int64_t time_us) {
  CivilTime t = ToCivil(time_us);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.year, t.month, t.day, t.hour,
                     t.minute, t.second);
}

std::string FormatTimeMicros(int64_t time_us) {
  CivilTime t = ToCivil(time_us);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", t.year, t.month, t.day, t.hour,
                     t.minute, t.second, t.micros);
}

Result<int64_t> ParseTime(std::string_view text) {
  Error bad(
      Code::kInvalidArgument,
      "a time must look like 2026-11-21T03:29:24Z (ISO 8601; an offset or a fraction may follow)");
  TimeReader reader(text);
  std::optional<int64_t> date_us = ReadDateUs(reader);
  if (!date_us) return bad;
  if (reader.empty()) return *date_us;
  if (!reader.Take('T') && !reader.Take(' ') && !reader.Take('t')) return bad;
  std::optional<int64_t> clock_us = ReadClockUs(reader);
  if (!clock_us) return bad;
  std::optional<int64_t> offset_us = ReadOffsetUs(reader);
  if (!offset_us || !reader.empty()) return bad;
  int64_t time_us = *date_us + *clock_us - *offset_us;
  if (time_us < kFirstTimeUs || time_us >= kEndTimeUs) return bad;
  return time_us;
}

}  // namespace base
