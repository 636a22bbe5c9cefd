#include "controlplane/cli/chunk_stream_body.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/map.h"
#include "controlplane/cli/interrupt.h"
#include "imaged/chunk_wire.h"
#include "imaged/recipe_wire.h"

namespace controlplane::cli {

using base::Code;
using base::Digest256;
using base::MutableByteView;
using base::Result;
using chunkstore::kChunkBytes;
using imaged::ChunkHow;
using imaged::RecipePiece;

const ChunkRecipe* SendPlan::RecipeOf(size_t chunk) const {
  const bool has = chunk < recipes.size() && recipes[chunk].has_value();
  return has ? &*recipes[chunk] : nullptr;
}

bool SendPlan::has_recipes() const {
  return std::ranges::any_of(recipes, [](const auto& recipe) { return recipe.has_value(); });
}

uint16_t SendPlan::version() const {
  return frames || has_recipes() ? imaged::kRecipeStreamVersion : imaged::kChunkWireVersion;
}

uint64_t SendPlan::FileBytes(const FileChunks& chunks) const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    const ChunkRecipe* recipe = RecipeOf(i);
    bytes += recipe != nullptr ? recipe->sent_bytes : chunkstore::ChunkLength(i, chunks.size_bytes);
  }
  return bytes;
}

uint64_t SendPlan::ZeroBytes() const {
  uint64_t bytes = 0;
  for (const auto& recipe : recipes) bytes += recipe.has_value() ? recipe->zero_bytes : 0;
  return bytes;
}

ChunkStreamBody::ChunkStreamBody(const ImageSource& source, const FileChunks& chunks,
                                 const SendPlan& plan)
    : source_(source),
      chunks_(chunks),
      plan_(plan),
      version_(plan.version()),
      text_(imaged::EncodeChunkStreamHeader(
          {.size_bytes = chunks.size_bytes, .frames = plan.frames}, version_)),
      chunk_(kChunkBytes) {
  CHECK(plan.wanted.size() == chunks.ids.size());
  piece_ = base::AsBytes(text_);
  if (plan.frames) return;
  uint64_t size =
      text_.size() + imaged::kChunkEntryBytes * chunks.ids.size() + plan.FileBytes(chunks);
  for (uint64_t first = 0; plan.has_recipes() && first < chunks.ids.size();
       first += imaged::kChunksOfBatch) {
    const uint64_t end = std::min<uint64_t>(first + imaged::kChunksOfBatch, chunks.ids.size());
    size += RecipesOf(first, end).size();
  }
  size_bytes_ = size;
}

Result<size_t> ChunkStreamBody::Fill(MutableByteView into) {
  RETURN_IF_ERROR(CheckInterrupt());
  if (piece_.empty()) RETURN_IF_ERROR(Refill());
  const size_t count = std::min(into.size(), piece_.size());
  std::copy_n(piece_.begin(), count, into.begin());
  piece_ = piece_.subspan(count);
  out_bytes_ += count;
  // The service has not got all of it yet: an error leaves nothing behind there.
  if (size_bytes_.has_value() ? count > 0 && out_bytes_ == *size_bytes_ : count == 0)
    RETURN_IF_ERROR(source_.CheckUnchanged());
  return count;
}

Result<void> ChunkStreamBody::Refill() {
  // A chunk whose blocks are all there already has nothing to send.
  while (piece_.empty() && next_ < plan_.wanted.size()) {
    if (next_ == entries_end_) {
      AppendBatch();
      return {};
    }
    if (plan_.wanted[next_]) RETURN_IF_ERROR(LoadChunk());
    ++next_;
  }
  return {};
}

void ChunkStreamBody::AppendBatch() {
  text_.clear();
  entries_end_ = std::min<uint64_t>(next_ + imaged::kChunksOfBatch, plan_.wanted.size());
  for (uint64_t i = next_; i < entries_end_; ++i) {
    const Digest256& id = chunks_.ids[i];
    const ChunkHow how = imaged::IsHole(id)             ? ChunkHow::kHole
                         : !plan_.wanted[i]             ? ChunkHow::kNamed
                         : plan_.RecipeOf(i) != nullptr ? ChunkHow::kAssembled
                                                        : ChunkHow::kSent;
    imaged::AppendChunkEntry(&text_, {how, id});
  }
  if (version_ == imaged::kRecipeStreamVersion) text_ += RecipesOf(next_, entries_end_);
  piece_ = base::AsBytes(text_);
}

// An owner that several chunks name stands there once.
std::string ChunkStreamBody::RecipesOf(uint64_t first, uint64_t end) const {
  imaged::Recipes recipes;
  std::unordered_map<Digest256, uint16_t> numbers;
  for (uint64_t i = first; i < end; ++i) {
    const ChunkRecipe* recipe = plan_.RecipeOf(i);
    if (recipe == nullptr) continue;
    imaged::Recipe pieces = recipe->pieces;
    for (RecipePiece& piece : pieces) {
      if (piece.how != RecipePiece::How::kNamed) continue;
      const Digest256& owner = recipe->owners[piece.owner];
      const auto [number, added] =
          numbers.try_emplace(owner, static_cast<uint16_t>(recipes.owners.size()));
      if (added) recipes.owners.push_back(owner);
      piece.owner = number->second;
    }
    recipes.chunks.push_back(std::move(pieces));
  }
  return imaged::EncodeRecipes(recipes);
}

Result<void> ChunkStreamBody::LoadChunk() {
  const MutableByteView bytes =
      chunk_.view().first(chunkstore::ChunkLength(next_, chunks_.size_bytes));
  const Result<void> read = source_.file()->ReadAt(next_ * kChunkBytes, bytes);
  if (!read.has_value() && read.error().code() != Code::kCorruption) return read.error();
  if (!read.has_value() || base::Sha256(bytes) != chunks_.ids[next_]) {
    return ChangedMeanwhile(fmt::format("at its byte {} or after", next_ * kChunkBytes));
  }
  const ChunkRecipe* recipe = plan_.RecipeOf(next_);
  piece_ = recipe == nullptr ? bytes : GatherSent(*recipe, bytes);
  file_bytes_ += piece_.size();
  if (!plan_.frames || piece_.empty()) return {};
  framed_ = frames_.Encode(piece_);
  piece_ = base::AsBytes(framed_);
  return {};
}

// What is sent of a chunk, moved to its front.
base::ByteView ChunkStreamBody::GatherSent(const ChunkRecipe& recipe, MutableByteView bytes) {
  uint8_t* out = bytes.data();
  size_t at = 0;
  for (const RecipePiece& piece : recipe.pieces) {
    if (piece.how == RecipePiece::How::kSent) {
      std::memmove(out, bytes.data() + at, piece.length);
      out += piece.length;
    }
    at += piece.length;
  }
  return bytes.first(recipe.sent_bytes);
}

}  // namespace controlplane::cli
