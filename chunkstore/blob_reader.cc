#include <algorithm>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>

#include "base/check.h"
#include "base/log.h"
#include "chunkstore/chunk_store_impl.h"
#include "chunkstore/zstd_frames.h"

// Reading blobs: finding and opening them, their blocks, whole ones, and runs of their files.

namespace chunkstore {
namespace {

using base::ByteView;
using base::Code;
using base::Digest256;
using base::Error;
using base::MutableByteView;
using base::Result;

constexpr uint32_t kVerifyRunBytes =
    256 * base::kKiB;  // of a file are hashed while they are in the core's cache

Error CorruptChunk(const Digest256& id, std::string_view what) {
  return Error(Code::kCorruption, "chunk " + id.hex() + ": " + std::string(what));
}

bool IsWhollyIn(const Block& block, uint32_t offset, size_t length) {
  return block.plain_offset >= offset && block.plain_offset + block.plain_length <= offset + length;
}

// What of the block falls into [offset, ...).
void CopyPart(const Block& block, const uint8_t* plain, uint32_t offset, MutableByteView into) {
  const uint32_t from = std::max(offset, block.plain_offset);
  const uint32_t to = std::min(offset + static_cast<uint32_t>(into.size()),
                               block.plain_offset + block.plain_length);
  std::memcpy(into.data() + (from - offset), plain + (from - block.plain_offset), to - from);
}

}  // namespace

Result<BlobTable> ChunkStoreImpl::ReadTable(const BlobRef& ref, uint64_t stored_length) {
  Bytes tail(TailReadBytes(stored_length));
  RETURN_IF_ERROR(blobs_.Get(BlobName(ref), stored_length - tail.size_bytes, tail.view()));
  ASSIGN_OR_RETURN(BlobTable table, DecodeTable(tail.view(), stored_length));
  if (table.id != ref.id) return Error(Code::kCorruption, "the blob has another id than its name");
  return table;
}

Result<std::shared_ptr<const OpenBlob>> ChunkStoreImpl::FindBlob(const Digest256& id,
                                                                 const Record& record) {
  auto blob = std::make_shared<OpenBlob>();
  blob->ref = {id, record.suffix};
  blob->stored_length = record.stored_length;
  ASSIGN_OR_RETURN(blob->table, ReadTable(blob->ref, record.stored_length));
  if (blob->table.kind != record.kind || blob->table.plain_length != record.plain_length)
    return Error(Code::kCorruption, "the blob is not the one that its record says");
  return std::shared_ptr<const OpenBlob>(std::move(blob));
}

Result<void> ChunkStoreImpl::WithBlob(const Digest256& id, const BlobReader& read, Whose whose) {
  std::shared_ptr<const OpenBlob> blob = cache_.FindBlob(id);
  uint64_t tried = 0;  // the blob that failed
  int strikes = 0;     // twice: it is the blob, and not the way to it
  std::optional<Error> failure;
  const auto lacks = [&](const OpenBlob& opened) {
    return opened.table.partial && whose == Whose::kChunk;
  };
  if (blob && !lacks(*blob)) {
    Result<void> done = read(*blob);
    if (done.has_value()) return done;
    tried = blob->ref.suffix;
    failure = done.error();
    cache_.EraseBlob(id);
  }
  while (true) {
    const bool suspect =
        failure && (failure->code() == Code::kNotFound || failure->code() == Code::kCorruption);
    if (failure && !suspect) return *failure;
    ASSIGN_OR_RETURN(const std::optional<Record> record, references_.Find(id));
    if (!record) return Error(Code::kNotFound, "chunk " + id.hex() + " is not stored (any more)");
    // What is lent may be right where the rest is not: each block is verified by itself.
    if (record->bad && (whose == Whose::kChunk || record->suffix == 0))
      return CorruptChunk(id, "quarantined because its blob is corrupt or lost");
    if (failure && record->suffix == tried && ++strikes == 2) {
      Quarantine({id, tried}, *failure);
      return CorruptChunk(id, failure->message());
    }
    tried = record->suffix;
    failure.reset();
    Result<std::shared_ptr<const OpenBlob>> opened = FindBlob(id, *record);
    if (opened.has_value()) {
      if (lacks(**opened)) return CorruptChunk(id, "only what others share of it is left");
      cache_.InsertBlob(*opened);  // first: blocks are kept beside their table
      Result<void> done = read(**opened);
      if (done.has_value()) return done;
      cache_.EraseBlob(id);
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

Result<Bytes> ChunkStoreImpl::ReadStored(const BlobRef& ref, uint64_t stored_length,
                                         BlobTable* table) {
  if (stored_length == 0 || stored_length > BlobStore::kMaxBlobBytes)
    return Error(Code::kCorruption, "a blob of " + std::to_string(stored_length) + " bytes");
  Bytes stored(stored_length);
  RETURN_IF_ERROR(blobs_.Get(BlobName(ref), 0, stored.view()));
  ASSIGN_OR_RETURN(*table, DecodeTable(ByteView(stored.view()).last(TailReadBytes(stored_length)),
                                       stored_length));
  if (table->id != ref.id) return Error(Code::kCorruption, "the blob has another id than its name");
  return stored;
}

Result<std::shared_ptr<Bytes>> ChunkStoreImpl::LoadOwn(const BlobRef& ref, uint64_t stored_length,
                                                       BlobTable* table) {
  ASSIGN_OR_RETURN(const Bytes stored, ReadStored(ref, stored_length, table));
  auto plain = std::make_shared<Bytes>(table->plain_length);
  for (const Block& block : table->blocks) {
    if (!block.is_here()) continue;
    RETURN_IF_ERROR(DecodeBlock(block,
                                stored.view().subspan(block.stored_offset, block.stored_length),
                                plain->view().subspan(block.plain_offset, block.plain_length)));
  }
  return plain;
}

Result<std::shared_ptr<const Bytes>> ChunkStoreImpl::LoadBlob(const BlobRef& ref,
                                                              uint64_t stored_length,
                                                              BlobTable* table) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Bytes> plain, LoadOwn(ref, stored_length, table));
  const std::vector<Block>& blocks = table->blocks;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].form != Block::Form::kElsewhere) continue;
    const size_t last = EndOfLoan(*table, i, blocks.size() - 1);
    const uint32_t begin = blocks[i].plain_offset;
    const uint32_t end = blocks[last].plain_offset + blocks[last].plain_length;
    RETURN_IF_ERROR(ReadBorrowed(*table, i, last, plain->view().subspan(begin, end - begin)));
    i = last;
  }
  if (!table->partial && base::Sha256(plain->view()) != ref.id)
    return Error(Code::kCorruption, "the plain bytes don't have the SHA-256 that names them");
  return std::shared_ptr<const Bytes>(plain);
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

Result<void> ChunkStoreImpl::ReadChunk(const Digest256& id, uint32_t expected_length,
                                       uint32_t offset, MutableByteView into, bool keep) {
  const size_t there = TryReadChunk(id, expected_length, offset, into);
  if (there == into.size()) return {};
  const auto read = [&](const OpenBlob& blob) -> Result<void> {
    if (blob.table.plain_length != expected_length)
      return Error(Code::kCorruption, "the chunk is not as long as the map says");
    return ReadBlocks(blob, offset + static_cast<uint32_t>(there), into.subspan(there), keep);
  };
  return WithBlob(id, std::cref(read));  // a reference: no memory is taken for each read
}

size_t ChunkStoreImpl::TryReadChunk(const Digest256& id, uint32_t expected_length, uint32_t offset,
                                    MutableByteView into) {
  size_t done = 0;
  while (done < into.size()) {
    const size_t count = cache_.Copy(id, expected_length, offset + static_cast<uint32_t>(done),
                                     into.subspan(done), BlockCache::Miss::kUncounted);
    if (count == 0) break;
    done += count;
  }
  return done;
}

// Blocks that the cache has are copied; runs of others are read in one piece each.
Result<void> ChunkStoreImpl::ReadBlocks(const OpenBlob& blob, uint32_t offset, MutableByteView into,
                                        bool keep) {
  while (!into.empty()) {
    size_t done =
        cache_.Copy(blob.ref.id, blob.table.plain_length, offset, into, BlockCache::Miss::kCounted);
    if (done == 0) {
      ASSIGN_OR_RETURN(done, ReadMissing(blob, offset, into, keep));
    }
    offset += static_cast<uint32_t>(done);
    into = into.subspan(done);
  }
  return {};
}

Result<size_t> ChunkStoreImpl::ReadMissing(const OpenBlob& blob, uint32_t offset,
                                           MutableByteView into, bool keep) {
  const std::vector<Block>& blocks = blob.table.blocks;
  const uint32_t end = offset + static_cast<uint32_t>(into.size());
  const size_t first = blob.table.BlockAt(offset);
  size_t next = first + 1;
  while (next < blocks.size() && blocks[next].plain_offset < end &&
         !cache_.HasBlock(blob.ref.id, blocks[next])) {
    ++next;
  }
  const Block& last = blocks[next - 1];
  const size_t count = std::min(end, last.plain_offset + last.plain_length) - offset;
  RETURN_IF_ERROR(ReadRun(blob, first, next - 1, offset, into.first(count), keep));
  return count;
}

// Reads blocks first..last and gives out what falls into [offset, ...). What the blob has of them
// lies in one piece; what it borrows is read of the owners, run by run.
Result<void> ChunkStoreImpl::ReadRun(const OpenBlob& blob, size_t first, size_t last,
                                     uint32_t offset, MutableByteView into, bool keep) {
  const std::vector<Block>& blocks = blob.table.blocks;
  const uint32_t begin = blocks[first].stored_offset;
  Bytes stored(blocks[last].stored_offset + blocks[last].stored_length - begin);
  if (stored.size_bytes > 0) RETURN_IF_ERROR(blobs_.Get(BlobName(blob.ref), begin, stored.view()));
  for (size_t number = first; number <= last; ++number) {
    const Block& block = blocks[number];
    if (!block.is_here()) {
      ASSIGN_OR_RETURN(number, ReadLoan(blob, number, last, offset, into, keep));
      continue;
    }
    const ByteView raw =
        ByteView(stored.view()).subspan(block.stored_offset - begin, block.stored_length);
    if (IsWhollyIn(block, offset, into.size()) && !keep) {
      RETURN_IF_ERROR(
          DecodeBlock(block, raw, into.subspan(block.plain_offset - offset, block.plain_length)));
      continue;
    }
    auto plain = std::make_unique_for_overwrite<uint8_t[]>(block.plain_length);
    RETURN_IF_ERROR(DecodeBlock(block, raw, {plain.get(), block.plain_length}));
    CopyPart(block, plain.get(), offset, into);
    if (keep) cache_.InsertBlock(blob.ref.id, block, std::move(plain));
  }
  return {};
}

// The same for the blocks from `first` on, up to `last`, that lie with it in one piece of an owner;
// returns the last of them.
Result<size_t> ChunkStoreImpl::ReadLoan(const OpenBlob& blob, size_t first, size_t last,
                                        uint32_t offset, MutableByteView into, bool keep) {
  const std::vector<Block>& blocks = blob.table.blocks;
  CHECK(blocks[first].form == Block::Form::kElsewhere);  // WithBlob: it is no partial one
  const size_t end = EndOfLoan(blob.table, first, last);
  const uint32_t plain_begin = blocks[first].plain_offset;
  const uint32_t plain_end = blocks[end].plain_offset + blocks[end].plain_length;
  if (plain_begin >= offset && plain_end <= offset + into.size()) {
    const MutableByteView part = into.subspan(plain_begin - offset, plain_end - plain_begin);
    RETURN_IF_ERROR(ReadBorrowed(blob.table, first, end, part));
    for (size_t i = first; keep && i <= end; ++i)
      Keep(blob.ref.id, blocks[i], part.data() + (blocks[i].plain_offset - plain_begin));
    return end;
  }
  Bytes plain(plain_end - plain_begin);
  RETURN_IF_ERROR(ReadBorrowed(blob.table, first, end, plain.view()));
  for (size_t i = first; i <= end; ++i) {
    const uint8_t* of_block = plain.data.get() + (blocks[i].plain_offset - plain_begin);
    CopyPart(blocks[i], of_block, offset, into);
    if (keep) Keep(blob.ref.id, blocks[i], of_block);
  }
  return end;
}

void ChunkStoreImpl::Keep(const Digest256& id, const Block& block, const uint8_t* plain) {
  auto own = std::make_unique_for_overwrite<uint8_t[]>(block.plain_length);
  std::memcpy(own.get(), plain, block.plain_length);
  cache_.InsertBlock(id, block, std::move(own));
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

static_assert(kMaxBlockBytes <= kMaxRawFrameBytes);

Result<std::vector<ContentPiece>> ChunkStoreImpl::FramesOfChunk(const Digest256& id,
                                                                uint32_t expected_length,
                                                                uint32_t offset, uint32_t length) {
  std::vector<ContentPiece> pieces;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    pieces.clear();
    if (blob.table.plain_length != expected_length)
      return Error(Code::kCorruption, "the chunk is not as long as the map says");
    const std::vector<Block>& blocks = blob.table.blocks;
    size_t first = blob.table.BlockAt(offset);
    if (blocks[first].plain_offset < offset) ++first;
    const size_t last = blob.table.BlockAt(offset + length - 1);
    if (first > last) return {};  // no block begins there
    if (blob.table.all_raw && blobs_.properties().has_files) {
      ASSIGN_OR_RETURN(pieces, FileFrames(blob, first, last));
      return {};
    }
    while (first <= last) {
      ASSIGN_OR_RETURN(first, NextFrames(blob, first, last, &pieces));
    }
    return {};
  }));
  return pieces;
}

// Frames of what lies in one place from block `first` on, up to `last`; returns the next block.
Result<size_t> ChunkStoreImpl::NextFrames(const OpenBlob& blob, size_t first, size_t last,
                                          std::vector<ContentPiece>* pieces) {
  const std::vector<Block>& blocks = blob.table.blocks;
  size_t end = first;
  if (blocks[first].is_here()) {
    while (end < last && blocks[end + 1].is_here()) ++end;
    ASSIGN_OR_RETURN(ContentPiece stored, StoredFrames(blob, first, end));
    pieces->push_back(std::move(stored));
    return end + 1;
  }
  CHECK(blocks[first].form == Block::Form::kElsewhere);
  end = EndOfLoan(blob.table, first, last);
  ASSIGN_OR_RETURN(ContentPiece borrowed, BorrowedFrames(blob.table, first, end));
  pieces->push_back(std::move(borrowed));
  return end + 1;
}

// Read behind the room that the heads of raw blocks need; then what is stored moves forward, to
// where it lies in the stream.
Result<ContentPiece> ChunkStoreImpl::StoredFrames(const OpenBlob& blob, size_t first, size_t last) {
  const std::span<const Block> blocks(&blob.table.blocks[first], last - first + 1);
  const auto is_raw = [](const Block& block) { return block.form == Block::Form::kRaw; };
  const size_t room =
      kRawFrameHeadBytes * static_cast<size_t>(std::ranges::count_if(blocks, is_raw));
  const uint32_t begin = blocks.front().stored_offset;
  auto bytes = std::make_shared<Bytes>(room + blocks.back().stored_offset +
                                       blocks.back().stored_length - begin);
  RETURN_IF_ERROR(blobs_.Get(BlobName(blob.ref), begin, bytes->view().subspan(room)));
  uint8_t* to = bytes->view().data();
  for (const Block& block : blocks) {
    const ByteView stored =
        bytes->view().subspan(room + block.stored_offset - begin, block.stored_length);
    RETURN_IF_ERROR(VerifyStored(block, stored));
    if (is_raw(block)) {
      const std::string head = RawFrameHead(block.plain_length);
      std::memcpy(to, head.data(), head.size());
      to += head.size();
    }
    if (to != stored.data()) std::memmove(to, stored.data(), stored.size());
    to += stored.size();
  }
  ContentPiece piece;
  piece.length = bytes->size_bytes;
  piece.bytes = bytes->view();
  piece.owner = std::move(bytes);
  return piece;
}

Result<std::vector<ContentPiece>> ChunkStoreImpl::FileFrames(const OpenBlob& blob, size_t first,
                                                             size_t last) {
  static const std::string* const full = new std::string(RawFrameHead(kMaxRawFrameBytes));
  const std::vector<Block>& blocks = blob.table.blocks;
  ASSIGN_OR_RETURN(const std::shared_ptr<base::File> file, blobs_.OpenFile(BlobName(blob.ref)));
  RETURN_IF_ERROR(VerifyFileRun(*file, blocks, first, last));
  std::vector<ContentPiece> pieces;
  const uint32_t end = blocks[last].stored_offset + blocks[last].stored_length;
  for (uint32_t at = blocks[first].stored_offset; at < end;) {
    const uint32_t count = std::min(end - at, kMaxRawFrameBytes);
    ContentPiece head;
    head.length = kRawFrameHeadBytes;
    head.bytes = base::AsBytes(*full);
    if (count < kMaxRawFrameBytes) {
      auto own = std::make_shared<const std::string>(RawFrameHead(count));
      head.bytes = base::AsBytes(*own);
      head.owner = std::move(own);
    }
    pieces.push_back(std::move(head));
    ContentPiece run;
    run.length = count;
    run.descriptor = file->descriptor();
    run.file_offset = at;
    run.owner = file;
    pieces.push_back(std::move(run));
    at += count;
  }
  return pieces;
}

}  // namespace chunkstore
