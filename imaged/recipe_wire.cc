#include "imaged/recipe_wire.h"

#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/coding.h"

namespace imaged {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

namespace {

Error Bad(std::string why) { return Error(Code::kInvalidArgument, "a bad recipe: " + why); }

Result<RecipePiece> TakePiece(base::Decoder* decoder, size_t owners) {
  RecipePiece piece;
  ASSIGN_OR_RETURN(piece.length, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(piece.offset, decoder->Fixed<uint32_t>());
  ASSIGN_OR_RETURN(piece.owner, decoder->Fixed<uint16_t>());
  ASSIGN_OR_RETURN(const uint8_t how, decoder->Fixed<uint8_t>());
  ASSIGN_OR_RETURN(const uint8_t reserved, decoder->Fixed<uint8_t>());
  if (how > static_cast<uint8_t>(RecipePiece::How::kSent) || reserved != 0) {
    return Bad(fmt::format("a piece comes in the unknown way {} ({})", how, reserved));
  }
  piece.how = static_cast<RecipePiece::How>(how);
  if (piece.length == 0 || piece.length > chunkstore::kChunkBytes) {
    return Bad(fmt::format("a piece of {} bytes", piece.length));
  }
  if (piece.how != RecipePiece::How::kNamed) {
    if (piece.owner != 0 || piece.offset != 0) return Bad("a place of what is not named");
    return piece;
  }
  if (piece.owner >= owners) return Bad(fmt::format("owner {} of {}", piece.owner, owners));
  if (piece.offset > chunkstore::kChunkBytes - piece.length) {
    return Bad(fmt::format("{} bytes from {} on of a chunk", piece.length, piece.offset));
  }
  return piece;
}

}  // namespace

uint32_t SentBytes(const Recipe& recipe) {
  uint32_t bytes = 0;
  for (const RecipePiece& piece : recipe)
    if (piece.how == RecipePiece::How::kSent) bytes += piece.length;
  return bytes;
}

void SpreadSent(const Recipe& recipe, base::MutableByteView chunk) {
  uint32_t from = SentBytes(recipe);
  uint32_t to = 0;
  for (const RecipePiece& piece : recipe) to += piece.length;
  CHECK(to <= chunk.size());
  // No piece belongs before where it lies, so the last one goes first.
  for (auto piece = recipe.rbegin(); piece != recipe.rend(); ++piece) {
    to -= piece->length;
    if (piece->how != RecipePiece::How::kSent) continue;
    from -= piece->length;
    std::memmove(chunk.data() + to, chunk.data() + from, piece->length);
  }
}

std::string EncodeRecipes(const Recipes& recipes) {
  CHECK(recipes.owners.size() <= kMaxOwnersOfBatch);
  size_t pieces = 0;
  for (const Recipe& recipe : recipes.chunks) pieces += recipe.size();
  CHECK(pieces <= kMaxPiecesOfBatch);
  std::string out;
  base::PutFixed<uint32_t>(&out, static_cast<uint32_t>(recipes.owners.size()));
  base::PutFixed<uint32_t>(&out, static_cast<uint32_t>(pieces));
  for (const Digest256& owner : recipes.owners) out.append(owner.view());
  for (const Recipe& recipe : recipes.chunks) {
    for (const RecipePiece& piece : recipe) {
      base::PutFixed<uint32_t>(&out, piece.length);
      base::PutFixed<uint32_t>(&out, piece.offset);
      base::PutFixed<uint16_t>(&out, piece.owner);
      out.push_back(static_cast<char>(piece.how));
      out.push_back('\0');
    }
  }
  return out;
}

Result<RecipeCounts> DecodeRecipeHead(ByteView head) {
  CHECK(head.size() == kRecipeHeadBytes);
  base::Decoder decoder(base::AsText(head));
  RecipeCounts counts;
  ASSIGN_OR_RETURN(counts.owners, decoder.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(counts.pieces, decoder.Fixed<uint32_t>());
  if (counts.owners > kMaxOwnersOfBatch || counts.pieces > kMaxPiecesOfBatch) {
    return Bad(fmt::format("{} pieces of {} chunks in one batch: at most {} of {}", counts.pieces,
                           counts.owners, kMaxPiecesOfBatch, kMaxOwnersOfBatch));
  }
  return counts;
}

Result<Recipes> DecodeRecipes(ByteView bytes, const RecipeCounts& counts,
                              std::span<const uint32_t> lengths) {
  CHECK(bytes.size() == counts.bytes());
  base::Decoder decoder(base::AsText(bytes));
  Recipes recipes;
  recipes.owners.reserve(counts.owners);
  for (uint32_t i = 0; i < counts.owners; ++i) {
    ASSIGN_OR_RETURN(const std::string_view raw, decoder.Bytes(sizeof(Digest256::bytes)));
    ASSIGN_OR_RETURN(const Digest256 owner, Digest256::FromBytes(raw));
    if (IsHole(owner)) return Bad("a hole is no chunk to take parts of");
    recipes.owners.push_back(owner);
  }
  uint32_t pieces_left = counts.pieces;
  for (const uint32_t length : lengths) {
    Recipe recipe;
    for (uint32_t filled = 0; filled < length;) {
      if (pieces_left == 0) return Bad("the pieces end before the chunks do");
      if (recipe.size() == kMaxPiecesOfChunk) {
        return Bad(fmt::format("more than {} pieces of one chunk", kMaxPiecesOfChunk));
      }
      --pieces_left;
      ASSIGN_OR_RETURN(const RecipePiece piece, TakePiece(&decoder, recipes.owners.size()));
      if (piece.length > length - filled) return Bad("a piece goes beyond the end of its chunk");
      filled += piece.length;
      recipe.push_back(piece);
    }
    recipes.chunks.push_back(std::move(recipe));
  }
  if (pieces_left != 0) return Bad("there are more pieces than chunks to assemble");
  return recipes;
}

}  // namespace imaged
