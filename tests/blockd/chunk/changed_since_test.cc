#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "tests/blockd/chunk/store_world.h"

namespace blockd::chunk::testing {
namespace {

using base::Code;
using chunkstore::kChunkBytes;
using chunkstore::testing::MakeBytes;
using Kind = VolumeSource::Kind;

constexpr uint64_t kBlocks = kVolumeBytes / kBlockBytes;

class ChangedSinceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    world_.Open();
    ASSERT_OK(world_.Make("v"));
  }
  VolumeStore& store() { return world_.store(); }

  void Write(uint64_t offset, const std::string& bytes) {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
    ASSERT_OK(testing::Write(*volume, offset, bytes));
  }
  void Zero(uint64_t offset, uint64_t length) {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("v"));
    ASSERT_OK(volume->Zero(offset, length, true));
  }
  std::string Changed(const std::string& snapshot, uint64_t offset, uint64_t length) {
    auto changed = store().ChangedSince("v", snapshot);
    EXPECT_OK(changed);
    return changed ? Changed(**changed, offset, length) : "";
  }
  // One character a sector: '#' changed, '.' not.
  static std::string Changed(ChangedBlocks& changed, uint64_t offset, uint64_t length) {
    std::string sectors;
    EXPECT_OK(changed.Visit(offset, length, [&](uint64_t run, bool is) {
      EXPECT_GT(run, 0u);
      EXPECT_EQ(run % kSectorBytes, 0u);
      sectors.append(run / kSectorBytes, is ? '#' : '.');
      return true;
    }));
    EXPECT_EQ(sectors.size(), length / kSectorBytes);
    return sectors;
  }
  size_t ChangedBlocksSince(const std::string& snapshot) {
    const std::string sectors = Changed(snapshot, 0, kVolumeBytes);
    return static_cast<size_t>(std::count(sectors.begin(), sectors.end(), '#')) /
           (kBlockBytes / kSectorBytes);
  }

  StoreWorld world_;
};

TEST_F(ChangedSinceTest, ExactlyTheBlocksThatWereWrittenWhereLayersTell) {
  Write(0, MakeBytes(1, kVolumeBytes));
  ASSERT_OK(store().Snapshot("v", "s"));
  EXPECT_EQ(ChangedBlocksSince("s"), 0u);
  Write(3 * kBlockBytes + kSectorBytes, SectorOf(7));
  Zero(100 * kBlockBytes, 2 * kBlockBytes);
  EXPECT_EQ(ChangedBlocksSince("s"), 3u);
  EXPECT_EQ(Changed("s", 2 * kBlockBytes + 7 * kSectorBytes, kBlockBytes + 2 * kSectorBytes),
            ".########.");
  // What was sealed since is a content: that is known by the chunk.
  ASSERT_OK(store().Snapshot("v", "t"));
  EXPECT_EQ(ChangedBlocksSince("s"), 3u);
  world_.Settle();
  EXPECT_EQ(ChangedBlocksSince("s"), kChunkBytes / kBlockBytes);
  EXPECT_EQ(ChangedBlocksSince("t"), 0u);
  Write(kVolumeBytes - kSectorBytes, SectorOf(8));
  EXPECT_EQ(ChangedBlocksSince("t"), 1u);
  EXPECT_EQ(ChangedBlocksSince("s"), kChunkBytes / kBlockBytes + 1);
}

TEST_F(ChangedSinceTest, AfterARevertToAnOlderSnapshotTheYoungerOneDiffersTheOtherWay) {
  Write(0, SectorOf(1));
  ASSERT_OK(store().Snapshot("v", "s"));
  Write(kBlockBytes, SectorOf(2));
  ASSERT_OK(store().Snapshot("v", "t"));
  ASSERT_OK(store().Revert("v", "s"));
  EXPECT_EQ(ChangedBlocksSince("s"), 0u);
  EXPECT_EQ(ChangedBlocksSince("t"), 1u);
  world_.Settle();
  EXPECT_EQ(ChangedBlocksSince("s"), 0u);
  EXPECT_EQ(Changed("t", 0, kSectorBytes), "#");
  EXPECT_EQ(Changed("t", kChunkBytes, kSectorBytes), ".");
}

TEST_F(ChangedSinceTest, OnlySnapshotsOfTheVolumeAndOnlyWhileTheyAreThere) {
  ASSERT_OK(store().Snapshot("v", "s"));
  ASSERT_OK(world_.Make("w", {Kind::kSnapshot, "s"}));
  EXPECT_ERROR(store().ChangedSince("w", "s"), Code::kNotFound);
  EXPECT_ERROR(store().ChangedSince("v", "t"), Code::kNotFound);
  EXPECT_ERROR(store().ChangedSince("x", "s"), Code::kNotFound);
  ASSERT_OK_AND_ASSIGN(const auto changed, store().ChangedSince("v", "s"));
  ASSERT_OK(store().RemoveSnapshot("s"));
  const auto ignore = [](uint64_t, bool) { return true; };
  EXPECT_ERROR(changed->Visit(0, kVolumeBytes, ignore), Code::kNotFound);
  // Nothing is kept for it.
  ASSERT_OK(store().Remove("v"));
  ASSERT_OK(store().Remove("w"));
  world_.Settle();
  EXPECT_EQ(world_.chunks().Holders("layer/", "", 1000).value().size(), 0u);
}

TEST_F(ChangedSinceTest, WhoeverStopsIsNotToldMore) {
  ASSERT_OK(store().Snapshot("v", "s"));
  Write(kBlockBytes, SectorOf(2));
  ASSERT_OK_AND_ASSIGN(const auto changed, store().ChangedSince("v", "s"));
  int calls = 0;
  ASSERT_OK(changed->Visit(0, kVolumeBytes, [&](uint64_t length, bool is) {
    EXPECT_EQ(length, kBlockBytes);
    EXPECT_FALSE(is);
    return ++calls == 2;
  }));
  EXPECT_EQ(calls, 1);
}

// The bytes of a volume as an image: held in the chunk store under `holder`.
void MakeImage(StoreWorld& world, const std::string& holder, const std::string& bytes) {
  ASSERT_OK(world.Make("image", {}, bytes.size()));
  {
    ASSERT_OK_AND_ASSIGN(const auto volume, world.store().Open("image"));
    ASSERT_OK(testing::Write(*volume, 0, bytes));
  }
  ASSERT_OK(world.store().Snapshot("image", "of-image"));
  world.Settle();
  ASSERT_OK_AND_ASSIGN(const std::string sealed, world.store().SnapshotHolder("of-image"));
  ASSERT_OK(world.chunks().HoldAgain(sealed, holder, ""));
  ASSERT_OK(world.store().Remove("image"));
  ASSERT_OK(world.store().RemoveSnapshot("of-image"));
  world.Settle();
}

TEST_F(ChangedSinceTest, SinceAnImageWhateverTheVolumeWasMadeOf) {
  MakeImage(world_, "image/i", MakeBytes(3, kChunkBytes + 16 * kBlockBytes));
  ASSERT_OK(world_.Make("w", {Kind::kContent, "image/i"}));
  const auto since = [&](const std::string& volume) {
    auto changed = store().ChangedSinceContent(volume, "image/i");
    EXPECT_OK(changed);
    return changed ? Changed(**changed, 0, kVolumeBytes) : "";
  };
  const auto blocks = [](const std::string& sectors) {
    return static_cast<size_t>(std::count(sectors.begin(), sectors.end(), '#')) /
           (kBlockBytes / kSectorBytes);
  };
  EXPECT_EQ(blocks(since("w")), 0u) << "fresh";
  {
    ASSERT_OK_AND_ASSIGN(const auto volume, store().Open("w"));
    ASSERT_OK(testing::Write(*volume, 5 * kBlockBytes, SectorOf(7)));
    ASSERT_OK(volume->Zero(kChunkBytes, 2 * kBlockBytes, true));
    // Beyond the image, which has zeros there.
    ASSERT_OK(testing::Write(*volume, kVolumeBytes - kSectorBytes, SectorOf(8)));
  }
  const std::string written = since("w");
  EXPECT_EQ(blocks(written), 4u);
  EXPECT_EQ(written.substr(5 * 8, 8), "########");
  EXPECT_EQ(written.substr(kChunkBytes / kSectorBytes, 17), "################.");
  EXPECT_EQ(written.back(), '#');
  // Sealed: by the chunk. Then written again, and back.
  ASSERT_OK(store().Snapshot("w", "t"));
  world_.Settle();
  EXPECT_EQ(blocks(since("w")), kBlocks);
  ASSERT_OK(store().Resize("w", 2 * kVolumeBytes));
  EXPECT_EQ(blocks(since("w")), kBlocks);
  ASSERT_OK(store().Refill("w", "image/i"));
  EXPECT_EQ(blocks(since("w")), 0u);
  ASSERT_OK(store().Revert("w", "t"));
  EXPECT_EQ(blocks(since("w")), kBlocks);
  // One that has nothing of it.
  EXPECT_EQ(blocks(since("v")), kBlocks);
  EXPECT_ERROR(store().ChangedSinceContent("x", "image/i"), Code::kNotFound);
  EXPECT_ERROR(store().ChangedSinceContent("w", "image/j"), Code::kNotFound);
  ASSERT_OK_AND_ASSIGN(const auto changed, store().ChangedSinceContent("w", "image/i"));
  ASSERT_OK(world_.chunks().Release("image/i"));
  const auto ignore = [](uint64_t, bool) { return true; };
  EXPECT_ERROR(changed->Visit(0, kVolumeBytes, ignore), Code::kNotFound);
}

// A volume, its snapshots and the image it was made of as strings.
class Model {
 public:
  Model(StoreWorld& world, uint64_t seed) : world_(world), random_(seed) {
    image_ = MakeBytes(static_cast<int>(seed), kChunkBytes + (1 + seed) * 3 * kBlockBytes);
    MakeImage(world, "image/i", image_);
    EXPECT_OK(world.Make("v", {Kind::kContent, "image/i"}));
    now_.replace(0, image_.size(), image_);
  }

  void Step() {
    switch (random_() % 16) {
      case 0:
      case 1:
        return Snapshot();
      case 2:
        return RemoveSnapshot();
      case 3:
        return Revert();
      case 4:
        return Grow();
      case 5:
      case 6:
        world_.store().Tidy();
        return;
      case 7:
      case 8:
        return Zero();
      default:
        return Write();
    }
  }

  // What differs is told to have changed, for each snapshot, in a range.
  void Check() {
    for (const auto& [id, then] : snapshots_) {
      ASSERT_OK_AND_ASSIGN(const auto changed, world_.store().ChangedSince("v", id));
      CheckOne(*changed, then, id);
    }
    ASSERT_OK_AND_ASSIGN(const auto changed, world_.store().ChangedSinceContent("v", "image/i"));
    CheckOne(*changed, image_, "the image");
  }
  void CheckOne(ChangedBlocks& changed, const std::string& then, const std::string& id) {
    const uint64_t first = random_() % (now_.size() / kSectorBytes);
    const uint64_t offset = random_() % 2 == 0 ? 0 : first * kSectorBytes;
    uint64_t at = offset;
    ASSERT_OK(changed.Visit(offset, now_.size() - offset, [&](uint64_t length, bool is) {
      if (!is) EXPECT_TRUE(Same(then, at, length)) << id << " at " << at;
      told_ += is ? length : 0;
      at += length;
      return true;
    }));
    ASSERT_EQ(at, now_.size());
  }
  uint64_t told_bytes() const { return told_; }

 private:
  bool Same(const std::string& then, uint64_t offset, uint64_t length) const {
    std::string was = offset < then.size() ? then.substr(offset, length) : "";
    was.resize(length, '\0');
    return std::string_view(now_).substr(offset, length) == was;
  }
  std::pair<uint64_t, uint64_t> Range() {
    const uint64_t sectors = now_.size() / kSectorBytes;
    // Where it matters: around the end of the first chunk, or anywhere.
    const uint64_t first =
        random_() % 2 ? random_() % sectors : kChunkBytes / kSectorBytes - random_() % 30;
    const uint64_t count = 1 + random_() % 40;
    return {first * kSectorBytes, std::min(count, sectors - first) * kSectorBytes};
  }
  void Write() {
    const auto [offset, length] = Range();
    const std::string bytes = MakeBytes(static_cast<int>(++stamps_), length);
    ASSERT_OK_AND_ASSIGN(const auto volume, world_.store().Open("v"));
    ASSERT_OK(testing::Write(*volume, offset, bytes));
    now_.replace(offset, length, bytes);
  }
  void Zero() {
    const auto [offset, length] = Range();
    ASSERT_OK_AND_ASSIGN(const auto volume, world_.store().Open("v"));
    ASSERT_OK(volume->Zero(offset, length, random_() % 2 == 0));
    now_.replace(offset, length, length, '\0');
  }
  void Snapshot() {
    if (snapshots_.size() >= 5) return;
    const std::string id = "s" + std::to_string(++stamps_);
    const base::Result<void> taken = world_.store().Snapshot("v", id);
    if (!taken && taken.error().code() == Code::kUnavailable) return world_.Settle();
    ASSERT_OK(taken);
    snapshots_[id] = now_;
  }
  std::string AnySnapshot() {
    if (snapshots_.empty()) return "";
    return std::next(snapshots_.begin(), static_cast<ptrdiff_t>(random_() % snapshots_.size()))
        ->first;
  }
  void RemoveSnapshot() {
    const std::string id = AnySnapshot();
    if (id.empty()) return;
    ASSERT_OK(world_.store().RemoveSnapshot(id));
    snapshots_.erase(id);
  }
  void Revert() {
    const std::string id = AnySnapshot();
    if (id.empty()) return;
    ASSERT_OK(world_.store().Revert("v", id));
    const size_t size = now_.size();
    now_ = snapshots_[id];
    now_.resize(size, '\0');
  }
  void Grow() {
    if (now_.size() > 3 * kVolumeBytes) return;
    const uint64_t size = now_.size() + (1 + random_() % 300) * kBlockBytes;
    ASSERT_OK(world_.store().Resize("v", size));
    now_.resize(size, '\0');
  }

  StoreWorld& world_;
  std::mt19937_64 random_;
  std::string image_;
  std::string now_ = std::string(kVolumeBytes, '\0');
  std::map<std::string, std::string> snapshots_;
  uint64_t stamps_ = 0;
  uint64_t told_ = 0;
};

TEST(ChangedSinceModel, NeverToldTooLittle) {
  for (uint64_t seed = 1; seed <= 5 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    StoreWorld world;
    world.Open();
    Model model(world, seed);
    for (int step = 0; step < 120 && !::testing::Test::HasFailure(); ++step) {
      model.Step();
      if (step % 3 == 0) model.Check();
    }
    EXPECT_GT(model.told_bytes(), 0u);
  }
}

TEST_F(ChangedSinceTest, WritesThatWereAcknowledgedAreToldWhateverGoesOnMeanwhile) {
  ASSERT_OK(store().Snapshot("v", "s"));
  ASSERT_OK_AND_ASSIGN(const auto changed, store().ChangedSince("v", "s"));
  std::atomic<bool> done = false;
  std::atomic<int> rounds = 0;
  std::thread others([&] {
    while (!done) {
      const std::string id = "t" + std::to_string(++rounds);
      (void)store().Snapshot("v", id).has_value();
      world_.store().Tidy();
      (void)store().RemoveSnapshot(id).has_value();
    }
  });
  for (uint64_t step = 0; rounds < 30 && !HasFailure(); ++step) {
    const uint64_t block = step * 7 % kBlocks;
    Write(block * kBlockBytes, SectorOf(step + 1));
    EXPECT_EQ(Changed(*changed, block * kBlockBytes, kBlockBytes), "########") << block;
  }
  done = true;
  others.join();
}

}  // namespace
}  // namespace blockd::chunk::testing
