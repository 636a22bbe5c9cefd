#include <memory>
#include <random>
#include <string>
#include <vector>

#include "blockd/serving.h"
#include "tests/blockd/world.h"
#include "tests/support/hooked_meta_store.h"

// Several processes over the records and the volume store of one world.

namespace blockd {
namespace {

using base::Code;
using base::Result;
using chunkstore::jobs::Job;
using support::Puts;

constexpr int64_t kJobLeaseMs = 1000;
constexpr char kConnector[] = R"({"connector": {"host": "compute", "mountpoint": "/dev/vdb"}})";
const CallerPtr kMe = MemberOf();

// All that a process has for itself.
class Process {
 public:
  Process(BlockWorld& world, const std::string& name)
      : world_(world),
        meta(world.memory),
        journal(meta, world.clock, std::string(kPartition), name),
        catalog(meta, world.clock, journal),
        types(catalog),
        messages(catalog),
        serving(catalog, world.store, exports, types, {.process = name}),
        jobs(This(), metrics) {
    EXPECT_OK(types.Start());
    EXPECT_OK(serving.KeepLease());
    Routes routes;
    AppendVolumeRoutes(context_, &routes);
    AppendActionRoutes(context_, &routes);
    AppendSnapshotRoutes(context_, &routes);
    AppendAttachmentRoutes(context_, &routes);
    http_.Mount(routes);
  }

  Jobs::World This() {
    return {catalog,         world_.store, exports, world_.images, types,
            &world_.backups, &messages,    nullptr, &serving};
  }
  base::http::Response Ask(std::string_view method, std::string_view target,
                           std::string_view body = {}) {
    return http_.Call(kMe, method, target, body);
  }
  int Act(const std::string& volume, const std::string& body) {
    return Ask("POST", "/volumes/" + volume + "/action", body).status;
  }
  std::string CreateVolume() {
    return TextAt(Ask("POST", "/volumes", R"({"volume": {"size": 1}})"), "volume", "id");
  }
  std::string CreateSnapshot(const std::string& volume) {
    return TextAt(Ask("POST", "/snapshots",
                      R"({"snapshot": {"force": true, "volume_id": ")" + volume + R"("}})"),
                  "snapshot", "id");
  }
  std::string Attach(const std::string& volume) {
    return TextAt(Ask("POST", "/attachments",
                      R"({"attachment": {"volume_uuid": ")" + volume + R"(", )" +
                          std::string(kConnector).substr(1) + "}"),
                  "attachment", "id");
  }
  int Complete(const std::string& attachment) {
    return Ask("POST", "/attachments/" + attachment + "/action", R"({"os-complete": null})").status;
  }
  int Detach(const std::string& attachment) {
    return Ask("DELETE", "/attachments/" + attachment).status;
  }
  // A client comes, with the name that it was told. True if it is let in.
  bool Connect(const std::string& attachment) {
    if (!exports.published.contains(attachment)) serving.PublishIfThere(attachment);
    if (!exports.published.contains(attachment)) return false;
    if (!serving.Begin(attachment).has_value()) return false;
    exports.connected.insert(attachment);
    return true;
  }

  std::optional<Job> Claim(Lane lane) {
    auto job = journal.ClaimByTurns(KindOfLane(lane), kJobLeaseMs);
    EXPECT_OK(job);
    return *job;
  }
  void RunClaimed(const Job& job) {
    const auto outcome = jobs.Run(job);
    const Result<void> settled =
        outcome.has_value() && outcome->done ? journal.Remove(job) : journal.Postpone(job, 0);
    if (!settled.has_value()) EXPECT_ERROR(settled, Code::kConflict);
  }
  // One job of any lane, by turns, as one may wait for another lane's; false if there is none.
  bool RunOne() {
    for (size_t i = 0; i < kLanes; ++i) {
      const std::optional<Job> job = Claim(static_cast<Lane>(++turn_ % kLanes));
      if (!job.has_value()) continue;
      RunClaimed(*job);
      return true;
    }
    return false;
  }

 private:
  BlockWorld& world_;

 public:
  support::HookedMetaStore meta;
  base::Metrics metrics;
  RecordingExports exports{world_.plan};
  chunkstore::jobs::Journal journal;
  Catalog catalog;
  types::TypeStore types;
  tenancy::Messages messages;
  Serving serving;
  Jobs jobs;

 private:
  const Context context_ = {world_.service_options, catalog, jobs,          types,
                            world_.store,           exports, world_.images, &world_.backups};
  Harness http_;
  size_t turn_ = 0;
};

class ProcessesTest : public testing::Test {
 protected:
  void LetLeasesEnd() {
    world_.clock.AdvanceUs((kJobLeaseMs + 1) * 1000);
    EXPECT_OK(a_.serving.KeepLease());
    EXPECT_OK(b_.serving.KeepLease());
  }
  void RunAll(Process& process) {
    for (int i = 0; i < 20; ++i) {
      if (!process.RunOne() && world_.JobsLeft() == 0) return;
      world_.clock.AdvanceUs(base::kSecondUs);
    }
  }
  std::string NewVolume() {
    const std::string volume = a_.CreateVolume();
    RunAll(b_);
    EXPECT_EQ(world_.StatusOf(volume), "available");
    return volume;
  }
  // Attached through `process`, with a client there.
  std::string NewAttachment(Process& process, const std::string& volume) {
    const std::string attachment = process.Attach(volume);
    EXPECT_EQ(process.Complete(attachment), 204);
    EXPECT_TRUE(process.Connect(attachment));
    return attachment;
  }

  BlockWorld world_;
  Process a_{world_, "a"};
  Process b_{world_, "b"};
};

// One that was stopped in the middle of a job, and wakes when the volume has another one of the
// same kind.
TEST_F(ProcessesTest, WhoLostAJobCommitsNothing) {
  const std::string volume = NewVolume();
  const std::string first = a_.CreateSnapshot(volume);
  RunAll(b_);
  const std::string revert = R"({"revert": {"snapshot_id": ")" + first + R"("}})";
  ASSERT_EQ(a_.Act(volume, revert), 202);
  const std::optional<Job> job = a_.Claim(Lane::kCreate);
  ASSERT_TRUE(job.has_value());
  a_.meta.BeforeCommit(Puts(std::string(kPartition), "v/"), [&] {
    LetLeasesEnd();
    EXPECT_TRUE(b_.RunOne());
    EXPECT_EQ(world_.StatusOf(volume), "available");
    EXPECT_EQ(b_.Act(volume, revert), 202);
  });
  EXPECT_ERROR(a_.jobs.Run(*job), Code::kCancelled);
  EXPECT_EQ(world_.StatusOf(volume), "reverting");
  EXPECT_ERROR(a_.journal.Remove(*job), Code::kConflict);
  RunAll(b_);
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_EQ(world_.store.reverted.size(), 3U);
}

TEST_F(ProcessesTest, WhoLostAJobBeginsNothingInTheStore) {
  const std::string volume = NewVolume();
  const std::string snapshot = a_.CreateSnapshot(volume);
  RunAll(b_);
  const std::string revert = R"({"revert": {"snapshot_id": ")" + snapshot + R"("}})";
  ASSERT_EQ(a_.Act(volume, revert), 202);
  const std::optional<Job> job = a_.Claim(Lane::kCreate);
  LetLeasesEnd();
  ASSERT_TRUE(b_.RunOne());
  ASSERT_EQ(b_.Act(volume, revert), 202);
  EXPECT_ERROR(a_.jobs.Run(*job), Code::kCancelled);
  EXPECT_EQ(world_.store.reverted.size(), 1U);
}

TEST_F(ProcessesTest, WhoLostACreationLeavesNothingBehind) {
  const std::string volume = a_.CreateVolume();
  const std::optional<Job> job = a_.Claim(Lane::kCreate);
  ASSERT_TRUE(job.has_value());
  // It stands still between its last look and the store.
  bool once = true;
  world_.store.on_create = [&](const std::string&) {
    if (!std::exchange(once, false)) return;
    LetLeasesEnd();
    RunAll(b_);
    EXPECT_EQ(world_.StatusOf(volume), "available");
    EXPECT_EQ(b_.Ask("DELETE", "/volumes/" + volume).status, 202);
    RunAll(b_);
    EXPECT_EQ(b_.Ask("GET", "/volumes/" + volume).status, 404);
  };
  a_.RunClaimed(*job);
  EXPECT_FALSE(once);
  EXPECT_TRUE(world_.store.volumes.empty()) << "a volume that nobody knows of";
  world_.ExpectSettled();
}

TEST_F(ProcessesTest, AStartLeavesTheWorkOfOthersAlone) {
  a_.CreateVolume();
  const std::optional<Job> job = a_.Claim(Lane::kCreate);
  Process third(world_, "third");
  EXPECT_OK(ReconcileAtStart(third.This(), third.jobs));
  EXPECT_FALSE(third.Claim(Lane::kCreate).has_value());
  a_.RunClaimed(*job);
  EXPECT_EQ(world_.JobsLeft(), 0U);
}

TEST_F(ProcessesTest, AnyOfThemServesAnAttachment) {
  const std::string volume = NewVolume();
  const std::string attachment = a_.Attach(volume);
  EXPECT_TRUE(b_.Connect(attachment));
  EXPECT_FALSE(b_.Connect("3b2b9a1f-5b05-4a5b-9d7b-3f1f3a0b0c5e")) << "there is none such";
}

TEST_F(ProcessesTest, ADetachWaitsForWhoServes) {
  const std::string volume = NewVolume();
  const std::string attachment = NewAttachment(a_, volume);
  ASSERT_EQ(b_.Detach(attachment), 200);
  for (int i = 0; i < 3; ++i) {
    b_.RunOne();
    LetLeasesEnd();
  }
  EXPECT_EQ(b_.Ask("GET", "/attachments/" + attachment).status, 200);
  EXPECT_EQ(a_.exports.connected.size(), 1U);
  EXPECT_FALSE(b_.Connect(attachment)) << "nobody else comes in";
  ASSERT_OK(a_.serving.EndWhatIsAsked());
  EXPECT_EQ(a_.exports.connected.size(), 0U);
  RunAll(b_);
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_TRUE(world_.store.fenced.empty());
}

TEST_F(ProcessesTest, ADetachShutsTheVolumeToWhoIsDead) {
  const std::string volume = NewVolume();
  const std::string attachment = NewAttachment(a_, volume);
  ASSERT_EQ(b_.Detach(attachment), 200);
  b_.RunOne();
  EXPECT_NE(world_.StatusOf(volume), "available");
  world_.clock.AdvanceUs((ServingOptions().lease_ms + 1) * 1000);
  RunAll(b_);
  EXPECT_EQ(world_.StatusOf(volume), "available");
  EXPECT_TRUE(world_.store.fenced.contains(volume));
}

TEST_F(ProcessesTest, AForcedDeleteWaitsForWhoServes) {
  const std::string volume = NewVolume();
  NewAttachment(a_, volume);
  ASSERT_OK(b_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ASSIGN_OR_RETURN(VolumeRecord record, transaction.GetVolume(volume));
    record.status = VolumeStatus::kDeleting;
    RETURN_IF_ERROR(transaction.Put(record));
    return Jobs::Add(transaction, {Op::kDeleteVolume, std::string(kMyProject), volume, ""});
  }));
  b_.RunOne();
  EXPECT_TRUE(world_.store.volumes.contains(volume));
  ASSERT_OK(a_.serving.EndWhatIsAsked());
  RunAll(b_);
  EXPECT_FALSE(world_.store.volumes.contains(volume));
  world_.ExpectSettled();
}

TEST_F(ProcessesTest, WhatIsStalePublishedIsNotInTheWay) {
  const std::string volume = NewVolume();
  const std::string first = NewAttachment(a_, volume);
  b_.serving.PublishIfThere(first);
  ASSERT_EQ(a_.Detach(first), 200);
  RunAll(a_);
  ASSERT_TRUE(b_.exports.published.contains(first));
  const std::string second = b_.Attach(volume);
  EXPECT_TRUE(b_.exports.published.contains(second));
  EXPECT_FALSE(b_.exports.published.contains(first));
  EXPECT_EQ(world_.StatusOf(volume), "attaching");
}

TEST_F(ProcessesTest, AnAttachmentThatAnotherServesIsNotTakenBack) {
  const std::string volume = NewVolume();
  const std::string attachment = a_.Attach(volume);
  ASSERT_TRUE(a_.Connect(attachment));
  world_.clock.AdvanceUs((world_.service_options.attach_lease_ms + 1) * 1000);
  ASSERT_OK(a_.serving.KeepLease());
  ASSERT_OK(Reconcile(b_.This(), b_.jobs, world_.service_options.attach_lease_ms));
  EXPECT_EQ(world_.StatusOf(volume), "attaching");
  // Of a dead one it is.
  world_.clock.AdvanceUs((world_.service_options.attach_lease_ms + 1) * 1000);
  ASSERT_OK(Reconcile(b_.This(), b_.jobs, world_.service_options.attach_lease_ms));
  RunAll(b_);
  EXPECT_EQ(world_.StatusOf(volume), "available");
}

// --- By chance ---

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {
    for (const char* name : {"a", "b", "c"})
      processes_.push_back(std::make_unique<Process>(world_, name));
    world_.store.on_revert = [this](const std::string& volume) {
      EXPECT_EQ(world_.StatusOf(volume), "reverting") << "its user writes to it again";
    };
  }

  void Step() {
    Advance(100'000);
    if (Pick(3) == 0) {
      RunStalled(Any());
    } else if (Pick(2) == 0) {
      Any().RunOne();
    } else {
      Call(Any());
    }
    for (const auto& process : processes_)
      if (Pick(3) == 0) EXPECT_OK(process->serving.EndWhatIsAsked());
    if (Pick(10) == 0)
      EXPECT_OK(Reconcile(Any().This(), Any().jobs, world_.service_options.attach_lease_ms));
    CheckClients();
  }

  void Finish() {
    for (const std::string& id : attachments_) (void)Any().Detach(id);
    for (int round = 0; round < 500 && world_.JobsLeft() > 0; ++round) {
      Advance(500'000);
      Any().RunOne();
      for (const auto& process : processes_) EXPECT_OK(process->serving.EndWhatIsAsked());
    }
    CheckClients();
    for (const auto& process : processes_) EXPECT_TRUE(process->exports.connected.empty());
    world_.ExpectSettled();
    EXPECT_GE(world_.store.reverted.size(), reverts_) << "what was accepted was not done";
    EXPECT_TRUE(world_.store.fenced.empty()) << "all of them live";
  }
  int stalls() const { return stalls_; }

 private:
  size_t Pick(size_t count) { return random_() % count; }
  Process& Any() { return *processes_[Pick(processes_.size())]; }
  const std::string& One(const std::vector<std::string>& ids) { return ids[Pick(ids.size())]; }
  void Advance(int64_t us) {
    world_.clock.AdvanceUs(us);
    for (const auto& process : processes_) EXPECT_OK(process->serving.KeepLease());
  }

  // What a user asks of a process. Whether it is allowed the process says.
  void Call(Process& process) {
    if (volumes_.empty() || Pick(6) == 0) {
      const std::string id = process.CreateVolume();
      if (!id.empty()) volumes_.push_back(id);
      return;
    }
    const std::string volume = One(volumes_);
    switch (Pick(9)) {
      case 0:
        (void)process.Ask("DELETE", "/volumes/" + volume);
        return;
      case 7:
      case 8:
        if (!snapshots_.empty()) Revert(process);
        return;
      case 1:
        (void)process.Act(volume,
                          R"({"os-extend": {"new_size": )" + std::to_string(2 + Pick(8)) + "}}");
        return;
      case 2:
        if (const std::string id = process.CreateSnapshot(volume); !id.empty())
          snapshots_.push_back(id);
        return;
      case 3:
        if (!snapshots_.empty()) (void)process.Ask("DELETE", "/snapshots/" + One(snapshots_));
        return;
      case 4:
        if (const std::string id = process.Attach(volume); !id.empty()) attachments_.push_back(id);
        return;
      case 5:
        if (attachments_.empty()) return;
        (void)process.Complete(One(attachments_));
        (void)process.Connect(One(attachments_));
        return;
      default:
        if (!attachments_.empty()) (void)process.Detach(One(attachments_));
    }
  }

  void Revert(Process& process) {
    const std::string snapshot = One(snapshots_);
    const auto record = process.catalog.GetSnapshot(snapshot);
    if (!record.has_value()) return;
    const std::string revert = R"({"revert": {"snapshot_id": ")" + snapshot + R"("}})";
    if (process.Act(record->volume_id, revert) == 202) ++reverts_;
  }

  // It takes a job, and is stopped in the middle of it for longer than its lease; the others go on.
  void RunStalled(Process& process) {
    process.meta.BeforeCommit(
        [](std::string_view partition, const chunkstore::MetaBatch& batch) {
          // Not the claim itself, nor its end: a commit that also has something of the job's own.
          for (const auto& change : batch.changes())
            if (partition == kPartition && change.key.size() > 2 &&
                (change.key.starts_with("v/") || change.key.starts_with("s/") ||
                 change.key.starts_with("a/")))
              return true;
          return false;
        },
        [&] {
          ++stalls_;
          Advance((kJobLeaseMs + 1) * 1000);
          for (int i = 0; i < 3; ++i) {
            Process& other = Any();
            if (&other == &process) continue;
            if (Pick(2) == 0) {
              other.RunOne();
            } else {
              Call(other);
            }
          }
        });
    process.RunOne();
    process.meta.BeforeCommit(nullptr, nullptr);
  }

  // Who is connected stands in the record.
  void CheckClients() {
    for (const auto& process : processes_) {
      for (const std::string& id : process->exports.connected) {
        const auto attachment = process->catalog.GetAttachment(id);
        ASSERT_OK(attachment) << "a client writes to what is detached";
        const std::vector<std::string>& servers = attachment->servers;
        EXPECT_EQ(std::count(servers.begin(), servers.end(), NameOf(*process)), 1);
      }
    }
  }
  std::string NameOf(const Process& process) const {
    for (size_t i = 0; i < processes_.size(); ++i)
      if (processes_[i].get() == &process) return std::string(1, static_cast<char>('a' + i));
    return {};
  }

  std::mt19937_64 random_;
  BlockWorld world_;
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<std::string> volumes_;
  std::vector<std::string> snapshots_;
  std::vector<std::string> attachments_;
  int stalls_ = 0;
  size_t reverts_ = 0;  // that were accepted
};

TEST(ProcessesModel, DoEachThingOnce) {
  int stalls = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Model model(seed);
    for (int step = 0; step < 150; ++step) model.Step();
    model.Finish();
    stalls += model.stalls();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(stalls, 100);
}

}  // namespace
}  // namespace blockd
