#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chunkstore/layers/caching.h"
#include "tests/chunkstore/layers/world.h"
#include "tests/support/fault_files.h"
#include "tests/support/temp_dir.h"

// What the disk may do to the cache: it lies, tears, fills up, fails, loses power; and what the
// cache may never do to the disk: take more than it was given.

namespace chunkstore::layers {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr uint64_t kLimit = 16 * base::kMiB;

Result<std::unique_ptr<BlockDiskCache>> OpenIn(base::Files& files, const std::string& directory,
                                               uint64_t limit_bytes = kLimit,
                                               const base::Clock& clock = base::SystemClock()) {
  static base::Metrics metrics;  // counts for all tests; nobody looks
  return BlockDiskCache::Open({.directory = directory, .limit_bytes = limit_bytes}, metrics, files,
                              clock);
}

Result<void> Overwrite(const std::string& path, uint64_t offset, std::string_view bytes) {
  ASSIGN_OR_RETURN(const auto file, base::SystemFiles().Open(path, base::Files::Mode::kReadWrite));
  const base::ByteView piece = base::AsBytes(bytes);
  return file->WriteAt(offset, {&piece, 1});
}

class CacheDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < 2; ++i) image_.AddChunk(MixedText(i, kChunkBytes));
    Open();
  }
  void Open(uint64_t limit_bytes = kLimit) {
    cache_.reset();
    ASSERT_OK_AND_ASSIGN(cache_, OpenIn(base::SystemFiles(), dir_ / "cache", limit_bytes));
  }
  void ReadAll() {
    for (uint64_t i = 0; i < image_.chunks(); ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, image_, i));
  }
  std::string File() { return dir_ / "cache/blocks"; }
  std::string Content() { return base::ReadWholeFile(File(), base::kGiB).value(); }

  support::TempDir dir_;
  ImageInMemory image_;
  std::unique_ptr<BlockDiskCache> cache_;
};

// --- a lying disk

TEST_F(CacheDiskTest, FlippedBitsAreFoundOutAndFetchedAgain) {
  ReadAll();
  const std::string before = Content();
  std::mt19937_64 random(3);
  for (const bool reopen : {false, true}) {
    for (int i = 0; i < 200; ++i) {
      const uint64_t at = random() % before.size();
      const char changed = static_cast<char>(before[at] ^ (1 << random() % 8));
      ASSERT_OK(Overwrite(File(), at, {&changed, 1}));
    }
    if (reopen) Open();
    const uint64_t fetched = image_.fetched_blocks;
    ReadAll();
    EXPECT_GT(image_.fetched_blocks, fetched);
    EXPECT_GT(cache_->stats().damaged_blocks, 0u);
    const uint64_t mended = image_.fetched_blocks;
    ReadAll();
    EXPECT_EQ(image_.fetched_blocks, mended);
  }
}

// What was damaged once must not come back with a restart and hide what was fetched since.
TEST_F(CacheDiskTest, DamageIsForgottenByTheDiskToo) {
  ReadAll();
  const std::string before = Content();
  for (uint64_t at = 64 * base::kKiB; at < before.size(); at += 20'000)
    ASSERT_OK(Overwrite(File(), at, "damage"));
  ReadAll();
  ReadAll();
  const uint64_t fetched = image_.fetched_blocks;
  Open();
  ReadAll();
  EXPECT_LE(image_.fetched_blocks, fetched + 2) << "but for a table's entry that was hit";
}

TEST_F(CacheDiskTest, DamageThatCannotBeMendedYetIsForgottenToo) {
  ReadAll();
  ASSERT_OK(Overwrite(File(), kMinSegmentBytes + 100 * base::kKiB, "damage"));
  const uint64_t blocks = cache_->stats().blocks;
  image_.before_fetch = [] { return Result<void>(Error(Code::kUnavailable, "away")); };
  for (uint64_t i = 0; i < image_.chunks(); ++i)
    (void)ReadText(*cache_, image_, i, 0, image_.plain(i).size());
  ASSERT_EQ(cache_->stats().damaged_blocks, 1u);
  Open();
  EXPECT_EQ(cache_->stats().blocks, blocks - 1);
}

TEST_F(CacheDiskTest, FilesThatWereCutShort) {
  std::mt19937_64 random(4);
  for (const bool reopen : {false, true}) {
    for (int i = 0; i < 10; ++i) {
      ReadAll();
      ASSERT_OK_AND_ASSIGN(const auto file,
                           base::SystemFiles().Open(File(), base::Files::Mode::kReadWrite));
      ASSERT_OK(file->Truncate(i == 0 ? 0 : random() % (8 * base::kMiB)));
      if (reopen) Open();
      ReadAll();
      ASSERT_OK_AND_ASSIGN(const auto info, base::SystemFiles().Stat(File()));
      ASSERT_LE(info.allocated_bytes, kLimit);
    }
  }
}

TEST_F(CacheDiskTest, FilesOfAnotherCacheAndSwappedPieces) {
  ReadAll();
  ImageInMemory other;
  for (uint64_t i = 0; i < 2; ++i) other.AddChunk(MixedText(100 + i, kChunkBytes));
  {
    ASSERT_OK_AND_ASSIGN(auto second, OpenIn(base::SystemFiles(), dir_ / "other"));
    for (uint64_t i = 0; i < 2; ++i) ASSERT_TRUE(ChunkReadsRight(*second, other, i));
  }
  ASSERT_OK_AND_ASSIGN(const std::string theirs,
                       base::ReadWholeFile(dir_ / "other/blocks", base::kGiB));
  const std::string ours = Content();
  // While it is open; then before it is opened.
  for (const bool reopen : {false, true}) {
    ReadAll();
    if (reopen) cache_.reset();
    ASSERT_OK(Overwrite(File(), 0, theirs));
    if (reopen) Open();
    ReadAll();
  }
  // Segments in each other's places; the blocks of one under the table of another.
  std::string swapped = ours;
  const size_t first = kCacheHeadBytes, length = kMinSegmentBytes;
  std::swap_ranges(swapped.begin() + first, swapped.begin() + first + length,
                   swapped.begin() + first + length);
  std::string mixed = ours;
  std::copy_n(ours.begin() + first, 8192, mixed.begin() + first + length);
  for (const std::string& content : {swapped, mixed}) {
    cache_.reset();
    ASSERT_OK(Overwrite(File(), 0, content));
    Open();
    ReadAll();
    ReadAll();
  }
}

TEST_F(CacheDiskTest, TablesThatAreNonsense) {
  ReadAll();
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    cache_.reset();
    for (uint64_t segment = 0; segment < 8; ++segment) {
      const uint64_t at = kCacheHeadBytes + segment * kMinSegmentBytes + random() % 8192;
      ASSERT_OK(Overwrite(File(), at, RandomText(random(), random() % 64)));
    }
    if (round % 10 == 9) ASSERT_OK(Overwrite(File(), random() % 24, "x"));
    Open();
    ReadAll();
  }
}

// Every entry and block cut off anywhere, as a process or a machine that dies leaves it.
TEST_F(CacheDiskTest, ATornTailAtEveryByte) {
  ImageInMemory small;
  for (uint64_t i = 0; i < 3; ++i) small.AddChunk(RandomText(50 + i, 40 + i));
  for (uint64_t i = 0; i < 2; ++i) ASSERT_TRUE(ChunkReadsRight(*cache_, small, i));
  const std::string before = Content();
  ASSERT_TRUE(ChunkReadsRight(*cache_, small, 2));
  cache_.reset();
  const std::string after = Content();
  std::vector<size_t> differing;
  for (size_t at = 0; at < after.size(); ++at)
    if (before[at] != after[at]) differing.push_back(at);
  ASSERT_GT(differing.size(), 40u);
  for (const bool backwards : {false, true}) {
    std::string content = before;
    for (size_t i = 0; i <= differing.size(); ++i) {
      ASSERT_OK(Overwrite(File(), 0, std::string_view(content).substr(0, 2 * base::kMiB)));
      Open();
      const uint64_t fetched = small.fetches;
      for (uint64_t chunk = 0; chunk < 3; ++chunk)
        ASSERT_TRUE(ChunkReadsRight(*cache_, small, chunk));
      ASSERT_LE(small.fetches, fetched + 1) << "what was there before is not hurt";
      cache_.reset();
      if (i == differing.size()) break;
      const size_t at = differing[backwards ? differing.size() - 1 - i : i];
      content[at] = after[at];
    }
  }
}

// --- crashes

// Power is lost at every call that changes the disk; what was not synced is there, or not, or torn.
TEST(CacheCrashTest, PowerLossAtAnyCall) {
  ImageInMemory image;
  for (uint64_t i = 0; i < 8; ++i) image.AddChunk(MixedText(i, 5 * base::kMiB / 2));
  const auto work = [&](base::Files& files, uint64_t seed) {
    auto cache = OpenIn(files, "/cache");
    if (!cache) return;
    std::mt19937_64 random(seed);
    for (int i = 0; i < 12; ++i) {
      const uint64_t index = random() % image.chunks();
      ASSERT_TRUE(ChunkReadsRight(**cache, image, index)) << "a failing disk is no error of a read";
      if (i == 4) (void)(*cache)->Pin("pinned", image.table(1));
      if (i == 7) (void)(*cache)->Drop(std::vector{image.table(2)[0].name});
    }
  };
  for (uint64_t seed = 0; seed < 30; ++seed) {
    support::FaultFiles files;
    files.SetSectorBytes(seed % 2 == 0 ? 1 : 512);
    work(files, seed);
    const uint64_t total = files.mutating_calls();
    std::mt19937_64 random(seed);
    files.FailFrom(1 + random() % total, Error(Code::kIo, "power is gone"));
    work(files, seed + 1);
    files.Crash(seed, seed % 3 == 0 ? support::FaultFiles::Names::kKeepSome
                                    : support::FaultFiles::Names::kDropUnsynced);
    ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(files, "/cache"));
    for (uint64_t i = 0; i < image.chunks(); ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
    ASSERT_LE(files.used_bytes(), kLimit);
  }
}

TEST(CacheCrashTest, KilledWhileManyWrite) {
  support::TempDir dir;
  ImageInMemory image;
  for (uint64_t i = 0; i < 10; ++i) image.AddChunk(MixedText(i, kChunkBytes));
  std::mt19937_64 random(11);
  uint64_t found = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto cache = OpenIn(base::SystemFiles(), dir / "cache");
      if (!cache) _exit(1);
      std::vector<std::thread> threads;
      for (uint64_t thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
          std::mt19937_64 choose(static_cast<uint64_t>(round) * 10 + thread);
          for (;;)
            if (!ChunkReadsRight(**cache, image, choose() % 10)) _exit(2);
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
    usleep(static_cast<useconds_t>(20'000 + random() % 150'000));  // where it dies, no matter
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself: " << WEXITSTATUS(status);
    ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(base::SystemFiles(), dir / "cache"));
    found += cache->stats().blocks;
    for (uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
    ASSERT_OK_AND_ASSIGN(const auto info, base::SystemFiles().Stat(dir / "cache/blocks"));
    ASSERT_LE(info.allocated_bytes, kLimit);
  }
  EXPECT_GT(found, 0u) << "nothing was ever kept";
}

// --- full and failing disks

TEST(CacheFullDiskTest, ReadsGoOnAndWritingComesBack) {
  support::FaultFiles files;
  base::ManualClock clock;
  ImageInMemory image;
  for (uint64_t i = 0; i < 6; ++i) image.AddChunk(RandomText(i, kChunkBytes));
  files.SetCapacity(base::kMiB);  // not even a segment
  ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(files, "/cache", kLimit, clock));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
  EXPECT_EQ(cache->stats().blocks, 0u);
  EXPECT_FALSE(cache->stats().writing);
  EXPECT_EQ(cache->stats().unkept_blocks, image.AllBlocks().size());
  files.SetCapacity(UINT64_MAX);
  ASSERT_TRUE(ChunkReadsRight(*cache, image, 0));
  EXPECT_EQ(cache->stats().blocks, 0u) << "it rests";
  clock.AdvanceUs(31 * base::kSecondUs);
  ASSERT_TRUE(ChunkReadsRight(*cache, image, 0));
  EXPECT_GT(cache->stats().blocks, 0u);
  EXPECT_TRUE(cache->stats().writing);

  // Half of what it may take: it goes on with that.
  files.SetCapacity(files.used_bytes() + base::kMiB);
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
  const auto half = cache->stats();
  EXPECT_TRUE(half.writing);
  EXPECT_LT(half.disk_bytes, kLimit / 2);
  EXPECT_GT(half.evicted_blocks, 0u);
  files.SetCapacity(UINT64_MAX);
  clock.AdvanceUs(31 * base::kSecondUs);
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
  EXPECT_GT(cache->stats().disk_bytes, kLimit / 2);
}

TEST(CacheFullDiskTest, FailingWritesAreNoErrorsOfReads) {
  support::FaultFiles files;
  base::ManualClock clock;
  ImageInMemory image;
  for (uint64_t i = 0; i < 6; ++i) image.AddChunk(RandomText(i, kChunkBytes));
  ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(files, "/cache", kLimit, clock));
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
  const uint64_t blocks = cache->stats().blocks;
  files.FailFrom(1, Error(Code::kIo, "the disk is gone"));
  for (int round = 0; round < 12; ++round) {
    for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
    clock.AdvanceUs(31 * base::kSecondUs);
  }
  EXPECT_FALSE(cache->stats().writing);
  EXPECT_GT(cache->stats().blocks, blocks * 3 / 4) << "a failing disk is no reason to forget";
  EXPECT_ERROR(cache->Pin("image", image.table(0)), Code::kIo);
  EXPECT_TRUE(cache->PinnedGroups().empty());
  files.ClearFailures();
  clock.AdvanceUs(31 * base::kSecondUs);
  for (uint64_t i = 0; i < 6; ++i) ASSERT_TRUE(ChunkReadsRight(*cache, image, i));
  EXPECT_TRUE(cache->stats().writing);
  EXPECT_OK(cache->Pin("image", image.table(0)));
}

TEST(CacheFullDiskTest, ARealDiskThatIsFull) {
  support::TempDir dir;
  if (mount("quarry-test", dir.path().c_str(), "tmpfs", 0, "size=8m") != 0)
    GTEST_SKIP() << "NOT TESTED: a full disk, because this user may not mount a tmpfs";
  {
    base::ManualClock clock;
    ImageInMemory image;
    for (uint64_t i = 0; i < 5; ++i) image.AddChunk(RandomText(i, kChunkBytes));
    ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(base::SystemFiles(), dir / "cache", kLimit, clock));
    for (int round = 0; round < 2; ++round)
      for (uint64_t i = 0; i < 5; ++i) EXPECT_TRUE(ChunkReadsRight(*cache, image, i));
    EXPECT_GT(cache->stats().blocks, 0u);
    // Somebody else takes what is left; pins can't be written.
    ASSERT_OK_AND_ASSIGN(auto other,
                         base::SystemFiles().Open(dir / "other", base::Files::Mode::kCreateNew));
    for (uint64_t size = 4 * base::kMiB; size > 0; size /= 2) {
      const uint64_t end = other->Size().value();
      if (!other->Allocate(end + size)) (void)other->Truncate(end);
    }
    EXPECT_ERROR(cache->Pin("image", image.table(0)), Code::kOutOfSpace);
    for (uint64_t i = 0; i < 5; ++i) EXPECT_TRUE(ChunkReadsRight(*cache, image, i));
    cache.reset();
    ASSERT_OK(base::SystemFiles().Remove(dir / "other"));
    ASSERT_OK_AND_ASSIGN(cache, OpenIn(base::SystemFiles(), dir / "cache", kLimit, clock));
    EXPECT_GT(cache->stats().blocks, 0u);
  }
  EXPECT_EQ(umount2(dir.path().c_str(), MNT_DETACH), 0);
}

// --- the limit

uint64_t TakenBy(const std::string& directory) {
  uint64_t sum = base::SystemFiles().Stat(directory).value().allocated_bytes;
  const auto names = base::SystemFiles().List(directory);
  for (const std::string& name : names.value()) {
    const auto info = base::SystemFiles().Stat(directory + "/" + name);
    if (info) sum += info->allocated_bytes;  // or it was renamed just now
  }
  return sum;
}

TEST(CacheLimitTest, NeverExceededWhateverGoesOn) {
  support::TempDir dir;
  ImageInMemory image;
  for (uint64_t i = 0; i < 12; ++i) image.AddChunk(MixedText(i, kChunkBytes));
  for (const uint64_t limit : {kLimit, 3 * kLimit / 2, kLimit + 12'345}) {
    ASSERT_OK_AND_ASSIGN(auto cache, OpenIn(base::SystemFiles(), dir / "cache", limit));
    std::atomic<bool> done = false;
    std::atomic<uint64_t> most = 0;
    std::thread watcher([&] {
      while (!done) most = std::max(most.load(), TakenBy(dir / "cache"));
    });
    std::vector<std::thread> threads;
    for (uint64_t thread = 0; thread < 6; ++thread) {
      threads.emplace_back([&, thread] {
        std::mt19937_64 random(thread);
        for (int i = 0; i < 25; ++i) {
          const uint64_t index = random() % 12;
          EXPECT_TRUE(ChunkReadsRight(*cache, image, index));
          if (thread == 0) (void)cache->Pin(std::to_string(i % 3), image.table(index));
          if (thread == 1 && i % 8 == 7) EXPECT_OK(cache->DropAll());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    done = true;
    watcher.join();
    EXPECT_LE(most, limit);
    EXPECT_GT(most, limit / 2);
    EXPECT_LE(TakenBy(dir / "cache"), cache->stats().disk_bytes);
    EXPECT_GT(cache->stats().evicted_blocks, 0u);
    EXPECT_EQ(cache->stats().damaged_blocks, 0u) << "blocks that were moved are not damaged";
  }
}

TEST_F(CacheDiskTest, ALowerLimitShrinksAtTheNextStart) {
  Open(4 * kLimit);
  for (uint64_t i = 0; i < 12; ++i) image_.AddChunk(RandomText(100 + i, kChunkBytes));
  ReadAll();
  ASSERT_GT(TakenBy(dir_ / "cache"), 2 * kLimit);
  Open(kLimit);
  EXPECT_LE(TakenBy(dir_ / "cache"), kLimit);
  EXPECT_GT(cache_->stats().used_bytes, kLimit / 2) << "what there is room for stays";
  ReadAll();
  EXPECT_LE(TakenBy(dir_ / "cache"), kLimit);
  Open(4 * kLimit);
  const uint64_t fetched = image_.fetched_blocks;
  ReadAll();
  ReadAll();
  EXPECT_LE(image_.fetched_blocks - fetched, image_.AllBlocks().size());
  // So far that segments of another length are better.
  Open(200 * kLimit);
  ReadAll();
  Open(kLimit);
  EXPECT_LE(TakenBy(dir_ / "cache"), kLimit);
  ReadAll();
}

}  // namespace
}  // namespace chunkstore::layers
