#include "tests/blockd/world.h"

namespace blockd {

using base::Code;
using base::Error;
using base::Result;
using support::RunFaulty;

Result<void> FakeVolumeStore::Create(const NewVolume& volume) {
  if (on_create) on_create(volume.id);
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (volumes.contains(volume.id)) return Error(Code::kAlreadyExists, "volume");
    if (volume.source.kind == VolumeSource::Kind::kSnapshot &&
        !snapshots.contains(volume.source.name))
      return Error(Code::kNotFound, "snapshot");
    if (volume.source.kind == VolumeSource::Kind::kVolume && !volumes.contains(volume.source.name))
      return Error(Code::kNotFound, "source");
    volumes[volume.id] = {volume.id, volume.size_bytes, volume.thick, false};
    sources[volume.id] = volume.source;
    return {};
  });
}
Result<std::shared_ptr<Volume>> FakeVolumeStore::Open(const std::string&) {
  return Error(Code::kNotFound, "nothing is opened here");
}
Result<void> FakeVolumeStore::Remove(const std::string& id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (volumes.erase(id) == 0) return Error(Code::kNotFound, "volume");
    return {};
  });
}
Result<void> FakeVolumeStore::Resize(const std::string& id, uint64_t size_bytes) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!volumes.contains(id)) return Error(Code::kNotFound, "volume");
    if (volumes[id].size_bytes >= size_bytes) return Error(Code::kInvalidArgument, "not larger");
    volumes[id].size_bytes = size_bytes;
    return {};
  });
}
Result<void> FakeVolumeStore::Snapshot(const std::string& volume_id,
                                       const std::string& snapshot_id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!volumes.contains(volume_id)) return Error(Code::kNotFound, "volume");
    if (snapshots.contains(snapshot_id)) return Error(Code::kAlreadyExists, "snapshot");
    if (puts_off_snapshots-- > 0) return Error(Code::kUnavailable, "too fast");
    snapshots[snapshot_id] = {snapshot_id, volume_id, volumes[volume_id].size_bytes, true};
    return {};
  });
}
Result<void> FakeVolumeStore::RemoveSnapshot(const std::string& id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (snapshots.erase(id) == 0) return Error(Code::kNotFound, "snapshot");
    return {};
  });
}
Result<void> FakeVolumeStore::Revert(const std::string& volume_id, const std::string& snapshot_id) {
  if (on_revert) on_revert(volume_id);
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!volumes.contains(volume_id) || !snapshots.contains(snapshot_id))
      return Error(Code::kNotFound, "volume or snapshot");
    reverted.push_back(snapshot_id);
    return {};
  });
}
Result<void> FakeVolumeStore::Refill(const std::string& volume_id, const std::string& holder) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    if (!volumes.contains(volume_id)) return Error(Code::kNotFound, "volume");
    sources[volume_id] = {VolumeSource::Kind::kContent, holder};
    return {};
  });
}
Result<std::string> FakeVolumeStore::SnapshotHolder(const std::string& id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<std::string> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!snapshots.contains(id)) return Error(Code::kNotFound, "snapshot");
    return "layer/" + id;
  });
}
Result<std::shared_ptr<ChangedBlocks>> FakeVolumeStore::ChangedSince(
    const std::string& volume_id, const std::string& snapshot_id) {
  return Error(Code::kNotFound, "no snapshot " + snapshot_id + " of volume " + volume_id);
}
Result<std::shared_ptr<ChangedBlocks>> FakeVolumeStore::ChangedSinceContent(
    const std::string& volume_id, const std::string& holder) {
  return Error(Code::kNotFound, "no holder " + holder + " for volume " + volume_id);
}
Result<VolumeInfo> FakeVolumeStore::FindVolume(const std::string& id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<VolumeInfo> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!volumes.contains(id)) return Error(Code::kNotFound, "volume");
    return volumes[id];
  });
}
Result<SnapshotInfo> FakeVolumeStore::FindSnapshot(const std::string& id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<SnapshotInfo> {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!snapshots.contains(id)) return Error(Code::kNotFound, "snapshot");
    return snapshots[id];
  });
}
Result<std::vector<VolumeInfo>> FakeVolumeStore::Volumes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<VolumeInfo> all;
  for (const auto& [id, info] : volumes) all.push_back(info);
  return all;
}
Result<std::vector<SnapshotInfo>> FakeVolumeStore::Snapshots() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<SnapshotInfo> all;
  for (const auto& [id, info] : snapshots) all.push_back(info);
  return all;
}

Result<base::JsonObject> RecordingExports::Publish(const ExportSpec& spec) {
  return RunFaulty(plan_.Next(), [&]() -> Result<base::JsonObject> {
    for (const auto& [id, other] : published)
      if (id != spec.attachment_id && other.volume_id == spec.volume_id && !spec.multi_attach)
        return Error(Code::kConflict, "somebody else writes");
    published[spec.attachment_id] = spec;
    return base::JsonObject{{"export", spec.attachment_id + "." + spec.secret}};
  });
}
Result<void> RecordingExports::Withdraw(std::string_view attachment_id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    published.erase(std::string(attachment_id));
    connected.erase(std::string(attachment_id));
    return {};
  });
}

Result<ImageFacts> FakeImages::Find(const base::auth::Caller&, std::string_view image_id) {
  if (image_id != "image") return Error(Code::kNotFound, "no such image");
  return ImageFacts{"image", "cirros", 2 * base::kGiB, 0, {{"image_id", "image"}}};
}
Result<std::string> FakeImages::RawHolder(std::string_view image_id) {
  if (image_id != "image") return Error(Code::kNotFound, "no such image");
  if (puts_off-- > 0) return Error(Code::kUnavailable, "is being converted");
  return std::string("image/image/1");
}
Result<std::string> FakeImages::NewImage(const base::auth::Caller&, std::string_view name,
                                         std::string_view, std::string_view, std::string_view,
                                         bool) {
  return "new-" + std::string(name);
}
Result<void> FakeImages::Fill(const ImageUpload& upload) {
  if (puts_off-- > 0) return Error(Code::kUnavailable, "is being filled");
  filled[upload.image_id] = upload.holder;
  return {};
}
Result<void> FakeImages::Abandon(std::string_view image_id) {
  abandoned.insert(std::string(image_id));
  return {};
}

Result<BackupCopy> FakeBackups::Save(const BackupRecord& backup, const std::string& holder,
                                     const Cancelled& cancelled) {
  return RunFaulty(plan_.Next(), [&]() -> Result<BackupCopy> {
    if (on_save) on_save(cancelled);
    if (cancelled()) return Error(Code::kCancelled, "stopped");
    BackupRecord record = backup;
    record.status = BackupStatus::kAvailable;
    record.object_count = 7;
    kept.try_emplace(backup.id, Kept{record, holder});
    return BackupCopy{7, 3, 3};
  });
}
Result<std::string> FakeBackups::Fetch(const std::string& backup_id, const std::string& volume_id,
                                       const Cancelled&) {
  return RunFaulty(plan_.Next(), [&]() -> Result<std::string> {
    if (!kept.contains(backup_id)) return Error(Code::kNotFound, "backup");
    fetched[volume_id] = backup_id;
    return "restore/" + volume_id + "/" + backup_id;
  });
}
Result<void> FakeBackups::DropFetched(const std::string& volume_id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    fetched.erase(volume_id);
    return {};
  });
}
Result<void> FakeBackups::Remove(const std::string& backup_id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<void> {
    kept.erase(backup_id);
    return {};
  });
}
Result<BackupRecord> FakeBackups::Find(const std::string& backup_id) {
  return RunFaulty(plan_.Next(), [&]() -> Result<BackupRecord> {
    const auto found = kept.find(backup_id);
    if (found == kept.end()) return Error(Code::kNotFound, "backup");
    return found->second.record;
  });
}
Result<std::vector<std::string>> FakeBackups::Ids(const std::string& after, size_t limit) {
  std::vector<std::string> ids;
  for (auto at = kept.upper_bound(after); at != kept.end() && ids.size() < limit; ++at)
    ids.push_back(at->first);
  return ids;
}

BlockWorld::BlockWorld(JobOptions options) : options_(options) {
  service_options.detach_wait_ms = 0;
  service_options.service_id = "8309f59b-75d5-4974-b34e-a742a67be4dd";
  Open();
}

std::unique_ptr<BlockWorld> BlockWorld::WithTwoBackEnds() {
  auto world = std::make_unique<BlockWorld>();
  world->service_options.back_ends = {"store", "rbd"};
  world->Open();
  return world;
}

void BlockWorld::Open() {
  journal = std::make_unique<chunkstore::jobs::Journal>(meta, clock, std::string(kPartition),
                                                        "process-" + std::to_string(++starts_));
  catalog = std::make_unique<Catalog>(meta, clock, *journal);
  types = std::make_unique<types::TypeStore>(*catalog, service_options.back_ends);
  EXPECT_OK(types->Start());
  messages = std::make_unique<tenancy::Messages>(*catalog);
  jobs = std::make_unique<Jobs>(world(), metrics, options_);
  http_ = std::make_unique<Harness>();
  const Context context = {service_options, *catalog, *jobs,  *types,
                           all_of_store(),  exports,  images, world().backups};
  Routes routes;
  AppendVolumeRoutes(context, &routes);
  AppendActionRoutes(context, &routes);
  AppendSnapshotRoutes(context, &routes);
  AppendAttachmentRoutes(context, &routes);
  AppendBackupRoutes(context, &routes);
  AppendProjectQosRoutes(context, &routes);
  http_->Mount(routes);
}

void BlockWorld::Restart(uint64_t seed) {
  plan.Clear();
  memory.Crash(seed);
  // Exports live in the process.
  exports.published.clear();
  exports.connected.clear();
  exports.project_limits.clear();
  jobs.reset();
  Open();
  EXPECT_OK(ReconcileAtStart(world(), *jobs));
}

std::string BlockWorld::CreateVolume(const CallerPtr& caller, std::string_view rest) {
  const auto created =
      Ask(caller, "POST", "/volumes", R"({"volume": {"size": 1)" + std::string(rest) + "}}");
  return TextAt(created, "volume", "id");
}
std::string BlockWorld::CreateSnapshot(const CallerPtr& caller, const std::string& volume_id) {
  const auto created = Ask(caller, "POST", "/snapshots",
                           R"({"snapshot": {"name": "s", "volume_id": ")" + volume_id + R"("}})");
  return TextAt(created, "snapshot", "id");
}
std::string BlockWorld::CreateBackup(const CallerPtr& caller, const std::string& volume_id,
                                     std::string_view rest) {
  const auto created = Ask(
      caller, "POST", "/backups",
      R"({"backup": {"name": "b", "volume_id": ")" + volume_id + '"' + std::string(rest) + "}}");
  return TextAt(created, "backup", "id");
}
std::string BlockWorld::BackupStatusOf(const std::string& backup_id) {
  const auto backup = catalog->GetBackup(backup_id);
  return backup.has_value() ? std::string(BackupStatusName(backup->status)) : "gone";
}
std::string BlockWorld::StatusOf(const std::string& volume_id) {
  const auto volume = catalog->GetVolume(volume_id);
  return volume.has_value() ? std::string(VolumeStatusName(volume->status)) : "gone";
}
std::string BlockWorld::SnapshotStatusOf(const std::string& snapshot_id) {
  const auto snapshot = catalog->GetSnapshot(snapshot_id);
  return snapshot.has_value() ? std::string(SnapshotStatusName(snapshot->status)) : "gone";
}

void BlockWorld::RunJobs(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    bool found = false;
    for (size_t i = 0; i < kLanes; ++i) {
      auto job = journal->ClaimByTurns(KindOfLane(static_cast<Lane>(i)), 1000);
      if (!job.has_value() || !job->has_value()) continue;
      found = true;
      const auto outcome = jobs->Run(**job);
      // A process that fails here leaves its lease to run out.
      if (outcome.has_value() && outcome->done)
        (void)journal->Remove(**job).has_value();
      else
        (void)journal->Postpone(**job, 0).has_value();
    }
    clock.AdvanceUs(2 * base::kSecondUs);
    if (!found && JobsLeft() == 0) return;
  }
}

size_t BlockWorld::JobsLeft() {
  size_t left = 0;
  for (size_t i = 0; i < kLanes; ++i) {
    const auto jobs_of_lane = journal->List(KindOfLane(static_cast<Lane>(i)));
    if (jobs_of_lane.has_value()) left += jobs_of_lane->size();
  }
  return left;
}

void BlockWorld::ExpectSettled() {
  EXPECT_EQ(JobsLeft(), 0u);
  ListQuery all;
  const auto volumes = catalog->ListVolumes(all);
  const auto snapshots = catalog->ListSnapshots(all);
  const auto attachments = catalog->ListAttachments(all);
  ASSERT_OK(volumes);
  ASSERT_OK(snapshots);
  ASSERT_OK(attachments);
  std::map<std::string, Amounts> used;
  std::set<std::string> named;
  for (const VolumeRecord& volume : *volumes) {
    SCOPED_TRACE(volume.id + " is " + std::string(VolumeStatusName(volume.status)));
    EXPECT_TRUE(volume.status == VolumeStatus::kAvailable ||
                volume.status == VolumeStatus::kInUse || volume.status == VolumeStatus::kReserved);
    FakeVolumeStore& on = BackEndOf(volume) == "rbd" ? rbd : store;
    FakeVolumeStore& not_on = BackEndOf(volume) == "rbd" ? store : rbd;
    ASSERT_TRUE(on.volumes.contains(volume.id));
    EXPECT_FALSE(not_on.volumes.contains(volume.id));
    EXPECT_EQ(on.volumes[volume.id].size_bytes, volume.size_gb * base::kGiB);
    EXPECT_EQ(volume.reserved_size_gb, 0u);
    EXPECT_EQ(volume.holds, 0u);
    EXPECT_EQ(volume.status == VolumeStatus::kAvailable, volume.attachment_ids.empty());
    AddAmounts(AmountsOf(volume), 1, &used[volume.project_id]);
    named.insert(volume.id);
  }
  for (const SnapshotRecord& snapshot : *snapshots) {
    EXPECT_EQ(SnapshotStatusName(snapshot.status), "available") << snapshot.id;
    EXPECT_OK(both.FindSnapshot(snapshot.id));
    EXPECT_EQ(snapshot.holds, 0u);
    AddAmounts(AmountsOf(snapshot), 1, &used[snapshot.project_id]);
  }
  const auto all_backups = catalog->ListBackups(all);
  ASSERT_OK(all_backups);
  std::set<std::string> whole;
  for (const BackupRecord& backup : *all_backups) {
    EXPECT_TRUE(backup.status == BackupStatus::kAvailable || backup.status == BackupStatus::kError)
        << backup.id << " is " << BackupStatusName(backup.status);
    if (backup.status == BackupStatus::kAvailable) whole.insert(backup.id);
    AddAmounts(AmountsOf(backup), 1, &used[backup.project_id]);
  }
  std::set<std::string> kept;
  for (const auto& [id, content] : backups.kept) kept.insert(id);
  EXPECT_EQ(kept, whole);
  EXPECT_TRUE(backups.fetched.empty());
  for (const AttachmentRecord& attachment : *attachments) {
    EXPECT_NE(AttachStatusName(attachment.status), "detaching") << attachment.id;
    const bool open = attachment.status == AttachStatus::kAttached;
    if (open && !attachment.secret.empty())
      EXPECT_TRUE(exports.published.contains(attachment.id)) << attachment.id;
  }
  for (const auto& [id, info] : store.volumes) EXPECT_TRUE(named.contains(id)) << "orphan " << id;
  for (const auto& [id, info] : rbd.volumes) EXPECT_TRUE(named.contains(id)) << "orphan " << id;
  EXPECT_EQ(store.snapshots.size() + rbd.snapshots.size(), snapshots->size());
  for (const std::string_view project : {kMyProject, kYourProject, kAdminProject}) {
    const auto recorded = catalog->UsageOf(project);
    ASSERT_OK(recorded);
    EXPECT_EQ(*recorded, used[std::string(project)]) << project;
  }
}

}  // namespace blockd
