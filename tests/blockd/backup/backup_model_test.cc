#include <map>
#include <random>
#include <string>

#include "blockd/backup/chunk_backups.h"
#include "tests/blockd/chunk/store_world.h"
#include "tests/blockd/world.h"

// Volumes on the chunk store and their backups in another one, by the API and its jobs, against
// strings.

namespace blockd {
namespace {

using chunk::testing::StoreWorld;

// What is written and compared; the rest of each volume is zeros.
constexpr uint64_t kUsedBytes = 3 * chunkstore::kChunkBytes;

class RealWorld {
 public:
  RealWorld() {
    EXPECT_OK(types_.Start());
    http_.Mount(routes());
  }

  std::string Ask(const CallerPtr& caller, const std::string& path, const std::string& body,
                  int status, const char* object, const char* member = "id") {
    const auto response = http_.Call(caller, "POST", path, body, 70);
    EXPECT_EQ(response.status, status) << response.body;
    return TextAt(response, object, member);
  }
  int Delete(const std::string& path) { return http_.Call(me, "DELETE", path).status; }

  // Jobs and the sealer, until nothing is left to do.
  void Run() {
    for (int round = 0; round < 200; ++round) {
      bool found = false;
      for (size_t i = 0; i < kLanes; ++i) {
        const std::string kind = KindOfLane(static_cast<Lane>(i));
        auto job = journal_.Claim(kind, 1000);
        ASSERT_OK(job);
        if (!job->has_value()) continue;
        found = true;
        const auto outcome = jobs_.Run(**job);
        if (outcome.has_value() && outcome->done)
          ASSERT_OK(journal_.Remove(**job));
        else
          ASSERT_OK(journal_.Postpone(**job, 0));
      }
      disks_.Settle();
      clock_.AdvanceUs(1000);
      if (!found) return;
    }
    ADD_FAILURE() << "jobs don't end";
  }

  std::shared_ptr<Volume> Open(const std::string& id) {
    auto volume = disks_.store().Open(id);
    EXPECT_OK(volume);
    return volume.has_value() ? *volume : nullptr;
  }
  std::string Content(const std::string& id) {
    return chunk::testing::ReadAll(*Open(id), 0, kUsedBytes);
  }
  std::string StatusOf(const std::string& id) {
    return std::string(VolumeStatusName(catalog_.GetVolume(id)->status));
  }
  void Collect() {
    ASSERT_OK(kept_.store().Collect(true, nullptr));
    ASSERT_OK(disks_.chunks().Collect(true, nullptr));
  }
  Catalog& catalog() { return catalog_; }
  chunkstore::testing::World& kept() { return kept_; }
  const base::Counter& moved_chunks() {
    return metrics_.GetCounter("quarry_backup_moved_chunks_total", "");
  }

  const CallerPtr me = MemberOf();

 private:
  static backup::ChunkBackupsOptions Fast() {
    backup::ChunkBackupsOptions options;
    options.bytes_per_s = 0;
    options.collect_interval_ms = 0;
    return options;
  }
  Routes routes() {
    const Context context = {options_,       catalog_, jobs_,   types_,
                             disks_.store(), exports_, images_, backups_.get()};
    Routes routes;
    AppendVolumeRoutes(context, &routes);
    AppendBackupRoutes(context, &routes);
    return routes;
  }

  struct Opened {
    explicit Opened(StoreWorld& disks) { disks.Open(); }
  };
  support::FaultPlan plan_;
  base::Metrics metrics_;
  base::ManualClock clock_;
  StoreWorld disks_;
  const Opened opened_{disks_};
  chunkstore::testing::World kept_;
  chunkstore::MemoryMetaStore meta_;
  chunkstore::jobs::Journal journal_{meta_, clock_, std::string(kPartition), "process"};
  Catalog catalog_{meta_, clock_, journal_};
  types::TypeStore types_{catalog_};
  RecordingExports exports_{plan_};
  FakeImages images_;
  std::unique_ptr<BackupTarget> backups_ =
      std::make_unique<backup::ChunkBackups>(Fast(), disks_.chunks(), kept_.store(), metrics_);
  ServiceOptions options_;
  Jobs jobs_{{catalog_, disks_.store(), exports_, images_, types_, backups_.get()}, metrics_};
  Harness http_;
};

class BackupModelTest : public testing::Test {
 protected:
  std::string NewVolume() {
    const std::string id =
        world_.Ask(world_.me, "/volumes", R"({"volume": {"size": 1}})", 202, "volume");
    world_.Run();
    volumes_[id] = std::string(kUsedBytes, '\0');
    return id;
  }
  void Write(const std::string& id, uint64_t offset, const std::string& bytes) {
    ASSERT_OK(chunk::testing::Write(*world_.Open(id), offset, bytes));
    volumes_[id].replace(offset, bytes.size(), bytes);
  }
  std::string Backup(const std::string& volume, bool incremental) {
    const std::string rest = incremental ? R"(, "incremental": true)" : "";
    const std::string id =
        world_.Ask(world_.me, "/backups",
                   R"({"backup": {"volume_id": ")" + volume + '"' + rest + "}}", 202, "backup");
    world_.Run();
    EXPECT_EQ(world_.catalog().GetBackup(id)->status, BackupStatus::kAvailable);
    backups_[id] = volumes_[volume];
    return id;
  }
  std::string Restore(const std::string& backup, const std::string& volume) {
    const std::string to = volume.empty() ? "" : R"("volume_id": ")" + volume + '"';
    const std::string id = world_.Ask(world_.me, "/backups/" + backup + "/restore",
                                      R"({"restore": {)" + to + "}}", 202, "restore", "volume_id");
    world_.Run();
    EXPECT_EQ(world_.StatusOf(id), "available");
    volumes_[id] = backups_[backup];
    return id;
  }
  void Check() {
    for (const auto& [id, content] : volumes_) EXPECT_TRUE(world_.Content(id) == content) << id;
  }

  RealWorld world_;
  std::map<std::string, std::string> volumes_;
  std::map<std::string, std::string> backups_;
};

TEST_F(BackupModelTest, AnIncrementalBackupMovesWhatWasWritten) {
  const std::string volume = NewVolume();
  Write(volume, 0, chunkstore::testing::MakeBytes(2, kUsedBytes));
  const std::string first = Backup(volume, false);
  const double full = world_.moved_chunks().value();
  EXPECT_EQ(full, 3);
  Write(volume, 5'000'192, std::string(kSectorBytes, 'x'));
  const std::string second = Backup(volume, true);
  EXPECT_EQ(world_.moved_chunks().value() - full, 1);
  Restore(first, "");
  Restore(second, volume);
  Check();
  // Nothing had to come back: it was all still here.
  EXPECT_EQ(world_.moved_chunks().value() - full, 1);
}

TEST_F(BackupModelTest, AnyOrder) {
  std::mt19937 random(20'261'121);
  NewVolume();
  const auto any = [&](const std::map<std::string, std::string>& map) {
    auto at = map.begin();
    std::advance(at, random() % map.size());
    return at->first;
  };
  for (int step = 0; step < 120; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::string volume = any(volumes_);
    const uint32_t what = random() % 12;
    if (what < 5) {
      const uint64_t sectors = 1 + random() % 300;
      const uint64_t at = random() % (kUsedBytes / kSectorBytes - sectors);
      Write(volume, at * kSectorBytes,
            std::string(sectors * kSectorBytes, static_cast<char>(random() % 3 * 60)));
    } else if (what < 8) {
      bool has_parent = false;
      ASSERT_OK_AND_ASSIGN(const auto all, world_.catalog().ListBackups({}));
      for (const BackupRecord& backup : all) has_parent |= backup.volume_id == volume;
      if (backups_.size() < 8) Backup(volume, has_parent && random() % 2 == 0);
    } else if (what == 8 && !backups_.empty()) {
      const std::string backup = any(backups_);
      EXPECT_EQ(world_.Delete("/backups/" + backup), 202);
      world_.Run();
      backups_.erase(backup);
    } else if (what == 9 && volumes_.size() > 1) {
      EXPECT_EQ(world_.Delete("/volumes/" + volume), 202);
      world_.Run();
      volumes_.erase(volume);
    } else if (what == 10 && !backups_.empty()) {
      Restore(any(backups_), random() % 2 == 0 || volumes_.size() >= 6 ? volume : "");
    } else if (what == 11) {
      world_.Collect();
    }
    if (step % 10 == 9) Check();
    if (HasFailure()) return;
  }
  Check();
  for (const auto& [id, content] : backups_) {
    EXPECT_EQ(world_.Delete("/backups/" + id), 202);
    world_.Run();
  }
  world_.Collect();
  chunkstore::testing::ExpectEmpty(world_.kept().blobs(), world_.kept().meta());
}

// --- VolumeStore::Refill, which a restore ends with

TEST(RefillTest, TheVolumeIsTheContentAndItsSnapshotsStay) {
  StoreWorld world;
  world.Open();
  ASSERT_OK(world.Make("v"));
  ASSERT_OK(chunk::testing::Write(**world.store().Open("v"), 0, std::string(8192, 'a')));
  ASSERT_OK(world.store().Snapshot("v", "s"));
  ASSERT_OK(chunkstore::testing::Upload(world.chunks(), "content",
                                        chunkstore::testing::Spec{{3}, 1 << 20}));
  const std::string content = chunkstore::testing::MakeBytes(3, 1 << 20);
  {
    const auto open = world.store().Open("v");
    EXPECT_ERROR(world.store().Refill("v", "content"), base::Code::kConflict);
  }
  ASSERT_OK(world.store().Refill("v", "content"));
  ASSERT_OK(world.chunks().Release("content"));
  world.Settle();
  const std::string now = world.Content("v");
  EXPECT_EQ(now.size(), chunk::testing::kVolumeBytes);
  EXPECT_TRUE(now.substr(0, 1 << 20) == content);
  EXPECT_TRUE(base::IsZero(base::AsBytes(now).subspan(1 << 20)));
  EXPECT_TRUE(world.SnapshotContent("s").substr(0, 8192) == std::string(8192, 'a'));
  ASSERT_OK(world.store().Revert("v", "s"));
  EXPECT_TRUE(world.Content("v").substr(0, 8192) == std::string(8192, 'a'));
  EXPECT_ERROR(world.store().Refill("v", "nothing"), base::Code::kNotFound);
  EXPECT_ERROR(world.store().Refill("w", "content"), base::Code::kNotFound);
}

TEST(RefillTest, WholeOrNotAtAllWhateverFails) {
  for (const auto when : {support::FaultPlan::When::kBefore, support::FaultPlan::When::kAfter}) {
    for (uint64_t n = 1;; ++n) {
      SCOPED_TRACE("killed at operation " + std::to_string(n));
      StoreWorld world;
      world.Open();
      ASSERT_OK(world.Make("v"));
      const std::string before(chunk::testing::kVolumeBytes, 'b');
      {
        const auto volume = world.store().Open("v");
        ASSERT_OK(chunk::testing::Write(**volume, 0, before));
        ASSERT_OK((*volume)->Flush());
      }
      ASSERT_OK(chunkstore::testing::Upload(world.chunks(), "content",
                                            chunkstore::testing::Spec{{3}, 1 << 20}));
      std::string after = chunkstore::testing::MakeBytes(3, 1 << 20);
      after.resize(chunk::testing::kVolumeBytes);
      const uint64_t operations = world.plan().operations();
      world.plan().FailFrom(n, base::Error(base::Code::kIo, "killed"), when);
      const auto filled = world.store().Refill("v", "content");
      const bool all_done = world.plan().operations() - operations < n;
      world.Crash(n);
      world.Open();
      const std::string now = world.Content("v");
      EXPECT_TRUE(now == after || (!filled.has_value() && now == before));
      world.Settle();
      if (testing::Test::HasFailure()) return;
      if (all_done) break;
    }
  }
}

}  // namespace
}  // namespace blockd
