#include <cstddef>
#include <cstdint>
#include <iterator>

#include "base/check.h"
#include "imaged/formats/inspector.h"

// The first two bytes pick what is declared; the rest is the image.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr const char* kFormats[] = {"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ploop", "iso"};
  constexpr const char* kContainers[] = {"bare", "ova"};
  if (size < 2) return 0;
  imaged::formats::Inspector inspector(kFormats[data[0] % std::size(kFormats)],
                                       kContainers[data[1] % std::size(kContainers)]);
  base::ByteView image(data + 2, size - 2);
  if (!inspector.Head(image).has_value()) return 0;
  size_t tail = std::min(image.size(), imaged::formats::kTailBytes);
  auto virtual_bytes = inspector.Finish(image.size(), image.subspan(image.size() - tail));
  if (virtual_bytes.has_value() && virtual_bytes->has_value()) {
    CHECK(**virtual_bytes <= imaged::formats::kMaxVirtualBytes);
  }
  return 0;
}
