#include <gtest/gtest.h>

#include "chunkstore/layers/block_log.h"
#include "chunkstore/layers/caching.h"
#include "tests/chunkstore/layers/world.h"
#include "tests/support/fault_files.h"
#include "tests/support/temp_dir.h"

// Who goes and who stays.

namespace chunkstore::layers {
namespace {

constexpr uint64_t kLimit = 16 * base::kMiB;

TEST(PlaceIndexTest, ChangesOnlyWhatIsStillSo) {
  PlaceIndex index;
  const Place a{.offset = 4096, .length = 1}, b{.offset = (uint64_t{1} << 44) - 1, .length = 1};
  const Place large{.offset = 7, .length = kMaxBlockBytes};
  EXPECT_FALSE(index.Find(5));
  index.Put(5, a);
  EXPECT_EQ(index.Find(5)->place, a);
  EXPECT_FALSE(index.Find(5)->used);
  EXPECT_FALSE(index.SetUsed(5, b, true));
  EXPECT_TRUE(index.SetUsed(5, a, true));
  EXPECT_TRUE(index.Find(5)->used);
  EXPECT_FALSE(index.Move(5, b, a));
  EXPECT_TRUE(index.Move(5, a, b));
  EXPECT_EQ(index.Find(5)->place, b);
  EXPECT_FALSE(index.Find(5)->used) << "it entered another queue";
  EXPECT_FALSE(index.Erase(5, a));
  index.Put(5, large);
  EXPECT_EQ(index.Find(5)->place, large);
  EXPECT_EQ(index.blocks(), 1u);
  EXPECT_EQ(index.bytes(), kMaxBlockBytes);
  EXPECT_TRUE(index.Erase(5, large));
  EXPECT_EQ(index.blocks() + index.bytes(), 0u);
  EXPECT_FALSE(index.Erase(5, large));
}

class EvictionTest : public testing::Test {
 protected:
  EvictionTest() { Open(); }
  void Open() {
    cache_.reset();
    metrics_ = std::make_unique<base::Metrics>();
    auto opened = BlockDiskCache::Open({.directory = "/cache", .limit_bytes = kLimit}, *metrics_,
                                       files_, base::SystemClock());
    ASSERT_OK(opened);
    cache_ = std::move(*opened);
  }
  void Fill(ImageInMemory& image, uint64_t seed, int chunks) {
    for (int i = 0; i < chunks; ++i)
      image.AddChunk(RandomText(seed * 1000 + static_cast<uint64_t>(i), kChunkBytes));
  }
  void ReadAll(ImageInMemory& image) {
    for (uint64_t i = 0; i < image.chunks(); ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
  }
  // As a guest does that reads a file from its beginning to its end.
  void ReadInSteps(ImageInMemory& image) {
    for (uint64_t i = 0; i < image.chunks(); ++i)
      for (uint32_t at = 0; at < kChunkBytes; at += 4096)
        ASSERT_TRUE(ReadsRight(*cache_, image, i, at, 4096));
  }
  // How much of an image is here.
  double ShareOf(ImageInMemory& image) {
    const uint64_t before = image.fetched_blocks;
    ReadAll(image);
    return 1 - static_cast<double>(image.fetched_blocks - before) /
                   static_cast<double>(image.AllBlocks().size());
  }

  support::FaultFiles files_;
  std::unique_ptr<base::Metrics> metrics_;
  std::unique_ptr<BlockDiskCache> cache_;
};

TEST_F(EvictionTest, AScanDoesNotPushOutWhatIsUsedAgain) {
  ImageInMemory used, scan;
  Fill(used, 1, 2);
  Fill(scan, 2, 12);
  ReadAll(used);
  ReadAll(used);
  ReadAll(scan);
  EXPECT_GT(ShareOf(used), 0.85) << "all but what was written last when it was used again";
  EXPECT_GT(cache_->stats().evicted_blocks, 0u);
}

TEST_F(EvictionTest, AScanInSmallStepsIsOneUse) {
  ImageInMemory used, scan;
  Fill(used, 1, 2);
  Fill(scan, 2, 12);
  ReadAll(used);
  ReadAll(used);
  ReadInSteps(scan);
  EXPECT_GT(ShareOf(used), 0.85);
}

TEST_F(EvictionTest, WhatIsUsedNoMoreGoesInTheEnd) {
  ImageInMemory old, now;
  Fill(old, 1, 2);
  Fill(now, 2, 3);
  ReadAll(old);
  ReadAll(old);
  ImageInMemory scans[3];
  for (uint64_t i = 0; i < 3; ++i) {
    Fill(scans[i], 10 + i, 6);
    ReadAll(now);
    ReadAll(now);
    ReadAll(scans[i]);
  }
  EXPECT_GT(ShareOf(now), 0.85);
  EXPECT_LT(ShareOf(old), 0.5);
}

// A working set that comes back after it was pushed out stays the second time.
TEST_F(EvictionTest, WhoComesBackSoonStays) {
  ImageInMemory image, scan;
  Fill(image, 1, 2);
  Fill(scan, 2, 6);
  ReadAll(image);
  ReadAll(scan);
  ASSERT_LT(ShareOf(image), 0.2);  // which reads it again, and it is known
  ImageInMemory other;
  Fill(other, 3, 12);
  ReadAll(other);
  EXPECT_GT(ShareOf(image), 0.85);
}

TEST_F(EvictionTest, AllThatIsUsedDoesNotStopWhatIsNew) {
  ImageInMemory hot, fresh;
  Fill(hot, 1, 3);
  for (int i = 0; i < 3; ++i) ReadAll(hot);
  for (int i = 0; i < 8; ++i) {
    ImageInMemory next;  // no more than a tenth
    next.AddChunk(RandomText(50 + static_cast<uint64_t>(i), base::kMiB));
    ReadAll(hot);
    ReadAll(next);
    EXPECT_EQ(cache_->stats().unkept_blocks, 0u);
    EXPECT_GT(ShareOf(next), 0.9) << "what came last is here";
  }
}

TEST_F(EvictionTest, HalfOfItPinnedAndTheOtherHalfWorks) {
  ImageInMemory pinned, more;
  Fill(pinned, 1, 2);  // 8 MiB, all that may be
  Fill(more, 2, 10);
  ReadAll(more);
  ASSERT_OK(cache_->Pin("pinned", pinned.AllBlocks()));
  // A block here, a block there: pinned ones lie among others.
  for (uint64_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(ChunkReadsRight(*cache_, more, i));
    for (uint32_t at = 0; at < 2; ++at)
      ASSERT_TRUE(ReadsRight(*cache_, pinned, at, static_cast<uint32_t>(i) * kChunkBytes / 10,
                             kChunkBytes / 10));
  }
  ReadAll(pinned);
  const uint64_t fetched = pinned.fetched_blocks;
  for (int i = 0; i < 3; ++i) {
    ReadAll(more);
    Open();
  }
  ReadAll(pinned);
  EXPECT_EQ(pinned.fetched_blocks, fetched);
  ImageInMemory last;
  last.AddChunk(RandomText(3, base::kMiB));
  ReadAll(last);
  EXPECT_EQ(cache_->stats().unkept_blocks, 0u);
  EXPECT_GT(ShareOf(last), 0.9);
}

// --- at random, beside the plain bytes

struct Model {
  explicit Model(uint64_t model_seed) : seed(model_seed), random(model_seed) {
    for (uint64_t i = 0; i < 8; ++i) {
      image.AddChunk(MixedText(seed * 100 + i, 1 + random() % kChunkBytes));
      // A sibling: some chunks are the same, some in part.
      std::string changed = image.plain(i);
      if (i % 2 == 0) changed.replace(random() % changed.size(), 1, "?");
      if (i % 3 == 0) changed = MixedText(seed * 100 + 50 + i, 1 + random() % kChunkBytes);
      sibling.AddChunk(std::move(changed));
    }
  }
  ImageInMemory& Either() { return random() % 2 == 0 ? image : sibling; }

  uint64_t seed;
  std::mt19937_64 random;
  ImageInMemory image, sibling;
};

class RandomWalkTest : public EvictionTest, public testing::WithParamInterface<uint64_t> {
 protected:
  void Step(Model& model) {
    auto& random = model.random;
    ImageInMemory& image = model.Either();
    const uint64_t index = random() % image.chunks();
    const uint64_t size = image.plain(index).size();
    switch (random() % 20) {
      case 0:
        ASSERT_OK(cache_->Warm(image, index, image.table(index), image.AllNumbers(index)));
        break;
      case 1: {
        std::vector<BlockName> names;
        for (const BlockInfo& info : image.table(index))
          if (random() % 2 == 0) names.push_back(info.name);
        ASSERT_OK(cache_->Drop(names));
        break;
      }
      case 2:
        (void)cache_->Pin(std::to_string(random() % 3), image.table(index));
        break;
      case 3:
        (void)cache_->Unpin(std::to_string(random() % 3));
        break;
      case 4:
        Open();
        break;
      case 5:
        for (int i = 0; i < 20; ++i)
          files_.FlipBit("/cache/blocks",
                         random() % (files_.Stat("/cache/blocks")->size_bytes * 8));
        break;
      case 6:
        if (random() % 10 == 0) ASSERT_OK(cache_->DropAll());
        break;
      default: {
        const auto offset = static_cast<uint32_t>(random() % size);
        const uint64_t length = 1 + random() % (size - offset);
        ASSERT_TRUE(ReadsRight(*cache_, image, index, offset,
                               random() % 2 == 0 ? length : std::min<uint64_t>(length, 5000)));
      }
    }
    const auto stats = cache_->stats();
    ASSERT_LE(stats.used_bytes, stats.disk_bytes);
    ASSERT_LE(stats.disk_bytes, stats.limit_bytes);
    ASSERT_LE(files_.used_bytes(), stats.limit_bytes);
  }
};

TEST_P(RandomWalkTest, NeverWrongBytesAndNeverTooMany) {
  Model model(GetParam());
  for (int step = 0; step < 300 && !HasFatalFailure(); ++step) Step(model);
  EXPECT_GT(model.image.fetches, 0u);
}
INSTANTIATE_TEST_SUITE_P(Seeds, RandomWalkTest, testing::Range(uint64_t{1}, uint64_t{9}));

}  // namespace
}  // namespace chunkstore::layers
