#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/metrics.h"
#include "blockd/back_ends.h"
#include "blockd/handlers.h"
#include "blockd/jobs.h"
#include "blockd/reconcile.h"
#include "blockd/tenancy/messages.h"
#include "blockd/types/type_store.h"
#include "tests/blockd/api/harness.h"
#include "tests/support/faulty_stores.h"
#include "tests/support/results.h"

namespace blockd {

// Volumes as names and sizes, with the errors of a VolumeStore. Every call is an operation of the
// plan. Calls are Thread-safe; its members are to be read when nothing runs.
class FakeVolumeStore : public VolumeStore {
 public:
  explicit FakeVolumeStore(support::FaultPlan& plan) : plan_(plan) {}

  base::Result<void> Create(const NewVolume& volume) override;
  base::Result<std::shared_ptr<Volume>> Open(const std::string& id) override;
  base::Result<void> Remove(const std::string& id) override;
  base::Result<void> Fence(const std::string& id) override {
    fenced.insert(id);
    return {};
  }
  base::Result<void> Resize(const std::string& id, uint64_t size_bytes) override;
  base::Result<void> Snapshot(const std::string& volume_id,
                              const std::string& snapshot_id) override;
  base::Result<void> RemoveSnapshot(const std::string& id) override;
  base::Result<void> Revert(const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<void> Refill(const std::string& volume_id, const std::string& holder) override;
  base::Result<std::string> SnapshotHolder(const std::string& id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSince(
      const std::string& volume_id, const std::string& snapshot_id) override;
  base::Result<std::shared_ptr<ChangedBlocks>> ChangedSinceContent(
      const std::string& volume_id, const std::string& holder) override;
  base::Result<VolumeInfo> FindVolume(const std::string& id) override;
  base::Result<SnapshotInfo> FindSnapshot(const std::string& id) override;
  base::Result<std::vector<VolumeInfo>> Volumes() override;
  base::Result<std::vector<SnapshotInfo>> Snapshots() override;

  std::map<std::string, VolumeInfo> volumes;
  std::map<std::string, SnapshotInfo> snapshots;
  std::map<std::string, VolumeSource> sources;  // what each volume was made of
  std::set<std::string> fenced;                 // volumes that were shut to other processes
  std::vector<std::string> reverted;            // to which snapshot, each time
  std::function<void(const std::string& volume_id)> on_revert;  // before each; null: nothing
  int puts_off_snapshots = 0;  // how often Snapshot says yet that they come too fast
  // Called by Create before it does anything; may block. Null: nothing.
  std::function<void(const std::string& id)> on_create;

 private:
  std::mutex mutex_;
  support::FaultPlan& plan_;
};

// Remembers what is published.
class RecordingExports : public Exports {
 public:
  explicit RecordingExports(support::FaultPlan& plan) : plan_(plan) {}
  base::Result<base::JsonObject> Publish(const ExportSpec& spec) override;
  base::Result<void> Withdraw(std::string_view attachment_id) override;
  bool IsConnected(std::string_view attachment_id) override {
    return connected.contains(std::string(attachment_id));
  }
  std::vector<std::string> Published() override {
    std::vector<std::string> ids;
    for (const auto& [id, spec] : published) ids.push_back(id);
    return ids;
  }
  base::Result<void> SetLimits(std::string_view volume_id, uint64_t size_gb,
                               const std::map<std::string, std::string>&) override {
    limits[std::string(volume_id)] = size_gb;
    return {};
  }
  base::Result<void> SetProjectLimits(std::string_view project_id,
                                      const std::map<std::string, std::string>& qos) override {
    project_limits[std::string(project_id)] = qos;
    return {};
  }
  void Forget(std::string_view volume_id) override { forgotten.insert(std::string(volume_id)); }

  std::map<std::string, ExportSpec, std::less<>> published;
  std::set<std::string> connected;
  std::map<std::string, uint64_t> limits;
  std::map<std::string, std::map<std::string, std::string>> project_limits;
  std::set<std::string> forgotten;

 private:
  support::FaultPlan& plan_;
};

// One image, "image", of 2 GiB, and those that are made.
class FakeImages : public ImageSource {
 public:
  base::Result<ImageFacts> Find(const base::auth::Caller& caller,
                                std::string_view image_id) override;
  base::Result<std::string> RawHolder(std::string_view image_id) override;
  base::Result<std::string> NewImage(const base::auth::Caller& caller, std::string_view name,
                                     std::string_view disk_format,
                                     std::string_view container_format, std::string_view visibility,
                                     bool is_protected) override;
  base::Result<void> Fill(const ImageUpload& upload) override;
  base::Result<void> Abandon(std::string_view image_id) override;

  int puts_off = 0;  // how often RawHolder and Fill say yet that it is on its way
  std::map<std::string, std::string> filled;  // id: holder
  std::set<std::string> abandoned;
};

// Backups as names of holders. Every call is an operation of the plan.
class FakeBackups : public BackupTarget {
 public:
  explicit FakeBackups(support::FaultPlan& plan) : plan_(plan) {}

  base::Result<BackupCopy> Save(const BackupRecord& backup, const std::string& holder,
                                const Cancelled& cancelled) override;
  base::Result<std::string> Fetch(const std::string& backup_id, const std::string& volume_id,
                                  const Cancelled& cancelled) override;
  base::Result<void> DropFetched(const std::string& volume_id) override;
  base::Result<void> Remove(const std::string& backup_id) override;
  base::Result<BackupRecord> Find(const std::string& backup_id) override;
  base::Result<std::vector<std::string>> Ids(const std::string& after, size_t limit) override;

  struct Kept {
    BackupRecord record;
    std::string holder;
  };
  std::function<void(const Cancelled&)> on_save;  // before each
  std::map<std::string, Kept> kept;
  std::map<std::string, std::string> fetched;  // by volume: of which backup

 private:
  support::FaultPlan& plan_;
};

// The Block Storage API's own routes over stores in memory, that fail as the plan says. Jobs run
// when told. A restart keeps what is stored, and loses what was not synced.
class BlockWorld {
 public:
  explicit BlockWorld(JobOptions options = {});
  // With two back ends: "store" and "rbd".
  static std::unique_ptr<BlockWorld> WithTwoBackEnds();

  base::http::Response Ask(const CallerPtr& caller, std::string_view method,
                           std::string_view target, std::string_view body = {}, int minor = 70) {
    return http_->Call(caller, method, target, body, minor);
  }
  // With any headers; `target` from below the service's prefix.
  base::http::Response AskAt(const CallerPtr& caller, std::string_view method,
                             std::string_view target, std::string_view body,
                             const Harness::HeaderList& headers) {
    return http_->CallAt(caller, method, target, body, headers);
  }
  // POST volumes; the id, empty if there is none.
  std::string CreateVolume(const CallerPtr& caller, std::string_view rest = "");
  std::string CreateSnapshot(const CallerPtr& caller, const std::string& volume_id);
  base::http::Response Act(const CallerPtr& caller, const std::string& volume_id,
                           std::string_view body, int minor = 70) {
    return Ask(caller, "POST", "/volumes/" + volume_id + "/action", body, minor);
  }
  std::string StatusOf(const std::string& volume_id);
  std::string SnapshotStatusOf(const std::string& snapshot_id);
  // POST backups; the id, empty if there is none.
  std::string CreateBackup(const CallerPtr& caller, const std::string& volume_id,
                           std::string_view rest = "");
  std::string BackupStatusOf(const std::string& backup_id);

  // Runs what is due, and what is postponed after it, until nothing is left or `rounds` are over.
  void RunJobs(int rounds = 30);
  size_t JobsLeft();
  // A kill and a new start.
  void Restart(uint64_t seed);

  // What must hold when no job is left: nothing is on its way, records and store agree, and usage
  // is what the records add up to.
  void ExpectSettled();

  support::FaultPlan plan;
  chunkstore::MemoryMetaStore memory;
  support::FaultyMetaStore meta{memory, plan};
  base::ManualClock clock;
  base::Metrics metrics;
  std::unique_ptr<chunkstore::jobs::Journal> journal;
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<types::TypeStore> types;
  FakeVolumeStore store{plan};
  FakeVolumeStore rbd{plan};  // of a world with two
  BackEnds both{{{"store", &store}, {"rbd", &rbd}}};
  RecordingExports exports{plan};
  FakeImages images;
  FakeBackups backups{plan};
  bool has_backups = true;  // what a start after this finds
  std::unique_ptr<tenancy::Messages> messages;
  std::unique_ptr<Jobs> jobs;
  ServiceOptions service_options;

  base::http::Router& router() { return http_->router(); }
  Jobs::World world() {
    return {*catalog,       all_of_store(), exports,
            images,         *types,         has_backups ? &backups : nullptr,
            messages.get(), &both};
  }
  // Of all back ends.
  VolumeStore& all_of_store() {
    if (service_options.back_ends.size() > 1) return both;
    return store;
  }

 private:
  void Open();

  const JobOptions options_;
  int starts_ = 0;
  std::unique_ptr<Harness> http_;
};

}  // namespace blockd
