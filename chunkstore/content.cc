#include <algorithm>
#include <cstring>
#include <utility>

#include <sys/mman.h>

#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"

// Reading: pages, chunks, contents, and the difference of two contents.

namespace chunkstore {
namespace {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::MutableByteView;
using base::Result;

constexpr uint64_t kKeepBytes = 1 * base::kMiB;  // a larger read does not fill the cache
constexpr uint32_t kVerifyRunBytes =
    256 * base::kKiB;  // of a file are hashed while they are in the core's cache

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
      } else if (!store_.TryReadChunk(*id, length, begin, into.first(count))) {
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

  ChunkStoreImpl& store_;
  const Root root_;
  const std::shared_ptr<const MapPage> page_;
};

// The difference of two maps below pages of one level. A missing page is one without entries.
class Differ {
 public:
  Differ(ChunkStoreImpl& store, const ChunkStore::DiffVisitor& visit)
      : store_(store), visit_(visit) {}

  // The root page `low` against `high`, of the same level or above: `low` is what lies under its
  // first slots.
  Result<bool> Raised(const MapPage& low, const MapPage& high, bool low_is_a) {
    if (low.level == high.level) return low_is_a ? Pages(low, high, 0) : Pages(high, low, 0);
    ASSIGN_OR_RETURN(const auto below, Child(high.level, high.Find(0)));
    ASSIGN_OR_RETURN(bool go_on, Raised(low, *below, low_is_a));
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
  Result<bool> Slot(uint8_t level, uint64_t index, const Digest256* a, const Digest256* b) {
    if (level == 0) {
      return visit_(index, a ? std::optional(*a) : std::nullopt,
                    b ? std::optional(*b) : std::nullopt);
    }
    ASSIGN_OR_RETURN(const auto page_a, Child(level, a));
    ASSIGN_OR_RETURN(const auto page_b, Child(level, b));
    return Pages(*page_a, *page_b, index);
  }

  Result<std::shared_ptr<const MapPage>> Child(uint8_t level, const Digest256* id) {
    if (id) return store_.ReadPage(*id);
    MapPage none;
    none.level = level - 1;
    return std::make_shared<const MapPage>(none);
  }

  ChunkStoreImpl& store_;
  const ChunkStore::DiffVisitor& visit_;
};

Error CorruptChunk(const Digest256& id, std::string_view what) {
  return Error(Code::kCorruption, "chunk " + id.hex() + ": " + std::string(what));
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

Result<void> ChunkStoreImpl::Diff(const Root& a, const Root& b, const DiffVisitor& visit) {
  if (a == b) return {};
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page_a, ReadPage(a.id));
  ASSIGN_OR_RETURN(std::shared_ptr<const MapPage> page_b, ReadPage(b.id));
  Differ differ(*this, visit);
  // A lower map is what lies under the first slots of a higher one.
  Result<bool> all = page_a->level < page_b->level ? differ.Raised(*page_a, *page_b, true)
                                                   : differ.Raised(*page_b, *page_a, false);
  RETURN_IF_ERROR(all);
  return {};
}

// --- maps

Result<std::shared_ptr<const MapPage>> ChunkStoreImpl::ReadPage(const Digest256& id) {
  const BlockCache::Key key{id, BlockCache::kPage};
  if (std::shared_ptr<const MapPage> page = cache_.Find<MapPage>(key)) return page;
  ASSIGN_OR_RETURN(const std::shared_ptr<const Bytes> plain, ReadWhole(id));
  Result<MapPage> decoded = DecodePage(plain->view());
  if (!decoded.has_value()) return decoded.error().Annotate("page " + id.hex());
  auto page = std::make_shared<const MapPage>(*std::move(decoded));
  cache_.Insert(key, page, sizeof(MapPage) + page->entries.capacity() * sizeof(MapPage::Entry));
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
    std::shared_ptr<const MapPage> child =
        cache_.Find<MapPage>({*found, BlockCache::kPage}, BlockCache::Miss::kUncounted);
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

// --- blobs

Result<std::shared_ptr<const OpenBlob>> ChunkStoreImpl::FindBlob(const Digest256& id,
                                                                 const Record& record) {
  const BlobRef ref{id, record.suffix};
  const uint64_t tail_bytes =
      std::min<uint64_t>(TailReadBytes(record.stored_length), record.stored_length);
  Bytes tail(tail_bytes);
  RETURN_IF_ERROR(blobs_.Get(BlobName(ref), record.stored_length - tail_bytes, tail.view()));
  auto blob = std::make_shared<OpenBlob>();
  blob->ref = ref;
  blob->stored_length = record.stored_length;
  ASSIGN_OR_RETURN(blob->table, DecodeTable(tail.view(), record.stored_length));
  if (blob->table.id != id || blob->table.kind != record.kind ||
      blob->table.plain_length != record.plain_length)
    return Error(Code::kCorruption, "the blob is not the one that its record says");
  return std::shared_ptr<const OpenBlob>(std::move(blob));
}

Result<void> ChunkStoreImpl::WithBlob(const Digest256& id, const BlobReader& read) {
  const BlockCache::Key key{id, BlockCache::kTable};
  std::shared_ptr<const OpenBlob> blob = cache_.Find<OpenBlob>(key);
  uint64_t tried = 0;  // the blob that failed
  int strikes = 0;     // twice: it is the blob, and not the way to it
  std::optional<Error> failure;
  if (blob) {
    Result<void> done = read(*blob);
    if (done.has_value()) return done;
    tried = blob->ref.suffix;
    failure = done.error();
    cache_.Erase(key);
  }
  while (true) {
    const bool suspect =
        failure && (failure->code() == Code::kNotFound || failure->code() == Code::kCorruption);
    if (failure && !suspect) return *failure;
    ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
    if (!record) return Error(Code::kNotFound, "chunk " + id.hex() + " is not stored (any more)");
    if (record->bad) return CorruptChunk(id, "quarantined because its blob is corrupt or lost");
    if (failure && record->suffix == tried && ++strikes == 2) {
      Quarantine({id, tried}, *failure);
      return CorruptChunk(id, failure->message());
    }
    tried = record->suffix;
    failure.reset();
    Result<std::shared_ptr<const OpenBlob>> opened = FindBlob(id, *record);
    if (opened.has_value()) {
      Result<void> done = read(**opened);
      if (done.has_value()) {
        cache_.Insert(key, *opened,
                      sizeof(OpenBlob) + (*opened)->table.blocks.capacity() * sizeof(Block));
        return done;
      }
      failure = done.error();
    } else {
      failure = opened.error();
    }
  }
}

void ChunkStoreImpl::Quarantine(const BlobRef& blob, const Error& error) {
  Result<bool> changed = references_.Change(blob.id, [&](Record& record) {
    const bool ours = record.suffix == blob.suffix && !record.bad;
    record.bad = true;
    return ours;
  });
  if (changed.has_value() && !*changed) return;
  instruments_.corruption.Add();
  LOG(kError, "chunkstore", "corrupt: chunk {} in blob {}: {}", blob.id.hex(), BlobName(blob),
      error.ToString());
}

Result<std::shared_ptr<const Bytes>> ChunkStoreImpl::LoadBlob(const BlobRef& ref,
                                                              uint64_t stored_length,
                                                              BlobTable* table) {
  if (stored_length == 0 || stored_length > BlobStore::kMaxBlobBytes)
    return Error(Code::kCorruption, "a blob of " + std::to_string(stored_length) + " bytes");
  Bytes stored(stored_length);
  RETURN_IF_ERROR(blobs_.Get(BlobName(ref), 0, stored.view()));
  const uint64_t tail = std::min<uint64_t>(TailReadBytes(stored_length), stored_length);
  ASSIGN_OR_RETURN(*table, DecodeTable(ByteView(stored.view()).last(tail), stored_length));
  auto plain = std::make_shared<Bytes>(table->plain_length);
  for (const Block& block : table->blocks) {
    RETURN_IF_ERROR(DecodeBlock(
        block, ByteView(stored.view()).subspan(block.stored_offset, block.stored_length),
        plain->view().subspan(block.plain_offset, block.plain_length)));
  }
  if (table->id != ref.id || base::Sha256(plain->view()) != ref.id)
    return Error(Code::kCorruption, "the plain bytes don't have the SHA-256 that names them");
  return std::shared_ptr<const Bytes>(std::move(plain));
}

Result<std::shared_ptr<const Bytes>> ChunkStoreImpl::ReadWhole(const Digest256& id) {
  std::shared_ptr<const Bytes> plain;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    BlobTable table;
    ASSIGN_OR_RETURN(plain, LoadBlob(blob.ref, blob.stored_length, &table));
    return {};
  }));
  return plain;
}

// --- chunks

Result<void> ChunkStoreImpl::ReadChunk(const Digest256& id, uint32_t expected_length,
                                       uint32_t offset, MutableByteView into, bool keep) {
  const auto read = [&](const OpenBlob& blob) -> Result<void> {
    if (blob.table.plain_length != expected_length)
      return Error(Code::kCorruption, "the chunk is not as long as the map says");
    return ReadBlocks(blob, offset, into, keep);
  };
  return WithBlob(id, std::cref(read));  // a reference: no memory is taken for each read
}

bool ChunkStoreImpl::TryReadChunk(const Digest256& id, uint32_t expected_length, uint32_t offset,
                                  MutableByteView into) {
  const auto blob = cache_.Find<OpenBlob>({id, BlockCache::kTable}, BlockCache::Miss::kUncounted);
  if (!blob || blob->table.plain_length != expected_length) return false;
  const std::vector<Block>& blocks = blob->table.blocks;
  for (size_t number = blob->table.BlockAt(offset); !into.empty(); ++number) {
    const Block& block = blocks[number];
    const auto cached =
        cache_.Find<Bytes>({id, static_cast<uint32_t>(number)}, BlockCache::Miss::kUncounted);
    if (!cached || cached->size_bytes != block.plain_length) return false;
    const uint32_t from = offset - block.plain_offset;
    const size_t count = std::min<size_t>(into.size(), block.plain_length - from);
    std::memcpy(into.data(), cached->data.get() + from, count);
    into = into.subspan(count);
    offset += static_cast<uint32_t>(count);
  }
  return true;
}

// Blocks that the cache has are copied; runs of others are read in one piece each.
Result<void> ChunkStoreImpl::ReadBlocks(const OpenBlob& blob, uint32_t offset, MutableByteView into,
                                        bool keep) {
  const uint32_t end = offset + static_cast<uint32_t>(into.size());
  const std::vector<Block>& blocks = blob.table.blocks;
  size_t first_missing = blocks.size();
  const auto read_missing = [&](size_t next) -> Result<void> {
    if (first_missing >= next) return {};
    const size_t first = std::exchange(first_missing, blocks.size());
    return ReadRun(blob, first, next - 1, offset, into, keep);
  };
  size_t number = blob.table.BlockAt(offset);
  for (; number < blocks.size() && blocks[number].plain_offset < end; ++number) {
    const Block& block = blocks[number];
    const auto cached = cache_.Find<Bytes>({blob.ref.id, static_cast<uint32_t>(number)});
    if (cached && cached->size_bytes == block.plain_length) {
      RETURN_IF_ERROR(read_missing(number));
      const uint32_t from = std::max(offset, block.plain_offset);
      const uint32_t to = std::min(end, block.plain_offset + block.plain_length);
      std::memcpy(into.data() + (from - offset), cached->data.get() + (from - block.plain_offset),
                  to - from);
      continue;
    }
    const bool follows =
        first_missing < blocks.size() &&
        block.stored_offset == blocks[number - 1].stored_offset + blocks[number - 1].stored_length;
    if (!follows) RETURN_IF_ERROR(read_missing(number));
    if (first_missing == blocks.size()) first_missing = number;
  }
  return read_missing(number);
}

// Reads blocks first..last, which lie one after the other in the blob, and decodes what falls into
// [offset, ...).
Result<void> ChunkStoreImpl::ReadRun(const OpenBlob& blob, size_t first, size_t last,
                                     uint32_t offset, MutableByteView into, bool keep) {
  const std::vector<Block>& blocks = blob.table.blocks;
  const uint32_t begin = blocks[first].stored_offset;
  Bytes stored(blocks[last].stored_offset + blocks[last].stored_length - begin);
  RETURN_IF_ERROR(blobs_.Get(BlobName(blob.ref), begin, stored.view()));
  const uint32_t end = offset + static_cast<uint32_t>(into.size());
  for (size_t number = first; number <= last; ++number) {
    const Block& block = blocks[number];
    const ByteView raw =
        ByteView(stored.view()).subspan(block.stored_offset - begin, block.stored_length);
    const uint32_t from = std::max(offset, block.plain_offset);
    const uint32_t to = std::min(end, block.plain_offset + block.plain_length);
    const bool whole = to - from == block.plain_length;
    if (whole && !keep) {
      RETURN_IF_ERROR(DecodeBlock(block, raw, into.subspan(from - offset, to - from)));
      continue;
    }
    auto plain = std::make_shared<Bytes>(block.plain_length);
    RETURN_IF_ERROR(DecodeBlock(block, raw, plain->view()));
    std::memcpy(into.data() + (from - offset), plain->data.get() + (from - block.plain_offset),
                to - from);
    if (keep)
      cache_.Insert({blob.ref.id, static_cast<uint32_t>(number)}, std::move(plain),
                    block.plain_length);
  }
  return {};
}

namespace {

// A read-only view of a run of a file through the page cache; twice as fast as reading it into a
// buffer.
class MappedRun {
 public:
  // Nothing if the kernel can't, or the pages can't be read: then read(2) tells why. (Populating
  // first means that a bad disk or a file that is too short is an error here, and not a signal
  // later.)
  static std::optional<MappedRun> Map(int descriptor, uint64_t begin, uint64_t end) {
    const uint64_t aligned = begin - begin % kPageBytes;
    const size_t length = end - aligned;
    void* memory =
        ::mmap(nullptr, length, PROT_READ, MAP_SHARED, descriptor, static_cast<off_t>(aligned));
    if (memory == MAP_FAILED) return std::nullopt;
    MappedRun run(memory, length, begin - aligned);
    if (::madvise(memory, length, MADV_POPULATE_READ) != 0) return std::nullopt;
    return run;
  }
  MappedRun(MappedRun&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        length_(other.length_),
        skip_(other.skip_) {}
  MappedRun& operator=(MappedRun&&) = delete;
  ~MappedRun() {
    if (memory_) ::munmap(memory_, length_);
  }
  ByteView bytes() const {
    return ByteView(static_cast<const uint8_t*>(memory_), length_).subspan(skip_);
  }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  MappedRun(void* memory, size_t length, size_t skip)
      : memory_(memory), length_(length), skip_(skip) {}
  void* memory_;
  size_t length_;
  size_t skip_;
};

// `run` holds the stored bytes of raw blocks first..last.
Result<void> VerifyRun(ByteView run, const std::vector<Block>& blocks, size_t first, size_t last) {
  const uint32_t begin = blocks[first].stored_offset;
  for (; first <= last; ++first) {
    const Block& block = blocks[first];
    RETURN_IF_ERROR(
        VerifyRawBlock(block, run.subspan(block.stored_offset - begin, block.stored_length)));
  }
  return {};
}

// Verifies raw blocks first..last of a file. What is hashed is the page cache, which is what
// sendfile sends.
Result<void> VerifyFileRun(const base::File& file, const std::vector<Block>& blocks, size_t first,
                           size_t last) {
  const auto mapped = MappedRun::Map(file.descriptor(), blocks[first].stored_offset,
                                     blocks[last].stored_offset + blocks[last].stored_length);
  if (mapped) return VerifyRun(mapped->bytes(), blocks, first, last);
  thread_local std::vector<uint8_t> buffer(kVerifyRunBytes);
  while (first <= last) {
    const uint32_t begin = blocks[first].stored_offset;
    size_t next = first;
    while (next <= last &&
           blocks[next].stored_offset + blocks[next].stored_length - begin <= kVerifyRunBytes)
      ++next;
    const uint32_t length = blocks[next - 1].stored_offset + blocks[next - 1].stored_length - begin;
    const MutableByteView run(buffer.data(), length);
    RETURN_IF_ERROR(file.ReadAt(begin, run));
    RETURN_IF_ERROR(VerifyRun(run, blocks, first, next - 1));
    first = next;
  }
  return {};
}

}  // namespace

Result<ContentPiece> ChunkStoreImpl::PieceOfChunk(const Digest256& id, uint32_t expected_length,
                                                  uint32_t offset, uint32_t length) {
  ContentPiece piece;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    piece = {};
    piece.length = length;
    if (blob.table.plain_length != expected_length)
      return Error(Code::kCorruption, "the chunk is not as long as the map says");
    if (blob.table.all_raw && blobs_.properties().has_files) {
      ASSIGN_OR_RETURN(std::shared_ptr<base::File> file, blobs_.OpenFile(BlobName(blob.ref)));
      RETURN_IF_ERROR(VerifyFileRun(*file, blob.table.blocks, blob.table.BlockAt(offset),
                                    blob.table.BlockAt(offset + length - 1)));
      piece.descriptor = file->descriptor();
      piece.file_offset = offset;
      piece.owner = std::move(file);
      return {};
    }
    auto bytes = std::make_shared<Bytes>(length);
    RETURN_IF_ERROR(ReadBlocks(blob, offset, bytes->view(), /*keep=*/false));
    piece.bytes = bytes->view();
    piece.owner = std::move(bytes);
    return {};
  }));
  return piece;
}

}  // namespace chunkstore
