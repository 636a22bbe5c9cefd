#include "tests/blockd/world.h"

// What a job gives up is told to its project; what it still needs is not deleted.

namespace blockd {
namespace {

using base::Code;
using base::Error;

class ToldTest : public testing::Test {
 protected:
  std::string Available(std::string_view rest = "") {
    const std::string id = world_.CreateVolume(me_, rest);
    world_.RunJobs();
    EXPECT_EQ(world_.StatusOf(id), "available");
    return id;
  }
  // The one message that there is.
  tenancy::MessageRecord Told() {
    const auto told = world_.messages->List(kMyProject);
    EXPECT_OK(told);
    EXPECT_EQ(told->size(), 1u);
    return told->empty() ? tenancy::MessageRecord() : told->front();
  }
  std::string OfVolume(const std::string& id) { return R"(, "source_volid": ")" + id + '"'; }
  std::string OfSnapshot(const std::string& id) { return R"(, "snapshot_id": ")" + id + '"'; }

  const CallerPtr me_ = MemberOf();
  BlockWorld world_;
};

TEST_F(ToldTest, WithTheRequestAndWhatToDo) {
  const std::string source = Available();
  const auto asked = world_.Ask(me_, "POST", "/volumes",
                                R"({"volume": {"size": 1, "source_volid": ")" + source + R"("}})");
  const std::string id = TextAt(asked, "volume", "id");
  world_.store.volumes.clear();
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "error");
  const tenancy::MessageRecord message = Told();
  EXPECT_EQ(message.event_id, "VOLUME_VOLUME_008_012");
  EXPECT_EQ(message.resource_type, "VOLUME");
  EXPECT_EQ(message.resource_id, id);
  EXPECT_TRUE(message.request_id.starts_with("req-")) << message.request_id;
  EXPECT_EQ(message.user_message,
            "The volume could not be made: what it needs is not there any more. Make it of "
            "something else.");
  world_.RunJobs();
  Told();
}

TEST_F(ToldTest, OnceInTheCommitThatSetsTheStatus) {
  // Whatever operation fails at the end, the message is there if and only if the status is.
  for (uint64_t n = 1;; ++n) {
    SCOPED_TRACE("killed at operation " + std::to_string(n));
    BlockWorld world;
    const std::string source = world.CreateVolume(me_);
    world.RunJobs();
    const std::string id = world.CreateVolume(me_, OfVolume(source));
    world.store.volumes.clear();
    const uint64_t before = world.plan.operations();
    world.plan.FailFrom(n, Error(Code::kIo, "killed"), support::FaultPlan::When::kBefore);
    world.RunJobs(1);
    const bool all_done = world.plan.operations() - before < n;
    world.Restart(n);
    const auto count = [&] { return world.messages->List(kMyProject)->size(); };
    EXPECT_EQ(count(), world.StatusOf(id) == "error" ? 1u : 0u);
    world.RunJobs();
    EXPECT_EQ(world.StatusOf(id), "error");
    EXPECT_EQ(count(), 1u);
    if (testing::Test::HasFailure() || all_done) break;
  }
}

TEST_F(ToldTest, EveryOperationHasItsOwnEvent) {
  std::set<std::string> texts;
  const auto failing = [&](std::string_view event, const std::function<void()>& begin) {
    SCOPED_TRACE(event);
    begin();
    world_.store.volumes.clear();
    world_.store.snapshots.clear();
    world_.RunJobs();
    const tenancy::MessageRecord message = Told();
    EXPECT_EQ(message.event_id, event);
    EXPECT_FALSE(message.request_id.empty());
    texts.insert(message.user_message);
    EXPECT_OK(world_.messages->Delete(message.id));
  };
  std::string id = Available();
  failing("VOLUME_VOLUME_007_010",
          [&] { EXPECT_EQ(world_.Act(me_, id, R"({"os-extend": {"new_size": 3}})").status, 202); });
  id = Available();
  failing("VOLUME_VOLUME_SNAPSHOT_009_013", [&] { world_.CreateSnapshot(me_, id); });
  id = Available(R"(, "size": 2)");
  failing("VOLUME_VOLUME_016_028", [&] {
    EXPECT_EQ(world_.Act(me_, id, R"({"os-reimage": {"image_id": "image"}})").status, 202);
  });
  id = Available(R"(, "imageRef": "image", "size": 2)");
  failing("VOLUME_VOLUME_003_004", [&] {
    EXPECT_EQ(world_.Act(me_, id, R"({"os-volume_upload_image": {"image_name": "i"}})").status,
              202);
  });
  EXPECT_EQ(texts.size(), 4u);
}

TEST_F(ToldTest, ASourceStaysUntilWhatIsMadeOfItIsThere) {
  const std::string volume = Available();
  const std::string snapshot = world_.CreateSnapshot(me_, volume);
  world_.RunJobs();
  const std::string first = world_.CreateVolume(me_, OfSnapshot(snapshot));
  const std::string second = world_.CreateVolume(me_, OfSnapshot(snapshot));
  EXPECT_EQ(world_.catalog->GetSnapshot(snapshot)->holds, 2u);
  const auto refused = world_.Ask(me_, "DELETE", "/snapshots/" + snapshot);
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(Message(refused, "badRequest").find("is the source of 2"), std::string::npos);
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + volume + "?cascade=true").status, 400);
  // One of the two is forced away before it was made.
  EXPECT_EQ(world_.Act(Admin(), first, R"({"os-force_delete": {}})").status, 202);
  EXPECT_EQ(world_.catalog->GetSnapshot(snapshot)->holds, 1u);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(second), "available");
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/snapshots/" + snapshot).status, 202);
  world_.RunJobs();

  const auto before = world_.catalog->GetVolume(volume);
  const std::string clone = world_.CreateVolume(me_, OfVolume(volume));
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + volume).status, 400);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(clone), "available");
  EXPECT_EQ(*world_.catalog->GetVolume(volume), *before) << "to be copied is no change";
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + volume).status, 202);
  world_.RunJobs();
  world_.ExpectSettled();
}

TEST_F(ToldTest, AFailedCopyHoldsNothing) {
  const std::string volume = Available();
  const std::string clone = world_.CreateVolume(me_, OfVolume(volume));
  const auto kept = world_.store.volumes;
  world_.store.volumes.clear();
  world_.RunJobs();
  world_.store.volumes = kept;
  EXPECT_EQ(world_.StatusOf(clone), "error");
  EXPECT_EQ(world_.catalog->GetVolume(volume)->holds, 0u);
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + volume).status, 202);
}

}  // namespace
}  // namespace blockd
