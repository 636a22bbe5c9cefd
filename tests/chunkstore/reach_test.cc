#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/chunkstore/chunk_store_world.h"

// Which chunks somebody reaches through the holders that he may read, and reading one by its id.

namespace chunkstore::testing {
namespace {

using base::Code;
using base::Digest256;

class ReachTest : public ::testing::Test {
 protected:
  ReachTest() {
    auto store =
        ChunkStore::Open({.reserve_bytes = 0}, blobs_, meta_, base::SystemClock(), metrics_);
    EXPECT_OK(store);
    store_ = *std::move(store);
  }

  static Digest256 IdOf(uint32_t seed, size_t size = kChunkBytes) {
    return base::Sha256(base::AsBytes(MakeBytes(seed, size)));
  }
  void Put(const std::string& holder, const std::vector<uint32_t>& seeds) {
    EXPECT_OK(Upload(*store_, holder, Spec{seeds}));
  }
  // A content of zeros but for one short chunk at its end, which all of them share.
  void PutAt(const std::string& holder, uint64_t index) {
    ASSERT_OK_AND_ASSIGN(const auto ingest, store_->NewIngest(holder, ""));
    const std::string last = MakeBytes(1, kSharedBytes);
    ASSERT_OK(ingest->Put(index, base::AsBytes(last)));
    ASSERT_OK(ingest->Finish(index * kChunkBytes + last.size()));
  }
  static constexpr size_t kSharedBytes = 1000;
  const Digest256 shared_ = IdOf(1, kSharedBytes);

  // By one who may read these holders.
  std::vector<bool> Reached(const std::vector<Digest256>& ids, const std::set<std::string>& mine) {
    asked_.clear();
    auto reached = store_->WhichReachable(ids, [&](std::string_view holder) -> base::Result<bool> {
      asked_.emplace_back(holder);
      return mine.contains(std::string(holder));
    });
    EXPECT_OK(reached);
    return reached.value_or(std::vector<bool>());
  }

  MemoryBlobStore blobs_;
  MemoryMetaStore meta_;
  base::Metrics metrics_;
  std::unique_ptr<ChunkStore> store_;
  std::vector<std::string> asked_;
};

TEST_F(ReachTest, OnlyThroughHoldersThatMayBeRead) {
  Put("a", {1, 2, 3});
  Put("b", {3, 4});
  const std::vector<Digest256> ids = {IdOf(1), IdOf(2), IdOf(3), IdOf(4), IdOf(5), IdOf(1)};
  using Flags = std::vector<bool>;
  EXPECT_EQ(Reached(ids, {}), Flags({false, false, false, false, false, false}));
  EXPECT_EQ(asked_.size(), 2u) << "each holder is asked for once";
  EXPECT_EQ(Reached(ids, {"a"}), Flags({true, true, true, false, false, true}));
  EXPECT_EQ(Reached(ids, {"b"}), Flags({false, false, true, true, false, false}));
  EXPECT_EQ(Reached(ids, {"a", "b"}), Flags({true, true, true, true, false, true}));
  ASSERT_OK(store_->HoldAgain("a", "c", ""));
  EXPECT_EQ(Reached(ids, {"c"}), Flags({true, true, true, false, false, true}));
  ASSERT_OK(store_->Release("c"));
  EXPECT_EQ(Reached(ids, {"c"}), Flags({false, false, false, false, false, false}));
}

TEST_F(ReachTest, ThroughMapsOfSeveralLevels) {
  // A chunk that lies two pages below the root.
  ASSERT_OK_AND_ASSIGN(const auto ingest, store_->NewIngest("deep", ""));
  const std::string last = MakeBytes(7, 1000);
  ASSERT_OK(ingest->Put(0, base::AsBytes(MakeBytes(6, kChunkBytes))));
  ASSERT_OK(ingest->Put(2'000'000, base::AsBytes(last)));
  ASSERT_OK(ingest->Finish(uint64_t{2'000'000} * kChunkBytes + last.size()));
  EXPECT_EQ(Reached({IdOf(6), IdOf(7, 1000)}, {"deep"}), std::vector<bool>({true, true}));
  EXPECT_EQ(Reached({IdOf(6), IdOf(7, 1000)}, {"other"}), std::vector<bool>({false, false}));
}

TEST_F(ReachTest, AnUploadInFlightHoldsNothing) {
  ASSERT_OK_AND_ASSIGN(const auto ingest, store_->NewIngest("a", ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(MakeBytes(1, kChunkBytes))));
  EXPECT_EQ(Reached({IdOf(1)}, {"a"}), std::vector<bool>({false}));
  ASSERT_OK(ingest->Finish(kChunkBytes));
  EXPECT_EQ(Reached({IdOf(1)}, {"a"}), std::vector<bool>({true}));
}

TEST_F(ReachTest, FindsTheOneReadableHolderAmongMany) {
  for (uint64_t i = 0; i < 600; ++i) PutAt("other/" + std::to_string(i), i);
  PutAt("mine", 600);
  EXPECT_EQ(Reached({shared_}, {"mine"}), std::vector<bool>({true}));
}

TEST_F(ReachTest, PastItsLimitItSaysNo) {
  // More maps have the chunk than are looked at: whoever is beyond gets "no", never an error.
  for (uint64_t i = 0; i < kReachTagsOfId + 300; ++i) PutAt("h/" + std::to_string(i), i);
  EXPECT_EQ(Reached({shared_}, {}), std::vector<bool>({false}));
  EXPECT_LE(asked_.size(), kReachTagsOfId);
}

TEST_F(ReachTest, AFailureOfTheCheckIsAnError) {
  Put("a", {1});
  const std::vector<Digest256> ids = {IdOf(1)};
  const auto failed = store_->WhichReachable(ids, [](std::string_view) -> base::Result<bool> {
    return base::Error(Code::kIo, "no catalog");
  });
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code(), Code::kIo);
}

TEST_F(ReachTest, ReadsAChunkByItsId) {
  Put("a", {1, 2});
  std::string bytes(kChunkBytes, '?');
  const base::MutableByteView into(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
  ASSERT_OK(store_->ReadChunk(IdOf(2), into));
  EXPECT_TRUE(bytes == MakeBytes(2, kChunkBytes));
  // Not there, another length, a map page.
  ASSERT_OK_AND_ASSIGN(const ChunkStore::Held held, store_->FindHolder("a"));
  for (const auto& [id, size] : std::vector<std::pair<Digest256, size_t>>{
           {IdOf(3), kChunkBytes}, {IdOf(2), 100}, {held.root->id, kChunkBytes}}) {
    const auto read = store_->ReadChunk(id, into.first(size));
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), Code::kNotFound);
  }
  // A part of it, to its end and not beyond.
  const std::string whole = MakeBytes(2, kChunkBytes);
  ASSERT_OK(store_->ReadChunkPart(IdOf(2), kChunkBytes - 70'000, into.first(70'000)));
  EXPECT_TRUE(bytes.substr(0, 70'000) == whole.substr(kChunkBytes - 70'000));
  for (const auto& [id, offset] : std::vector<std::pair<Digest256, uint32_t>>{
           {IdOf(2), kChunkBytes - 99}, {IdOf(2), 0xffffffff}, {IdOf(3), 0}, {held.root->id, 0}}) {
    const auto read = store_->ReadChunkPart(id, offset, into.first(100));
    ASSERT_FALSE(read.has_value());
    EXPECT_EQ(read.error().code(), Code::kNotFound);
  }
  ASSERT_OK_AND_ASSIGN(const ScrubReport report, store_->Scrub(false, nullptr));
  EXPECT_EQ(report.finding_count, 0u);
}

}  // namespace
}  // namespace chunkstore::testing
