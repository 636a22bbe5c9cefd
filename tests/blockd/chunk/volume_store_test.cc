#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/chunk/store_world.h"

namespace blockd {
namespace {

using base::Code;
using blockd::chunk::testing::kVolumeBytes;
using blockd::chunk::testing::ReadAll;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StampOf;
using blockd::chunk::testing::StoreWorld;
using chunk::kMaxFrozenLayers;
using chunkstore::testing::MakeBytes;
using chunkstore::testing::Spec;
using Kind = VolumeSource::Kind;

class VolumeStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { world_.Open(); }
  VolumeStore& store() { return world_.store(); }

  void Write(const std::string& id, uint64_t offset, const std::string& bytes) {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open(id));
    ASSERT_OK(blockd::chunk::testing::Write(*volume, offset, bytes));
  }
  void Zero(const std::string& id, uint64_t offset, uint64_t length) {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open(id));
    ASSERT_OK(volume->Zero(offset, length, true));
  }
  size_t LayerFiles() { return world_.files().List("/q/layers").value().size(); }
  size_t Holders() { return world_.chunks().Holders("layer/", "", 1000).value().size(); }

  StoreWorld world_;
};

TEST_F(VolumeStoreTest, AnEmptyVolumeReadsZeros) {
  ASSERT_OK(world_.Make("v"));
  EXPECT_TRUE(world_.Content("v") == std::string(kVolumeBytes, '\0'));
  EXPECT_ERROR(world_.Make("v"), Code::kAlreadyExists);
  EXPECT_ERROR(store().Open("w"), Code::kNotFound);
  EXPECT_EQ(store().FindVolume("v").value().size_bytes, kVolumeBytes);
  EXPECT_EQ(store().Volumes().value().size(), 1u);
}

TEST_F(VolumeStoreTest, RefusesWhatCanNotBe) {
  EXPECT_ERROR(world_.Make("a/b"), Code::kInvalidArgument);
  EXPECT_ERROR(world_.Make(""), Code::kInvalidArgument);
  EXPECT_ERROR(world_.Make("v", {}, kBlockBytes + 1), Code::kInvalidArgument);
  EXPECT_ERROR(world_.Make("v", {}, 0), Code::kInvalidArgument);
  EXPECT_ERROR(world_.Make("v", {}, kMaxVolumeBytes + kBlockBytes), Code::kInvalidArgument);
  EXPECT_ERROR(world_.Make("v", {Kind::kSnapshot, "s"}), Code::kNotFound);
  EXPECT_ERROR(world_.Make("v", {Kind::kVolume, "w"}), Code::kNotFound);
  EXPECT_ERROR(world_.Make("v", {Kind::kContent, "image/x"}), Code::kNotFound);
  EXPECT_ERROR(store().Snapshot("v", "s"), Code::kNotFound);
  world_.Settle();
  EXPECT_EQ(LayerFiles(), 2 * chunk::kSpareLayers);
  EXPECT_EQ(Holders(), 0u);
}

TEST_F(VolumeStoreTest, AVolumeOfAnImageSharesItsChunksAndOutlivesIt) {
  const Spec spec{{1, 2}, 600'001};
  ASSERT_OK(chunkstore::testing::Upload(world_.chunks(), "image/i", spec));
  const uint64_t stored = world_.chunks().Stats().value().chunks;
  EXPECT_ERROR(world_.Make("small", {Kind::kContent, "image/i"}, 4 * base::kMiB),
               Code::kInvalidArgument);
  ASSERT_OK(world_.Make("v", {Kind::kContent, "image/i"}));
  EXPECT_EQ(world_.chunks().Stats().value().chunks, stored);
  ASSERT_OK(world_.chunks().Release("image/i"));
  ASSERT_OK(world_.chunks().Collect(true, nullptr));
  std::string expected = spec.Bytes();
  expected.resize(kVolumeBytes, '\0');
  EXPECT_TRUE(world_.Content("v") == expected);
  ASSERT_OK(store().Remove("v"));
  world_.Settle();
  EXPECT_EQ(Holders(), 0u);
  EXPECT_EQ(LayerFiles(), 2 * chunk::kSpareLayers);
}

TEST_F(VolumeStoreTest, SnapshotsStayWhatTheyWereSealedOrNotInAnyOrderOfRemoval) {
  for (int order = 0; order < 6; ++order) {
    SCOPED_TRACE(order);
    ASSERT_OK(world_.Make("v"));
    std::map<std::string, std::string> contents;
    for (const char* id : {"a", "b", "c"}) {
      Write("v", 3 * base::kMiB, MakeBytes(1 + order, 2 * base::kMiB));
      Write("v", static_cast<uint64_t>(id[0] - 'a') * kSectorBytes * 9, SectorOf(id[0]));
      if (id[0] == 'b') Zero("v", base::kMiB, 3 * base::kMiB);
      ASSERT_OK(store().Snapshot("v", id));
      contents[id] = world_.Content("v");
      if (order % 2 == 0) world_.Settle();
      Write("v", 0, MakeBytes(order + 7, 100 * kBlockBytes));
    }
    EXPECT_EQ(store().FindSnapshot("a").value().sealed, order % 2 == 0);
    std::string ids = "abc";
    for (int i = 0; i < order; ++i) std::next_permutation(ids.begin(), ids.end());
    const std::string content = world_.Content("v");
    for (char id : ids) {
      ASSERT_OK(store().RemoveSnapshot(std::string(1, id)));
      contents.erase(std::string(1, id));
      if (order % 3 == 0) world_.Settle();
      EXPECT_TRUE(world_.Content("v") == content);
      for (const auto& [left, expected] : contents)
        EXPECT_TRUE(world_.SnapshotContent(left) == expected) << left;
    }
    ASSERT_OK(store().Remove("v"));
    world_.Settle();
    EXPECT_EQ(Holders(), 0u);
    EXPECT_EQ(LayerFiles(), 2 * chunk::kSpareLayers);
  }
}

TEST_F(VolumeStoreTest, ClonesAreIndependent) {
  ASSERT_OK(world_.Make("v"));
  Write("v", 0, SectorOf(1));
  ASSERT_OK_AND_ASSIGN(const auto source, store().Open("v"));
  ASSERT_OK(world_.Make("w", {Kind::kVolume, "v"}, kVolumeBytes + base::kMiB));
  Write("v", 0, SectorOf(2));
  Write("w", kSectorBytes, SectorOf(3));
  EXPECT_EQ(StampOf(ReadAll(*source, 0, kSectorBytes)), 2u);
  EXPECT_EQ(StampOf(ReadAll(*source, kSectorBytes, kSectorBytes)), 0u);
  EXPECT_EQ(StampOf(world_.Content("w").substr(0, kSectorBytes)), 1u);
  EXPECT_ERROR(world_.Make("x", {Kind::kVolume, "w"}, kVolumeBytes), Code::kInvalidArgument);
}

TEST_F(VolumeStoreTest, AVolumeInUseIsNotRemovedNorReverted) {
  ASSERT_OK(world_.Make("v"));
  ASSERT_OK(store().Snapshot("v", "s"));
  {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
    EXPECT_TRUE(store().FindVolume("v").value().open);
    EXPECT_ERROR(store().Remove("v"), Code::kConflict);
    EXPECT_ERROR(store().Revert("v", "s"), Code::kConflict);
  }
  ASSERT_OK(store().Revert("v", "s"));
  ASSERT_OK(store().Remove("v"));
  EXPECT_ERROR(store().Remove("v"), Code::kNotFound);
}

TEST_F(VolumeStoreTest, RevertGoesBackAndKeepsTheSize) {
  ASSERT_OK(world_.Make("v"));
  Write("v", 0, SectorOf(1));
  ASSERT_OK(store().Snapshot("v", "s"));
  ASSERT_OK(world_.Make("other"));
  EXPECT_ERROR(store().Revert("other", "s"), Code::kConflict);
  ASSERT_OK(store().Resize("v", kVolumeBytes + base::kMiB));
  Write("v", 0, SectorOf(2));
  Write("v", kVolumeBytes, SectorOf(2));
  for (bool sealed : {false, true}) {
    if (sealed) world_.Settle();
    ASSERT_OK(store().Revert("v", "s"));
    const std::string content = world_.Content("v");
    EXPECT_EQ(content.size(), kVolumeBytes + base::kMiB);
    EXPECT_EQ(StampOf(content.substr(0, kSectorBytes)), 1u);
    EXPECT_TRUE(base::IsZero(base::AsBytes(content).subspan(kSectorBytes)));
    Write("v", 0, SectorOf(3));
  }
}

TEST_F(VolumeStoreTest, AnOpenVolumeGrows) {
  ASSERT_OK(world_.Make("v"));
  ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
  EXPECT_ERROR(blockd::chunk::testing::Write(*volume, kVolumeBytes, SectorOf(1)),
               Code::kInvalidArgument);
  ASSERT_OK(store().Resize("v", 2 * kVolumeBytes));
  EXPECT_EQ(volume->size_bytes(), 2 * kVolumeBytes);
  ASSERT_OK(blockd::chunk::testing::Write(*volume, kVolumeBytes, SectorOf(1)));
  EXPECT_ERROR(store().Resize("v", kVolumeBytes), Code::kInvalidArgument);
}

TEST_F(VolumeStoreTest, SealedSnapshotsAreContentsThatImagesCanBeMadeOf) {
  ASSERT_OK(world_.Make("v"));
  Write("v", 4 * base::kMiB, MakeBytes(3, 5000 * kSectorBytes / 10));
  ASSERT_OK(store().Snapshot("v", "s"));
  const std::string content = world_.Content("v");
  EXPECT_ERROR(store().SnapshotHolder("s"), Code::kUnavailable);
  EXPECT_TRUE(world_.store().Tidy());
  ASSERT_OK_AND_ASSIGN(const std::string holder, store().SnapshotHolder("s"));
  ASSERT_OK(world_.chunks().HoldAgain(holder, "image/of-s", ""));
  ASSERT_OK(store().RemoveSnapshot("s"));
  ASSERT_OK(store().Remove("v"));
  world_.Settle();
  ASSERT_OK_AND_ASSIGN(const auto held, world_.chunks().FindHolder("image/of-s"));
  EXPECT_TRUE(chunkstore::testing::ReadBack(world_.chunks(), *held.root).value() == content);
}

// A base that ends inside a chunk, sealed over again and again while the volume grows.
TEST_F(VolumeStoreTest, SealingOverABaseOfAnySizeIsExact) {
  ASSERT_OK(chunkstore::testing::Upload(world_.chunks(), "image/i", Spec{{1, 0, 3}, 12'345}));
  uint64_t size = 9 * base::kMiB;
  ASSERT_OK(world_.Make("v", {Kind::kContent, "image/i"}, size));
  for (int round = 1; round <= 6; ++round) {
    if (round != 2) Write("v", static_cast<uint64_t>(round) * 1'024'000, SectorOf(round));
    if (round == 4) Zero("v", 0, 8 * base::kMiB);
    ASSERT_OK(store().Snapshot("v", "s" + std::to_string(round)));
    const std::string content = world_.Content("v");
    world_.Settle();
    EXPECT_TRUE(world_.Content("v") == content) << round;
    ASSERT_OK_AND_ASSIGN(const std::string holder,
                         store().SnapshotHolder("s" + std::to_string(round)));
    ASSERT_OK_AND_ASSIGN(const auto held, world_.chunks().FindHolder(holder));
    EXPECT_TRUE(chunkstore::testing::ReadBack(world_.chunks(), *held.root).value() == content);
    size += static_cast<uint64_t>(round) * 700 * base::kKiB;
    ASSERT_OK(store().Resize("v", size));
  }
}

TEST_F(VolumeStoreTest, LayersNeverPileUp) {
  ASSERT_OK(world_.Make("v"));
  for (size_t i = 0; i < kMaxFrozenLayers; ++i)
    ASSERT_OK(store().Snapshot("v", "s" + std::to_string(i)));
  EXPECT_ERROR(store().Snapshot("v", "one-more"), Code::kUnavailable);
  EXPECT_ERROR(world_.Make("w", {Kind::kVolume, "v"}), Code::kUnavailable);
  EXPECT_TRUE(world_.store().Tidy());
  EXPECT_OK(store().Snapshot("v", "one-more"));
}

TEST_F(VolumeStoreTest, WhatWasNotFlushedSurvivesClosingAndAnOrderlyStop) {
  ASSERT_OK(world_.Make("v"));
  Write("v", 0, SectorOf(1));
  world_.Settle();  // closes it
  EXPECT_EQ(StampOf(world_.Content("v").substr(0, kSectorBytes)), 1u);
  Write("v", 0, SectorOf(2));
  world_.Open();
  EXPECT_EQ(StampOf(world_.Content("v").substr(0, kSectorBytes)), 2u);
}

TEST_F(VolumeStoreTest, AThickVolumeHasItsSpaceAndOneThatDoesNotFitIsRefused) {
  world_.files().SetCapacity(world_.files().used_bytes() + kVolumeBytes + 5 * base::kMiB / 2);
  ASSERT_OK(world_.Make("thick", {}, kVolumeBytes, true));
  EXPECT_ERROR(world_.Make("second", {}, kVolumeBytes, true), Code::kOutOfSpace);
  world_.Settle();
  ASSERT_OK(world_.Make("thin"));
  ASSERT_OK_AND_ASSIGN(const auto thin, store().Open("thin"));
  for (uint64_t at = 0; at < kVolumeBytes; at += base::kMiB) {
    auto written = blockd::chunk::testing::Write(*thin, at, MakeBytes(2, base::kMiB));
    if (!written) break;
  }
  for (uint64_t at = 0; at < kVolumeBytes; at += base::kMiB)
    Write("thick", at, MakeBytes(2, base::kMiB));
}

TEST_F(VolumeStoreTest, ALargeLayerKeepsNoSmallOneWaiting) {
  constexpr uint64_t kLarge = 3 * chunk::kSealSliceBytes;
  ASSERT_OK(world_.Make("large", {}, kLarge));
  ASSERT_OK(world_.Make("small"));
  {
    ASSERT_OK_AND_ASSIGN(const auto large, store().Open("large"));
    for (uint64_t at = 0; at < kLarge; at += base::kMiB)
      ASSERT_OK(blockd::chunk::testing::Write(*large, at, MakeBytes(at, base::kMiB)));
  }
  Write("small", 0, SectorOf(1));
  ASSERT_OK(store().Snapshot("large", "of-large"));
  ASSERT_OK(store().Snapshot("small", "of-small"));
  const auto is_sealed = [&](const std::string& id) {
    const auto info = store().FindSnapshot(id);
    EXPECT_OK(info);
    return info->sealed;
  };
  EXPECT_TRUE(world_.store().Tidy());
  EXPECT_FALSE(is_sealed("of-large"));
  EXPECT_TRUE(world_.store().Tidy());
  EXPECT_TRUE(is_sealed("of-small"));
  EXPECT_FALSE(is_sealed("of-large"));
  // What somebody waits for comes first.
  Write("small", 0, SectorOf(2));
  ASSERT_OK(store().Snapshot("small", "again"));
  EXPECT_ERROR(store().SnapshotHolder("of-large"), Code::kUnavailable);
  EXPECT_TRUE(world_.store().Tidy());
  EXPECT_FALSE(is_sealed("again"));
  world_.Settle();
  EXPECT_TRUE(is_sealed("of-large"));
  EXPECT_TRUE(is_sealed("again"));
  EXPECT_EQ(world_.SnapshotContent("of-large"), world_.Content("large"));
}

TEST_F(VolumeStoreTest, ASealingWhoseLayerGoesIsGivenUp) {
  constexpr uint64_t kLarge = 2 * chunk::kSealSliceBytes;
  ASSERT_OK(world_.Make("large", {}, kLarge));
  {
    ASSERT_OK_AND_ASSIGN(const auto large, store().Open("large"));
    for (uint64_t at = 0; at < kLarge; at += base::kMiB)
      ASSERT_OK(blockd::chunk::testing::Write(*large, at, MakeBytes(at, base::kMiB)));
  }
  ASSERT_OK(store().Snapshot("large", "s"));
  EXPECT_TRUE(world_.store().Tidy());
  ASSERT_OK(store().Remove("large"));
  ASSERT_OK(store().RemoveSnapshot("s"));
  world_.Settle();
  ASSERT_OK(world_.chunks().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const auto stats, world_.chunks().Stats());
  EXPECT_EQ(stats.chunks, 0u);
}

TEST_F(VolumeStoreTest, MissingFilesAreToldNotReadAsZeros) {
  ASSERT_OK(world_.Make("v"));
  world_.Open();  // removes the spares, so what is left is the head
  ASSERT_OK_AND_ASSIGN(const auto names, world_.files().List("/q/layers"));
  for (const std::string& name : names) ASSERT_OK(world_.files().Remove("/q/layers/" + name));
  EXPECT_ERROR(store().Open("v"), Code::kCorruption);
}

// Writers, snapshots, clones, sealing and removals beside each other: for the thread sanitizer; and
// each snapshot is one point in time of ordered writes.
TEST_F(VolumeStoreTest, EverythingBesideEverything) {
  constexpr uint64_t kFar = 4 * base::kMiB + 5 * kSectorBytes;
  ASSERT_OK(world_.Make("v"));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    auto volume = store().Open("v");
    ASSERT_OK(volume);
    for (uint64_t round = 1; !stop; ++round) {
      EXPECT_OK(blockd::chunk::testing::Write(**volume, 0, SectorOf(round)));
      EXPECT_OK(blockd::chunk::testing::Write(**volume, kFar, SectorOf(round)));
      if (round % 16 == 0) EXPECT_OK((*volume)->Flush());
      EXPECT_EQ(StampOf(ReadAll(**volume, 0, kSectorBytes)), round);
      EXPECT_OK((*volume)->Zero(base::kMiB, 64 * base::kKiB, true));
    }
  });
  std::thread background([&] {
    while (!stop) world_.store().Tidy();
  });
  for (int i = 0; i < 25; ++i) {
    const std::string id = "s" + std::to_string(i);
    const auto taken = store().Snapshot("v", id);
    if (!taken) {
      EXPECT_EQ(taken.error().code(), Code::kUnavailable);
      continue;
    }
    const std::string content = world_.SnapshotContent(id);
    const uint64_t first = StampOf(std::string_view(content).substr(0, kSectorBytes));
    const uint64_t second = StampOf(std::string_view(content).substr(kFar, kSectorBytes));
    EXPECT_LE(second, first);
    EXPECT_LE(first, second + 1);
    if (i % 3 != 0) EXPECT_OK(store().RemoveSnapshot(id));
  }
  stop = true;
  writer.join();
  background.join();
}

}  // namespace
}  // namespace blockd
