#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"

// Runs a program that must not be trusted with what it is given.
//
// bubblewrap gives it namespaces of its own: no network, no processes but its own, an empty root
// with /usr and one directory (read-only, both) in it, and no way to make further namespaces. It
// runs as nobody there, without capabilities, and may ask only so much of the kernel
// (syscall_filter.h). prlimit bounds its memory and CPU, and keeps it from writing any file. It
// dies with us.

namespace controlplane::convert {

struct SandboxOptions {
  std::string bwrap;
  std::string prlimit;
  std::string directory;      // seen by the program as kSandboxDirectory
  uint64_t memory_bytes = 0;  // address space
  int64_t time_ms = 0;        // by the clock, and of CPU
};
constexpr char kSandboxDirectory[] = "/job";
constexpr size_t kMaxSandboxOutputBytes = 4096;  // of stderr and stdout; the rest is thrown away

struct SandboxExit {
  int code = 0;  // 128 + the signal's number where one ended it
  std::string output;
};

// Waits until it has ended, one way or the other; no process of it is left. `cancelled` is asked
// several times a second. `command` names the program by its whole path below /usr. kIo if it can't
// be started (bubblewrap is missing, or not allowed here); kTooLarge past the time; kCancelled.
base::Result<SandboxExit> RunConfined(const SandboxOptions& options,
                                      const std::vector<std::string>& command,
                                      const std::function<bool()>& cancelled);

}  // namespace controlplane::convert
