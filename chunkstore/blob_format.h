#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/result.h"

// The stored form of a chunk, a map page or a manifest: written down byte by byte in FORMAT.md and
// kept by golden files. A blob explains itself: blocks first (raw bytes or independent zstd
// frames), then a table of blocks, then a fixed trailer with the magic, the version, the kind, the
// plain length and the id.
//
// Format version 1 is a blob by itself. Version 2 is a chunk's blob that borrows blocks of other
// chunks, or one that has only those of its blocks left that others borrow.

namespace chunkstore {

constexpr uint32_t kChunkBytes = 4 * base::kMiB;

// Cuts between blocks lie on this grid inside a chunk, so equal pages at other places still make
// equal blocks.
constexpr uint32_t kBlockGridBytes = 4 * base::kKiB;
constexpr uint32_t kMinBlockBytes = 8 * base::kKiB;
constexpr uint32_t kAverageBlockBytes = 32 * base::kKiB;
constexpr uint32_t kMaxBlockBytes = 128 * base::kKiB;

enum class BlobKind : uint8_t { kChunk = 1, kPage = 2, kManifest = 3 };

struct Block {
  enum class Form : uint8_t {
    kRaw = 0,
    kZstd = 1,
    kElsewhere = 2,  // equal to plain bytes of another chunk, whose blob keeps them
    kAbsent = 3,     // dropped: nobody needs it any more
  };
  uint32_t plain_offset = 0;   // in the plain bytes of the blob
  uint32_t plain_length = 0;   // 1 .. kMaxBlockBytes
  uint32_t stored_offset = 0;  // in the blob; where its own bytes would lie if it has none
  uint32_t stored_length = 0;  // 0: elsewhere, or absent
  Form form = Form::kRaw;
  uint16_t owner = 0;         // elsewhere: which of the table's owners
  uint32_t owner_offset = 0;  // elsewhere: in the owner's plain bytes
  base::Hash128 hash;         // XXH3-128 of the plain bytes
  uint64_t stored_check =
      0;  // low half of the XXH3-128 of the stored bytes: frames can be sent unopened

  bool is_here() const { return form == Form::kRaw || form == Form::kZstd; }
};

// What a blob says of itself. Value type.
struct BlobTable {
  BlobKind kind = BlobKind::kChunk;
  base::Digest256 id;         // SHA-256 of the plain bytes
  uint32_t plain_length = 0;  // 1 .. kChunkBytes
  std::vector<Block> blocks;  // in order, without gaps, over all plain bytes
  bool all_raw = false;  // the first plain_length bytes of the blob ARE the plain bytes: sendfile
  bool partial = false;  // some blocks are absent: the chunk can't be read, what is lent can
  std::vector<base::Digest256> owners;  // chunks that it borrows from

  // The index of the block that holds this plain byte. REQUIRES: plain_offset < plain_length.
  size_t BlockAt(uint32_t plain_offset) const;
  uint32_t borrowed_bytes() const;  // plain bytes of blocks elsewhere
};

// A run of blocks is taken from another chunk if it is at least this long: each run is a read of
// its own. FORMAT.md, "Choosing sizes", has what other values cost.
constexpr uint32_t kMinSharedRunBytes = 32 * base::kKiB;

// A block is stored compressed if that saves at least 1/16 of it, whatever the rest of its chunk is
// like and wherever that lies.
constexpr uint32_t kMinSavingDivisor = 16;

struct EncodeOptions {
  int compression_level = 1;  // zstd's; 0: store raw
};

// A blob on its way to a BlobStore. Its pieces borrow the plain bytes given to EncodeBlob where
// they are raw.
class EncodedBlob {
 public:
  EncodedBlob() = default;
  EncodedBlob(EncodedBlob&&) = default;
  EncodedBlob& operator=(EncodedBlob&&) = default;

  std::span<const base::ByteView> pieces() const { return pieces_; }
  uint64_t stored_bytes() const { return stored_bytes_; }
  const BlobTable& table() const { return table_; }

 private:
  friend class BlobEncoder;
  std::vector<base::ByteView> pieces_;
  std::vector<std::string> owned_;
  uint64_t stored_bytes_ = 0;
  BlobTable table_;
};

// Cuts, compresses what compresses (a cheap probe decides for what does not), hashes. One encoder a
// thread: it keeps zstd's context. `id` is what the caller computed of `plain`.
class BlobEncoder {
 public:
  explicit BlobEncoder(EncodeOptions options);
  ~BlobEncoder();
  // REQUIRES: 1 <= plain.size() <= kChunkBytes. `plain` outlives the EncodedBlob.
  EncodedBlob Encode(BlobKind kind, const base::Digest256& id, base::ByteView plain);

  // The same for a chunk that was cut already (HashBlocks), where some blocks were made kElsewhere.
  // REQUIRES: they are equal to what they name, byte for byte; every owner is named.
  EncodedBlob Encode(const base::Digest256& id, base::ByteView plain, std::vector<Block> blocks,
                     std::vector<base::Digest256> owners);

 private:
  struct Impl;
  EncodedBlob Encode(BlobTable table, base::ByteView plain);
  std::unique_ptr<Impl> impl_;
};

// Ends of the blocks of `plain` (the last is plain.size()): content-defined, on the grid.
std::vector<uint32_t> CutBlocks(base::ByteView plain);
// The same as blocks that know where they are and their hash, and nothing else yet.
std::vector<Block> HashBlocks(base::ByteView plain);

// What is left of a chunk's blob when only some of its blocks are kept: `blob` is all of its bytes,
// `keep` has an entry a block. Blocks are taken as they lie. REQUIRES: what is kept is in the blob.
std::string EncodePartial(const BlobTable& table, base::ByteView blob,
                          const std::vector<bool>& keep);

constexpr uint32_t kTrailerBytes = 64;  // fixed by the format
constexpr uint32_t kTableEntryBytes = 40;
constexpr uint32_t kMaxBlocks = kChunkBytes / kMinBlockBytes;
constexpr uint32_t kOwnerBytes = 32;
constexpr uint32_t kMaxOwners = 128;  // of one blob
constexpr uint32_t kMaxTableBytes = 64 * base::kKiB;

// How many bytes at the end of a blob of `blob_bytes` to read at first: with them a table of usual
// size is complete.
uint64_t TailReadBytes(uint64_t blob_bytes);

// Reads trailer and table from the last bytes of a blob. Input is hostile: every length and sum is
// checked. kCorruption; kTooLarge (with the number in the message) never happens for a blob that
// fits TailReadBytes.
base::Result<BlobTable> DecodeTable(base::ByteView tail, uint64_t blob_bytes);

// Turns the stored bytes of one block into its plain bytes and verifies them. REQUIRES: out.size()
// == block.plain_length. kCorruption.
base::Result<void> DecodeBlock(const Block& block, base::ByteView stored,
                               base::MutableByteView out);

// The block's stored bytes are what was written; a frame is not opened for that. kCorruption.
base::Result<void> VerifyStored(const Block& block, base::ByteView stored);

// The block's stored bytes are its plain bytes, and right. kCorruption.
base::Result<void> VerifyRawBlock(const Block& block, base::ByteView stored);

}  // namespace chunkstore
