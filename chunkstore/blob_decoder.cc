#include <algorithm>
#include <functional>
#include <memory>

#include <fmt/format.h>
#include <zstd.h>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/blob_layout.h"

namespace chunkstore {

using base::Code;
using base::Error;
using base::Result;

namespace {

Error Corrupt(std::string_view what) {
  return Error(Code::kCorruption, fmt::format("bad blob: {}", what));
}

struct Trailer {
  uint8_t kind = 0;
  uint16_t flags = 0;
  uint32_t plain_length = 0;
  uint32_t table_length = 0;
  uint32_t block_count = 0;
  uint32_t owner_count = 0;
  bool sharing = false;  // version 2
  base::Digest256 id;
};

// Magic, version and the fields alone; the check sum needs the table as well.
Result<Trailer> ReadTrailer(std::string_view bytes) {
  Trailer trailer;
  base::Decoder in(bytes);
  ASSIGN_OR_RETURN(std::string_view magic, in.Bytes(layout::kMagic.size()));
  if (magic != layout::kMagic) return Corrupt("it does not end in a trailer");
  ASSIGN_OR_RETURN(uint8_t version, in.Fixed<uint8_t>());
  trailer.sharing = version == layout::kVersionSharing;
  if (version != layout::kVersion && !trailer.sharing) {
    return Corrupt(
        fmt::format("format version {} is not known; a newer Quarry may read it", version));
  }
  ASSIGN_OR_RETURN(trailer.kind, in.Fixed<uint8_t>());
  ASSIGN_OR_RETURN(trailer.flags, in.Fixed<uint16_t>());
  ASSIGN_OR_RETURN(trailer.plain_length, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(trailer.table_length, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(trailer.block_count, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(trailer.owner_count, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(std::string_view id, in.Bytes(sizeof(trailer.id.bytes)));
  ASSIGN_OR_RETURN(trailer.id, base::Digest256::FromBytes(id));
  return trailer;
}

Result<void> CheckTrailer(const Trailer& trailer, uint64_t blob_bytes) {
  if (trailer.kind < 1 || trailer.kind > 3) return Corrupt("unknown kind");
  if ((trailer.flags & ~(layout::kFlagAllRaw | layout::kFlagPartial)) != 0) {
    return Corrupt("unknown flags");
  }
  const bool partial = (trailer.flags & layout::kFlagPartial) != 0;
  if (trailer.sharing != (partial || trailer.owner_count > 0) || trailer.owner_count > kMaxOwners ||
      (partial && trailer.owner_count > 0)) {
    return Corrupt("its version does not fit its owners and flags");
  }
  if (trailer.sharing && trailer.kind != static_cast<uint8_t>(BlobKind::kChunk)) {
    return Corrupt("only chunks share blocks");
  }
  if (trailer.plain_length == 0 || trailer.plain_length > kChunkBytes) {
    return Corrupt("impossible plain length");
  }
  if (trailer.block_count == 0 || trailer.block_count > kMaxBlocks) {
    return Corrupt("impossible number of blocks");
  }
  if (trailer.table_length !=
      trailer.block_count * kTableEntryBytes + trailer.owner_count * kOwnerBytes) {
    return Corrupt("the table's length does not fit its number of blocks");
  }
  if (uint64_t{trailer.table_length} + kTrailerBytes > blob_bytes) {
    return Corrupt("it is shorter than its table");
  }
  return {};
}

// What lies here: its stored bytes begin where those of the block before end.
Result<void> CheckHere(const Block& block, uint32_t stored_at, uint32_t stored_end) {
  if (stored_at != stored_end) return Corrupt("blocks overlap or leave a gap");
  bool raw = block.form == Block::Form::kRaw;
  if (raw && (block.stored_length != block.plain_length || block.stored_check != block.hash.low)) {
    return Corrupt("a raw block that is not stored as it is");
  }
  if (!raw && (block.stored_length == 0 || block.stored_length >= block.plain_length)) {
    return Corrupt("a compressed block of impossible length");
  }
  return {};
}

// What lies in another blob, or nowhere (any more).
Result<void> CheckNotHere(const Block& block, const Trailer& trailer) {
  if (block.stored_length != 0 || block.stored_check != 0) {
    return Corrupt("a block that is not here and has stored bytes");
  }
  const bool partial = (trailer.flags & layout::kFlagPartial) != 0;
  if (block.form == Block::Form::kAbsent) {
    if (!partial || block.owner != 0 || block.owner_offset != 0) return Corrupt("a block is lost");
    return {};
  }
  if (block.owner >= trailer.owner_count || block.owner_offset % kBlockGridBytes != 0 ||
      block.owner_offset > kChunkBytes - block.plain_length) {
    return Corrupt("a block that lies nowhere");
  }
  return {};
}

// One entry. Plain bytes begin where those of the block before end.
Result<Block> ReadEntry(base::Decoder& in, const Trailer& trailer, uint32_t plain_offset,
                        uint32_t stored_end) {
  Block block;
  block.plain_offset = plain_offset;
  ASSIGN_OR_RETURN(block.plain_length, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(block.stored_length, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(uint32_t at, in.Fixed<uint32_t>());
  ASSIGN_OR_RETURN(uint8_t form, in.Fixed<uint8_t>());
  ASSIGN_OR_RETURN(uint8_t reserved, in.Fixed<uint8_t>());
  ASSIGN_OR_RETURN(block.owner, in.Fixed<uint16_t>());
  ASSIGN_OR_RETURN(block.hash.low, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(block.hash.high, in.Fixed<uint64_t>());
  ASSIGN_OR_RETURN(block.stored_check, in.Fixed<uint64_t>());
  const uint8_t last_form = trailer.sharing ? 3 : 1;
  if (form > last_form || reserved != 0) return Corrupt("a block of unknown form");
  block.form = static_cast<Block::Form>(form);
  if (block.plain_length == 0 || block.plain_length > kMaxBlockBytes ||
      plain_offset % kBlockGridBytes != 0) {
    return Corrupt("a block of impossible length");
  }
  block.stored_offset = stored_end;
  if (block.is_here()) {
    if (block.owner != 0) return Corrupt("a block of unknown form");
    RETURN_IF_ERROR(CheckHere(block, at, stored_end));
  } else {
    block.owner_offset = at;
    RETURN_IF_ERROR(CheckNotHere(block, trailer));
  }
  return block;
}

// Lengths are at most kMaxBlockBytes and there are at most kMaxBlocks: the sums fit 32 bits.
Result<void> ReadEntries(base::Decoder& in, const Trailer& trailer, BlobTable* table) {
  uint32_t plain_end = 0;
  uint32_t stored_end = 0;
  table->all_raw = true;
  table->blocks.reserve(trailer.block_count);
  std::vector<bool> used(trailer.owner_count);
  for (uint32_t i = 0; i < trailer.block_count; ++i) {
    ASSIGN_OR_RETURN(Block block, ReadEntry(in, trailer, plain_end, stored_end));
    plain_end += block.plain_length;
    stored_end += block.stored_length;
    if (block.form != Block::Form::kRaw) table->all_raw = false;
    if (block.form == Block::Form::kAbsent) table->partial = true;
    if (block.form == Block::Form::kElsewhere) used[block.owner] = true;
    table->blocks.push_back(block);
  }
  if (plain_end != table->plain_length) return Corrupt("its blocks are not its plain length");
  if (!std::ranges::all_of(used, std::identity())) return Corrupt("an owner that owns nothing");
  return {};
}

Result<void> ReadOwners(base::Decoder& in, const Trailer& trailer, BlobTable* table) {
  for (uint32_t i = 0; i < trailer.owner_count; ++i) {
    ASSIGN_OR_RETURN(std::string_view id, in.Bytes(kOwnerBytes));
    ASSIGN_OR_RETURN(base::Digest256 owner, base::Digest256::FromBytes(id));
    if (owner == trailer.id || std::ranges::find(table->owners, owner) != table->owners.end()) {
      return Corrupt("an owner that is itself, or named twice");
    }
    table->owners.push_back(owner);
  }
  return {};
}

// Zstd's context of this thread: making one for each block would cost more than the block.
ZSTD_DCtx* ThreadContext() {
  struct FreeContext {
    void operator()(ZSTD_DCtx* owned) const { ZSTD_freeDCtx(owned); }
  };
  thread_local std::unique_ptr<ZSTD_DCtx, FreeContext> context(ZSTD_createDCtx());
  CHECK(context != nullptr);
  return context.get();
}

Error BadBlock(const Block& block, std::string_view what) {
  return Error(Code::kCorruption,
               fmt::format("bad block at byte {} of the blob: {}", block.stored_offset, what));
}

}  // namespace

size_t BlobTable::BlockAt(uint32_t plain_offset) const {
  CHECK(plain_offset < plain_length);
  auto after = std::upper_bound(
      blocks.begin(), blocks.end(), plain_offset,
      [](uint32_t offset, const Block& block) { return offset < block.plain_offset; });
  return static_cast<size_t>(after - blocks.begin()) - 1;
}

uint32_t BlobTable::borrowed_bytes() const {
  uint32_t bytes = 0;
  for (const Block& block : blocks) {
    if (block.form == Block::Form::kElsewhere) bytes += block.plain_length;
  }
  return bytes;
}

uint64_t TailReadBytes(uint64_t blob_bytes) {
  constexpr uint64_t kLongest =
      kMaxBlocks * kTableEntryBytes + kMaxOwners * kOwnerBytes + kTrailerBytes;
  return std::min(blob_bytes, kLongest);
}

Result<BlobTable> DecodeTable(base::ByteView tail, uint64_t blob_bytes) {
  if (tail.size() < kTrailerBytes || tail.size() > blob_bytes) return Corrupt("it is cut short");
  std::string_view text = base::AsText(tail);
  ASSIGN_OR_RETURN(Trailer trailer, ReadTrailer(text.substr(text.size() - kTrailerBytes)));
  RETURN_IF_ERROR(CheckTrailer(trailer, blob_bytes));
  uint32_t needed = trailer.table_length + kTrailerBytes;
  if (needed > tail.size()) {
    return Error(Code::kTooLarge, fmt::format("the table needs the last {} bytes", needed));
  }
  std::string_view summed = text.substr(text.size() - needed);
  base::Decoder check(summed.substr(needed - sizeof(uint64_t)));
  summed.remove_suffix(sizeof(uint64_t));
  ASSIGN_OR_RETURN(uint64_t sum, check.Fixed<uint64_t>());
  if (base::Xxh3(base::AsBytes(summed)).low != sum) return Corrupt("its table is damaged");

  BlobTable table;
  table.kind = static_cast<BlobKind>(trailer.kind);
  table.id = trailer.id;
  table.plain_length = trailer.plain_length;
  base::Decoder in(summed.substr(0, trailer.table_length));
  RETURN_IF_ERROR(ReadEntries(in, trailer, &table));
  RETURN_IF_ERROR(ReadOwners(in, trailer, &table));
  const Block& last = table.blocks.back();
  if (uint64_t{last.stored_offset} + last.stored_length + needed != blob_bytes) {
    return Corrupt("its length is not that of its parts");
  }
  if (table.all_raw != ((trailer.flags & layout::kFlagAllRaw) != 0) ||
      table.partial != ((trailer.flags & layout::kFlagPartial) != 0)) {
    return Corrupt("its flags do not fit its blocks");
  }
  return table;
}

Result<void> VerifyStored(const Block& block, base::ByteView stored) {
  if (stored.size() != block.stored_length) return BadBlock(block, "it is cut short");
  if (base::Xxh3(stored).low != block.stored_check) {
    return BadBlock(block, "its stored bytes are not what was written");
  }
  return {};
}

Result<void> DecodeBlock(const Block& block, base::ByteView stored, base::MutableByteView out) {
  CHECK(out.size() == block.plain_length && block.is_here());
  if (block.form == Block::Form::kRaw) {
    RETURN_IF_ERROR(VerifyRawBlock(block, stored));
    std::copy(stored.begin(), stored.end(), out.begin());
    return {};
  }
  RETURN_IF_ERROR(VerifyStored(block, stored));
  size_t size =
      ZSTD_decompressDCtx(ThreadContext(), out.data(), out.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) || size != out.size() || base::Xxh3(out) != block.hash) {
    return BadBlock(block, "it does not decompress to what was written");
  }
  return {};
}

Result<void> VerifyRawBlock(const Block& block, base::ByteView stored) {
  CHECK(block.form == Block::Form::kRaw);
  if (stored.size() != block.stored_length || base::Xxh3(stored) != block.hash) {
    return BadBlock(block, "its stored bytes are not what was written");
  }
  return {};
}

}  // namespace chunkstore
