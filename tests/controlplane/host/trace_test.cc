#include <algorithm>
#include <optional>

#include <gtest/gtest.h>

#include "chunkstore/blob_format.h"
#include "controlplane/host/replay.h"
#include "controlplane/host/trace_recorder.h"

namespace controlplane::host {
namespace {

TEST(TraceRecorder, KeepsEachBlockOnceInTheOrderInWhichTheyCame) {
  base::ManualClock clock;
  TraceRecorder recorder(1000, clock);
  EXPECT_FALSE(recorder.begun());
  recorder.Note(7, 128, 3, 5, TraceRecorder::kMinBytes);
  recorder.Note(7, 128, 4, 6, 4096);
  recorder.Note(2, 128, 0, 0, 4096);
  recorder.Note(7, 128, 7, 7, 4096);
  EXPECT_TRUE(recorder.begun());
  EXPECT_FALSE(recorder.ended());
  EXPECT_FALSE(recorder.Take().has_value()) << "it is not over yet";
  clock.AdvanceUs(1'000'000);
  recorder.Note(9, 128, 0, 0, 4096);  // too late
  ASSERT_TRUE(recorder.ended());
  EXPECT_EQ(recorder.Take(), (BootTrace{{7, 3, 4}, {2, 0, 1}, {7, 7, 1}}));
  EXPECT_FALSE(recorder.Take().has_value()) << "once";
}

TEST(TraceRecorder, ALookAtTheDiskIsNoBootAndTheNextReadBeginsAnew) {
  base::ManualClock clock;
  TraceRecorder recorder(1000, clock);
  recorder.Note(0, 128, 0, 1, TraceRecorder::kMinBytes - 1);
  EXPECT_TRUE(recorder.begun());
  clock.AdvanceUs(1'000'000);
  EXPECT_FALSE(recorder.ended());
  EXPECT_FALSE(recorder.begun());
  EXPECT_FALSE(recorder.Take().has_value());
  recorder.Note(5, 128, 0, 0, 1);
  EXPECT_TRUE(recorder.begun());
  clock.AdvanceUs(999'999);
  recorder.Note(5, 128, 1, 1, TraceRecorder::kMinBytes - 1);
  EXPECT_FALSE(recorder.ended()) << "the window begins with the boot";
  clock.AdvanceUs(1);
  ASSERT_TRUE(recorder.ended());
  EXPECT_EQ(recorder.Take(), (BootTrace{{5, 0, 2}})) << "nothing of the look";
}

TEST(TraceRecorder, ACopyOfTheImageIsNoBoot) {
  base::ManualClock clock;
  TraceRecorder recorder(1000, clock);
  for (uint64_t chunk = 0; chunk * chunkstore::kChunkBytes <= TraceRecorder::kMaxBytes; ++chunk)
    recorder.Note(chunk, 128, 0, 127, chunkstore::kChunkBytes);
  EXPECT_TRUE(recorder.ended());
  clock.AdvanceUs(1'000'000);
  EXPECT_FALSE(recorder.Take().has_value());
}

// However little it is, in what order, and also where the window ends in the middle of it.
TEST(TraceRecorder, ACopyOfASmallImageOrOfAPartIsNoBootAndTheNextReadBeginsAnew) {
  base::ManualClock clock;
  for (const bool backwards : {false, true}) {
    TraceRecorder recorder(1000, clock);
    for (uint64_t i = 0; i < 20; ++i) {
      const uint64_t chunk = backwards ? 100 - i : i;
      for (size_t block = 0; block < (i == 19 ? 40 : 128); block += 8)
        recorder.Note(chunk, 128, block, block + 7, 256 * base::kKiB);
    }
    EXPECT_TRUE(recorder.begun());
    clock.AdvanceUs(1'000'000);
    EXPECT_FALSE(recorder.begun());
    EXPECT_FALSE(recorder.ended());
    EXPECT_FALSE(recorder.Take().has_value());
    // A boot of the same disk, later: half of each chunk.
    for (uint64_t chunk = 0; chunk < 20; ++chunk)
      recorder.Note(chunk * 7 % 20, 128, 10, 73, 2 * base::kMiB);
    clock.AdvanceUs(1'000'000);
    ASSERT_TRUE(recorder.ended());
    const std::optional<BootTrace> trace = recorder.Take();
    ASSERT_TRUE(trace.has_value());
    EXPECT_EQ(trace->size(), 20u);
    EXPECT_EQ((*trace)[1], (BlockRun{7, 10, 64}));
  }
}

TEST(Replay, ATraceBecomesOneRequestAChunkWithinAWindow) {
  const BootTrace trace = {{7, 3, 2}, {2, 0, 1}, {7, 9, 1}, {7, 1, 1}, {2, 0, 1}};
  const std::vector<Replay::Batch> batches = Replay::OfTrace(trace);
  ASSERT_EQ(batches.size(), 2);
  EXPECT_EQ(batches[0].chunk, 7);
  EXPECT_EQ(batches[0].numbers, (std::vector<size_t>{1, 3, 4, 9}));
  EXPECT_EQ(batches[1].chunk, 2);
  EXPECT_EQ(batches[1].numbers, (std::vector<size_t>{0}));
}

TEST(Replay, ALongTraceKeepsItsOrder) {
  BootTrace trace;
  for (uint64_t i = 0; i < 100; ++i) trace.push_back({i / 50, static_cast<uint32_t>(i % 50), 1});
  trace.push_back({0, 60, 400});
  size_t blocks = 0;
  for (const Replay::Batch& batch : Replay::OfTrace(trace)) {
    EXPECT_LE(batch.numbers.size(), Replay::kWindowBlocks);
    EXPECT_TRUE(std::ranges::is_sorted(batch.numbers));
    blocks += batch.numbers.size();
  }
  EXPECT_EQ(blocks, 500);
}

}  // namespace
}  // namespace controlplane::host
