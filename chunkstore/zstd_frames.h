#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

// The zstd streams (RFC 8878) that chunks travel in: stored frames as they lie, and what makes
// frames of bytes that are not stored as such. Whole frames, one after the other, are a stream.

namespace chunkstore {

// The most plain bytes that one frame of raw bytes has here: one zstd block.
constexpr uint32_t kMaxRawFrameBytes = 128 * base::kKiB;
// What stands before them.
constexpr uint32_t kRawFrameHeadBytes = 13;

// What makes a whole frame of the `length` raw bytes that follow it. REQUIRES: 1 <= length <=
// kMaxRawFrameBytes.
std::string RawFrameHead(uint32_t length);

// A whole frame of zeros: four bytes for each 128 KiB. REQUIRES: length >= 1.
std::string ZeroFrame(uint32_t length);

// Compresses short runs of bytes, each into a whole frame with its content's size and no check sum.
// Takes about 1 MiB. One thread.
class ZstdFramer {
 public:
  ZstdFramer();
  ~ZstdFramer();
  ZstdFramer(const ZstdFramer&) = delete;
  ZstdFramer& operator=(const ZstdFramer&) = delete;

  // Good until the next call; nothing where it would not be shorter. REQUIRES: 1 to
  // kMaxRawFrameBytes bytes.
  std::optional<base::ByteView> Frame(base::ByteView plain);

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

// What a whole frame has, which must be as much as `out`; it is hostile. kInvalidArgument; `out`
// holds anything then. Thread-safe, without memory of its own for a window.
base::Result<void> DecodeFrame(base::ByteView frame, base::MutableByteView out);

// Decodes a stream, piece by piece; what comes in is hostile. Takes about 400 KiB, and a window of
// at most 8 MiB. One thread.
class ZstdReader {
 public:
  ZstdReader();
  ~ZstdReader();
  ZstdReader(const ZstdReader&) = delete;
  ZstdReader& operator=(const ZstdReader&) = delete;

  // Decodes from the front of *in, which becomes shorter by that, into `out`; how much came. Where
  // that is less than out.size(), all of *in was read, and nothing waits inside. REQUIRES: `out` is
  // not empty. kInvalidArgument for bytes that are no zstd, or that ask for more memory.
  base::Result<size_t> Read(base::ByteView* in, base::MutableByteView out);

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace chunkstore
