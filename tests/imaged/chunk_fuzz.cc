#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "chunkstore/map.h"
#include "imaged/chunk_wire.h"
#include "imaged/recipe_wire.h"
#include "imaged/sent_frames.h"

// The bodies of negotiated transfers: what is taken says the same when it is written again.

namespace {

using imaged::ChunkList;

void CheckList(std::string_view body) {
  const auto list = imaged::DecodeChunkList(body);
  if (!list.has_value()) {
    CHECK(list.error().code() == base::Code::kInvalidArgument && !list.error().message().empty());
    return;
  }
  CHECK(list->ids.size() <= imaged::kMaxListedChunks);
  CHECK(list->first + list->ids.size() <= chunkstore::ChunkCount(list->size_bytes));
  CHECK(imaged::EncodeChunkList(*list) == body);
}

// Entries of a batch of version 2 and its recipes: two bytes say how many entries, and how long
// the last chunk is.
void CheckRecipes(std::string_view body) {
  if (body.size() < 2) return;
  const size_t count = static_cast<uint8_t>(body[0]) % 5;
  const uint32_t last_bytes = static_cast<uint8_t>(body[1]) + 1u;
  body.remove_prefix(2);
  if (body.size() < count * imaged::kChunkEntryBytes + imaged::kRecipeHeadBytes) return;
  const auto entries =
      imaged::DecodeChunkEntries(base::AsBytes(body.substr(0, count * imaged::kChunkEntryBytes)), 0,
                                 imaged::kRecipeStreamVersion);
  if (!entries.has_value()) return;
  body.remove_prefix(count * imaged::kChunkEntryBytes);
  std::vector<uint32_t> lengths;
  for (const auto& entry : *entries) {
    if (entry.how == imaged::ChunkHow::kAssembled) lengths.push_back(chunkstore::kChunkBytes);
  }
  if (!lengths.empty()) lengths.back() = last_bytes;
  const auto counts =
      imaged::DecodeRecipeHead(base::AsBytes(body.substr(0, imaged::kRecipeHeadBytes)));
  if (!counts.has_value()) return;
  const size_t all_bytes = imaged::kRecipeHeadBytes + counts->bytes();
  if (body.size() < all_bytes) return;
  body = body.substr(0, all_bytes);
  const auto recipes =
      imaged::DecodeRecipes(base::AsBytes(body.substr(imaged::kRecipeHeadBytes)), *counts, lengths);
  if (!recipes.has_value()) {
    CHECK(recipes.error().code() == base::Code::kInvalidArgument);
    return;
  }
  CHECK(recipes->chunks.size() == lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    uint64_t filled = 0;
    for (const imaged::RecipePiece& piece : recipes->chunks[i]) {
      CHECK(piece.length > 0);
      if (piece.how == imaged::RecipePiece::How::kNamed) {
        CHECK(piece.owner < recipes->owners.size());
        CHECK(uint64_t{piece.offset} + piece.length <= chunkstore::kChunkBytes);
      }
      filled += piece.length;
    }
    CHECK(filled == lengths[i]);
  }
  CHECK(imaged::EncodeRecipes(*recipes) == body);
}

// What is sent of a chunk, in frames: two bytes say how many plain bytes it has, some more or less
// than one run.
void CheckFrames(std::string_view body) {
  if (body.size() < 2) return;
  const uint32_t few = static_cast<uint8_t>(body[0]) + 1u;
  const uint32_t plain_bytes = body[1] % 3 * imaged::kFramePlainBytes + few;
  body.remove_prefix(2);
  const size_t lengths = imaged::kFrameLengthBytes * imaged::FrameCount(plain_bytes);
  if (body.size() < lengths) return;
  const auto frames = imaged::SentFrames::Of(base::AsBytes(body.substr(0, lengths)), plain_bytes);
  if (!frames.has_value()) {
    CHECK(frames.error().code() == base::Code::kInvalidArgument);
    return;
  }
  body.remove_prefix(lengths);
  std::vector<uint8_t> plain(plain_bytes);
  const base::MutableByteView place = frames->PlaceIn(plain);
  CHECK(!place.empty() && place.size() <= plain_bytes);
  if (body.size() < place.size()) return;
  std::copy_n(body.begin(), place.size(), place.begin());
  if (!frames->Decode(plain).has_value()) return;
  imaged::SentFramesWriter writer;
  const std::string again = writer.Encode(plain);
  const auto back = imaged::SentFrames::Of(base::AsBytes(again).first(lengths), plain_bytes);
  CHECK(back.has_value());
  std::vector<uint8_t> same(plain_bytes);
  std::copy(again.begin() + static_cast<ptrdiff_t>(lengths), again.end(),
            back->PlaceIn(same).begin());
  CHECK(back->Decode(same).has_value() && same == plain);
}

void CheckStream(std::string_view body) {
  if (body.size() < imaged::kChunkStreamHeaderBytes) return;
  const std::string_view header = body.substr(0, imaged::kChunkStreamHeaderBytes);
  for (const uint16_t version : {imaged::kChunkWireVersion, imaged::kRecipeStreamVersion}) {
    const auto head = imaged::DecodeChunkStreamHeader(base::AsBytes(header), version);
    if (head.has_value()) CHECK(imaged::EncodeChunkStreamHeader(*head, version) == header);
  }
  body.remove_prefix(header.size());
  body = body.substr(0, body.size() / imaged::kChunkEntryBytes * imaged::kChunkEntryBytes);
  const auto entries = imaged::DecodeChunkEntries(base::AsBytes(body), 0);
  if (!entries.has_value()) return;
  std::string again;
  for (const auto& entry : *entries) imaged::AppendChunkEntry(&again, entry);
  CHECK(again == body);
}

void CheckWanted(std::string_view body) {
  const ChunkList asked{
      .size_bytes = uint64_t{100} << 30, .first = 7, .ids = {50, base::Digest256{}}};
  const auto flags = imaged::DecodeWanted(body, asked);
  if (flags.has_value()) CHECK(flags->size() == asked.ids.size());
  const auto alike = imaged::DecodeAlike(body);
  if (alike.has_value()) CHECK(alike->size() <= imaged::kMaxAlike);
  (void)imaged::DecodeTakesFrames(body);
}

void CheckFetch(std::string_view body) {
  const uint64_t size = uint64_t{100} << 30;
  const auto runs = imaged::DecodeFetch(body, size);
  if (!runs.has_value()) {
    CHECK(runs.error().code() == base::Code::kInvalidArgument);
    return;
  }
  uint64_t end = 0;
  uint64_t total = 0;
  for (const imaged::ChunkRun& run : *runs) {
    CHECK(run.count > 0 && run.first >= end);
    end = run.first + run.count;
    total += run.count;
  }
  CHECK(end <= chunkstore::ChunkCount(size) && total <= imaged::kMaxListedChunks);
  const auto again = imaged::DecodeFetch(imaged::EncodeWanted(*runs), size);
  CHECK(again.has_value() && *again == *runs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 6 == 0) CheckList(body);
  if (data[0] % 6 == 1) CheckStream(body);
  if (data[0] % 6 == 2) CheckWanted(body);
  if (data[0] % 6 == 3) CheckFetch(body);
  if (data[0] % 6 == 4) CheckRecipes(body);
  if (data[0] % 6 == 5) CheckFrames(body);
  return 0;
}
