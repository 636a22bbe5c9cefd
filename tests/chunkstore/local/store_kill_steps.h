#pragma once

#include <cstdint>
#include <string>

#include <fmt/format.h>

// What the process that is killed does in each step, known to the test that looks at what is left:
// step N puts a blob and a record of it, and removes those of step N - 2 if they are to go.

namespace chunkstore::local {

inline std::string PartitionOf(uint64_t run) { return "run/" + std::to_string(run); }
inline std::string NameOf(uint64_t run, uint64_t step) {
  return fmt::format("{:x}-{:x}", run, step);
}
inline bool IsDropped(uint64_t step) { return step % 3 == 0; }
inline std::string ContentOf(uint64_t run, uint64_t step) {
  std::string content;
  for (uint64_t i = 0; i < 100 + step % 1000; ++i) {
    content += fmt::format("{} {} {}\n", run, step, i);
  }
  return content;
}

}  // namespace chunkstore::local
