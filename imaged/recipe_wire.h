#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"
#include "chunkstore/blob_format.h"
#include "imaged/chunk_wire.h"

// What version 2 of the chunk stream has more than version 1 (API.md, "Chunk transfer"): how chunks
// are assembled of parts of chunks that the service has, zeros, and bytes that are sent. The
// recipes of a batch stand together behind its entries, before any bytes, so that the rights to all
// that they name are looked up at once. Both sides use this file. Numbers are little-endian; what
// comes in is hostile, and decoders answer kInvalidArgument with a sentence.

namespace imaged {

constexpr size_t kRecipeHeadBytes = 8;
constexpr size_t kRecipePieceBytes = 12;
// A block of the store's least size is worth a piece of its own.
constexpr size_t kMaxPiecesOfChunk = 2 * chunkstore::kMaxBlocks;
constexpr size_t kMaxPiecesOfBatch = kChunksOfBatch * kMaxPiecesOfChunk;
constexpr size_t kMaxOwnersOfChunk = 128;
constexpr size_t kMaxOwnersOfBatch = kChunksOfBatch * kMaxOwnersOfChunk;

// The next bytes of a chunk. Value type.
struct RecipePiece {
  enum class How : uint8_t {
    kZeros = 0,
    kNamed = 1,  // a part of a chunk that the service has, in what the caller may read
    kSent = 2,   // they follow
  };
  How how = How::kZeros;
  uint32_t length = 0;  // at least 1
  uint16_t owner = 0;   // named: which of the batch's owners
  uint32_t offset = 0;  // named: in the owner's bytes
  bool operator==(const RecipePiece&) const = default;
};
using Recipe = std::vector<RecipePiece>;  // of a whole chunk

// What is sent of a chunk, in bytes.
uint32_t SentBytes(const Recipe& recipe);
// Moves what was sent, which lies at the front of the chunk, to where it belongs. What lies between
// is anything then.
void SpreadSent(const Recipe& recipe, base::MutableByteView chunk);

// Of one batch. Value type.
struct Recipes {
  std::vector<base::Digest256> owners;
  std::vector<Recipe> chunks;  // of those that are assembled, in order
  bool operator==(const Recipes&) const = default;
};

// Head, owners, pieces. REQUIRES: within the limits.
std::string EncodeRecipes(const Recipes& recipes);

// How many bytes follow the head. REQUIRES: kRecipeHeadBytes of it.
struct RecipeCounts {
  uint32_t owners = 0;
  uint32_t pieces = 0;
  size_t bytes() const {
    return sizeof(base::Digest256::bytes) * owners + kRecipePieceBytes * pieces;
  }
};
base::Result<RecipeCounts> DecodeRecipeHead(base::ByteView head);

// `lengths`: of the chunks that are assembled. REQUIRES: counts.bytes() of them.
base::Result<Recipes> DecodeRecipes(base::ByteView bytes, const RecipeCounts& counts,
                                    std::span<const uint32_t> lengths);

}  // namespace imaged
