#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "chunkstore/blob_format.h"
#include "chunkstore/local/local_blob_store.h"
#include "chunkstore/map.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/chunkstore/stored_blocks.h"
#include "tests/support/temp_dir.h"

// Contents as the blocks that are stored.

namespace chunkstore::testing {
namespace {

using base::Code;

std::string BytesOf(const std::vector<ContentPiece>& pieces) {
  std::string bytes;
  for (const ContentPiece& piece : pieces) {
    EXPECT_FALSE(piece.hole);
    if (piece.descriptor < 0) {
      EXPECT_EQ(piece.length, piece.bytes.size());
      bytes += base::AsText(piece.bytes);
      continue;
    }
    std::string run(piece.length, '?');
    EXPECT_EQ(
        ::pread(piece.descriptor, run.data(), run.size(), static_cast<off_t>(piece.file_offset)),
        static_cast<ssize_t>(run.size()));
    bytes += run;
  }
  return bytes;
}

// Reads these blocks of a chunk and compares them with its bytes.
void ExpectBlocks(Content& content, uint64_t index, std::string_view chunk,
                  const std::vector<StoredBlock>& table, const std::vector<size_t>& numbers,
                  bool* files) {
  ASSERT_OK_AND_ASSIGN(const BlockBytes read, content.ReadBlocks(index, numbers));
  ASSERT_EQ(read.blocks.size(), numbers.size());
  const std::string bytes = BytesOf(read.pieces);
  size_t at = 0;
  for (size_t i = 0; i < numbers.size(); ++i) {
    const StoredBlock& block = read.blocks[i];
    EXPECT_EQ(block.plain_offset, table[numbers[i]].plain_offset);
    EXPECT_EQ(block.stored_length, table[numbers[i]].stored_length);
    ASSERT_LE(block.stored_length, bytes.size() - at);
    ASSERT_OK_AND_ASSIGN(
        const std::string plain,
        DecodeStored(block, base::AsBytes(bytes).subspan(at, block.stored_length)));
    EXPECT_TRUE(plain == chunk.substr(block.plain_offset, block.plain_length));
    at += block.stored_length;
  }
  EXPECT_EQ(at, bytes.size());
  for (const ContentPiece& piece : read.pieces) *files = *files || piece.descriptor >= 0;
}

// All numbers, every third one, and the last alone.
std::vector<std::vector<size_t>> Choices(size_t blocks) {
  std::vector<std::vector<size_t>> choices(3);
  for (size_t i = 0; i < blocks; ++i) choices[0].push_back(i);
  for (size_t i = 0; i < blocks; i += 3) choices[1].push_back(i);
  choices[2].push_back(blocks - 1);
  return choices;
}

// `*files`: something came as a run of a file.
void ExpectBlocksOf(ChunkStore& store, const Spec& spec, bool* files) {
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(store, "h", spec));
  ASSERT_OK_AND_ASSIGN(const auto content, store.Open(root));
  for (size_t index = 0; index < spec.seeds.size(); ++index) {
    const std::string chunk = spec.ChunkAt(index);
    ASSERT_OK_AND_ASSIGN(const std::vector<StoredBlock> table, content->BlocksOf(index));
    if (spec.seeds[index] == 0) {
      EXPECT_TRUE(table.empty());
      EXPECT_OK(content->ReadBlocks(index, {}));
      EXPECT_ERROR(content->ReadBlocks(index, std::vector<size_t>{0}), Code::kInvalidArgument);
      continue;
    }
    uint32_t at = 0;
    for (const StoredBlock& block : table) {
      EXPECT_EQ(block.plain_offset, at);
      at += block.plain_length;
      if (&block != &table.front() && &block != &table.back()) continue;
      // Where it says that the bytes lie, they do.
      std::string owner(kChunkBytes, '?');
      if (block.owner == base::Sha256(base::AsBytes(chunk))) owner.resize(chunk.size());
      ASSERT_OK(
          store.ReadChunk(block.owner, {reinterpret_cast<uint8_t*>(owner.data()), owner.size()}));
      EXPECT_EQ(base::Xxh3(base::AsBytes(owner).subspan(block.owner_offset, block.plain_length)),
                block.hash);
    }
    EXPECT_EQ(at, chunk.size());
    for (const std::vector<size_t>& numbers : Choices(table.size())) {
      ExpectBlocks(*content, index, chunk, table, numbers, files);
    }
  }
  ASSERT_OK(store.Release("h"));
}

std::vector<Spec> Contents() {
  return {Spec{{1, 2, 0, 3}, 100'001}, Spec{{2, 4}, kChunkBytes}, Spec{{0, 0}, 5}, Spec{{1}, 1}};
}

TEST(ChunkStoreBlocks, AreTheContentOverMemory) {
  World world;
  bool files = false;
  for (const Spec& spec : Contents()) ExpectBlocksOf(world.store(), spec, &files);
  EXPECT_FALSE(files);
}

TEST(ChunkStoreBlocks, AreTheContentOverFiles) {
  support::TempDir dir;
  MemoryMetaStore meta;
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(auto blobs, local::LocalBlobStore::Open(base::SystemFiles(), dir.path()));
  ASSERT_OK_AND_ASSIGN(auto store, ChunkStore::Open({.reserve_bytes = 0}, *blobs, meta,
                                                    base::SystemClock(), metrics));
  bool files = false;
  for (const Spec& spec : Contents()) ExpectBlocksOf(*store, spec, &files);
  EXPECT_TRUE(files);
}

TEST(ChunkStoreBlocks, AskedForWronglyAreNoCorruption) {
  World world;
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "h", Spec{{1, 2}, 100}));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  ASSERT_OK_AND_ASSIGN(const auto table, content->BlocksOf(0));
  ASSERT_GT(table.size(), 2u);
  EXPECT_ERROR(content->BlocksOf(2), Code::kInvalidArgument);
  EXPECT_ERROR(content->BlocksOf(UINT64_MAX), Code::kInvalidArgument);
  for (const std::vector<size_t>& wrong :
       {std::vector<size_t>{table.size()}, {SIZE_MAX}, {1, 1}, {1, 0}}) {
    EXPECT_ERROR(content->ReadBlocks(0, wrong), Code::kInvalidArgument);
  }
  EXPECT_ERROR(content->ReadBlocks(2, std::vector<size_t>{0}), Code::kInvalidArgument);
  ExpectClean(world.store());  // nothing was set aside for it
  ASSERT_OK_AND_ASSIGN(const BlockBytes none, content->ReadBlocks(0, {}));
  EXPECT_TRUE(none.blocks.empty() && none.pieces.empty());
}

}  // namespace
}  // namespace chunkstore::testing
