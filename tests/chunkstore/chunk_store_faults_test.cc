#include <gtest/gtest.h>

#include "base/log.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/faulty_stores.h"

// Every n-th operation of the stores below fails, for all n, in each way; and every n-th operation
// is the last before a crash that loses what was not synced. What was acknowledged is there,
// nothing else is seen, and the collector gets every byte back.

namespace chunkstore::testing {
namespace {

using base::Code;
using base::Error;
using support::FaultPlan;

// Contents of one short chunk each, far out, so that their maps have two levels and cost no time.
constexpr uint64_t kFar = 1500;
constexpr uint32_t kShort = 3000;
constexpr uint64_t kChances = 4;
constexpr uint32_t kSharingChances = 1;  // its steps are many

// What shares blocks has to have some.
uint32_t LengthOf(uint32_t seed) { return seed >= kWoven ? 4 * kWovenPartBytes : kShort; }
uint64_t SizeOf(uint32_t seed) { return kFar * kChunkBytes + LengthOf(seed); }

class FaultyWorld {
 public:
  FaultyWorld() {
    options_.background_bytes_per_s = 0;
    Open();
  }

  // What the process would do after a restart; `crash` loses what no sync covered.
  void Restart(std::optional<uint64_t> crash_seed) {
    plan_.FailFrom(1, Error(Code::kIo, "the process is dead"), FaultPlan::When::kBefore);
    ingests_.clear();
    store_.reset();
    plan_.Clear();
    if (crash_seed) meta_.Crash(*crash_seed);
    Open();
  }

  base::Result<void> Upload(const std::string& holder, uint32_t seed) {
    ASSIGN_OR_RETURN(std::unique_ptr<Ingest> ingest, store_->NewIngest(holder, "x"));
    ingests_.push_back(std::move(ingest));
    RETURN_IF_ERROR(ingests_.back()->Put(kFar, base::AsBytes(MakeBytes(seed, LengthOf(seed)))));
    RETURN_IF_ERROR(ingests_.back()->Finish(SizeOf(seed)));
    acknowledged_[holder] = seed;
    ingests_.pop_back();
    return {};
  }
  // What `source` holds, with another chunk.
  base::Result<void> UploadOver(const std::string& source, const std::string& holder,
                                uint32_t seed) {
    ASSIGN_OR_RETURN(std::unique_ptr<Ingest> ingest, store_->NewIngestOver(holder, "z", source));
    ingests_.push_back(std::move(ingest));
    RETURN_IF_ERROR(ingests_.back()->PutHole(kFar - 1));
    RETURN_IF_ERROR(ingests_.back()->Put(kFar, base::AsBytes(MakeBytes(seed, LengthOf(seed)))));
    RETURN_IF_ERROR(ingests_.back()->Finish(SizeOf(seed)));
    acknowledged_[holder] = seed;
    ingests_.pop_back();
    return {};
  }
  base::Result<void> HoldAgain(const std::string& source, const std::string& holder) {
    RETURN_IF_ERROR(store_->HoldAgain(source, holder, "y"));
    acknowledged_[holder] = acknowledged_[source];
    return {};
  }
  base::Result<void> Release(const std::string& holder) {
    const uint32_t seed = acknowledged_.contains(holder) ? acknowledged_[holder] : 0;
    acknowledged_.erase(holder);
    maybe_[holder] = seed;
    RETURN_IF_ERROR(store_->Release(holder));
    maybe_.erase(holder);
    return {};
  }
  base::Result<void> Collect(bool orphans) {
    RETURN_IF_ERROR(store_->Collect(orphans, nullptr));
    return {};
  }
  base::Result<void> Read(const std::string& holder) {
    ASSIGN_OR_RETURN(const ChunkStore::Held held, store_->FindHolder(holder));
    if (!held.root) return Error(Code::kNotFound, "only claimed");
    ASSIGN_OR_RETURN(const std::shared_ptr<Content> content, store_->Open(*held.root));
    const uint32_t expected =
        acknowledged_.contains(holder) ? acknowledged_[holder] : maybe_[holder];
    std::string bytes(LengthOf(expected), '?');
    RETURN_IF_ERROR(content->ReadAt(kFar * kChunkBytes,
                                    {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}));
    if (bytes != MakeBytes(expected, LengthOf(expected)))
      return Error(Code::kCorruption, "WRONG BYTES");
    return {};
  }

  // The workloads; they stop at the first error.
  base::Result<void> Uploads() {
    RETURN_IF_ERROR(Upload("a", 1));
    RETURN_IF_ERROR(Upload("b", 1));
    RETURN_IF_ERROR(Upload("c", 2));
    RETURN_IF_ERROR(HoldAgain("a", "d"));
    RETURN_IF_ERROR(Release("a"));
    RETURN_IF_ERROR(Release("c"));
    RETURN_IF_ERROR(Collect(false));
    RETURN_IF_ERROR(Upload("e", 2));
    RETURN_IF_ERROR(Read("b"));
    return {};
  }

  // Contents made of others, whose base goes while they are made, or after.
  base::Result<void> Overs() {
    RETURN_IF_ERROR(Upload("a", 1));
    {
      ASSIGN_OR_RETURN(std::unique_ptr<Ingest> over, store_->NewIngestOver("b", "z", "a"));
      ingests_.push_back(std::move(over));
    }
    RETURN_IF_ERROR(Release("a"));
    RETURN_IF_ERROR(Collect(false));
    RETURN_IF_ERROR(ingests_.back()->Put(kFar, base::AsBytes(MakeBytes(2, kShort))));
    RETURN_IF_ERROR(ingests_.back()->Finish(SizeOf(2)));
    acknowledged_["b"] = 2;
    ingests_.pop_back();
    RETURN_IF_ERROR(UploadOver("b", "c", 1));
    RETURN_IF_ERROR(Release("b"));
    RETURN_IF_ERROR(Collect(false));
    RETURN_IF_ERROR(Read("c"));
    return {};
  }

  // A chunk borrows blocks of another, which goes, is compacted and comes back whole.
  base::Result<void> Shares() {
    RETURN_IF_ERROR(Upload("a", kWoven + 123'400));
    RETURN_IF_ERROR(Upload("b", kWoven + 129'900));
    RETURN_IF_ERROR(Release("a"));
    RETURN_IF_ERROR(Collect(false));
    RETURN_IF_ERROR(Upload("c", kWoven + 123'400));
    RETURN_IF_ERROR(Release("b"));
    RETURN_IF_ERROR(Collect(false));
    RETURN_IF_ERROR(Read("c"));
    return {};
  }

  void CheckAndEmpty() {
    for (const auto& [holder, seed] : acknowledged_) EXPECT_OK(Read(holder)) << holder;
    // Uploads of the same contents build on whatever is left.
    ASSERT_OK(Upload("again/1", 1));
    ASSERT_OK(UploadOver("again/1", "again/2", 2));
    clock_.AdvanceUs(options_.lease_ms * 1000 + 1);
    ASSERT_OK(Collect(true));
    ExpectClean(*store_);
    for (const auto& [holder, seed] : acknowledged_) EXPECT_OK(Read(holder)) << holder;
    ASSERT_OK_AND_ASSIGN(const auto all, store_->Holders("", "", 100));
    for (const auto& held : all) {
      EXPECT_TRUE(held.root.has_value()) << held.holder;
      ASSERT_OK(store_->Release(held.holder));
    }
    ASSERT_OK(Collect(true));
    ExpectEmpty(blobs_, meta_);
  }

  FaultPlan& plan() { return plan_; }

 private:
  void Open() {
    auto opened = ChunkStore::Open(options_, faulty_blobs_, faulty_meta_, clock_, metrics_);
    ASSERT_OK(opened);
    store_ = *std::move(opened);
  }

  FaultPlan plan_;
  base::Metrics metrics_;
  base::ManualClock clock_;
  MemoryBlobStore blobs_;
  MemoryMetaStore meta_;
  support::FaultyBlobStore faulty_blobs_{blobs_, plan_};
  support::FaultyMetaStore faulty_meta_{meta_, plan_};
  ChunkStoreOptions options_;
  std::unique_ptr<ChunkStore> store_;
  std::vector<std::unique_ptr<Ingest>> ingests_;
  std::map<std::string, uint32_t> acknowledged_;
  std::map<std::string, uint32_t> maybe_;  // a release that failed: held or not
};

using Work = base::Result<void> (FaultyWorld::*)();
constexpr Work kWorks[] = {&FaultyWorld::Uploads, &FaultyWorld::Overs, &FaultyWorld::Shares};

uint64_t CountOperations(Work work) {
  FaultyWorld world;
  EXPECT_OK((world.*work)());
  return world.plan().operations();
}

class EveryOperation
    : public ::testing::TestWithParam<std::tuple<FaultPlan::When, size_t /*of kWorks*/>> {
 protected:
  void SetUp() override { ASSERT_TRUE(base::SetLogLevel("error")); }
  FaultPlan::When when() const { return std::get<0>(GetParam()); }
  Work work() const { return kWorks[std::get<1>(GetParam())]; }
};

TEST_P(EveryOperation, FailsOnce) {
  const uint64_t operations = CountOperations(work());
  for (uint64_t n = 1; n <= operations; ++n) {
    SCOPED_TRACE("operation " + std::to_string(n) + " of " + std::to_string(operations));
    FaultyWorld world;
    world.plan().FailAt(n, Error(Code::kIo, "injected"), when());
    const base::Result<void> worked = (world.*work())();
    if (!worked.has_value()) EXPECT_ERROR(worked, Code::kIo);
    world.plan().Clear();
    world.Restart(std::nullopt);
    world.CheckAndEmpty();
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_P(EveryOperation, IsTheLastBeforeACrash) {
  const uint64_t operations = CountOperations(work());
  for (uint64_t n = 1; n <= operations; ++n) {
    // What a crash keeps of each partition is chance.
    const uint64_t chances = work() == &FaultyWorld::Shares ? kSharingChances : kChances;
    for (uint64_t chance = 0; chance < chances; ++chance) {
      SCOPED_TRACE("operation " + std::to_string(n) + " of " + std::to_string(operations));
      FaultyWorld world;
      world.plan().FailFrom(n, Error(Code::kIo, "injected"), when());
      const base::Result<void> worked = (world.*work())();
      (void)worked;
      world.Restart(n * kChances + chance);
      world.CheckAndEmpty();
      if (::testing::Test::HasFailure()) return;
    }
  }
}

std::string NameOf(const ::testing::TestParamInfo<EveryOperation::ParamType>& info) {
  static constexpr const char* kWays[] = {"Before", "After", "Torn"};
  static constexpr const char* kNames[] = {"Uploads", "Overs", "Shares"};
  return std::string(kNames[std::get<1>(info.param)]) +
         kWays[static_cast<size_t>(std::get<0>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(Ways, EveryOperation,
                         ::testing::Combine(::testing::Values(FaultPlan::When::kBefore,
                                                              FaultPlan::When::kAfter,
                                                              FaultPlan::When::kTorn),
                                            ::testing::Values(0, 1, 2)),
                         NameOf);

}  // namespace
}  // namespace chunkstore::testing
