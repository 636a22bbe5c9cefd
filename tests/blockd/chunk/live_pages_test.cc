#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "tests/blockd/chunk/live_pages_world.h"

// What outlives a process, what of it is believed, and what is lost.

namespace blockd::chunk {
namespace {

constexpr uint64_t kPages = 3;  // that the random workloads touch

TEST_F(LivePagesTest, WhatWasNotFlushedIsThereAfterAKill) {
  ASSERT_OK(Fill(*layer_, 3 * kBlocksPerPage, 1, 'b'));
  WriteUnflushed();
  Restart();
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
  EXPECT_EQ(BlockOf(*layer_, 6), std::string(kBlockBytes, 'a'));
  EXPECT_EQ(States(*layer_, 2, 3 * kBlocksPerPage), "1 data, 1 absent");
  EXPECT_EQ(private_pages_.value(), 0);
  // Killed again, before it was flushed.
  EXPECT_FALSE(layer_->clean());
  ASSERT_OK(Fill(*layer_, 11, 1, 'c'));
  Restart();
  EXPECT_EQ(States(*layer_, 13), "5 absent, 2 data, 2 absent, 1 zero, 1 absent, 1 data, 1 absent");
}

TEST_F(LivePagesTest, WhatIsTakenUpIsFlushedLikeTheRest) {
  WriteUnflushed();
  Restart();
  ASSERT_OK(layer_->Flush());
  EXPECT_TRUE(layer_->clean());
  Kill();
  EXPECT_EQ(LeftInParent(), std::vector<std::string>());
  OpenLayer();
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
}

// Its bytes must be synced before its states are written, though no write came since the start.
TEST_F(LivePagesTest, WhatIsTakenUpHasBytesThatAreNotSynced) {
  WriteUnflushed();
  Kill();
  OpenDir();
  OpenLayer();
  EXPECT_FALSE(layer_->clean());
  ASSERT_OK(layer_->map().Write(layer_->map().TakeDirty(100)));
  EXPECT_EQ(layer_->map().dirty_pages(), 0u);
  EXPECT_FALSE(layer_->clean());
}

TEST_F(LivePagesTest, ACleanLayerLeavesNothing) {
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());  // nor does one that was never touched
  WriteUnflushed();
  EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
  ASSERT_OK(layer_->Flush());
  layer_.reset();
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
  live_.reset();
  EXPECT_EQ(LeftInParent(), std::vector<std::string>());
  EXPECT_EQ(files_.List(layers_)->size(), 2u);  // and no mark
}

TEST_F(LivePagesTest, ARemovedLayerLeavesNothing) {
  WriteUnflushed();
  ASSERT_OK(Layer::Remove(files_, layers_, "one", live_));
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
  // Who has it open works on.
  ASSERT_OK(Fill(*layer_, 5 * kBlocksPerPage, 1, 'b'));
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
  Kill();
  EXPECT_EQ(LeftInParent(), std::vector<std::string>());
}

TEST_F(LivePagesTest, AfterAPowerLossTheMapOnDiskCounts) {
  ASSERT_OK(Fill(*layer_, 1, 1, 'a'));
  ASSERT_OK(layer_->Flush());
  WriteUnflushed();
  Kill();
  std::filesystem::remove_all(parent_);
  ASSERT_OK(files_.CreateDirs(parent_));
  OpenDir();
  OpenLayer();
  EXPECT_EQ(States(*layer_, 12), "1 absent, 1 data, 10 absent");
}

TEST_F(LivePagesTest, OfAnotherBootNothingIsBelieved) {
  WriteUnflushed();
  Kill();
  OpenDir("another");
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
  OpenLayer();
  EXPECT_EQ(States(*layer_, 12), "12 absent");
}

TEST_F(LivePagesTest, OfAnotherDataFileNothingIsBelieved) {
  WriteUnflushed();
  Kill();
  std::filesystem::copy(layers_ + "/one.data", layers_ + "/copy");
  std::filesystem::rename(layers_ + "/copy", layers_ + "/one.data");
  OpenDir();
  EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
  OpenLayer();
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
  EXPECT_EQ(States(*layer_, 12), "12 absent");
  // And it goes on with a new file.
  WriteUnflushed();
  Restart();
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
}

TEST_F(LivePagesTest, OfAnotherLayerNothingIsBelieved) {
  WriteUnflushed();
  ASSERT_OK(Layer::Create(files_, layers_, "two", live_));
  const std::string path = live_->path();
  Kill();
  std::filesystem::rename(path + "/one", path + "/two");
  OpenDir();
  ASSERT_OK_AND_ASSIGN(const auto two, Layer::Open(files_, layers_, "two", live_));
  EXPECT_EQ(States(*two, 12), "12 absent");
}

TEST_F(LivePagesTest, ADamagedHeaderIsNotBelieved) {
  WriteUnflushed();
  Damage(20, "x");
  EXPECT_EQ(States(*layer_, 12), "12 absent");
}

// Killed while the file was made: nothing was in it, so nothing is lost, and nobody is told so.
TEST_F(LivePagesTest, AFileThatWasOnlyBegunIsNone) {
  for (const uint64_t header_bytes : {0, 1, 30}) {
    WriteUnflushed();
    const std::string path = LiveFile();
    Kill();
    std::filesystem::resize_file(path, header_bytes);
    if (header_bytes > 0) std::filesystem::resize_file(path, kMapPageBytes);
    ::testing::internal::CaptureStderr();
    OpenDir();
    OpenLayer();
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    EXPECT_EQ(States(*layer_, 12), "12 absent");
    WriteUnflushed();
    Restart();
    EXPECT_EQ(States(*layer_, 12), kUnflushed);
  }
}

// And neither are the other pages: somebody else has written there.
TEST_F(LivePagesTest, APageWithAnImpossibleStateIsNotBelieved) {
  WriteUnflushed();
  ASSERT_OK(Fill(*layer_, kBlocksPerPage, 1, 'b'));
  Damage((1 + 8 + 1) * kMapPageBytes, "\x03");
  EXPECT_EQ(States(*layer_, 12), "12 absent");
  EXPECT_EQ(States(*layer_, 2, kBlocksPerPage), "2 absent");
  EXPECT_TRUE(layer_->clean());
}

TEST_F(LivePagesTest, AFileThatIsCutShortIsNotBelieved) {
  WriteUnflushed();
  const std::string path = LiveFile();
  Kill();
  std::filesystem::resize_file(path, (1 + 8) * kMapPageBytes + 100);
  OpenDir();
  OpenLayer();
  EXPECT_EQ(States(*layer_, 12), "12 absent");
}

// The process was killed after it took the page and before the page said what the disk says.
TEST_F(LivePagesTest, APageThatIsNotMarkedAsValidIsReadFromTheDisk) {
  ASSERT_OK(Fill(*layer_, 1, 1, 'a'));
  ASSERT_OK(layer_->Flush());
  WriteUnflushed();
  ASSERT_OK(Fill(*layer_, kBlocksPerPage, 1, 'b'));
  Damage(kMapPageBytes, "\x02");  // of the two pages, the second
  EXPECT_EQ(States(*layer_, 12), "1 absent, 1 data, 10 absent");
  EXPECT_EQ(States(*layer_, 2, kBlocksPerPage), "1 data, 1 absent");
}

// The kernel may have dropped the bytes that they speak of.
TEST_F(LivePagesTest, ALayerWhoseSyncFailedGivesThemUp) {
  WriteUnflushed();
  files_.fail = true;
  EXPECT_ERROR(layer_->Flush(), Code::kIo);
  EXPECT_EQ(live_->Ids(), std::vector<std::string>());
  // It is still read, and what is loaded for that is nothing that anybody has to know.
  EXPECT_EQ(States(*layer_, 12), kUnflushed);
  EXPECT_EQ(States(*layer_, 2, 9 * kBlocksPerPage), "2 absent");
  EXPECT_EQ(private_pages_.value(), 0);
  files_.fail = false;
  Restart();
  EXPECT_EQ(States(*layer_, 12), "12 absent");
}

// ---- with processes, mounts and threads

// Runs `work` in a process of its own, with mounts of its own if it may; false: it may not.
template <typename Work>
bool InItsOwnMounts(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool may = ::unshare(CLONE_NEWNS) == 0 &&
                     ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    if (!may) ::_exit(77);
    work();
    (void)std::fflush(stdout);
    ::_exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child ended with " << status;
  return true;
}

TEST_F(LivePagesTest, AProcessThatIsKilledLeavesThem) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    WriteUnflushed();
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  const std::string path = live_->path();
  // Of this process: it knows nothing of it.
  EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
  ASSERT_OK_AND_ASSIGN(const auto found, Layer::Open(files_, layers_, "one", live_));
  EXPECT_EQ(States(*found, 12), kUnflushed);
  EXPECT_EQ(BlockOf(*found, 5), std::string(kBlockBytes, 'a'));
}

// A file system that doesn't tell when it was mounted: only its mount says so, and a service in a
// namespace of its own has another one.
TEST_F(LivePagesTest, OfAnotherMountNothingIsBelieved) {
  Kill();
  const bool tried = InItsOwnMounts([&] {
    ASSERT_EQ(::mount("none", layers_.c_str(), "tmpfs", 0, nullptr), 0);
    OpenDir();
    ASSERT_OK_AND_ASSIGN(layer_, Layer::Create(files_, layers_, "one", live_));
    WriteUnflushed();
    Restart();
    ASSERT_EQ(States(*layer_, 12), kUnflushed);
    Kill();
    EXPECT_TRUE(InItsOwnMounts([&] {
      OpenDir();
      EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
      OpenLayer();
      EXPECT_EQ(States(*layer_, 12), "12 absent");
    }));
  });
  if (!tried) GTEST_SKIP() << "NOT tried: this needs root";
}

// One that tells: the namespace does not matter, but its page cache is gone if it was away.
TEST_F(LivePagesTest, OfAFileSystemThatWasAwayNothingIsBelieved) {
  Kill();
  const std::string image = dir_ / "image";
  const std::string mount = "mount -o loop " + image + " " + layers_;
  const std::string make = "truncate -s 16M " + image + " && mkfs.ext4 -q " + image;
  const bool tried = InItsOwnMounts([&] {
    if (std::system((make + " && " + mount).c_str()) != 0) ::_exit(77);
    OpenDir();
    ASSERT_OK_AND_ASSIGN(layer_, Layer::Create(files_, layers_, "one", live_));
    WriteUnflushed();
    Kill();
    EXPECT_TRUE(InItsOwnMounts([&] {
      OpenDir();
      OpenLayer();
      EXPECT_EQ(States(*layer_, 12), kUnflushed);
      Kill();
    }));
    ASSERT_EQ(std::system(("umount " + layers_ + " && " + mount).c_str()), 0);
    OpenDir();
    EXPECT_EQ(live_->Ids(), std::vector<std::string>{"one"});
    OpenLayer();
    EXPECT_EQ(States(*layer_, 12), "12 absent");
  });
  if (!tried) GTEST_SKIP() << "NOT tried: this needs root, loop devices and mkfs.ext4";
}

TEST_F(LivePagesTest, WhereThereIsNoRoomPagesArePrivate) {
  Kill();
  ASSERT_OK(Layer::Remove(files_, layers_, "one"));
  const bool tried = InItsOwnMounts([&] {
    // A header, a page of marks, and two pages of states.
    ASSERT_EQ(::mount("none", parent_.c_str(), "tmpfs", 0, "size=16k"), 0);
    OpenDir();
    ASSERT_OK_AND_ASSIGN(layer_, Layer::Create(files_, layers_, "one", live_));
    for (uint64_t page = 0; page < 5; ++page)
      ASSERT_OK(Fill(*layer_, page * kBlocksPerPage, 2, 'a'));
    EXPECT_EQ(private_pages_.value(), 3);
    Restart();
    EXPECT_EQ(private_pages_.value(), 0);
    for (uint64_t page = 0; page < 5; ++page) {
      EXPECT_EQ(States(*layer_, 3, page * kBlocksPerPage),
                page < 2 ? "2 data, 1 absent" : "3 absent");
    }
    // No room for a file at all.
    ASSERT_OK_AND_ASSIGN(const auto two, Layer::Create(files_, layers_, "two", live_));
    ASSERT_OK(Fill(*two, 0, 2, 'b'));
    EXPECT_EQ(States(*two, 3), "2 data, 1 absent");
    ASSERT_OK(two->Flush());
    ASSERT_OK(layer_->Flush());
  });
  if (!tried) GTEST_SKIP() << "NOT tried: this needs root";
}

// Kills, flushes and power losses in any order: states are exact after a kill, and after a power
// loss those that were flushed are.
TEST_F(LivePagesTest, OverAnyKillsStatesAreExact) {
  std::mt19937_64 random(11);
  std::vector<BlockState> model(kPages * kBlocksPerPage);
  std::vector<BlockState> flushed = model;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t count = 1 + random() % 70;
    const uint64_t block = random() % kPages * kBlocksPerPage + random() % 200;
    const uint64_t what = random() % 40;
    if (what < 30) {
      const auto state = static_cast<BlockState>(random() % 3);
      if (state == BlockState::kData) ASSERT_OK(Fill(*layer_, block, count, 'a'));
      if (state != BlockState::kData)
        ASSERT_OK(layer_->Clear(block, count, state, random() % 2 == 0));
      std::fill_n(model.begin() + static_cast<ptrdiff_t>(block), count, state);
    } else if (what < 35) {
      ASSERT_OK(layer_->Flush());
      flushed = model;
    } else if (what < 39) {
      Restart();
    } else {
      Kill();
      std::filesystem::remove_all(parent_);
      ASSERT_OK(files_.CreateDirs(parent_));
      OpenDir();
      OpenLayer();
      model = flushed;
    }
    for (uint64_t page = 0; page < kPages && what >= 35; ++page) {
      for (uint64_t at = page * kBlocksPerPage; at < page * kBlocksPerPage + 300; ++at)
        ASSERT_EQ(layer_->map().RunAt(at, 1)->state, model[at]) << "block " << at << ", " << step;
    }
  }
}

// For the thread sanitizer, and: what all of them wrote is there after a kill.
TEST_F(LivePagesTest, WritersReadersAndFlushesBesideEachOther) {
  constexpr int kWriters = 4;
  constexpr uint64_t kRounds = 60;
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      for (uint64_t round = 0; round < kRounds; ++round) {
        const uint64_t block = round * kBlocksPerPage / 2 + writer;
        EXPECT_OK(Fill(*layer_, block, 1, static_cast<char>('a' + writer)));
        EXPECT_OK(layer_->map().RunAt((round + writer) * kBlocksPerPage, 8));
        if (round % 20 == writer) EXPECT_OK(layer_->Flush());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Restart();
  for (uint64_t round = 0; round < kRounds; ++round) {
    EXPECT_EQ(States(*layer_, kWriters + 1, round * kBlocksPerPage / 2), "4 data, 1 absent");
    EXPECT_EQ(BlockOf(*layer_, round * kBlocksPerPage / 2 + 1)[0], 'b');
  }
}

}  // namespace
}  // namespace blockd::chunk
