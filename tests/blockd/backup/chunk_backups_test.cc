#include "blockd/backup/chunk_backups.h"

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/uuid.h"
#include "tests/chunkstore/chunk_store_world.h"
#include "tests/support/faulty_stores.h"

namespace blockd::backup {
namespace {

using base::Code;
using base::Error;
using chunkstore::kChunkBytes;
using chunkstore::Root;
using chunkstore::testing::ExpectClean;
using chunkstore::testing::ReadBack;
using chunkstore::testing::Spec;
using chunkstore::testing::Upload;
using chunkstore::testing::World;
using support::FaultPlan;

const BackupTarget::Cancelled kNever = [] { return false; };

ChunkBackupsOptions Fast() {
  ChunkBackupsOptions options;
  options.bytes_per_s = 0;
  options.collect_interval_ms = 0;
  return options;
}

BackupRecord Record(const std::string& parent = "") {
  BackupRecord backup;
  backup.id = base::NewUuid();
  backup.project_id = "p";
  backup.volume_id = "v";
  backup.size_gb = 1;
  backup.key = "k";
  backup.parent_id = parent;
  return backup;
}

class ChunkBackupsTest : public testing::Test {
 protected:
  // A backup of a content that the volumes' store holds under this name.
  std::string Save(const std::string& holder, const std::string& parent, BackupCopy* copy) {
    const BackupRecord backup = Record(parent);
    const auto saved = backups_.Save(backup, holder, kNever);
    EXPECT_OK(saved);
    if (saved.has_value()) *copy = *saved;
    return backup.id;
  }
  std::string Content(const std::string& backup_id) {
    const auto holder = backups_.Fetch(backup_id, "volume", kNever);
    EXPECT_OK(holder);
    if (!holder.has_value()) return "";
    const auto held = volumes_.store().FindHolder(*holder);
    EXPECT_OK(held);
    const auto bytes = ReadBack(volumes_.store(), *held->root);
    EXPECT_OK(bytes);
    EXPECT_OK(backups_.DropFetched("volume"));
    return bytes.has_value() ? *bytes : "";
  }
  static size_t Held(World& world) {
    const auto holders = world.store().Holders("", "", 1000);
    EXPECT_OK(holders);
    return holders->size();
  }

  World volumes_;
  World kept_;
  base::Metrics metrics_;
  ChunkBackups backups_{Fast(), volumes_.store(), kept_.store(), metrics_};
};

TEST_F(ChunkBackupsTest, OnlyWhatIsMissingCrosses) {
  const Spec first = {{1, 2, 0, 4, 2}};
  const Spec second = {{1, 3, 0, 4, 2, 6}};
  ASSERT_OK(Upload(volumes_.store(), "first", first));
  ASSERT_OK(Upload(volumes_.store(), "second", second));
  BackupCopy copy;
  const std::string full = Save("first", "", &copy);
  EXPECT_EQ(copy.chunks, 4u);  // holes don't count
  EXPECT_EQ(copy.moved_chunks, 3u) << "equal chunks cross once";
  EXPECT_EQ(copy.moved_bytes, 3u * kChunkBytes);
  const std::string incremental = Save("second", full, &copy);
  EXPECT_EQ(copy.chunks, 2u) << "no more is looked at";
  EXPECT_EQ(copy.moved_chunks, 2u);
  const std::string again = Save("second", "", &copy);
  EXPECT_EQ(copy.chunks, 5u);
  EXPECT_EQ(copy.moved_chunks, 0u) << "a full one of what is kept moves nothing";
  EXPECT_EQ(Content(full), first.Bytes());
  EXPECT_EQ(Content(incremental), second.Bytes());
  EXPECT_EQ(Content(again), second.Bytes());

  // Whichever goes, in whatever order, the others stay whole.
  ASSERT_OK(backups_.Remove(full));
  ASSERT_OK(kept_.store().Collect(true, nullptr));
  EXPECT_EQ(Content(incremental), second.Bytes());
  ASSERT_OK(backups_.Remove(incremental));
  ASSERT_OK(kept_.store().Collect(true, nullptr));
  EXPECT_EQ(Content(again), second.Bytes());
  ASSERT_OK(backups_.Remove(again));
  ASSERT_OK(kept_.store().Collect(true, nullptr));
  chunkstore::testing::ExpectEmpty(kept_.blobs(), kept_.meta());
  ExpectClean(volumes_.store());
}

TEST_F(ChunkBackupsTest, AVolumeThatGrewAndOneThatShrank) {
  const Spec small = {{1, 2}, 1 << 20};
  const Spec large = {{1, 2, 3}};
  ASSERT_OK(Upload(volumes_.store(), "small", small));
  ASSERT_OK(Upload(volumes_.store(), "large", large));
  BackupCopy copy;
  const std::string first = Save("small", "", &copy);
  const std::string second = Save("large", first, &copy);
  EXPECT_EQ(copy.moved_chunks, 2u);
  const std::string third = Save("small", second, &copy);
  EXPECT_EQ(copy.moved_chunks, 0u);
  EXPECT_EQ(Content(second), large.Bytes());
  EXPECT_EQ(Content(third), small.Bytes());
}

TEST_F(ChunkBackupsTest, TheRestoreMovesOnlyWhatTheVolumesLack) {
  ASSERT_OK(Upload(volumes_.store(), "source", Spec{{1, 2, 4}}));
  BackupCopy copy;
  const std::string id = Save("source", "", &copy);
  const base::Counter& moved = metrics_.GetCounter("quarry_backup_moved_chunks_total", "");
  const double before = moved.value();
  EXPECT_EQ(Content(id), (Spec{{1, 2, 4}}.Bytes()));
  EXPECT_EQ(moved.value(), before);
  ASSERT_OK(volumes_.store().Release("source"));
  ASSERT_OK(Upload(volumes_.store(), "other", Spec{{2}}));
  ASSERT_OK(volumes_.store().Collect(true, nullptr));
  EXPECT_EQ(Content(id), (Spec{{1, 2, 4}}.Bytes()));
  EXPECT_EQ(moved.value(), before + 2);
}

TEST_F(ChunkBackupsTest, AParentThatIsGoneOrDamagedIsNotNeeded) {
  const Spec spec = {{1, 2, 4}};
  ASSERT_OK(Upload(volumes_.store(), "source", spec));
  BackupCopy copy;
  const std::string gone = Save("source", base::NewUuid(), &copy);
  EXPECT_EQ(copy.moved_chunks, 3u);
  // All of its blobs turn bad: pages and chunks.
  for (const std::string& name : chunkstore::testing::BlobNames(kept_.blobs()))
    kept_.blobs().FlipBit(name, 100, 1);
  kept_.Reopen();
  ChunkBackups again(Fast(), volumes_.store(), kept_.store(), metrics_);
  ASSERT_OK(Upload(volumes_.store(), "next", Spec{{1, 7, 4}}));
  const BackupRecord next = Record(gone);
  const auto saved = again.Save(next, "next", kNever);
  ASSERT_OK(saved);
  EXPECT_OK(again.Find(next.id));
}

TEST_F(ChunkBackupsTest, WhatIsDamagedIsNotCopied) {
  ASSERT_OK(Upload(volumes_.store(), "source", Spec{{1, 2, 4}}));
  BackupCopy copy;
  const std::string id = Save("source", "", &copy);
  for (const std::string& name : chunkstore::testing::BlobNames(volumes_.blobs())) {
    const auto size = volumes_.blobs().Size(name);
    ASSERT_OK(size);
    if (*size > kChunkBytes / 2) volumes_.blobs().FlipBit(name, 1000, 1);
  }
  volumes_.Reopen();
  World empty;
  ChunkBackups to_empty(Fast(), volumes_.store(), empty.store(), metrics_);
  EXPECT_ERROR(to_empty.Save(Record(), "source", kNever), Code::kCorruption);
  EXPECT_EQ(Held(empty), 0u);
}

TEST_F(ChunkBackupsTest, AStoppedCopyLeavesNothingAndGoesOnWhereItWas) {
  ASSERT_OK(Upload(volumes_.store(), "source", Spec{{1, 2, 4, 6}}));
  const BackupRecord backup = Record();
  int asked = 0;
  EXPECT_ERROR(backups_.Save(backup, "source", [&] { return ++asked > 2; }), Code::kCancelled);
  EXPECT_EQ(Held(kept_), 0u);
  EXPECT_ERROR(backups_.Find(backup.id), Code::kNotFound);
  const auto saved = backups_.Save(backup, "source", kNever);
  ASSERT_OK(saved);
  EXPECT_EQ(saved->moved_chunks, 2u) << "what had crossed is still there";
  EXPECT_EQ(backups_.Save(backup, "source", kNever)->chunks, 0u) << "it is kept already";
}

TEST_F(ChunkBackupsTest, WhatIsKeptTellsWhatItIs) {
  ASSERT_OK(Upload(volumes_.store(), "source", Spec{{1, 0, 4}}));
  BackupRecord backup = Record();
  backup.name = "name";
  backup.metadata["k"] = "v";
  backup.image_metadata["big"] = std::string(chunkstore::kMaxAttributesBytes, 'x');
  ASSERT_OK(backups_.Save(backup, "source", kNever));
  ASSERT_OK_AND_ASSIGN(const BackupRecord found, backups_.Find(backup.id));
  EXPECT_EQ(found.status, BackupStatus::kAvailable);
  EXPECT_EQ(found.object_count, 2u);
  EXPECT_EQ(found.name, backup.name);
  EXPECT_EQ(found.metadata, backup.metadata);
  EXPECT_EQ(found.key, backup.key);
  EXPECT_TRUE(found.image_metadata.empty()) << "too large to be kept beside it";
  EXPECT_ERROR(backups_.Find(base::NewUuid()), Code::kNotFound);
}

TEST_F(ChunkBackupsTest, TheBlobsAloneAreEnough) {
  const Spec spec = {{1, 0, 4}, 5000};
  ASSERT_OK(Upload(volumes_.store(), "source", spec));
  BackupCopy copy;
  const std::string id = Save("source", "", &copy);
  ASSERT_OK_AND_ASSIGN(const BackupRecord before, backups_.Find(id));
  ASSERT_OK(kept_.store().Rebuild(nullptr));
  ASSERT_OK_AND_ASSIGN(const BackupRecord after, backups_.Find(id));
  EXPECT_EQ(after, before);
  EXPECT_EQ(Content(id), spec.Bytes());
}

TEST_F(ChunkBackupsTest, AllIdsInPages) {
  ASSERT_OK(Upload(volumes_.store(), "source", Spec{{1}, 1000}));
  std::set<std::string> expected;
  BackupCopy copy;
  for (int i = 0; i < 7; ++i) expected.insert(Save("source", "", &copy));
  std::vector<std::string> found;
  for (std::string after;;) {
    ASSERT_OK_AND_ASSIGN(const auto ids, backups_.Ids(after, 3));
    found.insert(found.end(), ids.begin(), ids.end());
    if (ids.size() < 3) break;
    after = ids.back();
  }
  EXPECT_EQ(found, std::vector<std::string>(expected.begin(), expected.end()));
}

TEST_F(ChunkBackupsTest, AnyOrderOfBackupsDeletionsAndRestores) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    World volumes;
    World kept;
    ChunkBackups backups(Fast(), volumes.store(), kept.store(), metrics_);
    std::mt19937 random(seed);
    Spec now = {{1, 2, 0, 4}, 70'000};
    std::map<std::string, Spec> model;
    int revision = 0;
    for (int step = 0; step < 40; ++step) {
      const auto any = [&] {
        auto at = model.begin();
        std::advance(at, random() % model.size());
        return at->first;
      };
      const uint32_t what = random() % 10;
      if (what < 5) {
        now.seeds[random() % now.seeds.size()] = random() % 8;
        const std::string holder = "volume/" + std::to_string(++revision);
        ASSERT_OK(Upload(volumes.store(), holder, now));
        const BackupRecord backup = Record(model.empty() || random() % 3 == 0 ? "" : any());
        ASSERT_OK(backups.Save(backup, holder, kNever));
        ASSERT_OK(volumes.store().Release(holder));
        model[backup.id] = now;
      } else if (what < 7 && !model.empty()) {
        const std::string id = any();
        ASSERT_OK(backups.Remove(id));
        model.erase(id);
      } else if (what == 7) {
        ASSERT_OK(kept.store().Collect(true, nullptr));
        ASSERT_OK(volumes.store().Collect(true, nullptr));
      } else if (!model.empty()) {
        const std::string id = any();
        ASSERT_OK_AND_ASSIGN(const std::string holder, backups.Fetch(id, "v", kNever));
        ASSERT_OK_AND_ASSIGN(const auto held, volumes.store().FindHolder(holder));
        ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(volumes.store(), *held.root));
        EXPECT_TRUE(bytes == model[id].Bytes());
        ASSERT_OK(backups.DropFetched("v"));
      }
    }
    for (const auto& [id, spec] : model) ASSERT_OK(backups.Remove(id));
    ASSERT_OK(kept.store().Collect(true, nullptr));
    ASSERT_OK(volumes.store().Collect(true, nullptr));
    chunkstore::testing::ExpectEmpty(kept.blobs(), kept.meta());
    chunkstore::testing::ExpectEmpty(volumes.blobs(), volumes.meta());
  }
}

// Two stores that fail as one plan says.
class FaultyWorld {
 public:
  explicit FaultyWorld(FaultPlan& plan) : meta_(memory_, plan), blobs_(bytes_, plan) {
    chunkstore::ChunkStoreOptions options;
    options.background_bytes_per_s = 0;
    auto opened = chunkstore::ChunkStore::Open(options, blobs_, meta_, clock_, metrics_);
    EXPECT_OK(opened);
    store_ = *std::move(opened);
  }
  chunkstore::ChunkStore& store() { return *store_; }
  // What was left by attempts that failed is nobody's any more.
  void Settle() {
    clock_.AdvanceUs(int64_t{3600} * base::kSecondUs);
    EXPECT_OK(store_->Collect(true, nullptr));
    ExpectClean(*store_);
  }

 private:
  base::ManualClock clock_;
  base::Metrics metrics_;
  chunkstore::MemoryBlobStore bytes_;
  chunkstore::MemoryMetaStore memory_;
  support::FaultyMetaStore meta_;
  support::FaultyBlobStore blobs_;
  std::unique_ptr<chunkstore::ChunkStore> store_;
};

TEST_F(ChunkBackupsTest, EveryOperationThatFailsLeavesAllOrNothing) {
  const Spec first = {{1}, 40'000};
  const Spec second = {{4}, 40'000};
  for (const auto when : {FaultPlan::When::kBefore, FaultPlan::When::kAfter}) {
    for (uint64_t n = 1;; ++n) {
      SCOPED_TRACE("failed at operation " + std::to_string(n));
      FaultPlan plan;
      FaultyWorld volumes(plan);
      FaultyWorld kept(plan);
      ChunkBackups backups(Fast(), volumes.store(), kept.store(), metrics_);
      ASSERT_OK(Upload(volumes.store(), "first", first));
      ASSERT_OK(Upload(volumes.store(), "second", second));
      const BackupRecord full = Record();
      ASSERT_OK(backups.Save(full, "first", kNever));
      const BackupRecord backup = Record(full.id);
      const uint64_t before = plan.operations();
      plan.FailAt(n, Error(Code::kIo, "failed"), when);
      // Again and again, as a job does it.
      for (int attempt = 0; attempt < 2; ++attempt)
        if (backups.Save(backup, "second", kNever).has_value()) break;
      for (int attempt = 0; attempt < 2; ++attempt)
        if (backups.Remove(full.id).has_value()) break;
      std::string holder;
      for (int attempt = 0; attempt < 2 && holder.empty(); ++attempt)
        holder = backups.Fetch(backup.id, "v", kNever).value_or("");
      const bool all_done = plan.operations() - before < n;
      plan.Clear();
      ASSERT_OK_AND_ASSIGN(const auto held, volumes.store().FindHolder(holder));
      ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadBack(volumes.store(), *held.root));
      EXPECT_TRUE(bytes == second.Bytes());
      EXPECT_ERROR(backups.Find(full.id), Code::kNotFound);
      volumes.Settle();
      kept.Settle();
      if (testing::Test::HasFailure()) return;
      if (all_done) break;
    }
  }
}

}  // namespace
}  // namespace blockd::backup
