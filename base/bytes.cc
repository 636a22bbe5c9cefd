#include "base/bytes.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace base {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kProbeBytes = 16;

}  // namespace

bool IsZero(ByteView bytes) {
  size_t head = std::min(bytes.size(), kProbeBytes);
  for (size_t i = 0; i < head; ++i)
    if (bytes[i] != 0) return false;
  if (bytes.size() <= kProbeBytes) return true;
  // The head is zero, and each byte equals the one kProbeBytes before it.
  return std::memcmp(bytes.data(), bytes.data() + kProbeBytes, bytes.size() - kProbeBytes) == 0;
}

Buffer::Buffer(size_t size_bytes) : size_(size_bytes) {
  if (size_bytes == 0) return;
  size_t rounded = (size_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  CHECK(rounded >= size_bytes);
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, rounded)));
  CHECK(data_ != nullptr);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  data_ = std::move(other.data_);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void Buffer::Free::operator()(uint8_t* memory) const { std::free(memory); }

}  // namespace base
