#include "chunkstore/block_cache.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace chunkstore {
namespace {

using base::Digest256;
using Miss = BlockCache::Miss;

constexpr uint32_t kBlockBytes = 16 * base::kKiB;
constexpr uint32_t kBlocks = 8;  // of a chunk
constexpr uint32_t kPlainBytes = kBlocks * kBlockBytes;

Digest256 IdOf(uint32_t chunk) {
  return base::Sha256(base::AsBytes("chunk" + std::to_string(chunk)));
}

uint8_t ByteAt(uint32_t chunk, uint32_t offset) {
  return static_cast<uint8_t>(chunk * 31 + offset / 512 * 7 + offset);
}

// All blocks are of one size, but for the first two, which take `first` bytes and what is left.
std::shared_ptr<const OpenBlob> MakeBlob(uint32_t chunk, uint32_t first = kBlockBytes) {
  auto blob = std::make_shared<OpenBlob>();
  blob->ref.id = IdOf(chunk);
  blob->table.id = IdOf(chunk);
  blob->table.plain_length = kPlainBytes;
  for (uint32_t i = 0; i < kBlocks; ++i) {
    const uint32_t from = i == 1 ? first : i * kBlockBytes;
    const uint32_t to = i == 0 ? first : (i + 1) * kBlockBytes;
    blob->table.blocks.push_back({.plain_offset = from, .plain_length = to - from});
  }
  return blob;
}

void InsertBlock(BlockCache& cache, uint32_t chunk, const Block& block) {
  auto plain = std::make_unique<uint8_t[]>(block.plain_length);
  for (uint32_t i = 0; i < block.plain_length; ++i)
    plain[i] = ByteAt(chunk, block.plain_offset + i);
  cache.InsertBlock(IdOf(chunk), block, std::move(plain));
}

// As a read does that found neither: the table first, then the block.
void Insert(BlockCache& cache, uint32_t chunk, uint32_t block) {
  if (!cache.FindBlob(IdOf(chunk))) cache.InsertBlob(MakeBlob(chunk));
  InsertBlock(cache, chunk, MakeBlob(chunk)->table.blocks[block]);
}

// How many bytes were there; fails if one is wrong.
size_t Copy(BlockCache& cache, uint32_t chunk, uint32_t offset, size_t length) {
  std::vector<uint8_t> bytes(length, 0xEE);
  const size_t count = cache.Copy(IdOf(chunk), kPlainBytes, offset, bytes, Miss::kCounted);
  for (size_t i = 0; i < count; ++i) {
    if (bytes[i] != ByteAt(chunk, offset + static_cast<uint32_t>(i))) {
      ADD_FAILURE() << "byte " << offset + i << " of chunk " << chunk << " is wrong";
      break;
    }
  }
  EXPECT_TRUE(std::all_of(bytes.begin() + static_cast<ptrdiff_t>(count), bytes.end(),
                          [](uint8_t byte) { return byte == 0xEE; }));
  return count;
}

bool Has(BlockCache& cache, uint32_t chunk, uint32_t block) {
  return Copy(cache, chunk, block * kBlockBytes, 1) == 1;
}

class BlockCacheTest : public ::testing::Test {
 protected:
  double Hits() { return metrics_.GetCounter("quarry_chunkstore_cache_hits_total", "").value(); }
  double Misses() {
    return metrics_.GetCounter("quarry_chunkstore_cache_misses_total", "").value();
  }
  static constexpr uint64_t kLimit = base::kMiB;

  base::Metrics metrics_;
  BlockCache cache_{kLimit, metrics_};
};

TEST_F(BlockCacheTest, CopiesAsFarAsBlocksAreHere) {
  EXPECT_EQ(Copy(cache_, 1, 0, 512), 0u);
  for (const uint32_t block : {1, 2, 4, 7}) Insert(cache_, 1, block);
  EXPECT_EQ(Copy(cache_, 1, 0, 512), 0u);
  EXPECT_EQ(Copy(cache_, 1, kBlockBytes, 512), 512u);
  EXPECT_EQ(Copy(cache_, 1, kBlockBytes + 5000, 2 * kBlockBytes), 2 * kBlockBytes - 5000);
  EXPECT_EQ(Copy(cache_, 1, 2 * kBlockBytes - 1, 2), 2u);
  EXPECT_EQ(Copy(cache_, 1, 3 * kBlockBytes - 1, 2), 1u);
  EXPECT_EQ(Copy(cache_, 1, kPlainBytes - 1, 1), 1u);
  EXPECT_EQ(Copy(cache_, 1, kPlainBytes - 10, 20), 10u);  // the chunk ends
  EXPECT_EQ(Copy(cache_, 2, kBlockBytes, 512), 0u);
  uint8_t byte = 0;
  EXPECT_EQ(cache_.Copy(IdOf(1), kPlainBytes + 1, kBlockBytes, {&byte, 1}, Miss::kCounted), 0u);
}

TEST_F(BlockCacheTest, CopiesBlocksOfAnyLengthAndNotTooMuchAtOnce) {
  constexpr uint32_t kFirst = 4 * base::kKiB;
  const auto blob = MakeBlob(1, kFirst);
  cache_.InsertBlob(blob);
  for (const Block& block : blob->table.blocks) InsertBlock(cache_, 1, block);
  for (uint32_t at = 0; at < kPlainBytes; at += kBlockGridBytes / 2)
    EXPECT_EQ(Copy(cache_, 1, at, 6000), std::min<size_t>(6000, kPlainBytes - at)) << at;

  auto large = std::make_shared<OpenBlob>();
  large->table = {.id = IdOf(2), .plain_length = 3 * kMaxBlockBytes};
  for (uint32_t i = 0; i < 3; ++i)
    large->table.blocks.push_back(
        {.plain_offset = i * kMaxBlockBytes, .plain_length = kMaxBlockBytes});
  cache_.InsertBlob(large);
  for (const Block& block : large->table.blocks) InsertBlock(cache_, 2, block);
  std::vector<uint8_t> bytes(3 * kMaxBlockBytes);
  EXPECT_EQ(cache_.Copy(IdOf(2), 3 * kMaxBlockBytes, 0, bytes, Miss::kCounted),
            BlockCache::kMaxCopyBytes);
}

TEST_F(BlockCacheTest, KeepsBlocksBesideTheirTableOnly) {
  const auto blob = MakeBlob(1);
  InsertBlock(cache_, 1, blob->table.blocks[0]);
  EXPECT_EQ(cache_.size_bytes(), 0u);

  cache_.InsertBlob(blob);
  InsertBlock(cache_, 1, MakeBlob(1, 4096)->table.blocks[1]);  // no block of this table
  EXPECT_FALSE(Has(cache_, 1, 1));
  InsertBlock(cache_, 1, blob->table.blocks[1]);
  EXPECT_TRUE(Has(cache_, 1, 1));
  EXPECT_TRUE(cache_.HasBlock(IdOf(1), blob->table.blocks[1]));
  EXPECT_FALSE(cache_.HasBlock(IdOf(1), blob->table.blocks[2]));
  EXPECT_FALSE(cache_.HasBlock(IdOf(1), MakeBlob(1, 4096)->table.blocks[1]));

  cache_.InsertBlob(MakeBlob(1, 4096));  // replaces
  EXPECT_FALSE(Has(cache_, 1, 1));
  Insert(cache_, 1, 2);
  EXPECT_TRUE(Has(cache_, 1, 2));
  cache_.EraseBlob(IdOf(1));
  EXPECT_EQ(cache_.FindBlob(IdOf(1)), nullptr);
  EXPECT_FALSE(Has(cache_, 1, 2));
  EXPECT_EQ(cache_.size_bytes(), 0u);
  cache_.EraseBlob(IdOf(1));
}

TEST_F(BlockCacheTest, APageAndABlobOfOneIdAreTwo) {
  auto page = std::make_shared<MapPage>();
  page->level = 1;
  cache_.InsertPage(IdOf(1), page);
  EXPECT_EQ(cache_.FindBlob(IdOf(1)), nullptr);
  cache_.InsertBlob(MakeBlob(1));
  cache_.EraseBlob(IdOf(1));
  ASSERT_EQ(cache_.FindPage(IdOf(1)), page);
  EXPECT_EQ(cache_.FindPage(IdOf(2)), nullptr);
}

TEST_F(BlockCacheTest, KeepsItsLimitAndSurvivesAScan) {
  for (uint32_t block = 0; block < kBlocks; ++block) Insert(cache_, 0, block);
  for (uint32_t block = 0; block < kBlocks; ++block) ASSERT_TRUE(Has(cache_, 0, block));
  for (uint32_t chunk = 1; chunk < 200; ++chunk) {
    for (uint32_t block = 0; block < kBlocks; ++block) {
      Insert(cache_, chunk, block);
      ASSERT_LE(cache_.size_bytes(), kLimit);
    }
  }
  EXPECT_GE(cache_.size_bytes(), kLimit * 9 / 10);
  // What was used twice outlives a scan of twenty times the cache.
  for (uint32_t block = 0; block < kBlocks; ++block) EXPECT_TRUE(Has(cache_, 0, block)) << block;
}

TEST_F(BlockCacheTest, WhatComesBackSoonStays) {
  // Twice as much as there is room for, round and round, and nothing of it used: in plain order of
  // coming none would ever be here when it comes again.
  const uint32_t chunks = 2 * kLimit / kPlainBytes;
  uint32_t found = 0;
  for (uint32_t round = 0; round < 4; ++round) {
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
      for (uint32_t block = 0; block < kBlocks; ++block) {
        if (Has(cache_, chunk, block)) {
          ++found;
        } else {
          Insert(cache_, chunk, block);
        }
      }
    }
  }
  EXPECT_GT(found, chunks * kBlocks / 2);
}

TEST_F(BlockCacheTest, WhatIsTooLargeIsNotKept) {
  BlockCache tiny(10'000, metrics_);
  Insert(tiny, 1, 0);
  EXPECT_NE(tiny.FindBlob(IdOf(1)), nullptr);
  EXPECT_FALSE(Has(tiny, 1, 0));
  BlockCache none(0, metrics_);
  Insert(none, 1, 0);
  EXPECT_EQ(none.FindBlob(IdOf(1)), nullptr);
  EXPECT_EQ(none.size_bytes(), 0u);
}

TEST_F(BlockCacheTest, WhatWasFoundOutlivesItsEviction) {
  cache_.InsertBlob(MakeBlob(1));
  const auto blob = cache_.FindBlob(IdOf(1));
  for (uint32_t chunk = 2; chunk < 100; ++chunk) {
    for (uint32_t block = 0; block < kBlocks; ++block) Insert(cache_, chunk, block);
  }
  cache_.EraseBlob(IdOf(1));
  EXPECT_EQ(blob->table.blocks.size(), kBlocks);
}

TEST_F(BlockCacheTest, CountsHitsAndMisses) {
  Insert(cache_, 1, 0);
  const double hits = Hits();
  const double misses = Misses();
  for (int i = 0; i < 640; ++i) EXPECT_TRUE(Has(cache_, 1, 0));
  EXPECT_NEAR(Hits() - hits, 640, 64);
  EXPECT_FALSE(Has(cache_, 1, 1));
  uint8_t byte = 0;
  EXPECT_EQ(cache_.Copy(IdOf(2), kPlainBytes, 0, {&byte, 1}, Miss::kUncounted), 0u);
  EXPECT_EQ(Misses() - misses, 1);
}

// Readers see right bytes or none, and the limit holds, whoever else inserts, evicts and erases.
TEST_F(BlockCacheTest, ThreadsMeet) {
  constexpr uint32_t kChunks = 12;  // a little more than fits
  std::vector<std::thread> threads;
  std::atomic<uint64_t> found = 0;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 5000; ++i) {
        const uint32_t chunk = static_cast<uint32_t>(random()) % kChunks;
        const uint32_t offset = static_cast<uint32_t>(random()) % kPlainBytes;
        if (Copy(cache_, chunk, offset, 4096) > 0) {
          ++found;
        } else {
          Insert(cache_, chunk, offset / kBlockBytes);
        }
        if (random() % 500 == 0) cache_.EraseBlob(IdOf(chunk));
        if (random() % 100 == 0) cache_.InsertPage(IdOf(chunk), std::make_shared<MapPage>());
        ASSERT_LE(cache_.size_bytes(), kLimit);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(found, 0u);
}

}  // namespace
}  // namespace chunkstore
