#include <thread>

#include <gtest/gtest.h>

#include "tests/chunkstore/chunk_store_world.h"

namespace chunkstore::testing {
namespace {

using base::Code;

TEST(ChunkStoreIngest, ReadsBackWhatWasPut) {
  World world;
  const Spec spec{{1, 0, 2, 1, 3}, 12345};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "image/a", spec));
  EXPECT_EQ(root.size_bytes, spec.size_bytes());
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), root));
  EXPECT_TRUE(bytes == spec.Bytes());
  ASSERT_OK_AND_ASSIGN(const ChunkStore::Held held, world.store().FindHolder("image/a"));
  EXPECT_EQ(held.root, root);
  EXPECT_EQ(held.attributes, "of image/a");
  ExpectClean(world.store());
}

TEST(ChunkStoreIngest, TheSameContentHasTheSameRootAndIsStoredOnce) {
  World world;
  const Spec spec{{1, 2, 3}, 5000};
  ASSERT_OK_AND_ASSIGN(const Root first, Upload(world.store(), "a", spec));
  const size_t blobs = BlobNames(world.blobs()).size();
  ASSERT_OK_AND_ASSIGN(const Root second, Upload(world.store(), "b", spec));
  EXPECT_EQ(first, second);
  EXPECT_EQ(BlobNames(world.blobs()).size(), blobs + 1);  // the manifest
}

TEST(ChunkStoreIngest, PutTellsWhatWasKnown) {
  World world;
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  const std::string chunk = MakeBytes(7, kChunkBytes);
  const std::string zeros(kChunkBytes, '\0');
  ASSERT_OK_AND_ASSIGN(const Ingest::PutInfo fresh, ingest->Put(5, base::AsBytes(chunk)));
  EXPECT_FALSE(fresh.known);
  ASSERT_OK_AND_ASSIGN(const Ingest::PutInfo again, ingest->Put(9, base::AsBytes(chunk)));
  EXPECT_TRUE(again.known);
  EXPECT_FALSE(again.hole);
  ASSERT_OK_AND_ASSIGN(const Ingest::PutInfo hole, ingest->Put(3, base::AsBytes(zeros)));
  EXPECT_TRUE(hole.known);
  EXPECT_TRUE(hole.hole);
  EXPECT_EQ(BlobNames(world.blobs()).size(), 1u);
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(100ull * kChunkBytes));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  std::vector<uint64_t> indexes;
  ASSERT_OK(content->VisitChunks(0, UINT64_MAX, [&](uint64_t index, const base::Digest256&) {
    indexes.push_back(index);
    return true;
  }));
  EXPECT_EQ(indexes, (std::vector<uint64_t>{5, 9}));
}

TEST(ChunkStoreIngest, EmptyContentsAndHugeHolesCostNextToNothing) {
  World world;
  ASSERT_OK_AND_ASSIGN(const Root empty, Upload(world.store(), "empty", Spec{}));
  EXPECT_EQ(empty.size_bytes, 0u);
  ASSERT_OK_AND_ASSIGN(const std::string nothing, ReadBack(world.store(), empty));
  EXPECT_EQ(nothing, "");
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("sparse", ""));
  const std::string zeros(kChunkBytes, '\0');
  for (uint64_t i = 0; i < 100 * base::kGiB / kChunkBytes; i += 1000) {
    ASSERT_OK(ingest->Put(i, base::AsBytes(zeros)));
  }
  ASSERT_OK_AND_ASSIGN(const Root sparse, ingest->Finish(100 * base::kGiB));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(sparse));
  std::vector<uint8_t> bytes(1000, 1);
  ASSERT_OK(content->ReadAt(99 * base::kGiB + 17, bytes));
  EXPECT_TRUE(base::IsZero(bytes));
  ASSERT_OK_AND_ASSIGN(const StoreStats stats, world.store().Stats());
  EXPECT_EQ(stats.logical_bytes, 100 * base::kGiB);
  EXPECT_EQ(stats.nonzero_bytes, 0u);
  EXPECT_LT(stats.physical_bytes, 4 * base::kKiB);
}

TEST(ChunkStoreIngest, ReadsMapsOfThreeLevels) {
  World world;
  const uint64_t last = kMaxContentBytes / kChunkBytes - 1;
  const std::vector<uint64_t> indexes = {0, 1023, 1024, 1024 * 1024 + 5, last};
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  for (const uint64_t index : indexes) {
    const std::string chunk = MakeBytes(100 + index % 7, kChunkBytes);
    ASSERT_OK(ingest->Put(index, base::AsBytes(chunk)));
  }
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(kMaxContentBytes));
  ASSERT_OK_AND_ASSIGN(const auto content, world.store().Open(root));
  for (const uint64_t index : indexes) {
    std::string bytes(kChunkBytes, '?');
    ASSERT_OK(content->ReadAt(index * kChunkBytes,
                              {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    EXPECT_TRUE(bytes == MakeBytes(100 + index % 7, kChunkBytes));
  }
  ExpectClean(world.store());
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreIngest, RefusesWhatDoesNotFit) {
  World world;
  EXPECT_ERROR(world.store().NewIngest("", ""), Code::kInvalidArgument);
  EXPECT_ERROR(world.store().NewIngest("a b", ""), Code::kInvalidArgument);
  EXPECT_ERROR(world.store().NewIngest(std::string(201, 'a'), ""), Code::kInvalidArgument);
  EXPECT_ERROR(world.store().NewIngest("a", std::string(65537, 'a')), Code::kTooLarge);
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  EXPECT_ERROR(world.store().NewIngest("a", ""), Code::kAlreadyExists);
  const std::string chunk = MakeBytes(1, kChunkBytes);
  EXPECT_ERROR(ingest->Put(0, {}), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Put(0, base::AsBytes(chunk + "x")), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Put(kMaxContentBytes / kChunkBytes, base::AsBytes(chunk)), Code::kTooLarge);
  ASSERT_OK(ingest->Put(1, base::AsBytes(chunk)));
  ASSERT_OK(ingest->Put(2, base::AsBytes(chunk.substr(0, 100))));
  EXPECT_ERROR(ingest->Put(0, base::AsBytes(chunk.substr(0, 100))), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Finish(2ull * kChunkBytes), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Finish(2ull * kChunkBytes + 200), Code::kInvalidArgument);
  EXPECT_ERROR(ingest->Finish(kMaxContentBytes + 1), Code::kTooLarge);
  ASSERT_OK(ingest->Finish(2ull * kChunkBytes + 100));
  EXPECT_ERROR(ingest->Finish(2ull * kChunkBytes + 100), Code::kConflict);
  EXPECT_ERROR(ingest->Put(4, base::AsBytes(chunk)), Code::kConflict);
  EXPECT_ERROR(world.store().FindHolder("b"), Code::kNotFound);
  EXPECT_ERROR(world.store().HoldAgain("b", "c", ""), Code::kNotFound);
  EXPECT_ERROR(world.store().HoldAgain("a", "a", ""), Code::kAlreadyExists);
  EXPECT_ERROR(world.store().Open(Root{base::Sha256({}), 5}), Code::kNotFound);
}

TEST(ChunkStoreIngest, AnAbortedIngestLeavesNothing) {
  World world;
  {
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
    ASSERT_OK(ingest->Put(0, base::AsBytes(MakeBytes(1, kChunkBytes))));
    ASSERT_OK_AND_ASSIGN(const ChunkStore::Held held, world.store().FindHolder("a"));
    EXPECT_FALSE(held.root.has_value());
  }
  EXPECT_ERROR(world.store().FindHolder("a"), Code::kNotFound);
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreIngest, ReleaseGivesEveryByteBack) {
  World world;
  ASSERT_OK(Upload(world.store(), "a", Spec{{1, 2, 3}}));
  ASSERT_OK_AND_ASSIGN(const Root b, Upload(world.store(), "b", Spec{{1, 4}}));
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), b));
  EXPECT_TRUE(bytes == (Spec{{1, 4}}.Bytes()));
  EXPECT_EQ(BlobNames(world.blobs()).size(), 4u);  // two chunks, a page, a manifest
  ExpectClean(world.store());
  ASSERT_OK(world.store().Release("b"));
  ASSERT_OK_AND_ASSIGN(const CollectReport report, world.store().Collect(false, nullptr));
  EXPECT_EQ(report.removed_chunks, 2u);
  EXPECT_EQ(report.removed_pages, 1u);
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreIngest, HoldAgainKeepsAContentAlive) {
  World world;
  const Spec spec{{1, 2}, 777};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "image/a", spec));
  ASSERT_OK_AND_ASSIGN(const Root again, world.store().HoldAgain("image/a", "volume/b", "v"));
  EXPECT_EQ(again, root);
  ASSERT_OK(world.store().Release("image/a"));
  ASSERT_OK(world.store().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), root));
  EXPECT_TRUE(bytes == spec.Bytes());
  ASSERT_OK_AND_ASSIGN(const auto held, world.store().Holders("", "", 10));
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held[0].holder, "volume/b");
  EXPECT_EQ(held[0].attributes, "v");
  ASSERT_OK(world.store().Release("volume/b"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreIngest, ListsHoldersByPrefixInOrder) {
  World world;
  for (const char* name : {"image/b", "image/a", "volume/a", "image/c"}) {
    ASSERT_OK(Upload(world.store(), name, Spec{{1}, 10}));
  }
  ASSERT_OK_AND_ASSIGN(const auto first, world.store().Holders("image/", "", 2));
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].holder, "image/a");
  EXPECT_EQ(first[1].holder, "image/b");
  ASSERT_OK_AND_ASSIGN(const auto rest, world.store().Holders("image/", "image/b", 10));
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].holder, "image/c");
}

TEST(ChunkStoreIngest, AFullDiskEndsAnIngestAndReleaseStillWorks) {
  World world;
  ASSERT_OK(Upload(world.store(), "a", Spec{{2}}));
  world.blobs().SetCapacity(20 * base::kMiB);
  {
    ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("b", ""));
    base::Result<Ingest::PutInfo> put;
    for (uint32_t i = 0; i < 10 && put.has_value(); ++i)
      put = ingest->Put(i, base::AsBytes(MakeBytes(10 + 2 * i, kChunkBytes)));
    EXPECT_ERROR(put, Code::kOutOfSpace);
    ASSERT_OK_AND_ASSIGN(const base::SpaceInfo space, world.blobs().Space());
    EXPECT_GE(space.available_bytes, world.options().reserve_bytes);
  }
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
  ASSERT_OK(Upload(world.store(), "c", Spec{{2, 4}}));
}

// Two stores over the same stores below stand for two processes.
TEST(ChunkStoreIngest, AnotherProcessTakesAnAbandonedIngest) {
  World world;
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(MakeBytes(1, kChunkBytes))));
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world.options(), world.blobs(),
                                                          world.meta(), world.clock(), metrics));
  ASSERT_OK_AND_ASSIGN(const CollectReport early, other->Collect(false, nullptr));
  EXPECT_EQ(early.abandoned_ingests, 0u);
  world.Wait();
  // Our own process knows that it lives.
  ASSERT_OK_AND_ASSIGN(const CollectReport own, world.store().Collect(false, nullptr));
  EXPECT_EQ(own.abandoned_ingests, 0u);
  ASSERT_OK_AND_ASSIGN(const CollectReport late, other->Collect(false, nullptr));
  EXPECT_EQ(late.abandoned_ingests, 1u);
  ExpectEmpty(world.blobs(), world.meta());
  EXPECT_ERROR(ingest->Renew(), Code::kCancelled);
  EXPECT_ERROR(ingest->Put(1, base::AsBytes(MakeBytes(2, kChunkBytes))), Code::kCancelled);
  EXPECT_ERROR(ingest->Finish(kChunkBytes), Code::kConflict);
  ASSERT_OK(ingest->Abort());
  ASSERT_OK(other->Collect(false, nullptr));
  ExpectEmpty(world.blobs(), world.meta());
}

TEST(ChunkStoreIngest, RenewKeepsAnIdleIngest) {
  World world;
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("a", ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(MakeBytes(1, kChunkBytes))));
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world.options(), world.blobs(),
                                                          world.meta(), world.clock(), metrics));
  for (int i = 0; i < 10; ++i) {
    world.clock().AdvanceUs(world.options().lease_ms * 500);
    ASSERT_OK(ingest->Renew());
    ASSERT_OK_AND_ASSIGN(const CollectReport report, other->Collect(true, nullptr));
    EXPECT_EQ(report.abandoned_ingests + report.removed_orphans, 0u);
  }
  ASSERT_OK_AND_ASSIGN(const Root root, ingest->Finish(kChunkBytes));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(*other, root));
  EXPECT_TRUE(bytes == MakeBytes(1, kChunkBytes));
}

TEST(ChunkStoreIngest, AnExpiredClaimFreesItsName) {
  World world;
  ASSERT_OK_AND_ASSIGN(auto ingest, world.store().NewIngest("a", ""));
  base::Metrics metrics;
  ASSERT_OK_AND_ASSIGN(const auto other, ChunkStore::Open(world.options(), world.blobs(),
                                                          world.meta(), world.clock(), metrics));
  EXPECT_ERROR(other->NewIngest("a", ""), Code::kAlreadyExists);
  world.Wait();
  ASSERT_OK(Upload(*other, "a", Spec{{1}, 10}));
  ingest.reset();
  ASSERT_OK(other->FindHolder("a"));
  ExpectClean(*other);
}

// By id alone, as a copy between stores does it.
TEST(ChunkStoreIngest, TakesOverWhatIsKnown) {
  World world;
  const Spec spec{{1, 2}, 5000};
  ASSERT_OK_AND_ASSIGN(const Root root, Upload(world.store(), "a", spec));
  const auto id_of = [](const std::string& bytes) { return base::Sha256(base::AsBytes(bytes)); };
  const std::string unknown = MakeBytes(4, kChunkBytes);
  ASSERT_OK_AND_ASSIGN(const auto ingest, world.store().NewIngest("b", ""));
  ASSERT_OK_AND_ASSIGN(bool known, ingest->PutKnown(0, kChunkBytes, id_of(unknown)));
  EXPECT_FALSE(known);
  // Not known, it may be put, or something else.
  ASSERT_OK_AND_ASSIGN(known, ingest->PutKnown(0, kChunkBytes, id_of(spec.ChunkAt(0))));
  EXPECT_TRUE(known);
  ASSERT_OK_AND_ASSIGN(known, ingest->PutKnown(1, 5000, id_of(spec.ChunkAt(1))));
  EXPECT_TRUE(known);
  ASSERT_OK(world.store().Release("a"));
  ASSERT_OK(world.store().Collect(true, nullptr));
  ASSERT_OK_AND_ASSIGN(const Root again, ingest->Finish(spec.size_bytes()));
  EXPECT_EQ(again, root);
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(world.store(), again));
  EXPECT_TRUE(bytes == spec.Bytes()) << "it was kept from the collector at once";
  ExpectClean(world.store());
}

}  // namespace
}  // namespace chunkstore::testing
