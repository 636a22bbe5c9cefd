#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/hash.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/block_source.h"
#include "chunkstore/layers/cache_format.h"
#include "chunkstore/layers/caching.h"
#include "tests/support/results.h"

// Images in memory, as a service would hand out their blocks; it counts, and it can lie.

namespace chunkstore::layers {

inline std::string RandomText(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// A part that compresses and a part that doesn't.
inline std::string MixedText(uint64_t seed, size_t size) {
  std::string bytes = RandomText(seed, size);
  for (size_t at = 0; at < size; ++at)
    if (at / 50'000 % 2 == 1) bytes[at] = static_cast<char>('a' + (bytes[at] & 3));
  return bytes;
}

inline BlockName NameOf(base::ByteView plain) {
  const base::Digest256 digest = base::Sha256(plain);
  BlockName name;
  std::copy_n(digest.bytes.begin(), name.bytes.size(), name.bytes.begin());
  return name;
}

// Thread-safe but for AddChunk, and for changes of the hooks.
class ImageInMemory : public BlockSource {
 public:
  // The next chunk; 1 byte to 4 MiB.
  void AddChunk(std::string plain) {
    Chunk chunk;
    BlobEncoder encoder(EncodeOptions{});
    const EncodedBlob encoded =
        encoder.Encode(BlobKind::kChunk, base::Sha256(base::AsBytes(plain)), base::AsBytes(plain));
    std::string blob;
    for (const base::ByteView piece : encoded.pieces()) blob += base::AsText(piece);
    for (const Block& block : encoded.table().blocks) {
      const auto bytes = base::AsBytes(plain).subspan(block.plain_offset, block.plain_length);
      chunk.table.push_back({.name = NameOf(bytes),
                             .plain_length = block.plain_length,
                             .stored_length = block.stored_length,
                             .compressed = block.form == Block::Form::kZstd,
                             .hash = block.hash});
      chunk.stored.push_back(blob.substr(block.stored_offset, block.stored_length));
    }
    chunk.plain = std::move(plain);
    chunks_.push_back(std::move(chunk));
  }

  const std::vector<BlockInfo>& table(uint64_t index) const { return chunks_.at(index).table; }
  const std::string& plain(uint64_t index) const { return chunks_.at(index).plain; }
  size_t chunks() const { return chunks_.size(); }
  std::vector<size_t> AllNumbers(uint64_t index) const {
    std::vector<size_t> numbers(table(index).size());
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
    return numbers;
  }
  std::vector<BlockInfo> AllBlocks() const {
    std::vector<BlockInfo> all;
    for (const Chunk& chunk : chunks_)
      all.insert(all.end(), chunk.table.begin(), chunk.table.end());
    return all;
  }

  base::Result<std::vector<BlockInfo>> Table(uint64_t index) override {
    return chunks_.at(index).table;
  }
  base::Result<void> Fetch(uint64_t index, std::span<const size_t> numbers,
                           const Sink& sink) override {
    ++fetches;
    if (before_fetch) RETURN_IF_ERROR(before_fetch());
    for (const size_t number : numbers) {
      std::string stored = chunks_.at(index).stored.at(number);
      ++fetched_blocks;
      fetched_bytes += stored.size();
      if (change) change(number, &stored);
      RETURN_IF_ERROR(sink(number, base::AsBytes(stored)));
    }
    return {};
  }

  std::atomic<uint64_t> fetches = 0, fetched_blocks = 0, fetched_bytes = 0;
  std::function<base::Result<void>()> before_fetch;
  std::function<void(size_t number, std::string* stored)> change;

 private:
  struct Chunk {
    std::string plain;
    std::vector<BlockInfo> table;
    std::vector<std::string> stored;
  };
  std::vector<Chunk> chunks_;
};

// The bytes that the cache answers, or the error.
inline base::Result<std::string> ReadText(BlockDiskCache& cache, ImageInMemory& image,
                                          uint64_t index, uint32_t offset, size_t length) {
  std::string into(length, '?');
  RETURN_IF_ERROR(cache.Read(image, index, image.table(index), offset,
                             {reinterpret_cast<uint8_t*>(into.data()), into.size()}));
  return into;
}

inline testing::AssertionResult ReadsRight(BlockDiskCache& cache, ImageInMemory& image,
                                           uint64_t index, uint32_t offset, size_t length) {
  const auto text = ReadText(cache, image, index, offset, length);
  if (!text) return testing::AssertionFailure() << text.error().ToString();
  if (*text != image.plain(index).substr(offset, length)) {
    return testing::AssertionFailure()
           << "WRONG BYTES: chunk " << index << ", " << length << " from " << offset;
  }
  return testing::AssertionSuccess();
}

inline testing::AssertionResult ChunkReadsRight(BlockDiskCache& cache, ImageInMemory& image,
                                                uint64_t index) {
  return ReadsRight(cache, image, index, 0, image.plain(index).size());
}

}  // namespace chunkstore::layers
