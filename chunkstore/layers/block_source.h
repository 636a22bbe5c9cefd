#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"

// Where a compute host takes blocks from that it has not: the seam between the cache of a host
// (caching.h) and whatever brings bytes to it, an image service over HTTP first of all.

namespace chunkstore::layers {

// What a service calls a block: where it lies, under a secret of the service. Equal names are equal
// bytes, across images and chunks, whatever a tenant may upload; a name tells nothing else, and
// opens nothing.
struct BlockName {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const BlockName&) const = default;
};

// A block as the service stores it.
struct BlockInfo {
  BlockName name;
  uint32_t plain_length = 0;   // 1 .. kMaxBlockBytes
  uint32_t stored_length = 0;  // of the zstd frame, or plain_length
  bool compressed = false;     // one zstd frame; else the plain bytes
  base::Hash128 hash;          // XXH3-128 of the plain bytes: integrity, no name
};

// The blocks of one image, as long as its owner may read it. Thread-safe; calls block.
class BlockSource {
 public:
  virtual ~BlockSource() = default;

  // The blocks of chunk number `index`, in order: their plain lengths add up to the chunk. None: a
  // hole. kUnavailable (try again), kNotFound (the image is gone), kPermissionDenied, kCorruption
  // (the service answered nonsense).
  virtual base::Result<std::vector<BlockInfo>> Table(uint64_t index) = 0;

  // Brings the stored bytes of some blocks of one chunk, numbers ascending, in that order; `sink`
  // is called once a block, as it arrives, from the calling thread, with exactly stored_length
  // bytes, that nobody checked. An error of the sink ends the call. As Table for errors.
  using Sink = std::function<base::Result<void>(size_t number, base::ByteView stored)>;
  virtual base::Result<void> Fetch(uint64_t index, std::span<const size_t> numbers,
                                   const Sink& sink) = 0;
};

}  // namespace chunkstore::layers
