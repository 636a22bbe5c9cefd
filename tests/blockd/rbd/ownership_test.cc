#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/rbd/rbd_world.h"

// Two stores on one cluster, as two processes have them: a volume has one writer, whoever thinks
// what.

namespace blockd::rbd {
namespace {

using base::Code;
using blockd::chunk::testing::ReadAll;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StampOf;

constexpr uint64_t kBytes = 8 * base::kMiB;

class OwnershipTest : public ::testing::Test {
 protected:
  void SetUp() override {
    a_ = world_.NewStore();
    b_ = world_.NewStore();
    ASSERT_OK(a_->Create({.id = "v", .size_bytes = kBytes}));
  }
  static base::Result<void> Write(Volume& volume, uint64_t offset, uint64_t stamp) {
    return volume.Write(offset, base::AsBytes(SectorOf(stamp)));
  }
  static uint64_t Stamp(Volume& volume, uint64_t offset) {
    return StampOf(ReadAll(volume, offset, kSectorBytes));
  }
  // Closing ends after the last pointer is gone.
  static std::shared_ptr<Volume> OpenOnceClosed(RbdVolumeStore& store, const std::string& id) {
    for (;;) {
      auto volume = store.Open(id);
      if (volume) return *volume;
      EXPECT_EQ(volume.error().code(), Code::kConflict) << volume.error().ToString();
      if (volume.error().code() != Code::kConflict) return nullptr;
      std::this_thread::yield();
    }
  }
  // The lease of all stores but `alive` ends.
  void LoseOthers(RbdVolumeStore& alive) {
    world_.clock().AdvanceUs(2 * world_.options().lease_ms * 1000);
    alive.Tidy();
  }

  testing::RbdWorld world_;
  std::unique_ptr<RbdVolumeStore> a_;
  std::unique_ptr<RbdVolumeStore> b_;
};

TEST_F(OwnershipTest, WhatOneHasOpenTheOtherCanNotOpenNorRemove) {
  ASSERT_OK(a_->Snapshot("v", "s"));
  {
    ASSERT_OK_AND_ASSIGN(const auto volume, a_->Open("v"));
    ASSERT_OK(Write(*volume, 0, 1));
    EXPECT_ERROR(b_->Open("v"), Code::kConflict);
    EXPECT_ERROR(b_->Remove("v"), Code::kConflict);
    EXPECT_ERROR(b_->Revert("v", "s"), Code::kConflict);
    EXPECT_TRUE(b_->FindVolume("v").value().open);
    ASSERT_OK(Write(*volume, 0, 2));
  }
  const auto volume = OpenOnceClosed(*b_, "v");
  EXPECT_EQ(Stamp(*volume, 0), 2u);
  EXPECT_ERROR(a_->Open("v"), Code::kConflict);
}

TEST_F(OwnershipTest, SnapshotsAndSizesGoThroughWhoHasItOpen) {
  ASSERT_OK_AND_ASSIGN(const auto volume, a_->Open("v"));
  ASSERT_OK(Write(*volume, 0, 1));
  ASSERT_OK(b_->Snapshot("v", "s"));
  ASSERT_OK(Write(*volume, 0, 2));
  ASSERT_OK(b_->Resize("v", 2 * kBytes));
  while (volume->size_bytes() < 2 * kBytes) std::this_thread::yield();
  ASSERT_OK(Write(*volume, kBytes, 3));
  ASSERT_OK(b_->Create(
      {.id = "w", .size_bytes = kBytes, .source = {VolumeSource::Kind::kSnapshot, "s"}}));
  ASSERT_OK_AND_ASSIGN(const auto copy, b_->Open("w"));
  EXPECT_EQ(Stamp(*copy, 0), 1u);
  ASSERT_OK(b_->Create(
      {.id = "x", .size_bytes = 2 * kBytes, .source = {VolumeSource::Kind::kVolume, "v"}}));
  ASSERT_OK_AND_ASSIGN(const auto other, b_->Open("x"));
  EXPECT_EQ(Stamp(*other, 0), 2u);
  EXPECT_EQ(Stamp(*other, kBytes), 3u);
  EXPECT_EQ(a_->FindVolume("v").value().size_bytes, 2 * kBytes);
}

// A process that was thought to be gone, and goes on, writes nothing any more.
TEST_F(OwnershipTest, ATakeoverFencesTheFirst) {
  ASSERT_OK(a_->Create({.id = "w", .size_bytes = kBytes}));
  ASSERT_OK_AND_ASSIGN(auto of_a, a_->Open("v"));
  ASSERT_OK_AND_ASSIGN(auto other_of_a, a_->Open("w"));
  ASSERT_OK(Write(*of_a, 0, 1));
  ASSERT_OK(Write(*other_of_a, 0, 10));
  EXPECT_ERROR(b_->Open("v"), Code::kConflict);
  LoseOthers(*b_);
  ASSERT_OK_AND_ASSIGN(auto of_b, b_->Open("v"));
  EXPECT_ERROR(Write(*of_a, kSectorBytes, 2), Code::kUnavailable);
  EXPECT_ERROR(Write(*other_of_a, kSectorBytes, 2), Code::kUnavailable);
  EXPECT_EQ(Stamp(*of_b, 0), 1u);
  EXPECT_EQ(Stamp(*of_b, kSectorBytes), 0u);
  ASSERT_OK(Write(*of_b, 0, 3));
  // The first knows by now, and goes on with what nobody took.
  EXPECT_ERROR(a_->Open("v"), Code::kConflict);
  ASSERT_OK_AND_ASSIGN(auto again, a_->Open("w"));
  EXPECT_EQ(Stamp(*again, 0), 10u);
  ASSERT_OK(Write(*again, 0, 11));
  EXPECT_ERROR(Write(*other_of_a, 0, 12), Code::kUnavailable);
  of_b.reset();
  of_a.reset();
  const auto back = OpenOnceClosed(*a_, "v");
  EXPECT_EQ(Stamp(*back, 0), 3u);
  ASSERT_OK(Write(*back, 0, 4));
}

// Many takeovers beside a writer: each acknowledged write is there, none comes after the takeover.
TEST_F(OwnershipTest, NoAcknowledgedWriteIsLostInTakeovers) {
  RbdVolumeStore* stores[] = {a_.get(), b_.get()};
  uint64_t acknowledged = 0;
  uint64_t next = 1;
  for (int round = 0; round < 6; ++round) {
    RbdVolumeStore& owner = *stores[round % 2];
    RbdVolumeStore& other = *stores[(round + 1) % 2];
    owner.Tidy();
    auto volume = OpenOnceClosed(owner, "v");
    ASSERT_NE(volume, nullptr);
    const uint64_t found = Stamp(*volume, 0);
    EXPECT_GE(found, acknowledged);
    EXPECT_LT(found, next);
    std::thread writer([&] {
      while (Write(*volume, 0, next)) acknowledged = next++;
      ++next;  // may be there or not
    });
    while (Stamp(*volume, 0) <= found) std::this_thread::yield();
    LoseOthers(other);
    ASSERT_OK_AND_ASSIGN(const auto taken, other.Open("v"));
    const uint64_t at_takeover = Stamp(*taken, 0);
    writer.join();
    EXPECT_EQ(Stamp(*taken, 0), at_takeover);
    EXPECT_GE(at_takeover, acknowledged);
  }
}

}  // namespace
}  // namespace blockd::rbd
