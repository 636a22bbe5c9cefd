#include <atomic>
#include <thread>

#include "base/coding.h"
#include "tests/blockd/world.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;

class BackupsApiTest : public testing::Test {
 protected:
  std::string Available(std::string_view rest = "") {
    const std::string id = world_.CreateVolume(me_, rest);
    world_.RunJobs();
    EXPECT_EQ(world_.StatusOf(id), "available");
    return id;
  }
  std::string Backup(const std::string& volume, std::string_view rest = "") {
    const std::string id = world_.CreateBackup(me_, volume, rest);
    world_.RunJobs();
    EXPECT_EQ(world_.BackupStatusOf(id), "available");
    return id;
  }
  base::http::Response Restore(const std::string& backup, std::string_view body = "") {
    return world_.Ask(me_, "POST", "/backups/" + backup + "/restore",
                      R"({"restore": {)" + std::string(body) + "}}");
  }
  base::http::Response BackupAction(const CallerPtr& caller, const std::string& backup,
                                    std::string_view body) {
    return world_.Ask(caller, "POST", "/backups/" + backup + "/action", body);
  }

  const CallerPtr me_ = MemberOf();
  const CallerPtr you_ = MemberOf(kYourProject);
  BlockWorld world_;
};

TEST_F(BackupsApiTest, ShownAsCinderShowsIt) {
  const std::string volume = Available();
  const auto created = world_.Ask(
      me_, "POST", "/backups",
      R"({"backup": {"volume_id": ")" + volume + R"(", "name": "n", "metadata": {"a": "b"}}})");
  EXPECT_EQ(created.status, 202);
  EXPECT_EQ(NamesOf(At(BodyOf(created), "backup")), (std::set<std::string>{"id", "name", "links"}));
  const std::string id = TextAt(created, "backup", "id");
  EXPECT_EQ(world_.StatusOf(volume), "backing-up");
  EXPECT_EQ(world_.BackupStatusOf(id), "creating");
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_TRUE(world_.store.snapshots.empty());
  const auto shown = world_.Ask(me_, "GET", "/backups/" + id, "", 70);
  const std::set<std::string> oldest = {
      "id",          "status",        "size",       "object_count",   "availability_zone",
      "container",   "created_at",    "updated_at", "name",           "description",
      "fail_reason", "volume_id",     "links",      "is_incremental", "has_dependent_backups",
      "snapshot_id", "data_timestamp"};
  std::set<std::string> newest = oldest;
  newest.insert({"metadata", "os-backup-project-attr:project_id", "user_id"});
  EXPECT_EQ(NamesOf(At(BodyOf(shown), "backup")), newest);
  EXPECT_EQ(NamesOf(At(BodyOf(world_.Ask(me_, "GET", "/backups/" + id, "", 0)), "backup")), oldest);
  EXPECT_EQ(TextAt(shown, "backup", "status"), "available");
  EXPECT_EQ(TextAt(shown, "backup", "metadata", "a"), "b");
  EXPECT_EQ(At(BodyOf(shown), "backup", "object_count"), 7);
  EXPECT_EQ(At(BodyOf(shown), "backup", "has_dependent_backups"), false);
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, ListsUpdatesAndDeletes) {
  const std::string volume = Available();
  const std::string first = Backup(volume);
  const std::string second = Backup(volume, R"(, "incremental": true)");
  EXPECT_EQ(world_.catalog->GetBackup(second)->parent_id, first);
  const auto listed = world_.Ask(me_, "GET", "/backups?limit=1&with_count=true");
  EXPECT_EQ(TextAt(listed, "backups", 0, "id"), second) << "the newest first";
  EXPECT_EQ(At(BodyOf(listed), "count"), 2);
  EXPECT_NE(TextAt(listed, "backups_links", 0, "href").find("marker=" + second), std::string::npos);
  const auto next = world_.Ask(me_, "GET", "/backups/detail?sort=name:asc&marker=" + second);
  EXPECT_EQ(next.status, 200) << next.body;
  EXPECT_EQ(BodyOf(world_.Ask(me_, "GET", "/backups?status=error")).at("backups").as_array().size(),
            0u);
  EXPECT_EQ(BodyOf(world_.Ask(you_, "GET", "/backups")).at("backups").as_array().size(), 0u);
  EXPECT_EQ(
      BodyOf(world_.Ask(Admin(), "GET", "/backups?all_tenants=1")).at("backups").as_array().size(),
      2u);

  const std::string path = "/backups/" + first;
  EXPECT_EQ(world_.Ask(me_, "PUT", path, R"({"backup": {"name": "x"}})", 8).status, 404);
  EXPECT_EQ(world_.Ask(me_, "PUT", path, R"({"backup": {}})").status, 400);
  EXPECT_EQ(world_.Ask(you_, "PUT", path, R"({"backup": {"name": "x"}})").status, 404);
  EXPECT_EQ(world_.Ask(me_, "PUT", path, R"({"backup": {"name": "x"}})").status, 200);
  EXPECT_EQ(TextAt(world_.Ask(me_, "GET", path), "backup", "name"), "x");

  EXPECT_EQ(world_.Ask(you_, "DELETE", path).status, 404);
  EXPECT_EQ(world_.Ask(Reader(), "DELETE", path).status, 403);
  EXPECT_EQ(world_.Ask(me_, "DELETE", path).status, 202) << "though another was compared with it";
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(first), "gone");
  EXPECT_EQ(world_.BackupStatusOf(second), "available");
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, WhatIsRefused) {
  const std::string volume = Available();
  const auto ask = [&](std::string_view rest) {
    return world_.Ask(me_, "POST", "/backups",
                      R"({"backup": {"volume_id": ")" + volume + '"' + std::string(rest) + "}}");
  };
  EXPECT_EQ(world_.Ask(me_, "POST", "/backups", R"({"backup": {}})").status, 400);
  EXPECT_EQ(
      world_.Ask(you_, "POST", "/backups", R"({"backup": {"volume_id": ")" + volume + R"("}})")
          .status,
      404);
  EXPECT_EQ(Message(ask(R"(, "incremental": true)"), "badRequest"),
            "Invalid backup: No backups available to do an incremental backup.");
  EXPECT_EQ(ask(R"(, "snapshot_id": "5f3a3e05-0000-4000-8000-000000000000")").status, 404);
  EXPECT_EQ(ask(R"(, "availability_zone": "elsewhere")").status, 400);
  world_.Ask(me_, "POST", "/attachments",
             R"({"attachment": {"volume_uuid": ")" + volume + R"(", "connector": {"host": "h"}}})");
  EXPECT_EQ(ask("").status, 400) << "attaching";
  EXPECT_EQ(BackupAction(me_, "5f3a3e05-0000-4000-8000-000000000000", "{}").status, 400);
}

TEST_F(BackupsApiTest, OfAnAttachedVolumeByForceAndOfASnapshot) {
  const std::string volume = Available();
  const std::string snapshot = world_.CreateSnapshot(me_, volume);
  world_.RunJobs();
  const auto attached = world_.Ask(
      me_, "POST", "/attachments",
      R"({"attachment": {"volume_uuid": ")" + volume + R"(", "connector": {"host": "h"}}})");
  world_.Ask(me_, "POST", "/attachments/" + TextAt(attached, "attachment", "id") + "/action",
             R"({"os-complete": null})");
  const auto refused =
      world_.Ask(me_, "POST", "/backups", R"({"backup": {"volume_id": ")" + volume + R"("}})");
  EXPECT_EQ(Message(refused, "badRequest"),
            "Invalid volume: Backing up an in-use volume must use the force flag.");
  Backup(volume, R"(, "force": true)");
  EXPECT_EQ(world_.StatusOf(volume), "in-use");

  const std::string of_snapshot =
      world_.CreateBackup(me_, volume, R"(, "snapshot_id": ")" + snapshot + '"');
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/snapshots/" + snapshot).status, 400)
      << "a backup is being made of it";
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(of_snapshot), "available");
  EXPECT_EQ(world_.backups.kept.at(of_snapshot).holder, "layer/" + snapshot);
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/snapshots/" + snapshot).status, 202);
  world_.RunJobs();
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, RestoredToANewVolume) {
  const std::string volume = Available();
  ASSERT_EQ(
      world_
          .Ask(me_, "PUT", "/volumes/" + volume + "/metadata", R"({"metadata": {"of": "volume"}})")
          .status,
      200);
  const std::string backup = Backup(volume);
  const auto restored = Restore(backup);
  ASSERT_EQ(restored.status, 202) << restored.body;
  const std::string id = TextAt(restored, "restore", "volume_id");
  EXPECT_EQ(TextAt(restored, "restore", "backup_id"), backup);
  EXPECT_EQ(TextAt(restored, "restore", "volume_name"), "restore_backup_" + backup);
  EXPECT_EQ(world_.BackupStatusOf(backup), "restoring");
  EXPECT_EQ(Restore(backup).status, 400) << "one at a time";
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/backups/" + backup).status, 400);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_EQ(world_.catalog->GetVolume(id)->metadata.at("of"), "volume");
  EXPECT_EQ(world_.BackupStatusOf(backup), "available");
  EXPECT_EQ(world_.store.sources.at(id).name, "restore/" + id + "/" + backup);

  const std::string create =
      R"({"volume": {"backup_id": ")" + backup + R"(", "name": "again", "size": 2}})";
  const auto made = world_.Ask(me_, "POST", "/volumes", create, 47);
  EXPECT_EQ(made.status, 202) << made.body;
  EXPECT_EQ(TextAt(made, "volume", "metadata", "src_backup_id"), backup);
  EXPECT_EQ(TextAt(made, "volume", "metadata", "of"), "volume");
  EXPECT_EQ(world_.Ask(you_, "POST", "/volumes", create, 47).status, 404);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(TextAt(made, "volume", "id")), "available");
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, RestoredToAVolumeThatIsThere) {
  const std::string volume = Available();
  const std::string backup = Backup(volume);
  const std::string other = Available();
  const std::string body = R"("volume_id": ")" + other + '"';
  ASSERT_EQ(Restore(backup, body).status, 202);
  EXPECT_EQ(world_.StatusOf(other), "restoring-backup");
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(other), "available");
  EXPECT_EQ(world_.store.sources.at(other).name, "restore/" + other + "/" + backup);
  world_.ExpectSettled();

  const std::string large = world_.CreateVolume(me_, R"(, "size": 3)");
  world_.RunJobs();
  const std::string large_backup = Backup(large);
  EXPECT_EQ(Message(Restore(large_backup, body), "badRequest"),
            "Invalid volume: volume size 1 is too small to restore backup of size 3.");
  EXPECT_EQ(Restore(backup, R"("volume_id": "5f3a3e05-0000-4000-8000-000000000000")").status, 404);
}

TEST_F(BackupsApiTest, AFailedRestoreLeavesTheVolumeAndTheBackup) {
  const std::string volume = Available();
  const std::string backup = Backup(volume);
  const auto kept = world_.backups.kept;
  ASSERT_EQ(Restore(backup, R"("volume_id": ")" + volume + '"').status, 202);
  world_.backups.kept.clear();
  const auto before = world_.store.sources[volume].name;
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(volume), "error_restoring");
  EXPECT_EQ(world_.store.sources[volume].name, before);
  EXPECT_EQ(world_.BackupStatusOf(backup), "available");
  const auto told = world_.messages->List(kMyProject);
  ASSERT_OK(told);
  ASSERT_EQ(told->size(), 1u);
  EXPECT_EQ(told->front().event_id, "VOLUME_VOLUME_015_026");
  EXPECT_EQ(told->front().resource_id, volume);
  EXPECT_FALSE(told->front().request_id.empty());
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + volume).status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(volume), "gone");
}

TEST_F(BackupsApiTest, AFailedBackupSaysWhy) {
  const std::string volume = Available();
  const std::string backup = world_.CreateBackup(me_, volume);
  world_.store.volumes.clear();
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(backup), "error");
  EXPECT_EQ(world_.StatusOf(volume), "available");
  const auto shown = world_.Ask(me_, "GET", "/backups/" + backup);
  EXPECT_NE(TextAt(shown, "backup", "fail_reason"), "");
  const auto told = world_.messages->List(kMyProject);
  ASSERT_OK(told);
  ASSERT_EQ(told->size(), 1u);
  EXPECT_EQ(told->front().event_id, "VOLUME_VOLUME_BACKUP_013_020");
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/backups/" + backup).status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(backup), "gone");
}

TEST_F(BackupsApiTest, QuotasCountWithTheRecord) {
  ASSERT_OK(world_.catalog->SetLimits(kMyProject, {{"backups", 1}}));
  const std::string volume = Available();
  const std::string backup = Backup(volume);
  const auto over =
      world_.Ask(me_, "POST", "/backups", R"({"backup": {"volume_id": ")" + volume + R"("}})");
  EXPECT_EQ(over.status, 413);
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/backups/" + backup).status, 202);
  world_.RunJobs();
  ASSERT_OK(world_.catalog->SetLimits(kMyProject, {{"backups", 2}, {"backup_gigabytes", 1}}));
  Backup(volume);
  EXPECT_EQ(world_.CreateBackup(me_, volume), "");
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, AdministratorsResetAndForce) {
  const std::string volume = Available();
  const std::string backup = world_.CreateBackup(me_, volume);
  EXPECT_EQ(BackupAction(me_, backup, R"({"os-force_delete": {}})").status, 403);
  EXPECT_EQ(BackupAction(me_, backup, R"({"os-reset_status": {"status": "error"}})").status, 403);
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/backups/" + backup).status, 400);
  EXPECT_EQ(BackupAction(Admin(), backup, R"({"os-force_delete": {}})").status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(backup), "gone");
  ASSERT_OK(Reconcile(world_.world(), *world_.jobs, 1000));
  EXPECT_EQ(world_.StatusOf(volume), "available");
  world_.ExpectSettled();

  const std::string other = Backup(volume);
  EXPECT_EQ(BackupAction(Admin(), other, R"({"os-reset_status": {"status": "deleting"}})").status,
            400);
  EXPECT_EQ(BackupAction(Admin(), other, R"({"os-reset_status": {"status": "error"}})").status,
            202);
  EXPECT_EQ(Restore(other).status, 400);
  EXPECT_EQ(BackupAction(Admin(), other, R"({"os-reset_status": {"status": "available"}})").status,
            202);
  EXPECT_EQ(Restore(other).status, 202);
}

TEST_F(BackupsApiTest, ExportedAndImported) {
  const std::string volume = Available();
  const std::string backup = Backup(volume);
  const std::string path = "/backups/" + backup + "/export_record";
  EXPECT_EQ(world_.Ask(me_, "GET", path).status, 403);
  const auto exported = world_.Ask(Admin(), "GET", path);
  ASSERT_EQ(exported.status, 200);
  const std::string record = base::ToText(BodyOf(exported));
  const auto import = [&](const std::string& body) {
    return world_.Ask(Admin(), "POST", "/backups/import_record", body);
  };
  EXPECT_EQ(Message(import(record), "badRequest"),
            "Invalid backup: Backup already exists in database.");

  // Another service with the same store of backups.
  const BackupRecord known = *world_.catalog->GetBackup(backup);
  ASSERT_OK(world_.catalog->Transact(
      [&](Transaction& transaction) { return transaction.Remove(known); }));
  EXPECT_EQ(world_.Ask(me_, "POST", "/backups/import_record", record).status, 403);
  const auto imported = import(record);
  ASSERT_EQ(imported.status, 201) << imported.body;
  EXPECT_EQ(TextAt(imported, "backup", "id"), backup);
  const auto now = world_.catalog->GetBackup(backup);
  ASSERT_OK(now);
  EXPECT_EQ(now->project_id, kAdminProject) << "who imports it has it";
  EXPECT_EQ(now->status, BackupStatus::kAvailable);
  EXPECT_EQ(world_.catalog->UsageOf(kAdminProject)->at("backups"), 1);
}

TEST_F(BackupsApiTest, AForgedRecordTellsNothing) {
  const std::string backup = Backup(Available());
  const BackupRecord known = *world_.catalog->GetBackup(backup);
  ASSERT_OK(world_.catalog->Transact(
      [&](Transaction& transaction) { return transaction.Remove(known); }));
  const auto import = [&](const std::string& service, const std::string& text) {
    return world_.Ask(Admin(), "POST", "/backups/import_record",
                      R"({"backup-record": {"backup_service": ")" + service +
                          R"(", "backup_url": ")" + base::ToBase64Url(text) + R"("}})");
  };
  const std::string ours = "quarry.chunkstore";
  const std::string right =
      R"({"version": 1, "id": ")" + backup + R"(", "key": ")" + known.key + R"("})";
  std::set<std::string> answers;
  const auto refused = [&](const base::http::Response& response) {
    EXPECT_EQ(response.status, 400);
    answers.insert(response.body);
  };
  refused(import("cinder.backup.drivers.swift.SwiftBackupDriver", right));
  refused(import(ours, "x"));
  refused(import(ours, "{}"));
  refused(import(ours, R"({"version": 1, "id": ")" + backup + R"(", "key": "guessed"})"));
  refused(
      import(ours, R"({"version": 1, "id": "5f3a3e05-0000-4000-8000-000000000000", "key": "k"})"));
  refused(import(ours, R"({"version": 1, "id": "../x", "key": "k"})"));
  EXPECT_EQ(answers.size(), 1u) << "nobody learns what is kept";
  EXPECT_EQ(import(ours, right).status, 201);
}

TEST_F(BackupsApiTest, AllThatIsKeptComesBack) {
  const std::string volume = Available();
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.insert(Backup(volume));
  for (const std::string& id : ids) {
    const BackupRecord known = *world_.catalog->GetBackup(id);
    ASSERT_OK(world_.catalog->Transact(
        [&](Transaction& transaction) { return transaction.Remove(known); }));
  }
  const auto ask = [&](const CallerPtr& caller, std::string_view body) {
    return world_.Ask(caller, "POST", "/backups/import_all", body);
  };
  EXPECT_EQ(ask(me_, "{}").status, 403);
  EXPECT_EQ(ask(Admin(), R"({"project_id": "another"})").body, R"({"backups":[]})");
  const auto imported = ask(Admin(), R"({"project_id": ")" + std::string(kMyProject) + R"("})");
  EXPECT_EQ(imported.status, 201);
  std::set<std::string> found;
  const base::Json body = BodyOf(imported);
  for (const base::Json& one : body.at("backups").as_array())
    found.insert(std::string(base::View(one.at("id").as_string())));
  EXPECT_EQ(found, ids);
  EXPECT_EQ(ask(Admin(), "{}").body, R"({"backups":[]})") << "no more than once";
}

// However long a copy takes, a stop does not wait for it, and however often, it is no failure.
TEST_F(BackupsApiTest, AStopCutsACopyOffAndTheNextStartGoesOn) {
  const std::string volume = Available();
  const std::string backup = world_.CreateBackup(me_, volume);
  for (int starts = 0; starts < 10; ++starts) {
    std::atomic<bool> copying = false;
    world_.backups.on_save = [&](const BackupTarget::Cancelled& cancelled) {
      copying = true;
      while (!cancelled()) std::this_thread::yield();
    };
    world_.jobs->Start();
    while (!copying) std::this_thread::yield();
    world_.jobs->Stop();
    EXPECT_EQ(world_.BackupStatusOf(backup), "creating");
    world_.Restart(1);
  }
  world_.backups.on_save = nullptr;
  // Nothing of the ten counts: a passing failure is not the last.
  world_.plan.FailAt(1, Error(Code::kIo, "once"), support::FaultPlan::When::kBefore);
  world_.RunJobs();
  EXPECT_EQ(world_.BackupStatusOf(backup), "available");
  world_.ExpectSettled();
}

TEST_F(BackupsApiTest, WithoutAStoreForThem) {
  world_.has_backups = false;
  world_.Restart(1);
  const std::string volume = Available();
  EXPECT_EQ(world_.Ask(me_, "GET", "/backups/detail").body, R"({"backups":[]})");
  const auto refused =
      world_.Ask(me_, "POST", "/backups", R"({"backup": {"volume_id": ")" + volume + R"("}})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_NE(Message(refused, "serviceUnavailable").find("block.backup-dir"), std::string::npos);
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_EQ(world_.Ask(Admin(), "POST", "/backups/import_all", "{}").status, 503);

  // One that is set is not to be set: something else is amiss.
  world_.service_options.backup_service = BackupService::kDown;
  const auto down =
      world_.Ask(me_, "POST", "/backups", R"({"backup": {"volume_id": ")" + volume + R"("}})");
  EXPECT_EQ(down.status, 503);
  EXPECT_NE(Message(down, "serviceUnavailable").find("cinder-backup is down"), std::string::npos);
}

// --- every step fails, as in jobs_test.cc

void RunScript(BlockWorld& world) {
  const CallerPtr me = MemberOf();
  const std::string volume = world.CreateVolume(me);
  world.RunJobs(2);
  const std::string first = world.CreateBackup(me, volume);
  world.RunJobs(3);
  const std::string second = world.CreateBackup(me, volume, R"(, "incremental": true)");
  world.RunJobs(3);
  (void)world.Ask(me, "POST", "/backups/" + first + "/restore",
                  R"({"restore": {"volume_id": ")" + volume + R"("}})");
  world.RunJobs(2);
  (void)world.Ask(me, "DELETE", "/backups/" + first);
  (void)world.Ask(me, "POST", "/backups/" + second + "/restore", R"({"restore": {}})");
  world.RunJobs(2);
}

void FailAtEveryStep(support::FaultPlan::When when, bool kill) {
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE("failed at operation " + std::to_string(n));
    BlockWorld world;
    const uint64_t before = world.plan.operations();
    if (kill) {
      world.plan.FailFrom(n, Error(Code::kIo, "killed"), when);
    } else {
      world.plan.FailAt(n, Error(Code::kIo, "failed"), when);
    }
    RunScript(world);
    const bool all_done = world.plan.operations() - before < n;
    if (kill) world.Restart(n);
    world.plan.Clear();
    world.RunJobs();
    ASSERT_OK(Reconcile(world.world(), *world.jobs, 1000));
    world.RunJobs();
    world.ExpectSettled();
    if (testing::Test::HasFailure() || all_done) return;
  }
}

TEST(BackupsKillTest, EveryStepThatDidNotHappen) {
  FailAtEveryStep(support::FaultPlan::When::kBefore, true);
}
TEST(BackupsKillTest, EveryStepThatHappenedUnheard) {
  FailAtEveryStep(support::FaultPlan::When::kAfter, true);
}
TEST(BackupsFaultTest, EveryOperationFailsOnce) {
  FailAtEveryStep(support::FaultPlan::When::kBefore, false);
  FailAtEveryStep(support::FaultPlan::When::kAfter, false);
}

}  // namespace
}  // namespace blockd
