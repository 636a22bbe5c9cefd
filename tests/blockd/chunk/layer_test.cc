#include "blockd/chunk/layer.h"

#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/fault_files.h"
#include "tests/support/results.h"
#include "tests/support/temp_dir.h"

namespace blockd::chunk {
namespace {

using base::Code;

constexpr char kDir[] = "/layers";

base::Result<void> Fill(Layer& layer, uint64_t block, uint64_t count, char with) {
  const std::string bytes(count * kBlockBytes, with);
  const base::ByteView piece = base::AsBytes(bytes);
  return layer.Write(block * kBlockBytes, {&piece, 1});
}

// "3 data, 2 zero": the first `limit` blocks.
std::string States(Layer& layer, uint64_t limit) {
  std::string text;
  for (uint64_t block = 0; block < limit;) {
    auto run = layer.map().RunAt(block, limit - block);
    if (!run) return run.error().ToString();
    const char* const names[] = {"absent", "data", "zero"};
    text += (block ? ", " : "") + std::to_string(run->blocks) + " " +
            names[static_cast<int>(run->state)];
    block += run->blocks;
  }
  return text;
}

std::string BlockOf(Layer& layer, uint64_t block) {
  std::string bytes(kBlockBytes, '?');
  EXPECT_OK(
      layer.ReadAt(block * kBlockBytes, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
  return bytes;
}

class LayerTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(files_.CreateDirs(kDir));
    ASSERT_OK(files_.SyncDir("/"));
    auto made = Layer::Create(files_, kDir, "one");
    ASSERT_OK(made);
    layer_ = *std::move(made);
  }
  void Reopen() {
    layer_.reset();
    auto opened = Layer::Open(files_, kDir, "one");
    ASSERT_OK(opened);
    layer_ = *std::move(opened);
  }

  support::FaultFiles files_;
  std::shared_ptr<Layer> layer_;
};

TEST_F(LayerTest, ANewLayerHoldsNothing) { EXPECT_EQ(States(*layer_, 100), "100 absent"); }

TEST_F(LayerTest, RunsEndWhereTheStateChanges) {
  ASSERT_OK(Fill(*layer_, 1, 70, 'a'));
  ASSERT_OK(layer_->Clear(40, 3, BlockState::kZero, false));
  ASSERT_OK(layer_->Clear(64, 32, BlockState::kAbsent, false));
  EXPECT_EQ(States(*layer_, 200), "1 absent, 39 data, 3 zero, 21 data, 136 absent");
  EXPECT_EQ(States(*layer_, 41), "1 absent, 39 data, 1 zero");
}

TEST_F(LayerTest, StatesOfEveryLengthAtEveryPlaceAreExact) {
  std::mt19937_64 random(7);
  std::vector<BlockState> model(2 * kBlocksPerPage);
  for (int step = 0; step < 500; ++step) {
    const uint64_t block = kBlocksPerPage - 200 + random() % 300;
    const uint64_t count = 1 + random() % 100;
    const auto state = static_cast<BlockState>(random() % 3);
    ASSERT_OK(layer_->map().Set(block, count, state));
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(block), count, state);
    for (uint64_t at = 0; at < model.size();) {
      ASSERT_OK_AND_ASSIGN(const LayerMap::Run run, layer_->map().RunAt(at, model.size() - at));
      ASSERT_GT(run.blocks, 0u);
      for (uint64_t i = 0; i < run.blocks; ++i) ASSERT_EQ(model[at + i], run.state) << at + i;
      at += run.blocks;
      const bool ended = at == model.size() || at % kBlocksPerPage == 0;
      ASSERT_TRUE(ended || model[at] != run.state) << "a run was cut at " << at;
    }
  }
}

TEST_F(LayerTest, WhatWasFlushedIsThereAfterACrash) {
  ASSERT_OK(Fill(*layer_, 5, 2, 'a'));
  ASSERT_OK(layer_->Clear(9, 1, BlockState::kZero, true));
  EXPECT_FALSE(layer_->clean());
  ASSERT_OK(layer_->Flush());
  EXPECT_TRUE(layer_->clean());
  files_.Crash(1);
  Reopen();
  EXPECT_EQ(States(*layer_, 12), "5 absent, 2 data, 2 absent, 1 zero, 2 absent");
  EXPECT_EQ(BlockOf(*layer_, 6), std::string(kBlockBytes, 'a'));
}

TEST_F(LayerTest, AnOverwriteCostsOneSyncAndAFlushOfNothingNone) {
  ASSERT_OK(Fill(*layer_, 5, 2, 'a'));
  ASSERT_OK(layer_->Flush());
  uint64_t before = files_.mutating_calls();
  ASSERT_OK(layer_->Flush());
  EXPECT_EQ(files_.mutating_calls() - before, 0u);
  ASSERT_OK(Fill(*layer_, 5, 1, 'b'));
  before = files_.mutating_calls();
  ASSERT_OK(layer_->Flush());
  EXPECT_EQ(files_.mutating_calls() - before, 1u);
}

TEST_F(LayerTest, PunchingGivesBackBytesOfBlocksOnly) {
  support::TempDir dir;
  base::Files& files = base::SystemFiles();
  ASSERT_OK_AND_ASSIGN(const auto layer, Layer::Create(files, dir.path(), "x"));
  ASSERT_OK(Fill(*layer, 0, 512, 'a'));
  ASSERT_OK(layer->Flush());
  ASSERT_OK_AND_ASSIGN(const base::FileInfo full, files.Stat(dir / "x.data"));
  ASSERT_OK(layer->Clear(10, 400, BlockState::kZero, true));
  layer->PunchHoles({0, 512});
  ASSERT_OK_AND_ASSIGN(const base::FileInfo punched, files.Stat(dir / "x.data"));
  // A hole may cost the file system some blocks for its own notes.
  EXPECT_LE(punched.allocated_bytes + 400 * kBlockBytes, full.allocated_bytes + 16 * kBlockBytes);
  EXPECT_EQ(BlockOf(*layer, 9), std::string(kBlockBytes, 'a'));
  EXPECT_EQ(BlockOf(*layer, 410), std::string(kBlockBytes, 'a'));
}

// A call takes up to a millisecond: one for each of many short runs would outlast every deadline.
TEST_F(LayerTest, ARangeIsPunchedOutAtOnceHoweverManyRunsItHas) {
  for (uint64_t block = 3; block < 64; block += 2) ASSERT_OK(Fill(*layer_, block, 1, 'a'));
  const uint64_t before = files_.mutating_calls();
  ASSERT_OK(layer_->Clear(2, 60, BlockState::kZero, true));
  EXPECT_EQ(files_.mutating_calls() - before, 0u);
  layer_->PunchHoles({0, 64});
  EXPECT_EQ(files_.mutating_calls() - before, 1u);
  EXPECT_EQ(BlockOf(*layer_, 3), std::string(kBlockBytes, '\0'));
  EXPECT_EQ(BlockOf(*layer_, 61), std::string(kBlockBytes, '\0'));
  EXPECT_EQ(BlockOf(*layer_, 63), std::string(kBlockBytes, 'a'));
  ASSERT_OK(layer_->Clear(2, 60, BlockState::kZero, true));
  layer_->PunchHoles({0, 64});
  EXPECT_EQ(files_.mutating_calls() - before, 1u);
}

TEST_F(LayerTest, WhatIsHeldAgainIsNotPunchedOut) {
  ASSERT_OK(Fill(*layer_, 0, 64, 'a'));
  ASSERT_OK(layer_->Clear(8, 16, BlockState::kAbsent, true));
  ASSERT_OK(layer_->Clear(40, 8, BlockState::kZero, false));
  ASSERT_OK(Fill(*layer_, 10, 2, 'b'));
  const uint64_t before = files_.mutating_calls();
  layer_->PunchHoles({0, 20});
  EXPECT_EQ(files_.mutating_calls() - before, 2u);
  EXPECT_EQ(layer_->holes().First(), 20u);
  layer_->PunchHoles({0, 64});
  EXPECT_EQ(files_.mutating_calls() - before, 3u);
  EXPECT_EQ(layer_->holes().size(), 0u);
  for (uint64_t block = 0; block < 64; ++block) {
    const bool punched = block >= 8 && block < 24;
    const char byte = block / 2 == 5 ? 'b' : punched ? '\0' : 'a';
    EXPECT_EQ(BlockOf(*layer_, block), std::string(kBlockBytes, byte)) << block;
  }
}

TEST_F(LayerTest, AFailedSyncSpoilsTheLayerForGood) {
  ASSERT_OK(Fill(*layer_, 5, 2, 'a'));
  files_.FailCall(1, base::Error(Code::kIo, "the disk"));
  EXPECT_ERROR(layer_->Flush(), Code::kIo);
  EXPECT_ERROR(layer_->Flush(), Code::kIo);
  EXPECT_ERROR(Fill(*layer_, 5, 2, 'b'), Code::kIo);
  EXPECT_EQ(BlockOf(*layer_, 5), std::string(kBlockBytes, 'a'));
}

TEST_F(LayerTest, AFullDiskIsAnErrorThatPasses) {
  ASSERT_OK(Fill(*layer_, 0, 2, 'a'));
  files_.SetCapacity(files_.used_bytes());
  EXPECT_ERROR(Fill(*layer_, 2, 1, 'a'), Code::kOutOfSpace);
  EXPECT_EQ(States(*layer_, 3), "2 data, 1 absent");
  EXPECT_ERROR(layer_->Flush(), Code::kOutOfSpace);
  files_.SetCapacity(UINT64_MAX);
  ASSERT_OK(layer_->Flush());
  files_.Crash(1);
  Reopen();
  EXPECT_EQ(States(*layer_, 3), "2 data, 1 absent");
}

TEST_F(LayerTest, AMapThatIsNotTheLayersIsCorrupt) {
  ASSERT_OK(Layer::Create(files_, kDir, "two"));
  ASSERT_OK(files_.Rename("/layers/two.map", "/layers/one.map"));
  EXPECT_ERROR(Layer::Open(files_, kDir, "one"), Code::kCorruption);
  EXPECT_ERROR(Layer::Open(files_, kDir, "three"), Code::kNotFound);
}

TEST_F(LayerTest, AnImpossibleStateIsCorrupt) {
  ASSERT_OK(Fill(*layer_, 0, 2, 'a'));
  ASSERT_OK(layer_->Flush());
  files_.FlipBit("/layers/one.map", kMapPageBytes * 8 + 1);  // 01 becomes 11
  Reopen();
  EXPECT_ERROR(layer_->map().RunAt(0, 1), Code::kCorruption);
  EXPECT_OK(layer_->map().RunAt(kBlocksPerPage, 1));
}

TEST_F(LayerTest, RemovingTwiceIsFineAndReadersReadOn) {
  ASSERT_OK(Fill(*layer_, 0, 1, 'a'));
  ASSERT_OK(Layer::Remove(files_, kDir, "one"));
  ASSERT_OK(Layer::Remove(files_, kDir, "one"));
  EXPECT_EQ(files_.List(kDir).value(), std::vector<std::string>());
  EXPECT_EQ(BlockOf(*layer_, 0), std::string(kBlockBytes, 'a'));
}

TEST_F(LayerTest, KnowsItsFiles) {
  EXPECT_EQ(Layer::IdOfFile("ab.data"), "ab");
  EXPECT_EQ(Layer::IdOfFile("ab.map"), "ab");
  EXPECT_EQ(Layer::IdOfFile("ab.tmp"), "");
}

// Threads that write blocks of their own beside each other, in the same words of the map, while
// others flush. For the thread sanitizer, and: what was written when a flush began is there.
TEST_F(LayerTest, WritersAndFlushesBesideEachOther) {
  constexpr int kWriters = 4;
  constexpr int kRounds = 100;
  std::vector<std::thread> threads;
  for (int writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      for (int round = 0; round < kRounds; ++round) {
        const auto block = static_cast<uint64_t>(writer + round % 25 * kWriters);
        EXPECT_OK(Fill(*layer_, block, 1, static_cast<char>('a' + writer)));
        if (round % 10 == 9) EXPECT_OK(layer_->Flush());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(layer_->clean());
  files_.Crash(1);
  Reopen();
  EXPECT_EQ(States(*layer_, 101), "100 data, 1 absent");
  for (uint64_t block = 0; block < 100; ++block)
    EXPECT_EQ(BlockOf(*layer_, block)[0], static_cast<char>('a' + block % kWriters));
}

}  // namespace
}  // namespace blockd::chunk
