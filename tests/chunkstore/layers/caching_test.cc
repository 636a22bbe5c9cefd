#include "chunkstore/layers/caching.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/chunkstore/layers/world.h"
#include "tests/support/temp_dir.h"

namespace chunkstore::layers {
namespace {

using base::Code;
using base::Error;
using base::Result;

class CachingTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  BlockDiskCacheOptions Options(uint64_t limit_bytes = 64 * base::kMiB) {
    return {.directory = dir_ / "cache", .limit_bytes = limit_bytes};
  }
  void Open(uint64_t limit_bytes = 64 * base::kMiB) {
    cache_.reset();
    metrics_ = std::make_unique<base::Metrics>();
    ASSERT_OK_AND_ASSIGN(cache_, BlockDiskCache::Open(Options(limit_bytes), *metrics_,
                                                      base::SystemFiles(), base::SystemClock()));
  }

  support::TempDir dir_;
  std::unique_ptr<base::Metrics> metrics_;
  std::unique_ptr<BlockDiskCache> cache_;
};

TEST_F(CachingTest, ReadsAnyRangeColdAndWarm) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, 1'500'000));
  image.AddChunk(MixedText(2, 4097));
  std::mt19937_64 random(7);
  for (int i = 0; i < 300; ++i) {
    const uint64_t index = random() % 2;
    const size_t size = image.plain(index).size();
    const auto offset = static_cast<uint32_t>(random() % size);
    const size_t length = 1 + random() % std::min<size_t>(size - offset, 300'000);
    ASSERT_TRUE(ReadsRight(*cache_, image, index, offset, length));
  }
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 1));
  EXPECT_EQ(image.fetched_blocks, image.AllBlocks().size()) << "a block was fetched twice";
  EXPECT_TRUE(std::ranges::any_of(image.AllBlocks(), &BlockInfo::compressed));
  EXPECT_FALSE(std::ranges::all_of(image.AllBlocks(), &BlockInfo::compressed));
}

TEST_F(CachingTest, OneReadFetchesOnceAndCounts) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, kChunkBytes));
  ASSERT_TRUE(ReadsRight(*cache_, image, 0, 2'000'000, 1));
  EXPECT_EQ(image.fetches, 1u);
  EXPECT_EQ(image.fetched_blocks, 1u);
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  EXPECT_EQ(image.fetches, 2u) << "what is missing on both sides comes in one call";
  const uint64_t blocks = image.table(0).size();
  auto stats = cache_->stats();
  EXPECT_EQ(stats.blocks, blocks);
  EXPECT_EQ(stats.hit_blocks, 1u);
  EXPECT_EQ(stats.miss_blocks, blocks);
  EXPECT_EQ(stats.hit_plain_bytes + stats.miss_plain_bytes, kChunkBytes + 1);
  EXPECT_EQ(stats.fetched_bytes, image.fetched_bytes);
  EXPECT_EQ(stats.used_bytes, image.fetched_bytes);
  EXPECT_EQ(stats.damaged_blocks + stats.unkept_blocks + stats.evicted_blocks, 0u);
  EXPECT_LE(stats.disk_bytes, stats.limit_bytes);
  EXPECT_THAT(metrics_->Render(),
              testing::HasSubstr("quarry_chunkstore_disk_cache_hit_blocks_total 1"));
}

TEST_F(CachingTest, EmptyAndOutsideReads) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 10'000));
  EXPECT_OK(ReadText(*cache_, image, 0, 10'000, 0));
  EXPECT_ERROR(ReadText(*cache_, image, 0, 10'000, 1), Code::kInvalidArgument);
  EXPECT_ERROR(ReadText(*cache_, image, 0, 10'001, 0), Code::kInvalidArgument);
  EXPECT_ERROR(ReadText(*cache_, image, 0, 0, 10'001), Code::kInvalidArgument);
  EXPECT_ERROR(ReadText(*cache_, image, 0, UINT32_MAX, 2), Code::kInvalidArgument);
  EXPECT_EQ(image.fetches, 0u);
}

TEST_F(CachingTest, TablesThatCannotBeAreRefused) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 10'000));
  uint8_t byte;
  const auto read = [&](std::vector<BlockInfo> table) {
    return cache_->Read(image, 0, table, 0, {&byte, 1});
  };
  const BlockInfo good = image.table(0)[0];
  for (const auto& [plain, stored, compressed] :
       std::vector<std::tuple<uint32_t, uint32_t, bool>>{{0, 1, true},
                                                         {kMaxBlockBytes + 1, 1, true},
                                                         {UINT32_MAX, 1, true},
                                                         {10'000, 0, true},
                                                         {10'000, kMaxBlockBytes + 1, true},
                                                         {10'000, 9'999, false}}) {
    BlockInfo bad = good;
    bad.plain_length = plain;
    bad.stored_length = stored;
    bad.compressed = compressed;
    EXPECT_ERROR(read({bad}), Code::kCorruption);
  }
  BlockInfo large = good;
  large.plain_length = large.stored_length = kMaxBlockBytes;
  EXPECT_ERROR(read(std::vector<BlockInfo>(33, large)), Code::kCorruption) << "over 4 MiB";
  EXPECT_ERROR(read({}), Code::kInvalidArgument);
  EXPECT_EQ(image.fetches, 0u);
}

TEST_F(CachingTest, OtherImagesWithTheSameBlocksFindThem) {
  ImageInMemory one, other;
  one.AddChunk(MixedText(1, kChunkBytes));
  other.AddChunk(MixedText(9, 100'000));
  other.AddChunk(one.plain(0));
  ASSERT_TRUE(ChunkReadsRight(*cache_, one, 0));
  ASSERT_TRUE(ChunkReadsRight(*cache_, other, 1));
  EXPECT_EQ(other.fetches, 0u);
}

TEST_F(CachingTest, EqualBlocksOfOneChunkComeOnce) {
  ImageInMemory image;
  const std::string half = RandomText(1, kMaxBlockBytes);
  std::string whole;
  for (int i = 0; i < 32; ++i) whole += half;
  image.AddChunk(whole);
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  EXPECT_LT(image.fetched_blocks, image.table(0).size());
  EXPECT_EQ(image.fetched_blocks, cache_->stats().blocks);
}

TEST_F(CachingTest, ARestartFindsAll) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 4; ++i) image.AddChunk(MixedText(i, kChunkBytes));
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
  const uint64_t fetched = image.fetched_blocks;
  for (int restart = 0; restart < 3; ++restart) {
    Open();
    EXPECT_EQ(cache_->stats().blocks, image.AllBlocks().size());
    for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
  }
  EXPECT_EQ(image.fetched_blocks, fetched);
}

TEST_F(CachingTest, RestartsFillSegmentsOn) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 40; ++i) {
    image.AddChunk(RandomText(i, 8192));
    ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
    Open();
  }
  EXPECT_EQ(cache_->stats().blocks, 40u);
  EXPECT_LT(cache_->stats().disk_bytes, 4 * base::kMiB) << "a segment for each restart";
}

TEST_F(CachingTest, WhatWasFetchedAheadIsNoHitOfItsFirstReader) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, kChunkBytes));
  const auto& table = image.table(0);
  const std::vector<size_t> ahead = {1, 2, 3};
  ASSERT_OK(cache_->Warm(image, 0, table, ahead));
  EXPECT_EQ(cache_->stats().ahead_fetched_bytes, image.fetched_bytes);
  // Of block 0 a byte, which is missed; all of 1, a part of 2; nobody comes to 3.
  const uint32_t begin = table[0].plain_length - 1;
  const size_t length = 1 + table[1].plain_length + 7;
  for (const bool again : {false, true}) {
    const auto before = cache_->stats();
    ASSERT_TRUE(ReadsRight(*cache_, image, 0, begin, length));
    const auto after = cache_->stats();
    EXPECT_EQ(after.miss_blocks - before.miss_blocks, again ? 0u : 1u);
    EXPECT_EQ(after.ahead_blocks - before.ahead_blocks, again ? 0u : 2u);
    EXPECT_EQ(after.ahead_plain_bytes - before.ahead_plain_bytes, again ? 0u : length - 1);
    EXPECT_EQ(after.hit_blocks - before.hit_blocks, again ? 3u : 0u);
    EXPECT_EQ(after.hit_plain_bytes - before.hit_plain_bytes, again ? length : 0u);
  }
  EXPECT_LT(cache_->stats().ahead_fetched_bytes, image.fetched_bytes);
}

TEST_F(CachingTest, WarmFetchesWhatIsMissingOnly) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, kChunkBytes));
  ASSERT_TRUE(ReadsRight(*cache_, image, 0, 0, 1));
  ASSERT_OK(cache_->Warm(image, 0, image.table(0), image.AllNumbers(0)));
  EXPECT_EQ(image.fetches, 2u);
  EXPECT_EQ(image.fetched_blocks, image.table(0).size());
  ASSERT_OK(cache_->Warm(image, 0, image.table(0), image.AllNumbers(0)));
  EXPECT_EQ(image.fetches, 2u);
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  EXPECT_EQ(image.fetches, 2u);
  EXPECT_EQ(cache_->stats().miss_blocks, 1u);
  const std::vector<size_t> outside = {image.table(0).size()}, backwards = {1, 0}, twice = {2, 2};
  EXPECT_ERROR(cache_->Warm(image, 0, image.table(0), outside), Code::kInvalidArgument);
  ASSERT_OK(cache_->DropAll());
  EXPECT_ERROR(cache_->Warm(image, 0, image.table(0), backwards), Code::kInvalidArgument);
  EXPECT_ERROR(cache_->Warm(image, 0, image.table(0), twice), Code::kInvalidArgument);
}

// --- one fetch for many

TEST_F(CachingTest, FiftyReadersFetchOnce) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 3; ++i) image.AddChunk(MixedText(i, kChunkBytes));
  std::vector<std::thread> readers;
  for (uint64_t reader = 0; reader < 50; ++reader) {
    readers.emplace_back([&, reader] {
      std::mt19937_64 random(reader);
      for (int i = 0; i < 30; ++i) {
        const auto offset = static_cast<uint32_t>(random() % (kChunkBytes - 70'000));
        EXPECT_TRUE(ReadsRight(*cache_, image, random() % 3, offset, 1 + random() % 70'000));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
  EXPECT_EQ(image.fetched_blocks, image.AllBlocks().size());
}

// A source that lets its first fetch wait until somebody opens it.
class HeldFetch {
 public:
  explicit HeldFetch(ImageInMemory& image) {
    image.before_fetch = [this]() -> Result<void> {
      if (seen_++ > 0) return {};
      begun_ = true;
      begun_.notify_all();
      open_.wait(false);
      if (failure) return *failure;
      return {};
    };
  }
  void AwaitBegun() { begun_.wait(false); }
  void Release() {
    open_ = true;
    open_.notify_all();
  }
  std::optional<Error> failure;

 private:
  std::atomic<int> seen_ = 0;
  std::atomic<bool> begun_ = false, open_ = false;
};

TEST_F(CachingTest, WaitersOfTheSameSourceShareItsError) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 8192));
  HeldFetch held(image);
  held.failure = Error(Code::kUnavailable, "the service is away");
  std::thread first([&] { EXPECT_ERROR(ReadText(*cache_, image, 0, 0, 100), Code::kUnavailable); });
  held.AwaitBegun();
  std::thread second([&] {
    const auto read = ReadText(*cache_, image, 0, 0, 100);
    // It may have come when the first had its error already: then it fetched for itself.
    if (!read) EXPECT_ERROR(read, Code::kUnavailable);
  });
  held.Release();
  first.join();
  second.join();
  EXPECT_TRUE(ChunkReadsRight(*cache_, image, 0));
}

TEST_F(CachingTest, TheErrorOfAnotherImageIsNotOurs) {
  ImageInMemory gone, there;
  gone.AddChunk(RandomText(1, 8192));
  there.AddChunk(RandomText(1, 8192));
  HeldFetch held(gone);
  held.failure = Error(Code::kNotFound, "the image is gone");
  std::thread first([&] { EXPECT_ERROR(ReadText(*cache_, gone, 0, 0, 100), Code::kNotFound); });
  held.AwaitBegun();
  std::thread second([&] { EXPECT_TRUE(ReadsRight(*cache_, there, 0, 0, 100)); });
  held.Release();
  first.join();
  second.join();
  EXPECT_EQ(there.fetches, 1u);
}

TEST_F(CachingTest, ErrorsOfTheSourceAreToldAsTheyAre) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 8192));
  for (const Code code : {Code::kUnavailable, Code::kNotFound, Code::kPermissionDenied}) {
    image.before_fetch = [&] { return Result<void>(Error(code, "no")); };
    const uint64_t before = image.fetches;
    EXPECT_ERROR(ReadText(*cache_, image, 0, 0, 100), code);
    EXPECT_EQ(image.fetches, before + 1) << "the source does its own repeating";
  }
  image.before_fetch = nullptr;
  EXPECT_TRUE(ChunkReadsRight(*cache_, image, 0));
}

// --- a source that lies

TEST_F(CachingTest, ALyingSourceIsAskedOnceMoreAndThenRefused) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, 1'000'000));
  const size_t numbers = image.table(0).size();
  ASSERT_GT(numbers, 8u);
  const std::vector<std::function<void(std::string*)>> lies = {
      [](std::string* stored) { (*stored)[stored->size() / 2] ^= 1; },
      [](std::string* stored) { stored->pop_back(); },
      [](std::string* stored) { stored->push_back('x'); },
      [](std::string* stored) { stored->clear(); },
      [](std::string* stored) { *stored = std::string(stored->size(), '\0'); },
      [](std::string* stored) { *stored = RandomText(99, 3 * kMaxBlockBytes); },
  };
  for (const auto& lie : lies) {
    for (size_t number = 0; number < numbers; ++number) {
      ASSERT_OK(cache_->DropAll());
      const uint64_t before = image.fetches;
      image.change = [&](size_t sent, std::string* stored) {
        if (sent == number) lie(stored);
      };
      ASSERT_ERROR(ReadText(*cache_, image, 0, 0, 1'000'000), Code::kCorruption);
      ASSERT_EQ(image.fetches, before + 2);
      ASSERT_EQ(cache_->stats().blocks, numbers - 1) << "what came right is kept, and no more";
      image.change = nullptr;
      ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
      ASSERT_EQ(image.fetches, before + 3);
    }
  }
}

TEST_F(CachingTest, ASlipOfTheSourceIsMended) {
  ImageInMemory image;
  image.AddChunk(MixedText(1, 1'000'000));
  image.change = [&](size_t, std::string* stored) {
    if (image.fetches == 1) (*stored)[0] ^= 1;
  };
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  EXPECT_EQ(image.fetches, 2u);
}

// Sends other numbers than it was asked for.
class Disorderly : public ImageInMemory {
 public:
  Result<void> Fetch(uint64_t index, std::span<const size_t> numbers, const Sink& sink) override {
    ++fetches;
    for (const size_t number : send(numbers)) {
      const std::string stored = plain(index).substr(0, table(index)[number].stored_length);
      RETURN_IF_ERROR(sink(number, base::AsBytes(stored)));
    }
    return {};
  }
  std::function<std::vector<size_t>(std::span<const size_t>)> send;
};

TEST_F(CachingTest, BlocksThatNobodyAskedForAreRefused) {
  Disorderly image;
  image.AddChunk(RandomText(1, 500'000));
  const size_t last = image.table(0).size() - 1;
  using Numbers = std::vector<size_t>;
  for (const auto& send : std::vector<std::function<Numbers(std::span<const size_t>)>>{
           [](auto) { return Numbers{}; }, [&](auto asked) { return Numbers{asked[0], last}; },
           [](auto asked) { return Numbers{asked[0], asked[0]}; },
           [&](auto) { return Numbers{last}; }}) {
    image.send = send;
    const uint64_t before = image.fetches;
    EXPECT_ERROR(ReadText(*cache_, image, 0, 0, image.plain(0).size() / 2), Code::kCorruption);
    EXPECT_LE(image.fetches, before + 2);
  }
  EXPECT_EQ(cache_->stats().damaged_blocks, 0u);
}

TEST_F(CachingTest, TwoBlocksUnderOneNamePushEachOtherOut) {
  ImageInMemory one, other;
  one.AddChunk(RandomText(1, 8192));
  other.AddChunk(RandomText(2, 8192));
  std::vector<BlockInfo> table = other.table(0);
  table[0].name = one.table(0)[0].name;
  std::string into(8192, '?');
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(ChunkReadsRight(*cache_, one, 0));
    ASSERT_OK(
        cache_->Read(other, 0, table, 0, {reinterpret_cast<uint8_t*>(into.data()), into.size()}));
    ASSERT_EQ(into, other.plain(0));
  }
  EXPECT_EQ(cache_->stats().blocks, 1u);
}

// --- the directory

TEST_F(CachingTest, FilesAreNobodyElses) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 8192));
  ASSERT_TRUE(ChunkReadsRight(*cache_, image, 0));
  ASSERT_OK(cache_->Pin("image", image.table(0)));
  struct stat info;
  ASSERT_EQ(stat((dir_ / "cache").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_OK_AND_ASSIGN(const auto names, base::SystemFiles().List(dir_ / "cache"));
  EXPECT_EQ(names.size(), 3u);
  for (const std::string& name : names) {
    ASSERT_EQ(stat((dir_ / "cache/" + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(CachingTest, OneProcessADirectory) {
  base::Metrics metrics;
  const auto second =
      BlockDiskCache::Open(Options(), metrics, base::SystemFiles(), base::SystemClock());
  ASSERT_ERROR(second, Code::kConflict);
  EXPECT_THAT(second.error().message(), testing::HasSubstr(std::to_string(getpid())));
}

TEST_F(CachingTest, DirectoriesOfOthersAreRefused) {
  base::Metrics metrics;
  ASSERT_OK(base::WriteFileDurably(dir_ / "important.doc", "x"));
  BlockDiskCacheOptions options = Options();
  options.directory = dir_.path();
  const auto opened =
      BlockDiskCache::Open(options, metrics, base::SystemFiles(), base::SystemClock());
  ASSERT_ERROR(opened, Code::kConflict);
}

TEST_F(CachingTest, LimitsThatCannotBe) {
  base::Metrics metrics;
  for (const uint64_t limit : {uint64_t{0}, BlockDiskCache::kMinLimitBytes - 1,
                               BlockDiskCache::kMaxLimitBytes + 1, UINT64_MAX}) {
    BlockDiskCacheOptions options = Options(limit);
    options.directory = dir_ / "other";
    EXPECT_ERROR(BlockDiskCache::Open(options, metrics, base::SystemFiles(), base::SystemClock()),
                 Code::kInvalidArgument);
  }
}

// --- dropping

TEST_F(CachingTest, DropIsNotUndoneByARestart) {
  ImageInMemory one, other;
  for (uint64_t i = 0; i < 3; ++i) one.AddChunk(MixedText(i, kChunkBytes));
  other.AddChunk(MixedText(77, kChunkBytes));
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, one, i));
  ASSERT_TRUE(ChunkReadsRight(*cache_, other, 0));
  std::vector<BlockName> names;
  for (const BlockInfo& info : one.AllBlocks()) names.push_back(info.name);
  ASSERT_OK_AND_ASSIGN(const auto dropped, cache_->Drop(names));
  EXPECT_EQ(dropped.blocks, names.size());
  EXPECT_EQ(dropped.bytes, one.fetched_bytes);
  ASSERT_OK_AND_ASSIGN(const auto again, cache_->Drop(names));
  EXPECT_EQ(again.blocks, 0u);
  Open();
  EXPECT_EQ(cache_->stats().blocks, other.AllBlocks().size());
  EXPECT_EQ(cache_->stats().used_bytes, other.fetched_bytes);
  ASSERT_TRUE(ChunkReadsRight(*cache_, other, 0));
  EXPECT_EQ(other.fetches, 1u);
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, one, i));
  EXPECT_EQ(one.fetched_blocks, 2 * names.size());
}

TEST_F(CachingTest, DropAllGivesTheSpaceBack) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 10; ++i) image.AddChunk(RandomText(i, kChunkBytes));
  for (uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
  ASSERT_GT(cache_->stats().disk_bytes, 40 * base::kMiB);
  ASSERT_OK_AND_ASSIGN(const auto dropped, cache_->DropAll());
  EXPECT_EQ(dropped.blocks, image.AllBlocks().size());
  EXPECT_LT(cache_->stats().disk_bytes, base::kMiB);
  ASSERT_OK_AND_ASSIGN(const auto info, base::SystemFiles().Stat(dir_ / "cache/blocks"));
  EXPECT_LT(info.allocated_bytes, base::kMiB);
  Open();
  EXPECT_EQ(cache_->stats().blocks, 0u);
  for (uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image, i));
}

// --- pins

TEST_F(CachingTest, PinnedBlocksStayWhateverElseIsRead) {
  ImageInMemory kept, scan;
  Open(32 * base::kMiB);
  for (uint64_t i = 0; i < 3; ++i) kept.AddChunk(RandomText(i, kChunkBytes));
  for (uint64_t i = 0; i < 40; ++i) scan.AddChunk(RandomText(1000 + i, kChunkBytes));
  ASSERT_OK(cache_->Pin("kept", kept.AllBlocks()));
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, kept, i));
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, scan, i));
    Open(32 * base::kMiB);
  }
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, kept, i));
  EXPECT_EQ(kept.fetched_blocks, kept.AllBlocks().size());
  ASSERT_EQ(cache_->PinnedGroups().size(), 1u);
  EXPECT_EQ(cache_->PinnedGroups()[0].name, "kept");
  EXPECT_EQ(cache_->PinnedGroups()[0].blocks, kept.AllBlocks().size());

  ASSERT_OK_AND_ASSIGN(const auto dropped, cache_->DropAll());
  EXPECT_EQ(dropped.pinned_blocks, kept.AllBlocks().size());
  EXPECT_EQ(cache_->stats().blocks, kept.AllBlocks().size());
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, kept, i));
  EXPECT_EQ(kept.fetched_blocks, kept.AllBlocks().size());

  ASSERT_OK(cache_->Unpin("kept"));
  EXPECT_ERROR(cache_->Unpin("kept"), Code::kNotFound);
  Open(32 * base::kMiB);
  EXPECT_TRUE(cache_->PinnedGroups().empty());
  for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, scan, i));
  for (uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, scan, i));
  EXPECT_LT(cache_->stats().blocks, kept.AllBlocks().size() + scan.AllBlocks().size());
}

TEST_F(CachingTest, HalfTheLimitMayBePinned) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 9; ++i) image.AddChunk(RandomText(i, kChunkBytes));  // 36 of 64 MiB
  ASSERT_ERROR(cache_->Pin("large", image.AllBlocks()), Code::kTooLarge);
  EXPECT_EQ(cache_->stats().pinned_blocks, 0u);
  ASSERT_OK(cache_->Pin("a", image.table(0)));
  ASSERT_OK(cache_->Pin("b", image.table(0)));
  EXPECT_EQ(cache_->stats().pinned_bytes, kChunkBytes) << "each block once";
  ASSERT_ERROR(cache_->Pin("a", image.AllBlocks()), Code::kTooLarge);
  EXPECT_EQ(cache_->PinnedGroups()[0].blocks, image.table(0).size()) << "the group is as it was";
  ASSERT_OK(cache_->Unpin("a"));
  EXPECT_EQ(cache_->stats().pinned_bytes, kChunkBytes) << "b still wants it";
  ASSERT_OK(cache_->Unpin("b"));
  EXPECT_EQ(cache_->stats().pinned_bytes, 0u);
  EXPECT_ERROR(cache_->Pin("", image.table(0)), Code::kInvalidArgument);
  EXPECT_ERROR(cache_->Pin(std::string(256, 'x'), image.table(0)), Code::kInvalidArgument);
  EXPECT_OK(cache_->Pin("../../name\n", image.table(0)));
}

TEST_F(CachingTest, ManyListsOfPinsAreRefused) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, 8192));
  Open(16 * base::kMiB);
  Result<void> pinned;
  for (int i = 0; i < 1000 && pinned; ++i) pinned = cache_->Pin(std::to_string(i), image.table(0));
  EXPECT_ERROR(pinned, Code::kTooLarge);
}

TEST_F(CachingTest, DamagedPinsAreForgotten) {
  ImageInMemory image;
  image.AddChunk(RandomText(1, kChunkBytes));
  ASSERT_OK(cache_->Pin("a", image.table(0)));
  ASSERT_OK(cache_->Pin("b", image.table(0)));
  ASSERT_OK_AND_ASSIGN(const auto names, base::SystemFiles().List(dir_ / "cache"));
  int damaged = 0;
  for (const std::string& name : names) {
    if (!name.starts_with("pins-") || damaged++ > 0) continue;
    ASSERT_OK_AND_ASSIGN(const auto file, base::SystemFiles().Open(dir_ / "cache/" + name,
                                                                   base::Files::Mode::kReadWrite));
    const uint8_t byte = 0x5a;
    const base::ByteView piece(&byte, 1);
    ASSERT_OK(file->WriteAt(30, {&piece, 1}));
  }
  ASSERT_EQ(damaged, 2);
  Open();
  EXPECT_EQ(cache_->PinnedGroups().size(), 1u);
  Open();
  EXPECT_EQ(cache_->PinnedGroups().size(), 1u);
}

TEST_F(CachingTest, ASmallerLimitDropsPinsThatItCannotKeep) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 5; ++i) image.AddChunk(RandomText(i, kChunkBytes));
  ASSERT_OK(cache_->Pin("large", image.AllBlocks()));
  ASSERT_OK(cache_->Pin("small", image.table(0)));
  Open(16 * base::kMiB);
  ASSERT_EQ(cache_->PinnedGroups().size(), 1u);
  EXPECT_EQ(cache_->PinnedGroups()[0].name, "small");
}

}  // namespace
}  // namespace chunkstore::layers
