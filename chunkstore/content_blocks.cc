#include <algorithm>
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

StoredBlock Describe(const Digest256& id, const Block& block) {
  StoredBlock stored;
  stored.plain_offset = block.plain_offset;
  stored.plain_length = block.plain_length;
  stored.stored_length = block.stored_length;
  stored.compressed = block.form == Block::Form::kZstd;
  stored.hash = block.hash;
  stored.owner = id;
  stored.owner_offset = block.plain_offset;
  return stored;
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

Result<std::vector<StoredBlock>> ChunkStoreImpl::BlocksOfChunk(const Digest256& id,
                                                               uint32_t expected_length) {
  std::vector<StoredBlock> blocks;
  RETURN_IF_ERROR(WithBlob(id, [&](const OpenBlob& blob) -> Result<void> {
    RETURN_IF_ERROR(CheckLength(blob, expected_length));
    blocks.clear();
    blocks.reserve(blob.table.blocks.size());
    for (const Block& block : blob.table.blocks) blocks.push_back(Describe(id, block));
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
    for (const size_t number : numbers) {
      read.blocks.push_back(Describe(id, blob.table.blocks[number]));
    }
    in_file = blob.table.all_raw && blobs_.properties().has_files;
    if (in_file) return {};
    ASSIGN_OR_RETURN(ContentPiece piece, StoredRuns(blob, numbers));
    read.pieces.push_back(std::move(piece));
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
