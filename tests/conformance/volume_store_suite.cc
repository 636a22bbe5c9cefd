#include "tests/conformance/volume_store_suite.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <utility>

#include "tests/blockd/chunk/volume_world.h"

namespace conformance {

using base::Code;
using blockd::kBlockBytes;
using blockd::kMaxVolumeBytes;
using blockd::kSectorBytes;
using blockd::VolumeSource;
using blockd::chunk::testing::ExpectRightExtents;
using blockd::chunk::testing::ReadAll;
using blockd::chunk::testing::SectorOf;
using blockd::chunk::testing::StampOf;
using chunkstore::kChunkBytes;
using chunkstore::testing::MakeBytes;
using chunkstore::testing::Spec;
using Kind = VolumeSource::Kind;

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(VolumeStoreSuite);

// ---- the fixture

base::Result<void> VolumeStoreSuite::Make(const std::string& id, VolumeSource source,
                                          uint64_t size_bytes) {
  return store().Create({id, size_bytes, false, std::move(source)});
}

void VolumeStoreSuite::Write(const std::string& id, uint64_t offset, const std::string& bytes) {
  ASSERT_OK_AND_ASSIGN(const auto volume, store().Open(id));
  ASSERT_OK(volume->Write(offset, base::AsBytes(bytes)));
}

void VolumeStoreSuite::Zero(const std::string& id, uint64_t offset, uint64_t length) {
  ASSERT_OK_AND_ASSIGN(const auto volume, store().Open(id));
  ASSERT_OK(volume->Zero(offset, length, true));
}

std::string VolumeStoreSuite::Content(const std::string& id) {
  const auto volume = store().Open(id);
  EXPECT_OK(volume);
  return volume ? ReadAll(**volume) : "";
}

std::string VolumeStoreSuite::SnapshotContent(const std::string& id) {
  const auto info = store().FindSnapshot(id);
  EXPECT_OK(info);
  if (!info) return "";
  EXPECT_OK(Make("of-" + id, {Kind::kSnapshot, id}, info->size_bytes));
  std::string content = Content("of-" + id);
  EXPECT_OK(store().Remove("of-" + id));
  return content;
}

std::string VolumeStoreSuite::SealedContent(const std::string& id) {
  const auto holder = store().SnapshotHolder(id);
  EXPECT_OK(holder);
  if (!holder) return "";
  const auto held = chunks().FindHolder(*holder);
  EXPECT_OK(held);
  if (!held || !held->root) return "";
  auto bytes = chunkstore::testing::ReadBack(chunks(), *held->root);
  EXPECT_OK(bytes);
  return bytes ? std::move(*bytes) : "";
}

void VolumeStoreSuite::Settle() {
  while (harness_->Tidy()) {
  }
  harness_->Tidy();
}

void VolumeStoreSuite::ExpectNothingLeft() {
  Settle();
  EXPECT_EQ(harness_->Leftovers(), 0u);
}

size_t VolumeStoreSuite::ExpectChangesTold(const std::string& volume, const std::string& snapshot,
                                           const std::string& then) {
  const std::string now = Content(volume);
  const auto changed = store().ChangedSince(volume, snapshot);
  EXPECT_OK(changed);
  if (!changed) return 0;
  std::vector<bool> told;
  EXPECT_OK((*changed)->Visit(0, now.size(), [&](uint64_t length, bool is) {
    told.insert(told.end(), length / kSectorBytes, is);
    return true;
  }));
  EXPECT_EQ(told.size(), now.size() / kSectorBytes);
  std::string padded = then;
  padded.resize(now.size(), '\0');
  for (size_t sector = 0; sector < told.size(); ++sector) {
    const size_t at = sector * kSectorBytes;
    if (now.compare(at, kSectorBytes, padded, at, kSectorBytes) != 0)
      EXPECT_TRUE(told[sector]) << "sector " << sector;
  }
  return static_cast<size_t>(std::count(told.begin(), told.end(), true));
}

// ---- volumes

TEST_P(VolumeStoreSuite, AnEmptyVolumeReadsZeros) {
  ASSERT_OK(Make("v"));
  EXPECT_TRUE(Content("v") == std::string(kVolumeBytes, '\0'));
  EXPECT_ERROR(Make("v"), Code::kAlreadyExists);
  EXPECT_ERROR(store().Open("w"), Code::kNotFound);
  EXPECT_EQ(store().FindVolume("v").value().size_bytes, kVolumeBytes);
  EXPECT_EQ(store().Volumes().value().size(), 1u);
}

TEST_P(VolumeStoreSuite, RefusesWhatCanNotBe) {
  EXPECT_ERROR(Make("a/b"), Code::kInvalidArgument);
  EXPECT_ERROR(Make(""), Code::kInvalidArgument);
  EXPECT_ERROR(Make(std::string(65, 'a')), Code::kInvalidArgument);
  EXPECT_ERROR(Make("v", {}, kBlockBytes + 1), Code::kInvalidArgument);
  EXPECT_ERROR(Make("v", {}, 0), Code::kInvalidArgument);
  EXPECT_ERROR(Make("v", {}, kMaxVolumeBytes + kBlockBytes), Code::kInvalidArgument);
  EXPECT_ERROR(Make("v", {Kind::kSnapshot, "s"}), Code::kNotFound);
  EXPECT_ERROR(Make("v", {Kind::kVolume, "w"}), Code::kNotFound);
  EXPECT_ERROR(Make("v", {Kind::kContent, "image/x"}), Code::kNotFound);
  EXPECT_ERROR(store().Snapshot("v", "s"), Code::kNotFound);
  EXPECT_ERROR(store().Remove("v"), Code::kNotFound);
  EXPECT_ERROR(store().RemoveSnapshot("s"), Code::kNotFound);
  EXPECT_ERROR(store().Resize("v", kVolumeBytes), Code::kNotFound);
  ExpectNothingLeft();
}

TEST_P(VolumeStoreSuite, SectorsReadAsWrittenAndZerosAsZeros) {
  ASSERT_OK(Make("v"));
  ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
  std::string content(kVolumeBytes, '\0');
  const auto write = [&](uint64_t offset, const std::string& bytes) {
    ASSERT_OK(volume->Write(offset, base::AsBytes(bytes)));
    content.replace(offset, bytes.size(), bytes);
  };
  write(kSectorBytes, SectorOf(1));
  write(kChunkBytes - 3 * kSectorBytes, MakeBytes(2, 8 * kBlockBytes));
  write(kVolumeBytes - kSectorBytes, SectorOf(3));
  for (const bool free_space : {false, true}) {
    const uint64_t at = free_space ? 5 * kSectorBytes : kChunkBytes - kSectorBytes;
    ASSERT_OK(volume->Zero(at, 300 * kSectorBytes, free_space));
    content.replace(at, 300 * kSectorBytes, 300 * kSectorBytes, '\0');
  }
  ASSERT_OK(volume->Flush());
  EXPECT_TRUE(ReadAll(*volume) == content);
  ExpectRightExtents(*volume, content, 0, kVolumeBytes);
  ExpectRightExtents(*volume, content, kSectorBytes, kChunkBytes);
  EXPECT_ERROR(volume->Write(1, base::AsBytes(SectorOf(1))), Code::kInvalidArgument);
  EXPECT_ERROR(volume->Write(kVolumeBytes, base::AsBytes(SectorOf(1))), Code::kInvalidArgument);
  EXPECT_ERROR(volume->Zero(kVolumeBytes, kSectorBytes, true), Code::kInvalidArgument);
}

TEST_P(VolumeStoreSuite, AVolumeOfAnImageSharesItsChunksAndOutlivesIt) {
  const Spec spec{{1, 2}, 600'001};
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", spec));
  const uint64_t stored = chunks().Stats().value().chunks;
  EXPECT_ERROR(Make("small", {Kind::kContent, "image/i"}, 4 * base::kMiB), Code::kInvalidArgument);
  ASSERT_OK(Make("v", {Kind::kContent, "image/i"}));
  EXPECT_EQ(chunks().Stats().value().chunks, stored);
  ASSERT_OK(chunks().Release("image/i"));
  ASSERT_OK(chunks().Collect(true, nullptr));
  std::string expected = spec.Bytes();
  expected.resize(kVolumeBytes, '\0');
  EXPECT_TRUE(Content("v") == expected);
  Write("v", kChunkBytes, SectorOf(5));
  expected.replace(kChunkBytes, kSectorBytes, SectorOf(5));
  EXPECT_TRUE(Content("v") == expected);
  ASSERT_OK(store().Remove("v"));
  ExpectNothingLeft();
}

TEST_P(VolumeStoreSuite, ManyVolumesOfAnImageAtOnceAreAlike) {
  const Spec spec{{3, 0, 4}, 70'000};
  constexpr uint64_t kBytes = 12 * base::kMiB;
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", spec));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this, i] {
      const std::string id = std::to_string(i);
      EXPECT_OK(Make(id, {Kind::kContent, "image/i"}, kBytes));
      Write(id, 0, SectorOf(static_cast<uint64_t>(i)));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string expected = spec.Bytes();
  expected.resize(kBytes, '\0');
  for (int i = 0; i < 4; ++i) {
    expected.replace(0, kSectorBytes, SectorOf(static_cast<uint64_t>(i)));
    EXPECT_TRUE(Content(std::to_string(i)) == expected) << i;
    ASSERT_OK(store().Remove(std::to_string(i)));
  }
  ExpectNothingLeft();
}

TEST_P(VolumeStoreSuite, RefillMakesItWhatAnImageIs) {
  const Spec spec{{5}, 5000};
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", spec));
  ASSERT_OK(Make("v"));
  Write("v", kChunkBytes, SectorOf(1));
  ASSERT_OK(store().Snapshot("v", "s"));
  const std::string before = Content("v");
  ASSERT_OK(store().Refill("v", "image/i"));
  std::string expected = spec.Bytes();
  expected.resize(kVolumeBytes, '\0');
  EXPECT_TRUE(Content("v") == expected);
  ExpectChangesTold("v", "s", before);
  Settle();
  EXPECT_TRUE(Content("v") == expected);
  EXPECT_TRUE(SnapshotContent("s") == before);
  ExpectChangesTold("v", "s", before);
  EXPECT_ERROR(store().Refill("v", "image/none"), Code::kNotFound);
  EXPECT_ERROR(store().Refill("w", "image/i"), Code::kNotFound);
}

TEST_P(VolumeStoreSuite, ClonesAreIndependent) {
  ASSERT_OK(Make("v"));
  Write("v", 0, SectorOf(1));
  ASSERT_OK_AND_ASSIGN(const auto source, store().Open("v"));
  ASSERT_OK(Make("w", {Kind::kVolume, "v"}, kVolumeBytes + base::kMiB));
  Write("v", 0, SectorOf(2));
  Write("w", kSectorBytes, SectorOf(3));
  EXPECT_EQ(StampOf(ReadAll(*source, 0, kSectorBytes)), 2u);
  EXPECT_EQ(StampOf(ReadAll(*source, kSectorBytes, kSectorBytes)), 0u);
  EXPECT_EQ(StampOf(Content("w").substr(0, kSectorBytes)), 1u);
  EXPECT_ERROR(Make("x", {Kind::kVolume, "w"}, kVolumeBytes), Code::kInvalidArgument);
}

TEST_P(VolumeStoreSuite, CopiesOfCopiesGoInAnyOrder) {
  for (int order = 0; order < 6; ++order) {
    SCOPED_TRACE(order);
    std::map<std::string, std::string> contents;
    ASSERT_OK(Make("a"));
    Write("a", 0, MakeBytes(9, kBlockBytes));
    ASSERT_OK(store().Snapshot("a", "s"));
    ASSERT_OK(Make("b", {Kind::kSnapshot, "s"}));
    Write("b", kChunkBytes, SectorOf(2));
    if (order % 2 == 1) Settle();
    ASSERT_OK(Make("c", {Kind::kVolume, "b"}));
    Write("c", 2 * kBlockBytes, SectorOf(3));
    ASSERT_OK(store().Snapshot("c", "t"));
    ASSERT_OK(store().RemoveSnapshot("s"));
    for (const char* id : {"a", "b", "c"}) contents[id] = Content(id);
    std::string ids = "abc";
    for (int i = 0; i < order; ++i) std::next_permutation(ids.begin(), ids.end());
    for (char id : ids) {
      ASSERT_OK(store().Remove(std::string(1, id)));
      contents.erase(std::string(1, id));
      if (order % 3 == 0) Settle();
      for (const auto& [left, expected] : contents) EXPECT_TRUE(Content(left) == expected) << left;
    }
    Settle();
    EXPECT_EQ(StampOf(SnapshotContent("t").substr(2 * kBlockBytes, kSectorBytes)), 3u);
    ASSERT_OK(store().RemoveSnapshot("t"));
    ExpectNothingLeft();
  }
}

TEST_P(VolumeStoreSuite, AVolumeInUseIsNotRemovedNorReverted) {
  ASSERT_OK(Make("v"));
  ASSERT_OK(store().Snapshot("v", "s"));
  {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
    EXPECT_TRUE(store().FindVolume("v").value().open);
    EXPECT_ERROR(store().Remove("v"), Code::kConflict);
    EXPECT_ERROR(store().Revert("v", "s"), Code::kConflict);
    ASSERT_OK_AND_ASSIGN(const auto again, store().Open("v"));
    ASSERT_OK(volume->Write(0, base::AsBytes(SectorOf(7))));
    EXPECT_EQ(StampOf(ReadAll(*again, 0, kSectorBytes)), 7u);
  }
  ASSERT_OK(store().Revert("v", "s"));
  ASSERT_OK(store().Remove("v"));
  EXPECT_ERROR(store().Remove("v"), Code::kNotFound);
}

TEST_P(VolumeStoreSuite, AnOpenVolumeGrows) {
  ASSERT_OK(Make("v"));
  ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
  EXPECT_ERROR(volume->Write(kVolumeBytes, base::AsBytes(SectorOf(1))), Code::kInvalidArgument);
  ASSERT_OK(store().Resize("v", 2 * kVolumeBytes));
  EXPECT_EQ(volume->size_bytes(), 2 * kVolumeBytes);
  ASSERT_OK(volume->Write(kVolumeBytes, base::AsBytes(SectorOf(1))));
  EXPECT_ERROR(store().Resize("v", kVolumeBytes), Code::kInvalidArgument);
  EXPECT_EQ(store().FindVolume("v").value().size_bytes, 2 * kVolumeBytes);
}

TEST_P(VolumeStoreSuite, WhatWasNotFlushedSurvivesClosingAndAnOrderlyStop) {
  ASSERT_OK(Make("v"));
  Write("v", 0, SectorOf(1));
  Settle();  // closes it
  EXPECT_EQ(StampOf(Content("v").substr(0, kSectorBytes)), 1u);
  Write("v", 0, SectorOf(2));
  harness_->Reopen();
  EXPECT_EQ(StampOf(Content("v").substr(0, kSectorBytes)), 2u);
}

// ---- snapshots

TEST_P(VolumeStoreSuite, SnapshotsStayWhatTheyWereSealedOrNotInAnyOrderOfRemoval) {
  for (int order = 0; order < 6; ++order) {
    SCOPED_TRACE(order);
    ASSERT_OK(Make("v"));
    std::map<std::string, std::string> contents;
    for (const char* id : {"a", "b", "c"}) {
      Write("v", 3 * base::kMiB, MakeBytes(1 + order, 2 * base::kMiB));
      Write("v", static_cast<uint64_t>(id[0] - 'a') * kSectorBytes * 9, SectorOf(id[0]));
      if (id[0] == 'b') Zero("v", base::kMiB, 3 * base::kMiB);
      ASSERT_OK(store().Snapshot("v", id));
      contents[id] = Content("v");
      if (order % 2 == 0) Settle();
      Write("v", 0, MakeBytes(order + 7, 100 * kBlockBytes));
    }
    EXPECT_EQ(store().FindSnapshot("a").value().sealed, order % 2 == 0);
    EXPECT_EQ(store().Snapshots().value().size(), 3u);
    std::string ids = "abc";
    for (int i = 0; i < order; ++i) std::next_permutation(ids.begin(), ids.end());
    const std::string content = Content("v");
    for (char id : ids) {
      ASSERT_OK(store().RemoveSnapshot(std::string(1, id)));
      contents.erase(std::string(1, id));
      if (order % 3 == 0) Settle();
      EXPECT_TRUE(Content("v") == content);
      for (const auto& [left, expected] : contents)
        EXPECT_TRUE(SnapshotContent(left) == expected) << left;
    }
    ASSERT_OK(store().Remove("v"));
    ExpectNothingLeft();
  }
}

TEST_P(VolumeStoreSuite, SnapshotsOutliveTheirVolumeSealedOrNot) {
  ASSERT_OK(Make("v"));
  Write("v", kChunkBytes - kSectorBytes, MakeBytes(3, 2 * kBlockBytes));
  ASSERT_OK(store().Snapshot("v", "s"));
  const std::string content = Content("v");
  Write("v", 0, SectorOf(9));
  ASSERT_OK(store().Snapshot("v", "t"));
  ASSERT_OK(store().Remove("v"));
  EXPECT_ERROR(store().FindVolume("v"), Code::kNotFound);
  EXPECT_TRUE(SnapshotContent("s") == content);
  ASSERT_OK(Make("v"));  // the name is free at once
  EXPECT_TRUE(Content("v") == std::string(kVolumeBytes, '\0'));
  Settle();
  EXPECT_TRUE(SealedContent("s") == content);
  EXPECT_TRUE(SnapshotContent("s") == content);
  EXPECT_EQ(StampOf(SealedContent("t").substr(0, kSectorBytes)), 9u);
  for (const char* id : {"s", "t"}) ASSERT_OK(store().RemoveSnapshot(id));
  ASSERT_OK(store().Remove("v"));
  ExpectNothingLeft();
}

TEST_P(VolumeStoreSuite, RevertGoesBackAndKeepsTheSize) {
  ASSERT_OK(Make("v"));
  Write("v", 0, SectorOf(1));
  ASSERT_OK(store().Snapshot("v", "s"));
  ASSERT_OK(Make("other"));
  EXPECT_ERROR(store().Revert("other", "s"), Code::kConflict);
  ASSERT_OK(store().Resize("v", kVolumeBytes + base::kMiB));
  Write("v", 0, SectorOf(2));
  Write("v", kVolumeBytes, SectorOf(2));
  for (bool sealed : {false, true}) {
    if (sealed) Settle();
    ASSERT_OK(store().Revert("v", "s"));
    const std::string content = Content("v");
    EXPECT_EQ(content.size(), kVolumeBytes + base::kMiB);
    EXPECT_EQ(StampOf(content.substr(0, kSectorBytes)), 1u);
    EXPECT_TRUE(base::IsZero(base::AsBytes(content).subspan(kSectorBytes)));
    Write("v", 0, SectorOf(3));
  }
}

TEST_P(VolumeStoreSuite, SealedSnapshotsAreContentsThatImagesCanBeMadeOf) {
  ASSERT_OK(Make("v"));
  Write("v", 4 * base::kMiB, MakeBytes(3, 500 * kSectorBytes));
  ASSERT_OK(store().Snapshot("v", "s"));
  const std::string content = Content("v");
  EXPECT_ERROR(store().SnapshotHolder("s"), Code::kUnavailable);
  EXPECT_TRUE(harness_->Tidy());
  ASSERT_OK_AND_ASSIGN(const std::string holder, store().SnapshotHolder("s"));
  ASSERT_OK(chunks().HoldAgain(holder, "image/of-s", ""));
  ASSERT_OK(store().RemoveSnapshot("s"));
  ASSERT_OK(store().Remove("v"));
  ExpectNothingLeft();
  ASSERT_OK_AND_ASSIGN(const auto held, chunks().FindHolder("image/of-s"));
  EXPECT_TRUE(chunkstore::testing::ReadBack(chunks(), *held.root).value() == content);
}

// A base that ends inside a chunk, sealed over again and again while the volume grows.
TEST_P(VolumeStoreSuite, SealingOverABaseOfAnySizeIsExact) {
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", Spec{{1, 0, 3}, 12'345}));
  uint64_t size = 9 * base::kMiB;
  ASSERT_OK(Make("v", {Kind::kContent, "image/i"}, size));
  for (int round = 1; round <= 6; ++round) {
    const std::string id = "s" + std::to_string(round);
    if (round != 2) Write("v", static_cast<uint64_t>(round) * 1'024'000, SectorOf(round));
    if (round == 4) Zero("v", 0, 8 * base::kMiB);
    ASSERT_OK(store().Snapshot("v", id));
    const std::string content = Content("v");
    if (round == 3) continue;  // two at once
    Settle();
    EXPECT_TRUE(Content("v") == content) << round;
    EXPECT_TRUE(SealedContent(id) == content) << round;
    size += static_cast<uint64_t>(round) * 700 * base::kKiB;
    ASSERT_OK(store().Resize("v", size));
  }
}

// ---- what changed

TEST_P(VolumeStoreSuite, ChangesAreToldWhateverHappenedSince) {
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", Spec{{1, 2, 3}, 12'345}));
  constexpr uint64_t kBytes = 17 * base::kMiB;
  constexpr size_t kChunkSectors = kChunkBytes / kSectorBytes;
  ASSERT_OK(Make("v", {Kind::kContent, "image/i"}, kBytes));
  ASSERT_OK(store().Snapshot("v", "s"));
  const std::string then = Content("v");
  EXPECT_EQ(ExpectChangesTold("v", "s", then), 0u);
  Write("v", 3 * kChunkBytes, SectorOf(1));
  EXPECT_LE(ExpectChangesTold("v", "s", then), kChunkSectors);
  Settle();  // s is sealed
  EXPECT_LE(ExpectChangesTold("v", "s", then), kChunkSectors);
  ASSERT_OK(store().Snapshot("v", "t"));
  const std::string at_t = Content("v");
  Write("v", 0, SectorOf(2));
  EXPECT_LE(ExpectChangesTold("v", "s", then), 2 * kChunkSectors);
  EXPECT_LE(ExpectChangesTold("v", "t", at_t), kChunkSectors);
  Settle();  // t too: nothing but the contents tells of s
  EXPECT_LE(ExpectChangesTold("v", "s", then), 2 * kChunkSectors);
  ASSERT_OK(store().Revert("v", "s"));
  EXPECT_EQ(ExpectChangesTold("v", "s", then), 0u);
  EXPECT_LE(ExpectChangesTold("v", "t", at_t), kChunkSectors);
  Zero("v", 0, kBytes);
  ExpectChangesTold("v", "t", at_t);
  ASSERT_OK_AND_ASSIGN(const auto changed, store().ChangedSince("v", "t"));
  ASSERT_OK(store().RemoveSnapshot("t"));
  EXPECT_ERROR(changed->Visit(0, kBytes, [](uint64_t, bool) { return true; }), Code::kNotFound);
  EXPECT_ERROR(store().ChangedSince("v", "t"), Code::kNotFound);
}

TEST_P(VolumeStoreSuite, ChangesSinceAnImageAreTold) {
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/i", Spec{{1, 2}}));
  ASSERT_OK(chunkstore::testing::Upload(chunks(), "image/j", Spec{{1, 4}}));
  ASSERT_OK(Make("v", {Kind::kContent, "image/i"}, 2 * kChunkBytes));
  const auto changed_chunks = [&](const std::string& holder) {
    std::string chunks_changed;
    const auto changed = store().ChangedSinceContent("v", holder);
    EXPECT_OK(changed);
    for (uint64_t i = 0; changed && i < 2; ++i) {
      bool any = false;
      EXPECT_OK((*changed)->Visit(i * kChunkBytes, kChunkBytes, [&](uint64_t, bool is) {
        any |= is;
        return true;
      }));
      chunks_changed += any ? '#' : '.';
    }
    return chunks_changed;
  };
  EXPECT_EQ(changed_chunks("image/i"), "..");
  EXPECT_EQ(changed_chunks("image/j"), ".#");
  Write("v", 0, SectorOf(1));
  EXPECT_EQ(changed_chunks("image/i"), "#.");
  ASSERT_OK(store().Snapshot("v", "s"));
  Settle();
  EXPECT_EQ(changed_chunks("image/i"), "#.");
  EXPECT_EQ(changed_chunks("image/j"), "##");
  EXPECT_ERROR(store().ChangedSinceContent("v", "image/none"), Code::kNotFound);
}

// ---- everything at once

// Writers, snapshots, clones, sealing and removals beside each other: for the thread sanitizer; and
// each snapshot is one point in time of ordered writes.
TEST_P(VolumeStoreSuite, EverythingBesideEverything) {
  constexpr uint64_t kFar = 4 * base::kMiB + 5 * kSectorBytes;
  ASSERT_OK(Make("v"));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    auto volume = store().Open("v");
    ASSERT_OK(volume);
    for (uint64_t round = 1; !stop; ++round) {
      EXPECT_OK((*volume)->Write(0, base::AsBytes(SectorOf(round))));
      EXPECT_OK((*volume)->Write(kFar, base::AsBytes(SectorOf(round))));
      if (round % 16 == 0) EXPECT_OK((*volume)->Flush());
      EXPECT_EQ(StampOf(ReadAll(**volume, 0, kSectorBytes)), round);
      EXPECT_OK((*volume)->Zero(base::kMiB, 64 * base::kKiB, true));
    }
  });
  std::thread background([&] {
    while (!stop) harness_->Tidy();
  });
  for (int i = 0; i < 25; ++i) {
    const std::string id = "s" + std::to_string(i);
    const auto taken = store().Snapshot("v", id);
    if (!taken) {
      EXPECT_EQ(taken.error().code(), Code::kUnavailable) << taken.error().ToString();
      continue;
    }
    const std::string content = SnapshotContent(id);
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

}  // namespace conformance
