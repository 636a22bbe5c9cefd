#include "controlplane/host/images.h"

#include <atomic>
#include <latch>
#include <map>

#include <gtest/gtest.h>

#include "tests/controlplane/host/host_world.h"
#include "tests/controlplane/host/memory_image.h"
#include "tests/support/results.h"

namespace controlplane::host {
namespace {

using base::Code;
using base::Error;
using base::Result;

class ImagesTest : public testing::Test {
 protected:
  ImagesTest() {
    remote[kBase] = std::make_shared<MemoryImage>(SomeBytes(3));
    // Its sibling has a chunk of its own at the end.
    remote[kSibling] = std::make_shared<MemoryImage>(SomeBytes(3) + SomeBytes(1, 0, 9));
  }
  Images::OpenRemote Opener() {
    return [this](const Origin& origin) -> Result<std::shared_ptr<RemoteImage>> {
      ++opened;
      const auto found = remote.find(origin);
      if (found == remote.end()) return Error(Code::kNotFound, "no such image");
      return std::shared_ptr<RemoteImage>(found->second);
    };
  }
  Images::Options Traced(bool traces = true) {
    Images::Options options;
    options.patience_ms = 1;
    options.traces = traces;
    options.trace_window_ms = 1;
    return options;
  }
  static void ReadAt(blockd::Volume& volume, uint64_t offset, size_t length) {
    base::Buffer into(length);
    ASSERT_OK(volume.Read(offset, into.view()));
  }
  static bool GoOn(uint64_t, uint64_t) { return true; }

  const Origin kBase{Origin::Kind::kImage, "base"};
  const Origin kSibling{Origin::Kind::kImage, "sibling"};
  std::map<Origin, std::shared_ptr<MemoryImage>> remote;
  std::atomic<int> opened{0};
  HostWorld world;
};

TEST_F(ImagesTest, AnImageIsOpenOnceHoweverManyReadIt) {
  Images images(Opener(), world.parts(), Traced(false));
  ASSERT_OK_AND_ASSIGN(auto first, images.Open(kBase));
  ASSERT_OK_AND_ASSIGN(auto second, images.Open(kBase));
  EXPECT_EQ(first, second);
  EXPECT_EQ(opened, 1);
  first.reset();
  second.reset();
  ASSERT_OK(images.Open(kBase));
  EXPECT_EQ(opened, 2);
  EXPECT_ERROR(images.Open({Origin::Kind::kSnapshot, "base"}), Code::kNotFound);
}

TEST_F(ImagesTest, WhatABootReadIsKeptAndBroughtBeforeTheNextOne) {
  {
    base::ManualClock clock;
    world.clock = &clock;
    Images images(Opener(), world.parts(), Traced());
    ASSERT_OK_AND_ASSIGN(const auto volume, images.Open(kBase));
    ReadAt(*volume, 2 * chunkstore::kChunkBytes, 4096);
    ReadAt(*volume, 64 * base::kKiB, TraceRecorder::kMinBytes);
    images.Upkeep();
    EXPECT_FALSE(volume->recorder()->ended());
    clock.AdvanceUs(1'000);
    images.Upkeep();
    images.Upkeep();
    world.background.Drain();
  }
  ASSERT_OK_AND_ASSIGN(const auto trace, remote[kBase]->ReadTrace());
  ASSERT_TRUE(trace.has_value());
  EXPECT_EQ(trace->front().chunk, 2);
  EXPECT_EQ(trace->front().first, 0);

  HostWorld other;
  Images images(Opener(), other.parts(), Traced());
  ASSERT_OK_AND_ASSIGN(const auto volume, images.Open(kBase));
  EXPECT_EQ(volume->recorder(), nullptr) << "recorded again";
  other.background.Drain();
  remote[kBase]->Fail(Error(Code::kUnavailable, "down"));
  ReadAt(*volume, 2 * chunkstore::kChunkBytes, 4096);
  ReadAt(*volume, 64 * base::kKiB, 4096);
}

TEST_F(ImagesTest, WithoutTracesNoneIsRecordedNorBrought) {
  ASSERT_OK(remote[kBase]->WriteTrace({{0, 0, 1}}));
  Images images(Opener(), world.parts(), Traced(false));
  ASSERT_OK_AND_ASSIGN(const auto volume, images.Open(kBase));
  world.background.Drain();
  EXPECT_EQ(remote[kBase]->fetches, 0);
  EXPECT_EQ(volume->recorder(), nullptr);
}

TEST_F(ImagesTest, WarmBringsAllOfAnImageAndNothingTwice) {
  Images images(Opener(), world.parts(), Traced(false));
  uint64_t done = 0;
  ASSERT_OK(images.Warm(kBase, false, [&](uint64_t now, uint64_t total) {
    done = now;
    EXPECT_EQ(total, 2);
    return true;
  }));
  EXPECT_EQ(done, 2);
  EXPECT_EQ(remote[kBase]->fetched_blocks, remote[kBase]->blocks());
  ASSERT_OK(images.Warm(kBase, false, GoOn));
  EXPECT_EQ(remote[kBase]->fetched_blocks, remote[kBase]->blocks());
  // A sibling's blocks are here as far as they are the same.
  ASSERT_OK(images.Warm(kSibling, false, GoOn));
  EXPECT_EQ(remote[kSibling]->fetched_blocks, remote[kSibling]->table(3).size());
}

TEST_F(ImagesTest, WarmTellsWhatIsWrong) {
  Images images(Opener(), world.parts(), Traced(false));
  EXPECT_ERROR(images.Warm(kBase, true, GoOn), Code::kNotFound) << "without a trace";
  ASSERT_OK(images.Open(kBase));
  std::latch called_off(1);
  remote[kBase]->SetBefore([&] {
    if (remote[kBase]->table_calls > 0) called_off.wait();
  });
  std::atomic<bool> once{false};
  EXPECT_ERROR(images.Warm(kBase, false,
                           [&](uint64_t, uint64_t) {
                             if (!once.exchange(true)) called_off.count_down();
                             return false;
                           }),
               Code::kCancelled);
  ASSERT_OK_AND_ASSIGN(const auto volume, images.Open(kSibling));
  remote[kSibling]->Fail(Error(Code::kUnavailable, "down"));
  EXPECT_ERROR(images.Warm(kSibling, false, GoOn), Code::kUnavailable);
}

TEST_F(ImagesTest, WhatIsPinnedIsNotDropped) {
  Images images(Opener(), world.parts(), Traced(false));
  ASSERT_OK(images.Warm(kBase, false, GoOn));
  ASSERT_OK(images.Pin(kBase, GoOn));
  ASSERT_OK_AND_ASSIGN(auto dropped, images.Drop(kBase, GoOn));
  EXPECT_EQ(dropped.blocks, 0);
  EXPECT_GT(dropped.pinned_blocks, 0);
  ASSERT_OK(images.Unpin(kBase));
  EXPECT_ERROR(images.Unpin(kBase), Code::kNotFound);
  ASSERT_OK_AND_ASSIGN(dropped, images.Drop(kBase, GoOn));
  EXPECT_EQ(dropped.blocks, remote[kBase]->blocks());
}

}  // namespace
}  // namespace controlplane::host
