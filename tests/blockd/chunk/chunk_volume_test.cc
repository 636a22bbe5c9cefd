#include "blockd/chunk/chunk_volume.h"

#include <atomic>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/chunk/volume_world.h"
#include "tests/support/fault_files.h"
#include "tests/support/temp_dir.h"

namespace blockd::chunk {
namespace {

using base::Code;
using blockd::chunk::testing::ReadAll;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StampOf;
using chunkstore::testing::Spec;

constexpr uint64_t kSize = 10 * base::kMiB + 8 * kBlockBytes;

class ChunkVolumeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(files_.CreateDirs("/l"));
    ASSERT_OK(files_.SyncDir("/"));
    ASSERT_OK_AND_ASSIGN(const chunkstore::Root root,
                         chunkstore::testing::Upload(world_.store(), "base", spec_));
    auto content = world_.store().Open(root);
    ASSERT_OK(content);
    base_ = *std::move(content);
    model_ = spec_.Bytes();
    model_.resize(kSize, '\0');
    volume_ = std::make_unique<ChunkVolume>(StackWithNewHead({}), kSize, false, nullptr);
  }

  std::shared_ptr<const Stack> StackWithNewHead(std::vector<std::shared_ptr<Layer>> below) {
    auto made = Layer::Create(files_, "/l", "x" + std::to_string(++layers_made_));
    EXPECT_OK(made);
    below.insert(below.begin(), *std::move(made));
    return std::make_shared<Stack>(std::move(below), base_);
  }
  // Returns what the volume was, to be read.
  std::shared_ptr<const Stack> Freeze() {
    auto old = volume_->stack();
    volume_->Replace(StackWithNewHead(old->layers()));
    old->head().writers().Await();
    return old;
  }
  static std::string ReadStack(const Stack& stack, uint64_t offset, uint64_t length) {
    std::string bytes(length, '?');
    EXPECT_OK(stack.Read(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    return bytes;
  }

  void Write(uint64_t offset, const std::string& bytes) {
    ASSERT_OK(blockd::chunk::testing::Write(*volume_, offset, bytes));
    model_.replace(offset, bytes.size(), bytes);
  }
  void Zero(uint64_t offset, uint64_t length, bool free_space) {
    ASSERT_OK(volume_->Zero(offset, length, free_space));
    model_.replace(offset, length, length, '\0');
  }

  // Two chunks with a hole between them, and an end off every grid.
  const Spec spec_{{1, 0, 2}, 50'001};
  chunkstore::testing::World world_;
  support::FaultFiles files_;
  std::shared_ptr<chunkstore::Content> base_;
  std::unique_ptr<ChunkVolume> volume_;
  std::string model_;
  int layers_made_ = 0;
};

TEST_F(ChunkVolumeTest, ReadsWhatLiesBelowAndZerosBeyond) {
  EXPECT_TRUE(ReadAll(*volume_) == model_);
  blockd::chunk::testing::ExpectRightExtents(*volume_, model_, 0, kSize);
}

TEST_F(ChunkVolumeTest, RefusesWhatIsOffTheGridOrBeyondTheEnd) {
  std::string bytes(kSectorBytes, 'x');
  EXPECT_ERROR(blockd::chunk::testing::Write(*volume_, 1, bytes), Code::kInvalidArgument);
  EXPECT_ERROR(blockd::chunk::testing::Write(*volume_, 0, "x"), Code::kInvalidArgument);
  EXPECT_ERROR(blockd::chunk::testing::Write(*volume_, kSize, bytes), Code::kInvalidArgument);
  EXPECT_ERROR(volume_->Zero(UINT64_MAX - 511, 1024, true), Code::kInvalidArgument);
  EXPECT_OK(volume_->Zero(kSize, 0, true));
  volume_->Grow(kSize + kBlockBytes);
  EXPECT_OK(blockd::chunk::testing::Write(*volume_, kSize, bytes));
}

TEST_F(ChunkVolumeTest, AWriteOfOneSectorKeepsTheRestOfItsBlock) {
  Write(3 * kSectorBytes, SectorOf(1));
  Write(spec_.size_bytes() / kSectorBytes * kSectorBytes, SectorOf(2));  // where the base ends
  Write(kSize - kSectorBytes, SectorOf(3));
  Write(20 * kBlockBytes - kSectorBytes, SectorOf(4) + SectorOf(5));  // two blocks
  EXPECT_TRUE(ReadAll(*volume_) == model_);
}

TEST_F(ChunkVolumeTest, ATrimmedRangeReadsZeroOverABaseWithData) {
  Write(0, std::string(kBlockBytes, 'x'));
  for (bool free_space : {false, true}) {
    Zero(kSectorBytes, 3 * base::kMiB, free_space);
    EXPECT_TRUE(ReadAll(*volume_) == model_);
  }
  std::vector<Extent> extents;
  EXPECT_OK(volume_->VisitExtents(kBlockBytes, base::kMiB, [&](const Extent& extent) {
    extents.push_back(extent);
    return true;
  }));
  EXPECT_EQ(extents, (std::vector<Extent>{{kBlockBytes, base::kMiB, false, true}}));
}

// What a trim left for later goes stripe by stripe, and not what was written there since.
TEST_F(ChunkVolumeTest, SpaceIsGivenBackLaterToo) {
  support::TempDir dir;
  base::Files& files = base::SystemFiles();
  ASSERT_OK_AND_ASSIGN(const auto layer, Layer::Create(files, dir.path(), "x"));
  ChunkVolume volume(std::make_shared<Stack>(std::vector{layer}, nullptr), kSize, false, nullptr);
  const auto allocated = [&] {
    EXPECT_OK(volume.Flush());
    const auto info = files.Stat(dir / "x.data");
    EXPECT_OK(info);
    return info->allocated_bytes;
  };
  ASSERT_OK(blockd::chunk::testing::Write(volume, 0, std::string(kSize, 'x')));
  ASSERT_OK(layer->Clear(0, kSize / kBlockBytes, BlockState::kZero, true));
  ASSERT_OK(blockd::chunk::testing::Write(volume, 5 * base::kMiB, std::string(base::kMiB, 'y')));
  EXPECT_TRUE(volume.has_holes());
  EXPECT_GE(allocated(), kSize);
  int stripes = 0;
  while (volume.PunchSome()) ++stripes;
  EXPECT_EQ(stripes, 3);
  EXPECT_FALSE(volume.has_holes());
  EXPECT_LT(allocated(), 2 * base::kMiB);
  EXPECT_TRUE(ReadAll(volume, 5 * base::kMiB, base::kMiB) == std::string(base::kMiB, 'y'));
  EXPECT_TRUE(ReadAll(volume, 0, 5 * base::kMiB) == std::string(5 * base::kMiB, '\0'));
  // A short one is over when the call returns.
  ASSERT_OK(volume.Zero(5 * base::kMiB, base::kMiB, true));
  EXPECT_FALSE(volume.has_holes());
  EXPECT_LT(allocated(), base::kMiB);
}

TEST_F(ChunkVolumeTest, TriesToReadOnlyWhatIsInMemory) {
  Write(0, SectorOf(7));
  std::string bytes(kSectorBytes, '?');
  const base::MutableByteView into{reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()};
  ASSERT_OK_AND_ASSIGN(const bool read, volume_->TryRead(0, into));
  EXPECT_TRUE(read);
  EXPECT_EQ(StampOf(bytes), 7u);
  ASSERT_OK_AND_ASSIGN(const bool zeros, volume_->TryRead(kSize - kSectorBytes, into));
  EXPECT_TRUE(zeros);
  EXPECT_EQ(StampOf(bytes), 0u);
  const uint64_t in_base = 2 * base::kMiB;
  ASSERT_OK_AND_ASSIGN(const bool cold, volume_->TryRead(in_base, into));
  EXPECT_FALSE(cold);
  volume_->Prefetch(in_base, kSectorBytes);
  ASSERT_OK_AND_ASSIGN(const bool warm, volume_->TryRead(in_base, into));
  EXPECT_TRUE(warm);
  EXPECT_TRUE(bytes == model_.substr(in_base, kSectorBytes));
  volume_->Prefetch(0, kSize);
}

// Random I/O of every kind beside a plain string, through several freezes; each frozen stack stays
// what it was.
TEST_F(ChunkVolumeTest, IsWhatAPlainStringIs) {
  std::mt19937_64 random(11);
  std::vector<std::pair<std::shared_ptr<const Stack>, std::string>> frozen;
  for (int step = 1; step <= 1500; ++step) {
    const uint64_t sectors = random() % 10 == 0 ? random() % 6000 : random() % 30;
    const uint64_t length = std::min<uint64_t>(sectors * kSectorBytes, kSize);
    const uint64_t offset =
        random() % ((kSize - length) / kSectorBytes + 1) * uint64_t{kSectorBytes};
    switch (random() % 4) {
      case 0:
        Zero(offset, length, random() % 2 == 0);
        break;
      case 1:
        ASSERT_TRUE(ReadAll(*volume_, offset, length) == model_.substr(offset, length)) << step;
        break;
      default:
        Write(offset, chunkstore::testing::MakeBytes(static_cast<uint32_t>(random()), length));
    }
    if (step % 300 == 0) frozen.emplace_back(Freeze(), model_);
    if (step % 50 == 0)
      blockd::chunk::testing::ExpectRightExtents(*volume_, model_, offset, length);
  }
  EXPECT_TRUE(ReadAll(*volume_) == model_);
  for (const auto& [stack, content] : frozen) EXPECT_TRUE(ReadStack(*stack, 0, kSize) == content);
}

// What was written before a freeze is as much a flush's business as what was written after.
TEST_F(ChunkVolumeTest, AFlushCoversFrozenLayersToo) {
  Write(0, SectorOf(1));
  Freeze();
  Write(base::kMiB, SectorOf(2));
  ASSERT_OK(volume_->Flush());
  volume_.reset();
  files_.Crash(1);
  ASSERT_OK_AND_ASSIGN(const auto frozen, Layer::Open(files_, "/l", "x1"));
  ASSERT_OK_AND_ASSIGN(const auto head, Layer::Open(files_, "/l", "x2"));
  const Stack stack({head, frozen}, base_);
  EXPECT_TRUE(ReadStack(stack, 0, kSize) == model_);
}

// Threads own sectors that lie in the same blocks, so each sub-block write reads and writes what is
// others'; meanwhile heads are switched.
TEST_F(ChunkVolumeTest, NoSubBlockWriteUndoesAnother) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kOwn = 40;
  std::array<std::array<uint64_t, kOwn>, kThreads> written{};
  std::atomic<uint64_t> running = kThreads;
  std::vector<std::thread> threads;
  Zero(0, kThreads * kOwn * kSectorBytes, true);
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(thread);
      for (uint64_t round = 1; round <= 1500; ++round) {
        const uint64_t own = random() % kOwn;
        const uint64_t offset = (own * kThreads + thread) * kSectorBytes;
        const uint64_t stamp = random() % 5 == 0 ? 0 : round;
        if (stamp == 0) {
          EXPECT_OK(volume_->Zero(offset, kSectorBytes, true));
        } else {
          EXPECT_OK(blockd::chunk::testing::Write(*volume_, offset, SectorOf(stamp)));
        }
        written[thread][own] = stamp;
        EXPECT_EQ(StampOf(ReadAll(*volume_, offset, kSectorBytes)), stamp);
      }
      --running;
    });
  }
  for (int freezes = 0; running > 0 && freezes < 30; ++freezes) Freeze();
  for (std::thread& thread : threads) thread.join();
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    for (uint64_t own = 0; own < kOwn; ++own) {
      const uint64_t offset = (own * kThreads + thread) * kSectorBytes;
      EXPECT_EQ(StampOf(ReadAll(*volume_, offset, kSectorBytes)), written[thread][own]);
    }
  }
}

// A frozen stack is one point in time: of two sectors far apart that are always written one after
// the other, the second is never ahead.
TEST_F(ChunkVolumeTest, AFreezeIsOnePointInTime) {
  constexpr uint64_t kFar = 9 * base::kMiB;
  Write(0, SectorOf(0));
  Write(kFar, SectorOf(0));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint64_t round = 1; !stop; ++round) {
      EXPECT_OK(blockd::chunk::testing::Write(*volume_, 0, SectorOf(round)));
      EXPECT_OK(blockd::chunk::testing::Write(*volume_, kFar, SectorOf(round)));
    }
  });
  for (int freeze = 0; freeze < 30; ++freeze) {
    const std::shared_ptr<const Stack> frozen = Freeze();
    const uint64_t first = StampOf(ReadStack(*frozen, 0, kSectorBytes));
    const uint64_t second = StampOf(ReadStack(*frozen, kFar, kSectorBytes));
    EXPECT_LE(second, first);
    EXPECT_LE(first, second + 1);
  }
  stop = true;
  writer.join();
}

// Who was writing when the head was switched ends in the old one, and then it changes no more.
TEST_F(ChunkVolumeTest, AFrozenStackStaysAsItIs) {
  constexpr uint64_t kLength = 2 * base::kMiB;
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&] {
      for (char round = 1; !stop; ++round)
        EXPECT_OK(blockd::chunk::testing::Write(*volume_, 0, std::string(kLength, round)));
    });
  }
  std::vector<std::pair<std::shared_ptr<const Stack>, std::string>> frozen;
  for (int freeze = 0; freeze < 20; ++freeze) {
    const std::shared_ptr<const Stack> stack = Freeze();
    frozen.emplace_back(stack, ReadStack(*stack, 0, kLength));
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
  for (const auto& [stack, bytes] : frozen) EXPECT_TRUE(ReadStack(*stack, 0, kLength) == bytes);
}

TEST_F(ChunkVolumeTest, TheLastOfTheDiskIsNotForNewBlocks) {
  constexpr uint64_t kReserve = base::kMiB;
  Headroom headroom(files_, "/l", kReserve);
  const auto stack = StackWithNewHead({});
  const auto used = [&] {
    const auto space = files_.Space("/l");
    EXPECT_OK(space);
    return space->capacity_bytes - space->available_bytes;
  };
  // For four blocks, with what the map will take.
  files_.SetCapacity(base::kGiB);
  files_.SetCapacity(used() + kReserve + 4 * kBlockBytes);
  ChunkVolume volume(stack, kSize, false, &headroom);
  const std::string block(kBlockBytes, 'x');
  const auto write = [&](uint64_t at, const std::string& bytes) {
    return blockd::chunk::testing::Write(volume, at, bytes);
  };
  for (uint64_t i = 0; i < 4; ++i) ASSERT_OK(write(i * kBlockBytes, block));
  EXPECT_ERROR(write(4 * kBlockBytes, block), Code::kOutOfSpace);
  EXPECT_ERROR(write(4 * kBlockBytes, block.substr(0, kSectorBytes)), Code::kOutOfSpace);
  // What has its place is written, and durable.
  ASSERT_OK(write(0, std::string(kBlockBytes, 'y')));
  ASSERT_OK(write(kSectorBytes, block.substr(0, kSectorBytes)));
  ASSERT_OK(volume.Flush());
  // Others make room.
  files_.SetCapacity(used() + kReserve + 8 * kBlockBytes);
  ASSERT_OK(write(4 * kBlockBytes, block));
}

// On real files, where the kernel lets a read see half a write.
TEST_F(ChunkVolumeTest, NoSectorIsEverAMixture) {
  support::TempDir dir;
  ASSERT_OK_AND_ASSIGN(const auto layer, Layer::Create(base::SystemFiles(), dir.path(), "x"));
  ChunkVolume volume(std::make_shared<Stack>(std::vector{layer}, nullptr), base::kMiB, false,
                     nullptr);
  const auto whole = [](uint64_t stamp) {
    std::string bytes;
    for (int i = 0; i < 64; ++i) bytes += SectorOf(stamp);
    return bytes;
  };
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (uint64_t writer = 1; writer <= 2; ++writer) {
    writers.emplace_back([&, writer] {
      const std::string bytes = whole(writer * 0x0101010101010101);
      while (!stop) EXPECT_OK(blockd::chunk::testing::Write(volume, 0, bytes));
    });
  }
  for (int round = 0; round < 3000; ++round) {
    const std::string bytes = ReadAll(volume, 0, 64 * kSectorBytes);
    for (size_t i = 0; i < 64; ++i)
      StampOf(std::string_view(bytes).substr(i * kSectorBytes, kSectorBytes));
    if (HasFailure()) break;
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace blockd::chunk
