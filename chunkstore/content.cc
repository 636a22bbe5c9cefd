#include <algorithm>
#include <cstring>

#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/zstd_frames.h"

// Contents: reading through their maps, and the difference of two of them.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Error;
using base::MutableByteView;
using base::Result;

constexpr uint64_t kKeepBytes = 1 * base::kMiB;  // a larger read does not fill the cache

uint32_t SlotOf(uint8_t level, uint64_t index) {
  return static_cast<uint32_t>(index / SlotSpan(level) % kFanOut);
}

class ContentImpl : public Content {
 public:
  ContentImpl(ChunkStoreImpl& store, const Root& root, std::shared_ptr<const MapPage> page)
      : store_(store), root_(root), page_(std::move(page)) {}

  const Root& root() const override { return root_; }

  Result<void> ReadAt(uint64_t offset, MutableByteView into) override {
    RETURN_IF_ERROR(CheckRange(offset, into.size()));
    const bool keep = into.size() < kKeepBytes;
    while (!into.empty()) {
      const uint64_t index = offset / kChunkBytes;
      const uint32_t length = ChunkLength(index, root_.size_bytes);
      const uint32_t begin = static_cast<uint32_t>(offset % kChunkBytes);
      const size_t count = std::min<size_t>(into.size(), length - begin);
      ASSIGN_OR_RETURN(const std::optional<Digest256> id, store_.LookUp(*page_, index));
      if (id) {
        RETURN_IF_ERROR(store_.ReadChunk(*id, length, begin, into.first(count), keep));
      } else {
        std::memset(into.data(), 0, count);
      }
      into = into.subspan(count);
      offset += count;
    }
    return {};
  }

  Result<bool> TryReadAt(uint64_t offset, MutableByteView into) override {
    RETURN_IF_ERROR(CheckRange(offset, into.size()));
    while (!into.empty()) {
      const uint64_t index = offset / kChunkBytes;
      const uint32_t length = ChunkLength(index, root_.size_bytes);
      const uint32_t begin = static_cast<uint32_t>(offset % kChunkBytes);
      const size_t count = std::min<size_t>(into.size(), length - begin);
      std::optional<Digest256> id;
      if (!store_.TryLookUp(*page_, index, &id)) return false;
      if (!id) {
        std::memset(into.data(), 0, count);
      } else if (store_.TryReadChunk(*id, length, begin, into.first(count)) < count) {
        return false;
      }
      into = into.subspan(count);
      offset += count;
    }
    return true;
  }

  Result<ContentPiece> PieceAt(uint64_t offset, uint64_t limit) override {
    if (limit == 0) return Error(Code::kInvalidArgument, "a piece of no bytes");
    RETURN_IF_ERROR(CheckRange(offset, 1));
    const uint64_t index = offset / kChunkBytes;
    const uint32_t length = ChunkLength(index, root_.size_bytes);
    const uint32_t begin = static_cast<uint32_t>(offset % kChunkBytes);
    const uint32_t count = static_cast<uint32_t>(std::min<uint64_t>(limit, length - begin));
    ASSIGN_OR_RETURN(const std::optional<Digest256> id, store_.LookUp(*page_, index));
    if (id) return store_.PieceOfChunk(*id, length, begin, count);
    ContentPiece piece;
    piece.length = count;
    piece.hole = true;
    return piece;
  }

  Result<std::vector<ContentPiece>> FramesAt(uint64_t offset, uint64_t length) override {
    if (length == 0 || length > kChunkBytes - offset % kChunkBytes)
      return Error(Code::kInvalidArgument, "frames across the end of a chunk, or of no bytes");
    RETURN_IF_ERROR(CheckRange(offset, length));
    const uint64_t index = offset / kChunkBytes;
    const uint32_t begin = static_cast<uint32_t>(offset % kChunkBytes);
    const uint32_t count = static_cast<uint32_t>(length);
    ASSIGN_OR_RETURN(const std::optional<Digest256> id, store_.LookUp(*page_, index));
    if (id) {
      return store_.FramesOfChunk(*id, ChunkLength(index, root_.size_bytes), begin, count);
    }
    auto zeros = std::make_shared<const std::string>(ZeroFrame(count));
    ContentPiece piece;
    piece.length = zeros->size();
    piece.bytes = base::AsBytes(*zeros);
    piece.owner = std::move(zeros);
    return std::vector<ContentPiece>{std::move(piece)};
  }

  Result<std::vector<StoredBlock>> BlocksOf(uint64_t index) override {
    ASSIGN_OR_RETURN(const std::optional<Digest256> id, ChunkAt(index));
    if (!id) return std::vector<StoredBlock>();
    return store_.BlocksOfChunk(*id, ChunkLength(index, root_.size_bytes));
  }

  Result<BlockBytes> ReadBlocks(uint64_t index, std::span<const size_t> numbers) override {
    ASSIGN_OR_RETURN(const std::optional<Digest256> id, ChunkAt(index));
    if (id) return store_.ReadBlocksOfChunk(*id, ChunkLength(index, root_.size_bytes), numbers);
    if (numbers.empty()) return BlockBytes();
    return Error(Code::kInvalidArgument,
                 "chunk " + std::to_string(index) + " is a hole: it has no blocks");
  }

  Result<void> VisitChunks(uint64_t from, uint64_t to, const ChunkVisitor& visit) override {
    ASSIGN_OR_RETURN(const bool all, store_.VisitMap(*page_, 0, from, to, visit));
    (void)all;
    return {};
  }

 private:
  Result<void> CheckRange(uint64_t offset, uint64_t count) const {
    if (offset > root_.size_bytes || count > root_.size_bytes - offset)
      return Error(Code::kInvalidArgument,
                   std::to_string(count) + " bytes at " + std::to_string(offset) +
                       " reach beyond the content's " + std::to_string(root_.size_bytes));
    return {};
  }

  // Nothing: a hole.
  Result<std::optional<Digest256>> ChunkAt(uint64_t index) {
    const uint64_t chunks = ChunkCount(root_.size_bytes);
    if (index < chunks) return store_.LookUp(*page_, index);
    return Error(Code::kInvalidArgument, "chunk " + std::to_string(index) + " of a content of " +
                                             std::to_string(chunks) + " chunks");
  }

  ChunkStoreImpl& store_;
  const Root root_;
  const std::shared_ptr<const MapPage> page_;
};

// The difference of two maps below pages of one level, from one chunk on: what lies wholly before
// it is passed over unread. A missing page is one without entries.
class Differ {
 public:
  Differ(ChunkStoreImpl& store_a, ChunkStoreImpl& store_b, uint64_t from,
         const ChunkStore::DiffVisitor& visit)
      : store_a_(store_a), store_b_(store_b), from_(from), visit_(visit) {}

  // The root page `low` against `high`, of the same level or above: `low` is what lies under its
  // first slots.
  Result<bool> Raised(const MapPage& low, const MapPage& high, bool low_is_a) {
    if (low.level == high.level) return low_is_a ? Pages(low, high, 0) : Pages(high, low, 0);
    bool go_on = true;
    if (!IsBefore(high.level, 0)) {
      ChunkStoreImpl& store_of_high = low_is_a ? store_b_ : store_a_;
      ASSIGN_OR_RETURN(const auto below, Child(store_of_high, high.level, high.Find(0)));
      ASSIGN_OR_RETURN(go_on, Raised(low, *below, low_is_a));
    }
    for (const MapPage::Entry& entry : high.entries) {
      if (!go_on) return false;
      if (entry.slot == 0) continue;
      ASSIGN_OR_RETURN(go_on, Slot(high.level, entry.slot * SlotSpan(high.level),
                                   low_is_a ? nullptr : &entry.id, low_is_a ? &entry.id : nullptr));
    }
    return go_on;
  }

  Result<bool> Pages(const MapPage& a, const MapPage& b, uint64_t base_index) {
    size_t i = 0;
    size_t k = 0;
    while (i < a.entries.size() || k < b.entries.size()) {
      const uint32_t slot_a = i < a.entries.size() ? a.entries[i].slot : kFanOut;
      const uint32_t slot_b = k < b.entries.size() ? b.entries[k].slot : kFanOut;
      const uint32_t slot = std::min(slot_a, slot_b);
      const Digest256* id_a = slot_a == slot ? &a.entries[i++].id : nullptr;
      const Digest256* id_b = slot_b == slot ? &b.entries[k++].id : nullptr;
      if (id_a && id_b && *id_a == *id_b) continue;
      const uint64_t index = base_index + slot * SlotSpan(a.level);
      ASSIGN_OR_RETURN(const bool go_on, Slot(a.level, index, id_a, id_b));
      if (!go_on) return false;
    }
    return true;
  }

 private:
  // A slot of a page of this level, whose first chunk is `index`.
  bool IsBefore(uint8_t level, uint64_t index) const { return index + SlotSpan(level) <= from_; }

  Result<bool> Slot(uint8_t level, uint64_t index, const Digest256* a, const Digest256* b) {
    if (IsBefore(level, index)) return true;
    if (level == 0) {
      return visit_(index, a ? std::optional(*a) : std::nullopt,
                    b ? std::optional(*b) : std::nullopt);
    }
    ASSIGN_OR_RETURN(const auto page_a, Child(store_a_, level, a));
    ASSIGN_OR_RETURN(const auto page_b, Child(store_b_, level, b));
    return Pages(*page_a, *page_b, index);
  }

  static Result<std::shared_ptr<const MapPage>> Child(ChunkStoreImpl& store, uint8_t level,
                                                      const Digest256* id) {
    if (id) return store.ReadPage(*id);
    MapPage none;
    none.level = level - 1;
    return std::make_shared<const MapPage>(none);
  }

  ChunkStoreImpl& store_a_;
  ChunkStoreImpl& store_b_;
  const uint64_t from_;
  const ChunkStore::DiffVisitor& visit_;
};

// There is no other implementation.
ChunkStoreImpl& Impl(ChunkStore& store) { return static_cast<ChunkStoreImpl&>(store); }

Result<void> DiffMaps(ChunkStoreImpl& store_a, const Root& a, ChunkStoreImpl& store_b,
                      const Root& b, uint64_t from, const ChunkStore::DiffVisitor& visit) {
  if (a == b) return {};
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page_a, store_a.ReadPage(a.id));
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page_b, store_b.ReadPage(b.id));
  Differ differ(store_a, store_b, from, visit);
  // A lower map is what lies under the first slots of a higher one.
  Result<bool> all = page_a->level < page_b->level ? differ.Raised(*page_a, *page_b, true)
                                                   : differ.Raised(*page_b, *page_a, false);
  RETURN_IF_ERROR(all);
  return {};
}

}  // namespace

Result<std::shared_ptr<Content>> ChunkStoreImpl::Open(const Root& root) {
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page, ReadPage(root.id));
  if (!page->size_bytes || *page->size_bytes != root.size_bytes)
    return Error(Code::kNotFound, "no content of " + std::to_string(root.size_bytes) +
                                      " bytes has the root " + root.id.hex());
  std::shared_ptr<Content> content = std::make_shared<ContentImpl>(*this, root, std::move(page));
  return content;
}

Result<void> ChunkStoreImpl::Diff(const Root& a, const Root& b, uint64_t from,
                                  const DiffVisitor& visit) {
  return DiffMaps(*this, a, *this, b, from, visit);
}

Result<void> ChunkStoreImpl::DiffAcross(const Root& a, ChunkStore& store_of_b, const Root& b,
                                        const DiffVisitor& visit) {
  return DiffMaps(*this, a, Impl(store_of_b), b, 0, visit);
}

// --- maps

Result<std::shared_ptr<const MapPage>> ChunkStoreImpl::ReadPage(const Digest256& id) {
  if (std::shared_ptr<const MapPage> page = cache_.FindPage(id)) return page;
  ASSIGN_OR_RETURN(const std::shared_ptr<const Bytes> plain, ReadWhole(id));
  Result<MapPage> decoded = DecodePage(plain->view());
  if (!decoded.has_value()) return decoded.error().Annotate("page " + id.hex());
  auto page = std::make_shared<const MapPage>(*std::move(decoded));
  cache_.InsertPage(id, page);
  return page;
}

Result<std::optional<Digest256>> ChunkStoreImpl::LookUp(const MapPage& root, uint64_t index) {
  const MapPage* page = &root;
  std::shared_ptr<const MapPage> kept;
  while (true) {
    const uint8_t level = page->level;
    const Digest256* id = page->Find(SlotOf(level, index));
    if (!id) return std::optional<Digest256>();
    if (level == 0) return std::optional(*id);
    ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> child, ReadPage(*id));
    if (child->level + 1 != level)
      return Error(Code::kCorruption, "page " + id->hex() + " is of the wrong level");
    kept = std::move(child);
    page = kept.get();
  }
}

bool ChunkStoreImpl::TryLookUp(const MapPage& root, uint64_t index, std::optional<Digest256>* id) {
  const MapPage* page = &root;
  std::shared_ptr<const MapPage> kept;
  while (true) {
    const Digest256* found = page->Find(SlotOf(page->level, index));
    if (!found || page->level == 0) {
      if (found) *id = *found;
      return true;
    }
    std::shared_ptr<const MapPage> child = cache_.FindPage(*found, BlockCache::Miss::kUncounted);
    // What is wrong with it ReadAt will say.
    if (!child || child->level + 1 != page->level) return false;
    kept = std::move(child);
    page = kept.get();
  }
}

Result<bool> ChunkStoreImpl::VisitMap(const MapPage& page, uint64_t base_index, uint64_t from,
                                      uint64_t to, const Content::ChunkVisitor& visit) {
  const uint64_t span = SlotSpan(page.level);
  for (const MapPage::Entry& entry : page.entries) {
    const uint64_t begin = base_index + entry.slot * span;
    if (begin + span <= from) continue;
    if (begin >= to) break;
    bool go_on = true;
    if (page.level == 0) {
      go_on = visit(begin, entry.id);
    } else {
      ASSIGN_OR_RETURN(const std::shared_ptr<const MapPage> child, ReadPage(entry.id));
      if (child->level + 1 != page.level)
        return Error(Code::kCorruption, "page " + entry.id.hex() + " is of the wrong level");
      ASSIGN_OR_RETURN(go_on, VisitMap(*child, begin, from, to, visit));
    }
    if (!go_on) return false;
  }
  return true;
}

}  // namespace chunkstore
