#include <algorithm>

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
  recorder.Note(7, 3, 5, TraceRecorder::kMinBytes);
  recorder.Note(7, 4, 6, 4096);
  recorder.Note(2, 0, 0, 4096);
  recorder.Note(7, 7, 7, 4096);
  EXPECT_TRUE(recorder.begun());
  EXPECT_FALSE(recorder.ended());
  EXPECT_FALSE(recorder.Take().has_value()) << "it is not over yet";
  clock.AdvanceUs(1'000'000);
  recorder.Note(9, 0, 0, 4096);  // too late
  ASSERT_TRUE(recorder.ended());
  EXPECT_EQ(recorder.Take(), (BootTrace{{7, 3, 4}, {2, 0, 1}, {7, 7, 1}}));
  EXPECT_FALSE(recorder.Take().has_value()) << "once";
}

TEST(TraceRecorder, ALookAtTheDiskIsNoBootAndTheNextReadBeginsAnew) {
  base::ManualClock clock;
  TraceRecorder recorder(1000, clock);
  recorder.Note(0, 0, 1, TraceRecorder::kMinBytes - 1);
  EXPECT_TRUE(recorder.begun());
  clock.AdvanceUs(1'000'000);
  EXPECT_FALSE(recorder.ended());
  EXPECT_FALSE(recorder.begun());
  EXPECT_FALSE(recorder.Take().has_value());
  recorder.Note(5, 0, 0, 1);
  EXPECT_TRUE(recorder.begun());
  clock.AdvanceUs(999'999);
  recorder.Note(5, 1, 1, TraceRecorder::kMinBytes - 1);
  EXPECT_FALSE(recorder.ended()) << "the window begins with the boot";
  clock.AdvanceUs(1);
  ASSERT_TRUE(recorder.ended());
  EXPECT_EQ(recorder.Take(), (BootTrace{{5, 0, 2}})) << "nothing of the look";
}

TEST(TraceRecorder, ACopyOfTheImageIsNoBoot) {
  base::ManualClock clock;
  TraceRecorder recorder(1000, clock);
  for (uint64_t chunk = 0; chunk * chunkstore::kChunkBytes <= TraceRecorder::kMaxBytes; ++chunk)
    recorder.Note(chunk, 0, 127, chunkstore::kChunkBytes);
  EXPECT_TRUE(recorder.ended());
  clock.AdvanceUs(1'000'000);
  EXPECT_FALSE(recorder.Take().has_value());
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
