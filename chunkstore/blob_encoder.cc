#include <array>
#include <cstring>
#include <utility>

#include <zstd.h>

#include "base/check.h"
#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/blob_layout.h"

namespace chunkstore {

namespace {

// The probe looks at a sample of a block. Bytes that are spread as evenly as random ones
// (compressed, encrypted) don't compress further; the sum of squares of how often each value occurs
// tells, without a logarithm.
constexpr size_t kProbeRuns = 64;
constexpr size_t kProbeRunBytes = 16;
constexpr size_t kProbeBytes = kProbeRuns * kProbeRunBytes;

bool SeemsCompressible(base::ByteView plain) {
  if (plain.size() < 4 * kProbeBytes) return true;
  // Two tables, so that equal neighbours don't wait for each other's increment.
  std::array<std::array<uint16_t, 256>, 2> counts{};
  size_t stride = (plain.size() - kProbeRunBytes) / (kProbeRuns - 1);
  for (size_t run = 0; run < kProbeRuns; ++run) {
    const uint8_t* bytes = plain.data() + run * stride;
    for (size_t i = 0; i < kProbeRunBytes; i += 2) {
      ++counts[0][bytes[i]];
      ++counts[1][bytes[i + 1]];
    }
  }
  uint32_t pairs = 0;
  for (size_t value = 0; value < 256; ++value) {
    uint32_t count = counts[0][value] + counts[1][value];
    pairs += count * (count - 1);  // 0 for a count of 0
  }
  // Random bytes give 4092 give or take 91; 6.25 % of saving by entropy alone would give 5790.
  constexpr uint32_t kRandomPairs = kProbeBytes * (kProbeBytes - 1) / 256;
  return pairs > kRandomPairs + kRandomPairs / 4;
}

void AppendEntry(const Block& block, std::string* out) {
  const bool elsewhere = block.form == Block::Form::kElsewhere;
  const bool absent = block.form == Block::Form::kAbsent;
  base::PutFixed<uint32_t>(out, block.plain_length);
  base::PutFixed<uint32_t>(out, block.stored_length);
  base::PutFixed<uint32_t>(out, elsewhere ? block.owner_offset : absent ? 0 : block.stored_offset);
  base::PutFixed<uint8_t>(out, static_cast<uint8_t>(block.form));
  base::PutFixed<uint8_t>(out, 0);
  base::PutFixed<uint16_t>(out, block.owner);
  base::PutFixed<uint64_t>(out, block.hash.low);
  base::PutFixed<uint64_t>(out, block.hash.high);
  base::PutFixed<uint64_t>(out, block.stored_check);
}

std::string TableAndTrailer(const BlobTable& table) {
  std::string out;
  out.reserve(table.blocks.size() * kTableEntryBytes + kTrailerBytes);
  for (const Block& block : table.blocks) AppendEntry(block, &out);
  for (const base::Digest256& owner : table.owners) out.append(owner.view());
  uint32_t table_length = static_cast<uint32_t>(out.size());
  const bool sharing = table.partial || !table.owners.empty();
  const uint32_t flags =
      (table.all_raw ? layout::kFlagAllRaw : 0U) | (table.partial ? layout::kFlagPartial : 0U);
  out.append(layout::kMagic);
  base::PutFixed<uint8_t>(&out, sharing ? layout::kVersionSharing : layout::kVersion);
  base::PutFixed<uint8_t>(&out, static_cast<uint8_t>(table.kind));
  base::PutFixed<uint16_t>(&out, static_cast<uint16_t>(flags));
  base::PutFixed<uint32_t>(&out, table.plain_length);
  base::PutFixed<uint32_t>(&out, table_length);
  base::PutFixed<uint32_t>(&out, static_cast<uint32_t>(table.blocks.size()));
  base::PutFixed<uint32_t>(&out, static_cast<uint32_t>(table.owners.size()));
  out.append(table.id.view());
  base::PutFixed<uint64_t>(&out, base::Xxh3(base::AsBytes(out)).low);
  return out;
}

}  // namespace

struct BlobEncoder::Impl {
  explicit Impl(EncodeOptions encode_options) : options(encode_options) {
    if (options.compression_level == 0) return;
    context.reset(ZSTD_createCCtx());
    CHECK(context != nullptr);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, options.compression_level);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_contentSizeFlag, 1);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 0);  // the table has one
    scratch.resize(ZSTD_compressBound(kMaxBlockBytes));
  }

  // The zstd frame of these bytes, in `scratch`; 0 bytes if it would not save enough.
  std::string_view Compress(base::ByteView plain) {
    size_t enough = plain.size() - plain.size() / kMinSavingDivisor;
    size_t size =
        ZSTD_compress2(context.get(), scratch.data(), scratch.size(), plain.data(), plain.size());
    CHECK(!ZSTD_isError(size));
    if (size >= plain.size() || size > enough) return {};
    return {scratch.data(), size};
  }

  // Compresses the blocks that are here where that pays; returns all frames, one after the other.
  std::string EncodeBlocks(base::ByteView plain, BlobTable* table) {
    std::string frames;
    for (Block& block : table->blocks) {
      if (!block.is_here()) continue;
      base::ByteView bytes = plain.subspan(block.plain_offset, block.plain_length);
      block.stored_length = block.plain_length;
      block.stored_check = block.hash.low;
      if (context == nullptr || !SeemsCompressible(bytes)) continue;
      std::string_view frame = Compress(bytes);
      if (frame.empty()) continue;
      block.form = Block::Form::kZstd;
      block.stored_length = static_cast<uint32_t>(frame.size());
      block.stored_check = base::Xxh3(base::AsBytes(frame)).low;
      if (frames.empty()) frames.reserve(plain.size() / 2);
      frames.append(frame);
    }
    return frames;
  }

  struct FreeContext {
    void operator()(ZSTD_CCtx* owned) const { ZSTD_freeCCtx(owned); }
  };
  const EncodeOptions options;
  std::unique_ptr<ZSTD_CCtx, FreeContext> context;
  std::string scratch;
};

namespace {

uint64_t SavedBytes(const BlobTable& table) {
  uint64_t saved = 0;
  for (const Block& block : table.blocks) {
    if (block.is_here()) saved += block.plain_length - block.stored_length;
  }
  return saved;
}

void MakeAllRaw(BlobTable* table) {
  table->all_raw = true;
  for (Block& block : table->blocks) {
    block.form = Block::Form::kRaw;
    block.stored_length = block.plain_length;
    block.stored_check = block.hash.low;
  }
}

void PlaceBlocks(BlobTable* table) {
  uint32_t offset = 0;
  for (Block& block : table->blocks) {
    block.stored_offset = offset;
    offset += block.stored_length;
  }
}

// Neighbouring blocks of one form make one piece.
std::vector<base::ByteView> Pieces(const BlobTable& table, base::ByteView plain,
                                   base::ByteView frames) {
  std::vector<base::ByteView> pieces;
  size_t frames_used = 0;
  const uint8_t* end_of_last = nullptr;
  for (const Block& block : table.blocks) {
    if (!block.is_here()) continue;
    base::ByteView bytes;
    if (block.form == Block::Form::kRaw) {
      bytes = plain.subspan(block.plain_offset, block.plain_length);
    } else {
      bytes = frames.subspan(frames_used, block.stored_length);
      frames_used += block.stored_length;
    }
    if (bytes.data() == end_of_last) {
      pieces.back() = {pieces.back().data(), pieces.back().size() + bytes.size()};
    } else {
      pieces.push_back(bytes);
    }
    end_of_last = bytes.data() + bytes.size();
  }
  return pieces;
}

}  // namespace

BlobEncoder::BlobEncoder(EncodeOptions options) : impl_(std::make_unique<Impl>(options)) {}
BlobEncoder::~BlobEncoder() = default;

EncodedBlob BlobEncoder::Encode(BlobKind kind, const base::Digest256& id, base::ByteView plain) {
  CHECK(!plain.empty() && plain.size() <= kChunkBytes);
  BlobTable table;
  table.kind = kind;
  table.id = id;
  table.plain_length = static_cast<uint32_t>(plain.size());
  table.blocks = HashBlocks(plain);
  return Encode(std::move(table), plain);
}

EncodedBlob BlobEncoder::Encode(const base::Digest256& id, base::ByteView plain,
                                std::vector<Block> blocks, std::vector<base::Digest256> owners) {
  CHECK(!plain.empty() && plain.size() <= kChunkBytes && owners.size() <= kMaxOwners);
  BlobTable table;
  table.id = id;
  table.plain_length = static_cast<uint32_t>(plain.size());
  table.blocks = std::move(blocks);
  table.owners = std::move(owners);
  return Encode(std::move(table), plain);
}

EncodedBlob BlobEncoder::Encode(BlobTable table, base::ByteView plain) {
  EncodedBlob blob;
  std::string frames = impl_->EncodeBlocks(plain, &table);
  // Not where blocks lie elsewhere: such a blob can't leave by sendfile anyway. And not for the
  // sake of a chunk whose blocks save little: how each block is stored is a matter of its bytes
  // alone, or it would tell those who may see it whether somebody else has other blocks of the
  // chunk.
  if (table.owners.empty() && SavedBytes(table) == 0) MakeAllRaw(&table);
  PlaceBlocks(&table);

  // Both strings first: the pieces borrow from where they come to lie.
  blob.owned_.push_back(std::move(frames));
  blob.owned_.push_back(TableAndTrailer(table));
  blob.pieces_ = Pieces(table, plain, base::AsBytes(blob.owned_[0]));
  blob.pieces_.push_back(base::AsBytes(blob.owned_[1]));
  for (base::ByteView piece : blob.pieces_) blob.stored_bytes_ += piece.size();
  blob.table_ = std::move(table);
  return blob;
}

std::string EncodePartial(const BlobTable& table, base::ByteView blob,
                          const std::vector<bool>& keep) {
  BlobTable left = table;
  left.owners.clear();
  left.all_raw = false;
  std::string out;
  for (size_t i = 0; i < left.blocks.size(); ++i) {
    Block& block = left.blocks[i];
    if (keep[i]) {
      CHECK(block.is_here());
      out.append(base::AsText(blob.subspan(block.stored_offset, block.stored_length)));
      continue;
    }
    left.partial = true;
    block = {.plain_offset = block.plain_offset,
             .plain_length = block.plain_length,
             .form = Block::Form::kAbsent,
             .hash = block.hash};
  }
  CHECK(left.partial);
  PlaceBlocks(&left);
  out += TableAndTrailer(left);
  return out;
}

}  // namespace chunkstore
