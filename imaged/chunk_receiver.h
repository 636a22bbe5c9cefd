#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/http/message.h"
#include "base/result.h"
#include "chunkstore/zstd_frames.h"
#include "imaged/chunk_wire.h"

namespace imaged {

// A client's side of fetching chunks (API.md, "Chunk transfer"): takes the answer apart into
// chunks, and hands on those whose bytes are those of their ids. The service may lie as it likes:
// nothing is handed on that was not asked for, and what it may send is bounded. One thread.
class ChunkReceiver {
 public:
  // Takes a chunk of the image; its error ends the transfer.
  using Put = std::function<base::Result<void>(uint64_t number, base::ByteView bytes)>;

  // `asked` is what the request named; `ids` are of all chunks of the image, of `size_bytes`. They
  // are borrowed. REQUIRES: the runs are inside, and no hole is asked for.
  ChunkReceiver(uint64_t size_bytes, std::span<const base::Digest256> ids,
                std::vector<ChunkRun> asked, Put put);

  // The answer's head: bytes of chunks were expected, as they are or as a zstd stream.
  base::Result<void> Begin(const base::http::Headers& headers);
  // The next bytes of its body. kCorruption for bytes that are not those of a chunk's id, and for
  // more than was asked for; or what `put` says.
  base::Result<void> Take(base::ByteView bytes);
  // After the last: kCorruption if something is missing.
  base::Result<void> End();

  uint64_t wire_bytes() const { return wire_bytes_; }
  uint64_t plain_bytes() const { return plain_bytes_; }  // of chunks that were handed on

 private:
  bool done() const { return run_ == asked_.size(); }
  uint64_t number() const { return asked_[run_].first + in_run_; }
  // Where the next plain bytes go: the rest of the chunk, or one byte that must not be needed.
  base::MutableByteView Room();
  base::Result<void> Filled(size_t count);

  const uint64_t size_bytes_;
  const std::span<const base::Digest256> ids_;
  const std::vector<ChunkRun> asked_;
  const Put put_;
  uint64_t max_wire_bytes_ = 0;
  std::optional<chunkstore::ZstdReader> zstd_;
  size_t run_ = 0;
  uint64_t in_run_ = 0;
  base::Buffer chunk_;
  size_t filled_ = 0;
  uint8_t surplus_ = 0;
  uint64_t wire_bytes_ = 0;
  uint64_t plain_bytes_ = 0;
};

}  // namespace imaged
