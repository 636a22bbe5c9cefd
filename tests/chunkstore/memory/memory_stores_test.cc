#include "chunkstore/memory/memory_blob_store.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "tests/conformance/blob_store_suite.h"
#include "tests/conformance/meta_store_suite.h"
#include "tests/support/faulty_stores.h"
#include "tests/support/results.h"

namespace conformance {
namespace {

using support::FaultPlan;

class MemoryBlobHarness : public BlobStoreHarness {
 public:
  chunkstore::BlobStore& store() override { return faulty_; }
  void FailCall(uint64_t n, base::Error error) override {
    constexpr FaultPlan::When kWays[] = {FaultPlan::When::kBefore, FaultPlan::When::kAfter,
                                         FaultPlan::When::kTorn};
    plan_.FailAt(n, std::move(error), kWays[n % 3]);
  }
  void ClearFailures() override { plan_.Clear(); }
  void Crash(uint64_t) override {}  // a Put is durable when it returns
  void SetCapacity(uint64_t bytes) override { blobs_.SetCapacity(bytes); }
  uint64_t UsedBytes() override { return 0; }

 private:
  FaultPlan plan_;
  chunkstore::MemoryBlobStore blobs_;
  support::FaultyBlobStore faulty_{blobs_, plan_};
};

class MemoryMetaHarness : public MetaStoreHarness {
 public:
  chunkstore::MetaStore& store() override { return faulty_; }
  void FailCall(uint64_t n, base::Error error, bool after_effect) override {
    plan_.FailAt(n, std::move(error),
                 after_effect ? FaultPlan::When::kAfter : FaultPlan::When::kBefore);
  }
  void ClearFailures() override { plan_.Clear(); }
  void Crash(uint64_t seed) override { meta_.Crash(seed); }

 private:
  FaultPlan plan_;
  chunkstore::MemoryMetaStore meta_;
  support::FaultyMetaStore faulty_{meta_, plan_};
};

INSTANTIATE_TEST_SUITE_P(Memory, BlobStoreSuite,
                         testing::Values(BlobStoreBackEnd{
                             "memory", [] { return std::make_unique<MemoryBlobHarness>(); }}));
INSTANTIATE_TEST_SUITE_P(Memory, MetaStoreSuite,
                         testing::Values(MetaStoreBackEnd{
                             "memory", [] { return std::make_unique<MemoryMetaHarness>(); }}));

TEST(MemoryMetaStoreTest, ACrashReallyLosesSomething) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    chunkstore::MemoryMetaStore meta;
    ASSERT_OK(meta.Commit("p", chunkstore::MetaBatch().Put("a", "1")));
    ASSERT_OK(meta.Sync());
    ASSERT_OK(meta.Commit("p", chunkstore::MetaBatch().Put("a", "2")));
    meta.Crash(seed);
    std::string value = meta.Get("p", "a").value_or("gone");
    EXPECT_TRUE(value == "1" || value == "2");
    if (value == "1") ++lost;
  }
  EXPECT_GT(lost, 0);
  EXPECT_LT(lost, 20);
}

TEST(FaultyStoresTest, FlipsABitOnRead) {
  FaultPlan plan;
  chunkstore::MemoryBlobStore blobs;
  support::FaultyBlobStore faulty(blobs, plan);
  base::ByteView piece = base::AsBytes("abc");
  ASSERT_OK(faulty.Put("aa", {&piece, 1}));
  plan.FlipBitAt(1);
  std::vector<uint8_t> read(3);
  ASSERT_OK(faulty.Get("aa", 0, read));
  EXPECT_NE(base::AsText(read), "abc");
  ASSERT_OK(faulty.Get("aa", 0, read));
  EXPECT_EQ(base::AsText(read), "abc");
}

}  // namespace
}  // namespace conformance
