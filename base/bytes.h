#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace base {

// Bulk data is looked at through spans of uint8_t; keys, values and headers are std::string and
// string_view.
using ByteView = std::span<const uint8_t>;
using MutableByteView = std::span<uint8_t>;

inline ByteView AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kGiB = 1024 * kMiB;
constexpr uint64_t kTiB = 1024 * kGiB;

// True if every byte is zero; fast (tens of GB/s): compares against itself shifted by its first
// bytes.
bool IsZero(ByteView bytes);

// A fixed-size, page-aligned buffer that owns its memory (not zeroed). Movable. One thread at a
// time.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size_bytes);
  Buffer(Buffer&& other) noexcept;  // leaves `other` empty
  Buffer& operator=(Buffer&& other) noexcept;

  uint8_t* data() { return data_.get(); }
  const uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }
  MutableByteView view() { return {data_.get(), size_}; }
  ByteView view() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(uint8_t* memory) const;
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t size_ = 0;
};

}  // namespace base
