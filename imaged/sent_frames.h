#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "chunkstore/zstd_frames.h"

// The bytes that a chunk stream of version 2 sends, compressed (API.md, "Chunk transfer"). What is
// sent of a chunk is cut into runs of kFramePlainBytes, the last one shorter; each travels as one
// zstd frame, or as it is where that saves nothing. Their lengths stand before them. Both sides use
// this file. How many plain bytes come out is known before anything is read, and nothing more is
// ever made; whether they are right, the chunk's id says.

namespace imaged {

constexpr uint32_t kFramePlainBytes = 128 * base::kKiB;
constexpr size_t kFrameLengthBytes = 4;

constexpr size_t FrameCount(size_t plain_bytes) {
  return (plain_bytes + kFramePlainBytes - 1) / kFramePlainBytes;
}

// One thread.
class SentFramesWriter {
 public:
  // Lengths, and frames. REQUIRES: at least one byte.
  std::string Encode(base::ByteView plain);

 private:
  chunkstore::ZstdFramer framer_;
};

// How such frames are taken apart in the place of their plain bytes, without memory for both. Value
// type.
class SentFrames {
 public:
  SentFrames() = default;  // none: the bytes come as they are

  // `lengths` are FrameCount(plain_bytes) of them. kInvalidArgument.
  static base::Result<SentFrames> Of(base::ByteView lengths, size_t plain_bytes);

  // Where the frames have to be put, one after the other, before Decode: the end of `plain`. They
  // are never longer than what they become, so each is read before it is overwritten.
  base::MutableByteView PlaceIn(base::MutableByteView plain) const;
  // kInvalidArgument for what is no frame, or has another number of bytes.
  base::Result<void> Decode(base::MutableByteView plain) const;

 private:
  std::vector<uint32_t> lengths_;
  size_t stored_bytes_ = 0;
};

}  // namespace imaged
