#pragma once

#include <random>
#include <string>
#include <string_view>

// Bytes to measure with, always the same.

namespace bench {

inline std::string RandomBytes(size_t size, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string bytes;
  bytes.reserve(size + 8);
  while (bytes.size() < size) {
    uint64_t word = random();
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  bytes.resize(size);
  return bytes;
}

// Like a log: lines of words and numbers.
inline std::string TextBytes(size_t size, uint64_t seed = 1) {
  static constexpr std::string_view kWords[] = {"kernel: ", "started ", "systemd[1]: ", "error ",
                                                "eth0 ",    "reached ", "target ",      "by ",
                                                "user ",    "root ",    "session ",     "closed "};
  std::mt19937_64 random(seed);
  std::string bytes;
  while (bytes.size() < size) {
    bytes += kWords[random() % std::size(kWords)];
    if (random() % 5 == 0) bytes += std::to_string(random() % 100'000) + '\n';
  }
  bytes.resize(size);
  return bytes;
}

// Like a disk: a third text, a third that does not compress, a sixth code-like (small numbers), the
// rest zeros, in runs of 64 KiB.
inline std::string DiskBytes(size_t size, uint64_t seed = 1) {
  constexpr size_t kRun = 64 * 1024;
  std::mt19937_64 random(seed);
  std::string bytes;
  while (bytes.size() < size) {
    switch (random() % 6) {
      case 0:
      case 1:
        bytes += TextBytes(kRun, random());
        break;
      case 2:
      case 3:
        bytes += RandomBytes(kRun, random());
        break;
      case 4: {
        std::string code = RandomBytes(kRun, random());
        for (char& byte : code) byte = static_cast<char>(byte & 0x1f);
        bytes += code;
        break;
      }
      default:
        bytes += std::string(kRun, '\0');
    }
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace bench
