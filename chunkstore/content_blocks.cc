#include <algorithm>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "chunkstore/chunk_store_impl.h"

// Blocks as they are stored, for those who keep them elsewhere: what a chunk consists of, and the
// bytes of some of it, unopened.

namespace chunkstore {

using base::Code;
using base::Digest256;
using base::Error;
using base::Result;

namespace {

// As it is stored in this table's own blob. What lies elsewhere: as if it were stored as it is.
StoredBlock DescribeAlone(const BlobTable& table, const Block& block) {
  StoredBlock stored;
  stored.plain_offset = block.plain_offset;
  stored.plain_length = block.plain_length;
  stored.stored_length = block.is_here() ? block.stored_length : block.plain_length;
  stored.compressed = block.form == Block::Form::kZstd;
  stored.hash = block.hash;
  stored.owner = block.is_here() ? table.id : table.owners[block.owner];
  stored.owner_offset = block.is_here() ? block.plain_offset : block.owner_offset;
  return stored;
}

// The end of the longest beginning of `numbers` whose blocks lie in one blob.
size_t EndOfBlob(const std::vector<Block>& blocks, std::span<const size_t> numbers) {
  const Block& first = blocks[numbers.front()];
  size_t end = 1;
  while (end < numbers.size() && blocks[numbers[end]].is_here() == first.is_here() &&
         blocks[numbers[end]].owner == first.owner)
    ++end;
  return end;
}

Result<void> CheckLength(const OpenBlob& blob, uint32_t expected_length) {
  if (blob.table.plain_length == expected_length) return {};
  return Error(Code::kCorruption, "the chunk is not as long as the map says");
}

Result<void> CheckNumbers(std::span<const size_t> numbers, size_t blocks) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] >= blocks) {
      return Error(Code::kInvalidArgument, "block " + std::to_string(numbers[i]) +
                                               " of a chunk of " + std::to_string(blocks));
    }
    if (i > 0 && numbers[i] <= numbers[i - 1]) {
      return Error(Code::kInvalidArgument, "the numbers of the blocks do not ascend");
    }
  }
  return {};
}

// The end of the longest beginning of `numbers` whose blocks lie one behind the other in the blob.
size_t EndOfRun(const std::vector<Block>& blocks, std::span<const size_t> numbers) {
  size_t end = 1;
  while (end < numbers.size()) {
    const Block& last = blocks[numbers[end - 1]];
    if (blocks[numbers[end]].stored_offset != last.stored_offset + last.stored_length) break;
    ++end;
  }
  return end;
}

// Numbers of blocks that follow one another, as [first, last].
std::vector<std::pair<size_t, size_t>> Neighbours(std::span<const size_t> numbers) {
  std::vector<std::pair<size_t, size_t>> runs;
  for (const size_t number : numbers) {
    if (runs.empty() || runs.back().second + 1 != number) runs.emplace_back(number, number);
    runs.back().second = number;
  }
  return runs;
}

}  // namespace

Result<std::vector<StoredBlock>> ChunkStoreImpl::Describe(const BlobTable& table,
                                                          std::span<const size_t> numbers) {
  std::vector<StoredBlock> described;
  for (const size_t number : numbers)
    described.push_back(DescribeAlone(table, table.blocks[number]));
  for (size_t owner = 0; owner < table.owners.size(); ++owner) {
    const auto look = [&](const OpenBlob& blob) -> Result<void> {
      for (size_t i = 0; i < numbers.size(); ++i) {
        const Block& block = table.blocks[numbers[i]];
        if (block.is_here() || block.owner != owner) continue;
        const Block* theirs = OwnersBlock(blob.table, block);
        if (theirs == nullptr) continue;
        described[i].stored_length = theirs->stored_length;
        described[i].compressed = theirs->form == Block::Form::kZstd;
      }
      return {};
    };
    const bool asked = std::any_of(numbers.begin(), numbers.end(), [&](size_t number) {
      return !table.blocks[number].is_here() && table.blocks[number].owner == owner;
    });
    if (asked) RETURN_IF_ERROR(WithBlob(table.owners[owner], std::cref(look), Whose::kBorrowers));
  }
  return described;
}

Result<std::vector<StoredBlock>> ChunkStoreImpl::BlocksOfChunk(const Digest256& id,
                                                               uint32_t expected_length) {
  std::vector<StoredBlock> blocks;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    RETURN_IF_ERROR(CheckLength(blob, expected_length));
    std::vector<size_t> all(blob.table.blocks.size());
    std::iota(all.begin(), all.end(), size_t{0});
    ASSIGN_OR_RETURN(blocks, Describe(blob.table, all));
    return {};
  }));
  return blocks;
}

Result<ContentPiece> ChunkStoreImpl::StoredRuns(const OpenBlob& blob,
                                                std::span<const size_t> numbers) {
  const std::vector<Block>& blocks = blob.table.blocks;
  uint64_t total_bytes = 0;
  for (const size_t number : numbers) total_bytes += blocks[number].stored_length;
  auto bytes = std::make_shared<Bytes>(total_bytes);
  base::MutableByteView into = bytes->view();
  while (!numbers.empty()) {
    const size_t end = EndOfRun(blocks, numbers);
    const Block& first = blocks[numbers.front()];
    const Block& last = blocks[numbers[end - 1]];
    const uint32_t length = last.stored_offset + last.stored_length - first.stored_offset;
    RETURN_IF_ERROR(blobs_.Get(BlobName(blob.ref), first.stored_offset, into.first(length)));
    for (const size_t number : numbers.first(end)) {
      const Block& block = blocks[number];
      RETURN_IF_ERROR(VerifyStored(block, into.first(block.stored_length)));
      into = into.subspan(block.stored_length);
    }
    numbers = numbers.subspan(end);
  }
  ContentPiece piece;
  piece.length = bytes->size_bytes;
  piece.bytes = bytes->view();
  piece.owner = std::move(bytes);
  return piece;
}

// Where a block was cut otherwise since (Describe), its plain bytes.
Result<void> ChunkStoreImpl::BorrowedRuns(const BlobTable& table, std::span<const size_t> numbers,
                                          std::vector<ContentPiece>* pieces) {
  const Digest256& owner = table.owners[table.blocks[numbers.front()].owner];
  ContentPiece piece;
  bool fits = true;
  bool same = true;
  const auto read = [&](const OpenBlob& blob) -> Result<void> {
    std::vector<size_t> theirs;
    for (const size_t number : numbers) {
      const Block& borrowed = table.blocks[number];
      const Block* block = OwnersBlock(blob.table, borrowed);
      fits = LiesIn(blob.table, borrowed.owner_offset, borrowed.plain_length);
      same = block != nullptr;
      if (!same) return {};
      theirs.push_back(static_cast<size_t>(block - blob.table.blocks.data()));
    }
    ASSIGN_OR_RETURN(piece, StoredRuns(blob, theirs));
    return {};
  };
  RETURN_IF_ERROR(WithOwner(owner, std::cref(read), fits));
  if (same) {
    pieces->push_back(std::move(piece));
    return {};
  }
  if (numbers.size() > 1) {
    for (size_t i = 0; i < numbers.size(); ++i)
      RETURN_IF_ERROR(BorrowedRuns(table, numbers.subspan(i, 1), pieces));
    return {};
  }
  auto plain = std::make_shared<Bytes>(table.blocks[numbers.front()].plain_length);
  RETURN_IF_ERROR(ReadBorrowed(table, numbers.front(), numbers.front(), plain->view()));
  piece.length = plain->size_bytes;
  piece.bytes = plain->view();
  piece.owner = std::move(plain);
  pieces->push_back(std::move(piece));
  return {};
}

Result<BlockBytes> ChunkStoreImpl::ReadBlocksOfChunk(const Digest256& id, uint32_t expected_length,
                                                     std::span<const size_t> numbers) {
  BlockBytes read;
  bool in_file = false;
  // What the caller got wrong is no reason to look at the blob again, so it is kept beside.
  Result<void> asked;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    read = {};
    RETURN_IF_ERROR(CheckLength(blob, expected_length));
    asked = CheckNumbers(numbers, blob.table.blocks.size());
    if (!asked.has_value() || numbers.empty()) return {};
    ASSIGN_OR_RETURN(read.blocks, Describe(blob.table, numbers));
    in_file = blob.table.all_raw && blobs_.properties().has_files;
    if (in_file) return {};
    for (std::span<const size_t> left = numbers; !left.empty();) {
      const std::span<const size_t> some = left.first(EndOfBlob(blob.table.blocks, left));
      left = left.subspan(some.size());
      if (!blob.table.blocks[some.front()].is_here()) {
        RETURN_IF_ERROR(BorrowedRuns(blob.table, some, &read.pieces));
        continue;
      }
      ASSIGN_OR_RETURN(ContentPiece piece, StoredRuns(blob, some));
      read.pieces.push_back(std::move(piece));
    }
    uint64_t off_by = 0;
    for (const StoredBlock& block : read.blocks) off_by += block.stored_length;
    for (const ContentPiece& piece : read.pieces) off_by -= piece.length;
    if (off_by != 0) return Error(Code::kUnavailable, "a chunk was written anew: read it again");
    return {};
  }));
  RETURN_IF_ERROR(asked);
  if (!in_file) return read;
  // Stored as they are: runs of the chunk's plain bytes.
  size_t at = 0;
  for (const auto& [first, last] : Neighbours(numbers)) {
    const uint32_t offset = read.blocks[at].plain_offset;
    at += last - first;
    const StoredBlock& end = read.blocks[at++];
    ASSIGN_OR_RETURN(
        ContentPiece piece,
        PieceOfChunk(id, expected_length, offset, end.plain_offset + end.plain_length - offset));
    read.pieces.push_back(std::move(piece));
  }
  return read;
}

}  // namespace chunkstore
