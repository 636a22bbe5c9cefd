#include <map>
#include <random>

#include <gtest/gtest.h>

#include "chunkstore/blob_format.h"
#include "chunkstore/map_editor.h"
#include "tests/support/results.h"

// Maps made of other maps, beside the same maps made plainly of all their chunks. No store and no
// bytes: ids are made up, so that maps of any size cost nothing.

namespace chunkstore {
namespace {

using base::Code;
using base::Digest256;
using base::Result;
using Chunks = std::map<uint64_t, Digest256>;

Digest256 IdOf(uint64_t number) { return base::Sha256(base::AsBytes(std::to_string(number))); }

// Pages by id, and what was done with them.
class Pages {
 public:
  // The editor's root over `base` with `changes`; remembers its new pages.
  Result<MapEditor::Outcome> Edit(const std::optional<Root>& base, uint64_t size_bytes,
                                  const std::map<uint64_t, std::optional<Digest256>>& changes) {
    read_ = 0;
    emitted_.clear();
    auto next = changes.begin();
    MapEditor editor(
        base, size_bytes,
        [&](const Digest256& id) -> Result<std::shared_ptr<const MapPage>> {
          ++read_;
          const auto found = pages_.find(id);
          if (found == pages_.end()) return base::Error(Code::kNotFound, "no page " + id.hex());
          return std::make_shared<const MapPage>(found->second);
        },
        [&]() -> Result<std::optional<MapEditor::Change>> {
          if (next == changes.end()) return std::optional<MapEditor::Change>();
          const auto& [index, chunk] = *next++;
          return std::optional(MapEditor::Change{index, chunk});
        },
        [&](const Digest256& id, std::string encoded, MapPage page) -> Result<void> {
          EXPECT_EQ(id, base::Sha256(base::AsBytes(encoded)));
          const Result<MapPage> decoded = DecodePage(base::AsBytes(encoded));
          EXPECT_OK(decoded);
          EXPECT_EQ(*decoded, page);
          // Children come before their parents.
          if (page.level > 0) {
            for (const Digest256& child : page.Children()) EXPECT_TRUE(pages_.contains(child));
          }
          emitted_.push_back(page);
          pages_[id] = std::move(page);
          return {};
        });
    return editor.Run();
  }

  void Insert(const Digest256& id, MapPage page) { pages_[id] = std::move(page); }
  int read() const { return read_; }
  const std::vector<MapPage>& emitted() const { return emitted_; }

 private:
  std::map<Digest256, MapPage> pages_;
  int read_ = 0;
  std::vector<MapPage> emitted_;
};

// The root as FORMAT.md defines it, level by level.
Digest256 PlainRoot(const Chunks& chunks, uint64_t size_bytes) {
  std::map<uint64_t, Digest256> below = chunks;
  for (uint8_t level = 0;; ++level) {
    std::map<uint64_t, MapPage> pages;
    const bool is_root = level == RootLevel(size_bytes);
    if (is_root) pages[0].size_bytes = size_bytes;
    for (const auto& [number, id] : below) {
      MapPage& page = pages[number / kFanOut];
      page.entries.push_back({static_cast<uint16_t>(number % kFanOut), id});
    }
    below.clear();
    for (auto& [number, page] : pages) {
      page.level = level;
      below[number] = base::Sha256(base::AsBytes(EncodePage(page)));
    }
    if (is_root) return below.at(0);
  }
}

uint64_t NonzeroBytes(const Chunks& chunks, uint64_t size_bytes) {
  uint64_t bytes = 0;
  for (const auto& [index, id] : chunks) bytes += ChunkLength(index, size_bytes);
  return bytes;
}

TEST(MapEditor, BuildsFromNothingAndDropsEmptySubtrees) {
  Pages pages;
  std::map<uint64_t, std::optional<Digest256>> changes;
  for (const uint64_t index : {0, 1, 1024, 1024 * 1024, 2 * 1024 * 1024 + 1023})
    changes[index] = IdOf(index);
  changes[5000] = std::nullopt;
  ASSERT_OK(pages.Edit(std::nullopt, kMaxContentBytes, changes));
  std::vector<int> levels;
  for (const MapPage& page : pages.emitted()) levels.push_back(page.level);
  EXPECT_EQ(levels, (std::vector<int>{0, 0, 1, 0, 1, 0, 1, 2}));
  EXPECT_EQ(pages.emitted().back().entries.size(), 3u);
  EXPECT_EQ(pages.emitted().back().size_bytes, kMaxContentBytes);
}

// A content that changes again and again: sizes on both sides of each level's border, chunks on
// both sides of each page's.
class RandomMap {
 public:
  explicit RandomMap(uint64_t seed) : random_(seed) {}

  void Step() {
    const uint64_t size_bytes = random_() % 3 == 0 || !root_ ? AnySize() : root_->size_bytes;
    std::map<uint64_t, std::optional<Digest256>> changes;
    const uint64_t count = ChunkCount(size_bytes);
    for (uint64_t i = random_() % 6; i > 0 && count > 0; --i) Change(count, &changes);
    ResizeLast(size_bytes, &changes);
    for (const auto& [index, chunk] : changes) {
      if (chunk)
        chunks_[index] = *chunk;
      else
        chunks_.erase(index);
    }
    chunks_.erase(chunks_.lower_bound(count), chunks_.end());
    ASSERT_OK_AND_ASSIGN(const MapEditor::Outcome outcome, pages_.Edit(root_, size_bytes, changes));
    ASSERT_EQ(outcome.root, PlainRoot(chunks_, size_bytes));
    nonzero_bytes_ += outcome.added_bytes - outcome.removed_bytes;
    ASSERT_EQ(nonzero_bytes_, NonzeroBytes(chunks_, size_bytes));
    root_ = Root{outcome.root, size_bytes};
  }

 private:
  uint64_t AnySize() {
    static constexpr uint64_t kCounts[] = {1,
                                           2,
                                           5,
                                           1023,
                                           1024,
                                           1025,
                                           2048,
                                           2049,
                                           3000,
                                           9000,
                                           (1 << 20) - 1,
                                           1 << 20,
                                           (1 << 20) + 1,
                                           (1 << 20) + 1025,
                                           3 << 20,
                                           (4 << 20) - 1,
                                           4 << 20};
    if (random_() % 10 == 0) return 0;
    const uint64_t whole = kCounts[random_() % std::size(kCounts)] * kChunkBytes;
    return random_() % 2 ? whole : whole - random_() % kChunkBytes;
  }

  void Change(uint64_t count, std::map<uint64_t, std::optional<Digest256>>* changes) {
    static constexpr uint64_t kBorders[] = {0, 1023, 1024, 2048, (1 << 20) - 1, 1 << 20, 3 << 20};
    uint64_t index = random_() % 3 == 0 ? random_() % count : kBorders[random_() % 7];
    if (random_() % 4 == 0) index = count - 1;
    const uint64_t run = random_() % 8 == 0 ? random_() % 1500 : 1;
    const bool hole = random_() % 3 == 0;
    for (uint64_t i = index; i < std::min(index + run, count); ++i) {
      (*changes)[i] = std::nullopt;
      if (!hole) (*changes)[i] = IdOf(random_() % 50);
    }
  }

  void ResizeLast(uint64_t size_bytes, std::map<uint64_t, std::optional<Digest256>>* changes) {
    const uint64_t shorter = root_ ? std::min(root_->size_bytes, size_bytes) : 0;
    if (shorter == 0) return;
    const uint64_t last = ChunkCount(shorter) - 1;
    if (ChunkLength(last, size_bytes) != ChunkLength(last, root_->size_bytes) &&
        chunks_.contains(last) && !changes->contains(last))
      (*changes)[last] = IdOf(random_());
  }

  std::mt19937_64 random_;
  Pages pages_;
  std::optional<Root> root_;
  Chunks chunks_;
  uint64_t nonzero_bytes_ = 0;
};

class MapEditorProperty : public ::testing::TestWithParam<uint64_t> {};

TEST_P(MapEditorProperty, EqualContentsHaveEqualRoots) {
  RandomMap map(GetParam());
  for (int step = 0; step < 100; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    map.Step();
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, MapEditorProperty, ::testing::Range<uint64_t>(1, 41));

// 1 TiB without a hole: 256 leaves and a root.
class FullMap : public ::testing::Test {
 protected:
  static constexpr uint64_t kChunks = base::kTiB / kChunkBytes;

  void SetUp() override {
    std::map<uint64_t, std::optional<Digest256>> all;
    for (uint64_t i = 0; i < kChunks; ++i) all[i] = IdOf(i % 3000);
    ASSERT_OK_AND_ASSIGN(const MapEditor::Outcome outcome,
                         pages_.Edit(std::nullopt, base::kTiB, all));
    EXPECT_EQ(pages_.emitted().size(), 257u);
    EXPECT_EQ(outcome.added_bytes, base::kTiB);
    root_ = {outcome.root, base::kTiB};
  }

  Pages pages_;
  Root root_;
};

TEST_F(FullMap, OnlyWhatChangedIsReadAndWritten) {
  ASSERT_OK_AND_ASSIGN(const auto nothing, pages_.Edit(root_, base::kTiB, {}));
  EXPECT_EQ(nothing.root, root_.id);
  EXPECT_EQ(pages_.read(), 1);
  EXPECT_EQ(pages_.emitted().size(), 1u);  // the root
  ASSERT_OK_AND_ASSIGN(const auto one, pages_.Edit(root_, base::kTiB, {{77'777, IdOf(1)}}));
  EXPECT_NE(one.root, root_.id);
  EXPECT_EQ(pages_.read(), 2);
  EXPECT_EQ(pages_.emitted().size(), 2u);
  ASSERT_OK(pages_.Edit(root_, base::kTiB, {{77'777, IdOf(77'777 % 3000)}}));  // as it was
  EXPECT_EQ(pages_.read(), 2);
  EXPECT_EQ(pages_.emitted().size(), 1u);
}

TEST_F(FullMap, GrowingTakesTheOldMapOver) {
  ASSERT_OK(pages_.Edit(root_, 2 * base::kTiB, {}));
  EXPECT_EQ(pages_.read(), 1);
  EXPECT_EQ(pages_.emitted().size(), 1u);
  ASSERT_OK(pages_.Edit(root_, 8 * base::kTiB, {}));  // a level more: the old root as inner page
  EXPECT_LE(pages_.read(), 3);
  EXPECT_EQ(pages_.emitted().size(), 2u);
}

TEST_F(FullMap, CuttingReadsOnlyWhatGoes) {
  const uint64_t size_bytes = base::kTiB - 2 * kFanOut * uint64_t{kChunkBytes};
  ASSERT_OK_AND_ASSIGN(const auto cut, pages_.Edit(root_, size_bytes, {}));
  EXPECT_EQ(cut.removed_bytes - cut.added_bytes, base::kTiB - size_bytes);
  EXPECT_EQ(pages_.read(), 3);
  EXPECT_EQ(pages_.emitted().size(), 1u);
}

TEST(MapEditor, RefusesPagesThatDoNotBelongTogether) {
  Pages pages;
  const uint64_t size_bytes = 3000ull * kChunkBytes;
  MapPage leaf{.level = 0, .size_bytes = {}, .entries = {{5, IdOf(5)}}};
  MapPage root{.level = 1, .size_bytes = size_bytes, .entries = {{0, IdOf(100)}}};
  pages.Insert(IdOf(101), root);
  const Root base{IdOf(101), size_bytes};
  EXPECT_ERROR(pages.Edit(base, size_bytes, {{1, IdOf(1)}}), Code::kNotFound);
  leaf.level = 1;
  pages.Insert(IdOf(100), leaf);
  EXPECT_ERROR(pages.Edit(base, size_bytes, {{1, IdOf(1)}}), Code::kCorruption);
  leaf.level = 0;
  leaf.size_bytes = 1;
  pages.Insert(IdOf(100), leaf);
  EXPECT_ERROR(pages.Edit(base, size_bytes, {{1, IdOf(1)}}), Code::kCorruption);
  leaf.size_bytes.reset();
  pages.Insert(IdOf(100), leaf);
  EXPECT_OK(pages.Edit(base, size_bytes, {{1, IdOf(1)}}));
  // A chunk beyond the base's end.
  root.entries = {{2, IdOf(100)}};
  leaf.entries = {{1000, IdOf(5)}};
  pages.Insert(IdOf(101), root);
  pages.Insert(IdOf(100), leaf);
  EXPECT_ERROR(pages.Edit(base, size_bytes, {{2999, IdOf(1)}}), Code::kCorruption);
}

}  // namespace
}  // namespace chunkstore
