#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/clock.h"
#include "base/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto time_us = base::ParseTime(text);
  if (time_us.has_value()) {
    CHECK(base::ParseTime(base::FormatTimeMicros(*time_us)).value() == *time_us);
    CHECK(base::ParseTime(base::FormatTimeSeconds(*time_us)).has_value());
  }
  auto duration_ms = base::ParseDurationMs(text);
  if (duration_ms.has_value()) CHECK(*duration_ms >= 0);
  auto bytes = base::ParseBytes(text);
  if (bytes.has_value()) CHECK(!base::FormatBytes(*bytes).empty());
  return 0;
}
