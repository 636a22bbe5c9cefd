#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "chunkstore/chunk_store_impl.h"

// Which chunks somebody can reach through the holders that he may read: climbs from chunks to
// holders, as references are kept (chunkstore/README.md), and remembers what it met on the way.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Result;

constexpr size_t kTagBatch = 256;
constexpr uint64_t kPageCost = 64;  // steps that reading a page counts for

// A manifest is nobody's content. A map page may have the bytes of a chunk, and then it is both.
bool MayBeChunk(const Record& record) {
  return record.is_whole() && record.kind != BlobKind::kManifest;
}

class Reach {
 public:
  Reach(ChunkStoreImpl& store, std::span<const Digest256> ids,
        const ChunkStore::HolderCheck& may_read)
      : store_(store),
        may_read_(may_read),
        steps_left_(ids.size() * kReachStepsOfId + kReachSteps) {
    for (const Digest256& id : ids) chunks_.try_emplace(id);
  }

  // The names of all holders, first and whatever is asked for: how long an answer takes must not
  // tell whether somebody else has a chunk.
  Result<void> ReadNames() {
    return store_.VisitHolders([&](std::string_view name, const HolderRecord& holder) {
      if (holder.held) names_.emplace(holder.token, name);
    });
  }

  Result<bool> OfChunk(const Digest256& id) {
    Chunk& chunk = chunks_.find(id)->second;
    if (!chunk.answer.has_value()) {
      ASSIGN_OR_RETURN(chunk.answer, Answer(id, chunk.below_readable));
    }
    return *chunk.answer;
  }

 private:
  struct Chunk {
    bool below_readable = false;  // a page that may be read has it
    std::optional<bool> answer;
  };

  Result<bool> Answer(const Digest256& id, bool below_readable) {
    ASSIGN_OR_RETURN(const std::optional<Record> record, store_.references().Find(id));
    if (!record || !MayBeChunk(*record)) return false;
    if (below_readable) return true;
    return FromAbove(id, /*chunk=*/true);
  }

  Result<bool> FromAbove(const Digest256& id, bool chunk) {
    std::string after;
    for (size_t seen = 0; seen < kReachTagsOfId && steps_left_ > 0; seen += kTagBatch) {
      ASSIGN_OR_RETURN(const auto tags, store_.references().Tags(id, after, kTagBatch));
      for (const std::string& tag : tags) {
        if (steps_left_ == 0) return false;
        --steps_left_;
        ASSIGN_OR_RETURN(const ParsedTag parsed, ParseTag(tag));
        Result<bool> readable = false;
        // Not borrowers ('s'): who may read a few of its blocks may not read the chunk.
        if (parsed.kind == 'p') readable = OfPage(parsed.page);
        if (parsed.kind == 'p' && readable.has_value() && *readable)
          readable = chunk ? IsChunkOf(parsed.page) : IsPageOf(parsed.page, id);
        if (parsed.kind == 'h' && !chunk) readable = OfHolder(parsed.token);
        RETURN_IF_ERROR(readable);
        if (*readable) return true;
      }
      if (tags.size() < kTagBatch) break;
      after = tags.back();
    }
    return false;
  }

  Result<bool> OfPage(const Digest256& page) {
    const auto [known, first] = pages_.emplace(page, false);
    if (!first) return known->second;
    ASSIGN_OR_RETURN(const bool readable, FromAbove(page, /*chunk=*/false));
    if (readable) pages_[page] = true;
    return readable;
  }

  Result<bool> OfHolder(Token token) {
    const auto known = tokens_.find(token);
    if (known != tokens_.end()) return known->second;
    const auto name = names_.find(token);
    bool readable = false;
    if (name != names_.end()) {
      ASSIGN_OR_RETURN(readable, may_read_(name->second));
    }
    tokens_[token] = readable;
    return readable;
  }

  // Null: it can't be read.
  Result<std::shared_ptr<const MapPage>> Page(const Digest256& id) {
    steps_left_ -= std::min(steps_left_, kPageCost);
    Result<std::shared_ptr<const MapPage>> page = store_.ReadPage(id);
    if (page.has_value()) return page;
    const Code code = page.error().code();
    if (code == Code::kNotFound || code == Code::kCorruption)
      return std::shared_ptr<const MapPage>();
    return page.error();
  }

  // Who uploads the bytes of another's page as a chunk has a page above it. That gives a right to
  // the page's bytes, which he has, and to nothing that they name: above a page that is part of a
  // map is one of the next level.
  Result<bool> IsPageOf(const Digest256& above, const Digest256& id) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> upper, Page(above));
    ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> lower, Page(id));
    return upper != nullptr && lower != nullptr && upper->level == lower->level + 1;
  }

  // A chunk's neighbours are asked for with it: they need not climb.
  Result<bool> IsChunkOf(const Digest256& above) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> page, Page(above));
    if (page == nullptr || page->level != 0) return false;
    for (const MapPage::Entry& entry : page->entries) {
      const auto asked = chunks_.find(entry.id);
      if (asked != chunks_.end()) asked->second.below_readable = true;
    }
    return true;
  }

  ChunkStoreImpl& store_;
  const ChunkStore::HolderCheck& may_read_;
  uint64_t steps_left_;
  std::unordered_map<Digest256, Chunk> chunks_;  // that are asked for
  std::unordered_map<Digest256, bool> pages_;
  std::unordered_map<Token, bool> tokens_;
  std::unordered_map<Token, std::string> names_;
};

}  // namespace

Result<std::vector<bool>> ChunkStoreImpl::WhichReachable(std::span<const Digest256> ids,
                                                         const HolderCheck& may_read) {
  Reach reach(*this, ids, may_read);
  RETURN_IF_ERROR(reach.ReadNames());
  std::vector<bool> reachable(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSIGN_OR_RETURN(reachable[i], reach.OfChunk(ids[i]));
  }
  return reachable;
}

// The length is looked at before the blob is: a caller's wrong guess must not look like a corrupt
// chunk.
Result<void> ChunkStoreImpl::ReadChunk(const Digest256& id, base::MutableByteView into) {
  ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
  if (!record || !MayBeChunk(*record) || record->plain_length != into.size()) {
    return base::Error(Code::kNotFound, "no chunk " + id.hex() + " of " +
                                            std::to_string(into.size()) + " bytes is stored");
  }
  return ReadChunk(id, record->plain_length, 0, into, /*keep=*/false);
}

Result<void> ChunkStoreImpl::ReadChunkPart(const Digest256& id, uint32_t offset,
                                           base::MutableByteView into) {
  ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
  if (!record || !MayBeChunk(*record) || offset > record->plain_length ||
      into.size() > record->plain_length - offset) {
    return base::Error(Code::kNotFound, "no chunk " + id.hex() + " with " +
                                            std::to_string(into.size()) + " bytes from " +
                                            std::to_string(offset) + " on is stored");
  }
  return ReadChunk(id, record->plain_length, offset, into, /*keep=*/false);
}

}  // namespace chunkstore
