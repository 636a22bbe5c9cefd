// A target that must crash: it reads beyond its input when that begins with "BUG". See README.md.

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= 3 && data[0] == 'B' && data[1] == 'U' && data[2] == 'G') {
    volatile uint8_t beyond = data[size];
    (void)beyond;
  }
  return 0;
}
