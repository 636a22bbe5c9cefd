#include <gtest/gtest.h>

#include "tests/blockd/chunk/store_world.h"

// What is so on the chunk store alone; volume_store_suite_test.cc has the contract.

namespace blockd {
namespace {

using base::Code;
using blockd::chunk::testing::kVolumeBytes;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StoreWorld;
using chunk::kMaxFrozenLayers;
using chunkstore::testing::MakeBytes;
using Kind = VolumeSource::Kind;

class VolumeStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { world_.Open(); }
  VolumeStore& store() { return world_.store(); }

  void Write(const std::string& id, uint64_t offset, const std::string& bytes) {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open(id));
    ASSERT_OK(blockd::chunk::testing::Write(*volume, offset, bytes));
  }

  StoreWorld world_;
};

TEST_F(VolumeStoreTest, LayersNeverPileUp) {
  ASSERT_OK(world_.Make("v"));
  for (size_t i = 0; i < kMaxFrozenLayers; ++i)
    ASSERT_OK(store().Snapshot("v", "s" + std::to_string(i)));
  EXPECT_ERROR(store().Snapshot("v", "one-more"), Code::kUnavailable);
  EXPECT_ERROR(world_.Make("w", {Kind::kVolume, "v"}), Code::kUnavailable);
  EXPECT_TRUE(world_.store().Tidy());
  EXPECT_OK(store().Snapshot("v", "one-more"));
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

}  // namespace
}  // namespace blockd
