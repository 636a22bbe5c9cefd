#include "blockd/jobs.h"

#include "blockd/attach.h"
#include "tests/blockd/world.h"

namespace blockd {
namespace {

using base::Code;
using base::Error;

const char* const kConnector =
    R"({"attachment": {"connector": {"host": "h", "mountpoint": "/dev/vdb"}}})";

// What a client was told, step by step; it goes on whatever it is told.
struct Told {
  std::set<std::string> volumes;    // 202 to their creation
  std::set<std::string> snapshots;  // the same
  std::set<std::string> deleted;    // 202 to their deletion
  std::set<std::string> doubtful;   // asked to be deleted, and told of an error: may be gone
};

bool Good(const base::http::Response& response) { return response.status < 300; }

void RunScript(BlockWorld& world, Told* told) {
  const CallerPtr me = MemberOf();
  const auto keep = [](const std::string& id, std::set<std::string>* ids) {
    if (!id.empty()) ids->insert(id);
    return id;
  };
  const std::string first = keep(world.CreateVolume(me), &told->volumes);
  world.RunJobs(2);
  const std::string snapshot = keep(world.CreateSnapshot(me, first), &told->snapshots);
  world.RunJobs(2);
  const std::string clone =
      keep(world.CreateVolume(me, R"(, "snapshot_id": ")" + snapshot + '"'), &told->volumes);
  world.RunJobs(2);
  (void)world.Act(me, first, R"({"os-extend": {"new_size": 3}})");
  world.RunJobs(2);
  const auto attached = world.Ask(
      me, "POST", "/attachments",
      R"({"attachment": {"volume_uuid": ")" + first + R"(", "connector": {"host": "h"}}})");
  const std::string attachment = TextAt(attached, "attachment", "id");
  (void)world.Ask(me, "POST", "/attachments/" + attachment + "/action", R"({"os-complete": null})");
  (void)world.Ask(me, "DELETE", "/attachments/" + attachment);
  world.RunJobs(2);
  const auto remove = [&](const std::string& path, const std::string& id) {
    const bool good = Good(world.Ask(me, "DELETE", path + id));
    (good ? told->deleted : told->doubtful).insert(id);
  };
  remove("/snapshots/", snapshot);
  world.RunJobs(2);
  remove("/volumes/", clone);
  world.RunJobs(2);
}

void ExpectKept(BlockWorld& world, const Told& told) {
  for (const std::string& id : told.volumes)
    if (!told.doubtful.contains(id))
      EXPECT_EQ(world.catalog->GetVolume(id).has_value(), !told.deleted.contains(id)) << id;
  for (const std::string& id : told.snapshots)
    if (!told.doubtful.contains(id))
      EXPECT_EQ(world.catalog->GetSnapshot(id).has_value(), !told.deleted.contains(id)) << id;
}

// From the n-th operation on (of the records, the volumes and the exports) everything fails, as if
// the process had been killed there; what was not synced is lost; then a new start.
void KillAtEveryStep(support::FaultPlan::When when) {
  int kills = 0;
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE("killed at operation " + std::to_string(n));
    BlockWorld world;
    Told told;
    const uint64_t before = world.plan.operations();
    world.plan.FailFrom(n, Error(Code::kIo, "killed"), when);
    RunScript(world, &told);
    const bool all_done = world.plan.operations() - before < n;
    world.Restart(n);
    world.RunJobs();
    // An attachment that nobody completes: its lease ends.
    world.clock.AdvanceUs(3600 * base::kSecondUs);
    ASSERT_OK(Reconcile(world.world(), *world.jobs, 1000));
    world.RunJobs();
    world.ExpectSettled();
    ExpectKept(world, told);
    if (testing::Test::HasFailure()) return;
    if (all_done) break;
    ++kills;
  }
  EXPECT_GT(kills, 100);
}

TEST(JobsKillTest, EveryStepThatDidNotHappen) {
  KillAtEveryStep(support::FaultPlan::When::kBefore);
}
TEST(JobsKillTest, EveryStepThatHappenedUnheard) {
  KillAtEveryStep(support::FaultPlan::When::kAfter);
}

// One operation fails and the service goes on: every job is tried again, and nobody sees more than
// an error.
TEST(JobsFaultTest, EveryOperationFailsOnce) {
  for (const auto when : {support::FaultPlan::When::kBefore, support::FaultPlan::When::kAfter}) {
    for (uint64_t n = 1;; ++n) {
      SCOPED_TRACE("failed at operation " + std::to_string(n));
      BlockWorld world;
      Told told;
      const uint64_t before = world.plan.operations();
      world.plan.FailAt(n, Error(Code::kIo, "failed"), when);
      RunScript(world, &told);
      const bool all_done = world.plan.operations() - before < n;
      world.plan.Clear();
      world.RunJobs();
      world.clock.AdvanceUs(3600 * base::kSecondUs);
      ASSERT_OK(Reconcile(world.world(), *world.jobs, 1000));
      world.RunJobs();
      world.ExpectSettled();
      if (testing::Test::HasFailure()) return;
      if (all_done) break;
    }
  }
}

class JobsTest : public testing::Test {
 protected:
  JobOptions Small() {
    JobOptions options;
    options.max_queued = 3;
    return options;
  }
  const CallerPtr me_ = MemberOf();
  const CallerPtr you_ = MemberOf(kYourProject);
};

TEST_F(JobsTest, AFullLaneAnswers503AndTheOthersGoOn) {
  BlockWorld world(Small());
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(world.CreateVolume(me_));
  const auto refused = world.Ask(me_, "POST", "/volumes", R"({"volume": {"size": 1}})");
  EXPECT_EQ(refused.status, 503) << refused.body;
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(ids[0]), "available");
  for (int i = 0; i < 3; ++i) world.CreateVolume(me_);
  // The lane of creations is full again, and a deletion is not held up by that.
  EXPECT_EQ(world.Ask(me_, "DELETE", "/volumes/" + ids[0]).status, 202);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(ids[0]), "gone");
  world.ExpectSettled();
}

TEST_F(JobsTest, ARestartCountsWhatWaits) {
  BlockWorld world(Small());
  for (int i = 0; i < 3; ++i) world.CreateVolume(me_);
  world.Restart(1);
  EXPECT_EQ(world.Ask(me_, "POST", "/volumes", R"({"volume": {"size": 1}})").status, 503);
}

TEST_F(JobsTest, WhatCanNeverSucceedIsAnErrorAtOnce) {
  BlockWorld world;
  world.plan.FailFrom(1, Error(Code::kIo, "x"), support::FaultPlan::When::kBefore);
  world.plan.Clear();
  const std::string source = world.CreateVolume(me_);
  world.RunJobs();
  const std::string copy = world.CreateVolume(me_, R"(, "source_volid": ")" + source + '"');
  world.store.volumes.clear();
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(copy), "error");
  EXPECT_EQ(world.JobsLeft(), 0u);
  EXPECT_EQ(world.Ask(me_, "DELETE", "/volumes/" + copy).status, 202);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(copy), "gone");
}

// More often than what fails is tried.
TEST_F(JobsTest, WhatAnImageTakesLongForIsWaitedFor) {
  BlockWorld world;
  const int often = 2 * JobOptions().max_attempts;
  world.images.puts_off = often;
  const std::string id =
      TextAt(world.Ask(me_, "POST", "/volumes", R"({"volume": {"size": 2, "imageRef": "image"}})"),
             "volume", "id");
  world.RunJobs(often);
  EXPECT_EQ(world.StatusOf(id), "creating");
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  EXPECT_EQ(world.store.sources[id].name, "image/image/1");

  world.images.puts_off = often;
  EXPECT_EQ(world.Act(me_, id, R"({"os-volume_upload_image": {"image_name": "i"}})").status, 202);
  world.RunJobs(often);
  EXPECT_EQ(world.StatusOf(id), "uploading");
  EXPECT_EQ(world.store.snapshots.size(), 1u);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  EXPECT_TRUE(world.images.filled.contains("new-i"));
  EXPECT_TRUE(world.store.snapshots.empty());

  world.images.puts_off = often;
  EXPECT_EQ(world.Act(me_, id, R"({"os-reimage": {"image_id": "image"}})", 68).status, 202);
  world.RunJobs(often);
  EXPECT_EQ(world.StatusOf(id), "downloading");
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  EXPECT_TRUE(world.images.abandoned.empty());
}

// Else a snapshot of one size would hold bytes of another, or those of the time after it.
TEST_F(JobsTest, WhatChangesAVolumeWaitsForWhatIsMadeOfIt) {
  BlockWorld world;
  const std::string id = world.CreateVolume(me_);
  world.RunJobs();
  const std::string snapshot = world.CreateSnapshot(me_, id);
  const std::string copy = world.CreateVolume(me_, R"(, "source_volid": ")" + id + '"');
  EXPECT_EQ(world.Act(me_, id, R"({"os-extend": {"new_size": 3}})").status, 202);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  EXPECT_EQ(world.store.volumes[id].size_bytes, 3 * base::kGiB);
  EXPECT_EQ(world.store.snapshots[snapshot].size_bytes, base::kGiB);
  EXPECT_EQ(world.store.volumes[copy].size_bytes, base::kGiB);

  const std::string second = world.CreateSnapshot(me_, id);
  world.RunJobs();
  world.CreateSnapshot(me_, id);
  world.store.puts_off_snapshots = 3;
  const std::string revert = R"({"revert": {"snapshot_id": ")" + second + R"("}})";
  EXPECT_EQ(world.Act(me_, id, revert).status, 202);
  world.RunJobs(3);
  EXPECT_EQ(world.StatusOf(id), "reverting");
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  world.ExpectSettled();
}

TEST_F(JobsTest, AnExtendEndsWhateverTheStatusIsSaidToBe) {
  BlockWorld world;
  const std::string id = world.CreateVolume(me_);
  world.RunJobs();
  EXPECT_EQ(world.Act(me_, id, R"({"os-extend": {"new_size": 3}})").status, 202);
  EXPECT_EQ(world.Act(Admin(), id, R"({"os-reset_status": {"status": "available"}})").status, 202);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "available");
  EXPECT_EQ(world.store.volumes[id].size_bytes, 3 * base::kGiB);
  ASSERT_OK_AND_ASSIGN(const VolumeRecord volume, world.catalog->GetVolume(id));
  EXPECT_EQ(volume.size_gb, 3u);
  EXPECT_EQ(volume.reserved_size_gb, 0u);
  world.ExpectSettled();
}

// Hundreds at once of one volume: more often than what fails is tried, but not for ever.
TEST_F(JobsTest, SnapshotsThatComeTooFastWait) {
  BlockWorld world;
  const std::string id = world.CreateVolume(me_);
  world.RunJobs();
  const int often = 2 * JobOptions().max_attempts;
  world.store.puts_off_snapshots = often;
  const std::string snapshot = world.CreateSnapshot(me_, id);
  world.RunJobs(often);
  EXPECT_EQ(world.SnapshotStatusOf(snapshot), "creating");
  world.RunJobs();
  EXPECT_EQ(world.SnapshotStatusOf(snapshot), "available");

  world.store.puts_off_snapshots = 10'000;
  const std::string never = world.CreateSnapshot(me_, id);
  world.RunJobs(1000);  // two seconds each
  EXPECT_EQ(world.SnapshotStatusOf(never), "error");
  EXPECT_EQ(world.JobsLeft(), 0u);
}

TEST_F(JobsTest, AForcedDeleteOfOneThatIsBeingMadeLeavesNothing) {
  BlockWorld world;
  const std::string id = world.CreateVolume(me_);
  EXPECT_EQ(world.Act(Admin(), id, R"({"os-force_delete": {}})").status, 202);
  world.RunJobs();
  EXPECT_EQ(world.StatusOf(id), "gone");
  world.ExpectSettled();
}

TEST_F(JobsTest, TheThreadsDoTheWork) {
  BlockWorld world;
  world.jobs->Start();
  std::vector<std::string> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(world.CreateVolume(i % 2 == 0 ? me_ : you_));
  // Their statuses, and not the journal: a job leaves that after it was heard of.
  const auto done = [&] {
    return std::all_of(ids.begin(), ids.end(),
                       [&](const std::string& id) { return world.StatusOf(id) == "available"; });
  };
  EXPECT_TRUE(world.jobs->Await(done, 60'000));
  world.jobs->Stop();
  world.ExpectSettled();
}

class ReconcileTest : public JobsTest {
 protected:
  size_t Pass() {
    const auto report = Reconcile(world_.world(), *world_.jobs, 600'000);
    EXPECT_OK(report);
    world_.RunJobs();
    return report->settled;
  }
  void Reset(const std::string& id, const std::string& status) {
    EXPECT_EQ(
        world_.Act(Admin(), id, R"({"os-reset_status": {"status": ")" + status + R"("}})").status,
        202);
  }
  BlockWorld world_;
};

TEST_F(ReconcileTest, StatusesWithNothingBehindThem) {
  const std::string id = world_.CreateVolume(me_);
  EXPECT_EQ(Pass(), 0u) << "a job is behind it";
  EXPECT_EQ(Pass(), 0u);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"creating", "error"},
      {"deleting", "error_deleting"},
      {"attaching", "available"},
      {"detaching", "available"},
      {"error", "error"},
      {"maintenance", "maintenance"},
      {"error_deleting", "error_deleting"}};
  for (const auto& [status, stable] : expected) {
    Reset(id, status);
    (void)Pass();
    EXPECT_EQ(world_.StatusOf(id), stable) << "from " << status;
  }
}

TEST_F(ReconcileTest, AnAttachmentThatIsNeverCompletedGoes) {
  const std::string id = world_.CreateVolume(me_);
  world_.RunJobs();
  const auto created = world_.Ask(me_, "POST", "/attachments",
                                  R"({"attachment": {"volume_uuid": ")" + id + R"("}})");
  const std::string attachment = TextAt(created, "attachment", "id");
  EXPECT_EQ(world_.StatusOf(id), "reserved");
  EXPECT_EQ(world_.Ask(me_, "PUT", "/attachments/" + attachment, kConnector).status, 200);
  EXPECT_EQ(world_.StatusOf(id), "attaching");
  EXPECT_EQ(Pass(), 0u) << "the lease runs";
  world_.clock.AdvanceUs(3600 * base::kSecondUs);
  world_.exports.connected.insert(attachment);
  EXPECT_EQ(Pass(), 0u) << "somebody is connected";
  EXPECT_EQ(world_.StatusOf(id), "attaching");
  world_.clock.AdvanceUs(3600 * base::kSecondUs);
  world_.exports.connected.clear();
  EXPECT_EQ(Pass(), 1u);
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_TRUE(world_.exports.published.empty());
  world_.ExpectSettled();
}

// Of an attach that broke off nobody knows the attachment, so nobody can take it back.
TEST(AttachKillTest, LeavesNoReservation) {
  const CallerPtr me = MemberOf();
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE("killed at operation " + std::to_string(n));
    BlockWorld world;
    const std::string id = world.CreateVolume(me);
    world.RunJobs();
    const uint64_t before = world.plan.operations();
    world.plan.FailFrom(n, Error(Code::kIo, "killed"), support::FaultPlan::When::kAfter);
    world.Ask(me, "POST", "/attachments",
              R"({"attachment": {"volume_uuid": ")" + id + R"(", "connector": {"host": "h"}}})");
    const bool all_done = world.plan.operations() - before < n;
    world.Restart(n);
    world.RunJobs();
    EXPECT_NE(world.StatusOf(id), "reserved");
    world.clock.AdvanceUs(3600 * base::kSecondUs);
    ASSERT_OK(Reconcile(world.world(), *world.jobs, 1000));
    world.RunJobs();
    EXPECT_EQ(world.StatusOf(id), "available");
    EXPECT_TRUE(world.exports.published.empty());
    if (testing::Test::HasFailure() || all_done) return;
  }
}

TEST_F(ReconcileTest, AReservationThatIsForgottenGoes) {
  const std::string id = world_.CreateVolume(me_);
  world_.RunJobs();
  EXPECT_EQ(world_.Act(me_, id, R"({"os-reserve": null})").status, 202);
  EXPECT_EQ(Pass(), 0u);
  EXPECT_EQ(world_.StatusOf(id), "attaching");
  world_.clock.AdvanceUs(3600 * base::kSecondUs);
  EXPECT_EQ(Pass(), 1u);
  EXPECT_EQ(world_.StatusOf(id), "available");
}

TEST_F(ReconcileTest, AStartOpensTheExportsAgainUnderTheirOldNames) {
  const std::string id = world_.CreateVolume(me_);
  world_.RunJobs();
  const auto created =
      world_.Ask(me_, "POST", "/attachments",
                 R"({"attachment": {"volume_uuid": ")" + id + R"(", "connector": {"host": "h"}}})");
  const std::string attachment = TextAt(created, "attachment", "id");
  world_.Ask(me_, "POST", "/attachments/" + attachment + "/action", R"({"os-complete": null})");
  const std::string secret = world_.exports.published.at(attachment).secret;
  EXPECT_EQ(secret.size(), 43u);
  world_.Restart(1);
  EXPECT_EQ(world_.exports.published.at(attachment).secret, secret);
  EXPECT_EQ(world_.StatusOf(id), "in-use");
}

TEST_F(ReconcileTest, AVolumeWithoutARecordIsLeftAlone) {
  world_.store.volumes["stranger"] = {"stranger", base::kGiB, false, false};
  const auto report = ReconcileAtStart(world_.world(), *world_.jobs);
  ASSERT_OK(report);
  EXPECT_EQ(report->unnamed, 1u);
  EXPECT_TRUE(world_.store.volumes.contains("stranger"));
}

}  // namespace
}  // namespace blockd
