#pragma once

// CHECK is for promises of our own code: it aborts in release builds too, because going on with a
// broken invariant is how a store loses data. What a caller, a client, a disk or a peer may get
// wrong is not a CHECK but a Result (base/result.h).

namespace base {

// Prints "CHECK failed: file:line: text" to stderr and aborts. Thread-safe.
[[noreturn]] void CheckFailed(const char* file, int line, const char* text);

}  // namespace base

#define CHECK(condition)                                   \
  do {                                                     \
    if (!(condition)) [[unlikely]]                         \
      ::base::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
