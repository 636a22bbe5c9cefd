#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace base {

// The door to time. Tests hand in a ManualClock. Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Microseconds since 1970-01-01 UTC: for records and tokens. May jump.
  virtual int64_t NowUs() const = 0;
  // Nanoseconds since some start: for durations. Never goes back.
  virtual int64_t MonotonicNs() const = 0;
};

// The machine's clock; lives for ever.
const Clock& SystemClock();

// Stands still until told. Thread-safe.
class ManualClock : public Clock {
 public:
  explicit ManualClock(int64_t now_us = 1'700'000'000'000'000) : now_us_(now_us) {}
  int64_t NowUs() const override { return __atomic_load_n(&now_us_, __ATOMIC_SEQ_CST); }
  int64_t MonotonicNs() const override { return NowUs() * 1000; }
  void AdvanceUs(int64_t us) { __atomic_add_fetch(&now_us_, us, __ATOMIC_SEQ_CST); }

 private:
  int64_t now_us_;
};

constexpr int64_t kSecondUs = 1'000'000;

// "2026-11-21T03:29:24Z" (Glance) and "2026-11-21T03:29:22.000000Z" (Keystone).
std::string FormatTimeSeconds(int64_t time_us);
std::string FormatTimeMicros(int64_t time_us);
// ISO 8601 with "Z", an offset or nothing (UTC), with or without a fraction. kInvalidArgument.
Result<int64_t> ParseTime(std::string_view text);

}  // namespace base
