#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

// One line an event: "2026-11-21T03:29:24.123Z INFO imaged image became active image=... req-...".
// Lines go to stderr (asynchronously flushed by each line: a crash loses none). The request id of
// the job that runs on this thread is added by itself (ScopedLogContext), so one id finds all lines
// of a request. Never log a secret.

namespace base {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// Before other threads start. "debug", "info", "warn", "error"; false if it is none of these.
bool SetLogLevel(std::string_view name);
bool LogEnabled(LogLevel level);

// Thread-safe. Control characters in `text` are escaped: a hostile name can't forge a line.
void LogLine(LogLevel level, std::string_view room, std::string_view text);

// While it lives, lines of this thread end in `context` (a request id). Nests; not copyable.
// Borrows nothing.
class ScopedLogContext {
 public:
  explicit ScopedLogContext(std::string_view context);
  ~ScopedLogContext();
  ScopedLogContext(const ScopedLogContext&) = delete;
  ScopedLogContext& operator=(const ScopedLogContext&) = delete;

 private:
  std::string previous_;
};

}  // namespace base

// LOG(kInfo, "imaged", "image {} became active", id);
#define LOG(level, room, ...)                                                     \
  do {                                                                            \
    if (::base::LogEnabled(::base::LogLevel::level))                              \
      ::base::LogLine(::base::LogLevel::level, room, ::fmt::format(__VA_ARGS__)); \
  } while (false)
