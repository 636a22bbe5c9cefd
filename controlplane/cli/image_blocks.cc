#include "controlplane/cli/image_blocks.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <fmt/format.h>

#include "base/uuid.h"
#include "chunkstore/map.h"
#include "controlplane/cli/image_requests.h"
#include "controlplane/cli/interrupt.h"
#include "imaged/block_wire.h"
#include "imaged/chunk_wire.h"

namespace controlplane::cli {
namespace {

using base::ByteView;
using base::Digest256;
using base::Error;
using base::Json;
using base::Result;
using base::http::ClientRequest;
using base::http::Headers;
using base::http::Response;
using chunkstore::Block;
using chunkstore::kChunkBytes;
using imaged::BlockInfo;
using imaged::BlockItem;
using imaged::ChunkList;
using imaged::RecipePiece;

// Images whose blocks are asked for.
constexpr size_t kMaxImages = 4;
// A table takes about 6 KiB to fetch and 8 KiB of memory: so many for each wanted chunk of 4 MiB,
// and at most.
constexpr size_t kTablesOfWantedChunk = 16;
constexpr size_t kMaxTables = 8192;
// A chunk is assembled if that saves at least this part of it.
constexpr uint64_t kMinSavingDivisor = 16;

struct Candidate {
  std::string url;  // of its own calls
  ChunkList list;
  std::vector<BlockItem> items;  // tables to ask for
};

// Those that are alike, then the newest.
std::vector<std::string> CandidateIds(ApiClient& client, const std::string& images_url,
                                      std::vector<std::string> ids) {
  if (ids.size() < kMaxImages) {
    const Result<Json> newest = client.CallJson(
        Ask("GET", fmt::format("{}?limit={}&status=active", images_url, kMaxImages)));
    const Json* images = newest.has_value() ? base::Find(*newest, "images") : nullptr;
    if (images != nullptr && images->is_array()) {
      for (const Json& image : images->as_array()) {
        const std::string id = base::FindString(image, "id").value_or("");
        if (base::IsUuid(id) && std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
      }
    }
  }
  if (ids.size() > kMaxImages) ids.resize(kMaxImages);
  return ids;
}

// The first page is enough: 64 GiB.
Result<ChunkList> ListOf(ApiClient& client, const std::string& url) {
  ClientRequest request = Ask("GET", url + "/chunks");
  request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kChunkListType));
  ASSIGN_OR_RETURN(const Response answer, client.Call(std::move(request)));
  return imaged::DecodeChunkList(answer.body);
}

// Shares the tables out: chunks where a wanted one stands first, none twice.
void ChooseTables(const std::vector<bool>& wanted, std::vector<Candidate>* candidates) {
  const auto count = static_cast<size_t>(std::ranges::count(wanted, true));
  size_t left = std::min(kMaxTables, count * kTablesOfWantedChunk);
  std::unordered_set<Digest256> chosen;
  for (const bool same_place : {true, false}) {
    for (Candidate& candidate : *candidates) {
      const std::vector<Digest256>& ids = candidate.list.ids;
      for (size_t i = 0; i < ids.size() && left > 0; ++i) {
        const bool at_wanted = i < wanted.size() && wanted[i];
        if (at_wanted != same_place || imaged::IsHole(ids[i]) || !chosen.insert(ids[i]).second) {
          continue;
        }
        candidate.items.push_back({.chunk = static_cast<uint32_t>(i), .numbers = {}});
        --left;
      }
    }
  }
}

Result<void> FetchTables(ApiClient& client, const Candidate& candidate,
                         const std::vector<BlockItem>& items, ServiceBlocks* blocks) {
  imaged::BlockReceiver::Sinks sinks;
  sinks.table = [&](size_t item, const std::vector<BlockInfo>& table) -> Result<void> {
    uint32_t offset = 0;
    for (const BlockInfo& block : table) {
      if (block.plain_length > kChunkBytes - offset) break;
      blocks->Add(candidate.list.ids[items[item].chunk], offset, block.plain_length, block.hash);
      offset += block.plain_length;
    }
    return CheckInterrupt();
  };
  imaged::BlockReceiver receiver(items, candidate.list.size_bytes, std::move(sinks));
  ClientRequest request = Ask("POST", candidate.url + "/blocks");
  request.body = imaged::EncodeBlockRequest(items);
  request.headers.Set("Content-Type", imaged::kBlocksType);
  request.headers.Set("Accept", fmt::format("{}, application/json", imaged::kBlocksType));
  request.head_sink = [](const Headers& headers) -> Result<void> {
    if (headers.Get("Content-Type") == imaged::kBlocksType) return {};
    return Error(base::Code::kCorruption, "the service answered something else than blocks");
  };
  request.body_sink = [&](ByteView bytes) { return receiver.Take(bytes); };
  RETURN_IF_ERROR(client.Call(std::move(request)));
  return receiver.End();
}

// The next piece of the recipe, one with the last where they follow one another.
void Append(const RecipePiece& piece, imaged::Recipe* recipe) {
  if (!recipe->empty()) {
    RecipePiece& last = recipe->back();
    const bool follows =
        last.how == piece.how && last.owner == piece.owner &&
        (piece.how != RecipePiece::How::kNamed || last.offset + last.length == piece.offset);
    if (follows) {
      last.length += piece.length;
      return;
    }
  }
  recipe->push_back(piece);
}

// The owner's number in the recipe; nothing if there are too many.
std::optional<uint16_t> NumberOf(const Digest256& owner, std::vector<Digest256>* owners) {
  const auto found = std::ranges::find(*owners, owner);
  const auto number = static_cast<uint16_t>(found - owners->begin());
  if (found != owners->end()) return number;
  if (owners->size() == imaged::kMaxOwnersOfChunk) return std::nullopt;
  owners->push_back(owner);
  return number;
}

}  // namespace

void ServiceBlocks::Add(const Digest256& chunk, uint32_t offset, uint32_t length,
                        const base::Hash128& hash) {
  if (chunks_.empty() || chunks_.back() != chunk) chunks_.push_back(chunk);
  entries_.try_emplace(hash.low, Entry{.hash_high = hash.high,
                                       .length = length,
                                       .chunk = static_cast<uint32_t>(chunks_.size() - 1),
                                       .offset = offset});
}

std::optional<ServiceBlocks::Place> ServiceBlocks::Find(const Block& block) const {
  const auto found = entries_.find(block.hash.low);
  if (found == entries_.end()) return std::nullopt;
  const Entry& entry = found->second;
  if (entry.hash_high != block.hash.high || entry.length != block.plain_length) return std::nullopt;
  return Place{.chunk = chunks_[entry.chunk], .offset = entry.offset};
}

Result<ServiceBlocks> FindServiceBlocks(ApiClient& client, const std::string& images_url,
                                        const std::vector<std::string>& alike,
                                        const std::vector<bool>& wanted) {
  ServiceBlocks blocks;
  std::vector<Candidate> candidates;
  for (const std::string& id : CandidateIds(client, images_url, alike)) {
    RETURN_IF_ERROR(CheckInterrupt());
    Candidate candidate{.url = QuarryUrl(images_url, id), .list = {}, .items = {}};
    Result<ChunkList> list = ListOf(client, candidate.url);
    if (!list.has_value()) continue;
    candidate.list = *std::move(list);
    candidates.push_back(std::move(candidate));
  }
  ChooseTables(wanted, &candidates);
  for (Candidate& candidate : candidates) {
    std::ranges::sort(candidate.items, {}, &BlockItem::chunk);
    for (size_t first = 0; first < candidate.items.size(); first += imaged::kMaxBlockItems) {
      RETURN_IF_ERROR(CheckInterrupt());
      const size_t count = std::min(imaged::kMaxBlockItems, candidate.items.size() - first);
      const auto begin = candidate.items.begin() + static_cast<ptrdiff_t>(first);
      const std::vector<BlockItem> some(begin, begin + static_cast<ptrdiff_t>(count));
      const Result<void> fetched = FetchTables(client, candidate, some, &blocks);
      if (!fetched.has_value()) break;
    }
  }
  return blocks;
}

std::optional<ChunkRecipe> CookChunk(ByteView chunk, const ServiceBlocks& blocks) {
  ChunkRecipe recipe;
  for (const Block& block : chunkstore::HashBlocks(chunk)) {
    RecipePiece piece{.how = RecipePiece::How::kSent, .length = block.plain_length};
    if (base::IsZero(chunk.subspan(block.plain_offset, block.plain_length))) {
      piece.how = RecipePiece::How::kZeros;
      recipe.zero_bytes += piece.length;
    } else if (const auto place = blocks.Find(block); place.has_value()) {
      if (const auto owner = NumberOf(place->chunk, &recipe.owners); owner.has_value()) {
        piece.how = RecipePiece::How::kNamed;
        piece.owner = *owner;
        piece.offset = place->offset;
        recipe.named_bytes += piece.length;
      }
    }
    if (piece.how == RecipePiece::How::kSent) recipe.sent_bytes += piece.length;
    Append(piece, &recipe.pieces);
  }
  const uint64_t saved_bytes = chunk.size() - recipe.sent_bytes;
  if (saved_bytes * kMinSavingDivisor < chunk.size()) return std::nullopt;
  return recipe;
}

Result<std::vector<std::optional<ChunkRecipe>>> CookChunks(const ImageSource& source,
                                                           const FileChunks& chunks,
                                                           const std::vector<bool>& wanted,
                                                           const ServiceBlocks& blocks) {
  std::vector<std::optional<ChunkRecipe>> recipes(wanted.size());
  base::Buffer buffer(kChunkBytes);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    RETURN_IF_ERROR(CheckInterrupt());
    const base::MutableByteView bytes =
        buffer.view().first(chunkstore::ChunkLength(i, chunks.size_bytes));
    if (!source.file()->ReadAt(i * kChunkBytes, bytes).has_value()) continue;
    recipes[i] = CookChunk(bytes, blocks);
  }
  return recipes;
}

}  // namespace controlplane::cli
