#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

// One reader of headers for each format. Internal to this folder. Each is given the first bytes of
// a file that bears its marks (any number of them: they may be cut short), and answers what it
// learned, or kInvalidArgument with a reason. Pure functions; input is hostile.

namespace imaged::formats {

struct Header {
  uint64_t virtual_bytes = 0;
  uint64_t least_bytes = 0;  // the file must be at least so long
  std::string vmdk_footer;   // see Inspector
};

base::Result<Header> ReadQcow2(base::ByteView head);
base::Result<Header> ReadVmdk(base::ByteView head);
base::Result<Header> ReadVdi(base::ByteView head);
base::Result<Header> ReadVhd(base::ByteView head);
base::Result<Header> ReadVhdx(base::ByteView head);
base::Result<Header> ReadPloop(base::ByteView head);

// A vhd footer of 512 bytes; kInvalidArgument unless it is whole and of a fixed disk.
base::Result<uint64_t> ReadFixedVhdFooter(base::ByteView footer);
bool HasVhdMark(base::ByteView footer);

// kInvalidArgument "a <format> image <problem>".
base::Error Bad(std::string_view format, std::string_view problem);

// Numbers at an offset; zero beyond the end, so a header that is cut short reads as zeros and fails
// the checks of its fields (each reader checks the length it needs first).
template <typename T>
T Little(base::ByteView bytes, size_t offset) {
  T value = 0;
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return 0;
  for (size_t i = sizeof(T); i-- > 0;) value = static_cast<T>((value << 8) | bytes[offset + i]);
  return value;
}
template <typename T>
T Big(base::ByteView bytes, size_t offset) {
  T value = 0;
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>((value << 8) | bytes[offset + i]);
  return value;
}

// True if `mark` stands at `offset`.
bool HasMark(base::ByteView bytes, size_t offset, std::string_view mark);
// The part of `bytes` at [offset, offset+length), shorter where they end.
base::ByteView Slice(base::ByteView bytes, uint64_t offset, uint64_t length);
// a + b * c, or the largest number if that overflows.
uint64_t Extent(uint64_t offset, uint64_t count, uint64_t unit);

}  // namespace imaged::formats
