#include <atomic>
#include <thread>

#include <gmock/gmock.h>

#include "base/uuid.h"
#include "tests/blockd/tenancy/world.h"

namespace blockd::tenancy {
namespace {

using base::Code;
using base::Result;
using base::http::Response;
using testing::UnorderedElementsAre;

class TransfersTest : public TenancyTest {
 protected:
  std::string Offer(const VolumeRecord& volume, bool no_snapshots = false) {
    const auto offer = transfers_.Create(*me_, volume.id, "gift", no_snapshots);
    EXPECT_OK(offer);
    key_ = offer->auth_key;
    return offer->transfer.id;
  }
  std::string AddSnapshot(const VolumeRecord& volume) {
    SnapshotRecord snapshot;
    snapshot.id = base::NewUuid();
    snapshot.volume_id = volume.id;
    snapshot.project_id = volume.project_id;
    snapshot.size_gb = volume.size_gb;
    snapshot.type_id = volume.type_id;
    snapshot.status = SnapshotStatus::kAvailable;
    EXPECT_OK(api_.catalog.Transact(
        [&](Transaction& transaction) -> Result<void> { return transaction.Put(snapshot); }));
    return snapshot.id;
  }
  int64_t Used(std::string_view project, std::string_view resource) {
    const Amounts amounts = *api_.catalog.UsageOf(project);
    const auto found = amounts.find(resource);
    return found == amounts.end() ? 0 : found->second;
  }

  std::string key_;
};

TEST_F(TransfersTest, AnswersHaveTheFieldsOfTheirVersion) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type_);
  const std::string body = R"({"transfer": {"volume_id": ")" + volume.id + R"("}})";
  const Response old = Ask(me_, "POST", "/os-volume-transfer", body, 0);
  EXPECT_EQ(old.status, 202) << old.body;
  EXPECT_THAT(NamesOf(At(BodyOf(old), "transfer")),
              UnorderedElementsAre("id", "name", "volume_id", "auth_key", "created_at", "links"));
  const std::string id = TextAt(old, "transfer", "id");
  EXPECT_THAT(NamesOf(At(BodyOf(Ask(me_, "GET", "/os-volume-transfer/" + id, "", 0)), "transfer")),
              UnorderedElementsAre("id", "name", "volume_id", "created_at", "links"));
  EXPECT_THAT(NamesOf(At(BodyOf(Ask(me_, "GET", "/os-volume-transfer", "", 0)), "transfers", 0)),
              UnorderedElementsAre("id", "name", "volume_id", "links"));
  EXPECT_THAT(
      NamesOf(At(BodyOf(Ask(me_, "GET", "/volume-transfers/" + id, "", 55)), "transfer")),
      UnorderedElementsAre("id", "name", "volume_id", "created_at", "links", "no_snapshots"));
  const Response detail = Ask(me_, "GET", "/volume-transfers/detail", "", 57);
  EXPECT_THAT(NamesOf(At(BodyOf(detail), "transfers", 0)),
              UnorderedElementsAre("id", "name", "volume_id", "created_at", "links", "no_snapshots",
                                   "source_project_id", "destination_project_id", "accepted"));
  EXPECT_EQ(Ask(me_, "GET", "/volume-transfers", "", 54).status, 404);
  EXPECT_EQ(Ask(you_, "GET", "/os-volume-transfer").body, R"({"transfers":[]})");
  EXPECT_EQ(Message(Ask(you_, "GET", "/os-volume-transfer/" + id), "itemNotFound"),
            "Transfer " + id + " could not be found.");
}

TEST_F(TransfersTest, AVolumeChangesHandsWithItsSnapshotsAndItsQuota) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 3, type_);
  const std::string snapshot = AddSnapshot(volume);
  const std::string id = Offer(volume);
  EXPECT_EQ(api_.catalog.GetVolume(volume.id)->status, VolumeStatus::kAwaitingTransfer);
  const Response taken = Ask(you_, "POST", "/os-volume-transfer/" + id + "/accept",
                             R"({"accept": {"auth_key": ")" + key_ + R"("}})", 0);
  EXPECT_EQ(taken.status, 202) << taken.body;
  EXPECT_THAT(NamesOf(At(BodyOf(taken), "transfer")),
              UnorderedElementsAre("id", "name", "volume_id", "links"));
  ASSERT_OK_AND_ASSIGN(const VolumeRecord now, api_.catalog.GetVolume(volume.id));
  EXPECT_EQ(now.project_id, kYourProject);
  EXPECT_EQ(now.user_id, you_->user_id);
  EXPECT_EQ(now.status, VolumeStatus::kAvailable);
  EXPECT_EQ(now.snapshots, 1u);
  EXPECT_EQ(api_.catalog.GetSnapshot(snapshot)->project_id, kYourProject);
  EXPECT_EQ(Used(kMyProject, kVolumesResource), 0);
  EXPECT_EQ(Used(kMyProject, kGigabytesResource), 0);
  EXPECT_EQ(Used(kYourProject, kVolumesResource), 1);
  EXPECT_EQ(Used(kYourProject, kSnapshotsResource), 1);
  EXPECT_EQ(Used(kYourProject, kGigabytesResource), 6);
  EXPECT_EQ(Used(kYourProject, TypeResource(kVolumesResource, type_)), 1);
  EXPECT_ERROR(transfers_.Get(*admin_, id), Code::kNotFound);
}

TEST_F(TransfersTest, SnapshotsMayStay) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 3, type_);
  const std::string snapshot = AddSnapshot(volume);
  const std::string id = Offer(volume, true);
  ASSERT_OK(transfers_.Accept(*you_, id, key_));
  EXPECT_EQ(api_.catalog.GetSnapshot(snapshot)->project_id, kMyProject);
  EXPECT_EQ(Used(kMyProject, kGigabytesResource), 3);
  EXPECT_EQ(Used(kYourProject, kGigabytesResource), 3);
}

// Given on by the second owner, the volume takes only his snapshots along.
TEST_F(TransfersTest, WhatAnEarlierOwnerKeptIsNotGivenOn) {
  VolumeRecord volume = api_.AddVolume(kMyProject, 3, type_);
  const std::string kept = AddSnapshot(volume);
  std::string id = Offer(volume, true);
  ASSERT_OK(transfers_.Accept(*you_, id, key_));
  ASSERT_OK_AND_ASSIGN(volume, api_.catalog.GetVolume(volume.id));
  const std::string yours = AddSnapshot(volume);

  const auto offer = transfers_.Create(*you_, volume.id, "gift", false);
  ASSERT_OK(offer);
  const CallerPtr third = MemberOf("third");
  ASSERT_OK(transfers_.Accept(*third, offer->transfer.id, offer->auth_key));
  EXPECT_EQ(api_.catalog.GetSnapshot(yours)->project_id, "third");
  EXPECT_EQ(api_.catalog.GetSnapshot(kept)->project_id, kMyProject);
  EXPECT_EQ(Used(kMyProject, kSnapshotsResource), 1);
  EXPECT_EQ(Used("third", kSnapshotsResource), 1);
}

TEST_F(TransfersTest, NobodyTakesItWithoutTheKey) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type_);
  const std::string id = Offer(volume);
  EXPECT_EQ(key_.size(), 32u);
  for (const std::string& wrong : {std::string(), key_.substr(1), key_ + "0", std::string("guess")})
    EXPECT_ERROR(transfers_.Accept(*you_, id, wrong), Code::kInvalidArgument);
  EXPECT_EQ(Message(Ask(you_, "POST", "/os-volume-transfer/" + id + "/accept",
                        R"({"accept": {"auth_key": "x"}})"),
                    "badRequest"),
            "Invalid auth key: Attempt to transfer " + id + " with invalid auth key.");
  // Nothing that is kept tells it.
  ASSERT_OK(api_.catalog.ScanKeys("x/", [&](std::string_view, std::string_view value) {
    EXPECT_EQ(value.find(key_), std::string_view::npos);
    return true;
  }));
  EXPECT_EQ(api_.catalog.GetVolume(volume.id)->project_id, kMyProject);
}

TEST_F(TransfersTest, ARefusedTakingChangesNothing) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 3, type_);
  AddSnapshot(volume);
  const std::string id = Offer(volume);
  ASSERT_OK(api_.catalog.SetLimits(kYourProject, {{"gigabytes", 5}}));
  const Response refused = Ask(you_, "POST", "/volume-transfers/" + id + "/accept",
                               R"({"accept": {"auth_key": ")" + key_ + R"("}})", 55);
  EXPECT_EQ(refused.status, 413) << refused.body;
  EXPECT_EQ(TextAt(refused, "overLimit", "retryAfter"), "0");
  EXPECT_EQ(api_.catalog.GetVolume(volume.id)->project_id, kMyProject);
  EXPECT_EQ(Used(kMyProject, kGigabytesResource), 6);
  EXPECT_EQ(Used(kYourProject, kGigabytesResource), 0);
  ASSERT_OK(api_.catalog.SetLimits(kYourProject, {{"gigabytes", 6}}));
  EXPECT_OK(transfers_.Accept(*you_, id, key_));
}

TEST_F(TransfersTest, AProjectTakesNoTypeThatItMayNotHave) {
  types::VolumeType type;
  type.name = "secret";
  type.is_public = false;
  type.projects = {std::string(kMyProject)};
  const std::string secret = types_.Create(type)->id;
  const std::string id = Offer(api_.AddVolume(kMyProject, 1, secret));
  EXPECT_ERROR(transfers_.Accept(*you_, id, key_), Code::kInvalidArgument);
}

TEST_F(TransfersTest, CalledOffTheVolumeIsAvailable) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type_);
  const std::string path = "/os-volume-transfer/" + Offer(volume);
  EXPECT_EQ(Ask(Reader(), "DELETE", path).status, 403);
  EXPECT_EQ(Ask(you_, "DELETE", path).status, 404);
  EXPECT_EQ(Ask(me_, "DELETE", path).status, 202);
  EXPECT_EQ(Ask(me_, "DELETE", path).status, 404);
  EXPECT_EQ(api_.catalog.GetVolume(volume.id)->status, VolumeStatus::kAvailable);
  Offer(volume);  // once more
}

TEST_F(TransfersTest, OnlyWhatIsAvailableIsOffered) {
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type_);
  EXPECT_ERROR(transfers_.Create(*you_, volume.id, "", false), Code::kNotFound);
  EXPECT_ERROR(transfers_.Create(*Reader(), volume.id, "", false), Code::kPermissionDenied);
  Offer(volume);
  EXPECT_ERROR(transfers_.Create(*me_, volume.id, "", false), Code::kInvalidArgument);
  EXPECT_ERROR(transfers_.Create(*me_, base::NewUuid(), "", false), Code::kNotFound);
  EXPECT_EQ(Ask(me_, "POST", "/os-volume-transfer", R"({"transfer": {}})").status, 400);
}

TEST_F(TransfersTest, OneOfManyTakersWins) {
  for (int round = 0; round < 10; ++round) {
    const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type_);
    const std::string id = Offer(volume);
    std::atomic<int> taken = 0;
    std::vector<std::thread> takers;
    std::vector<std::string> projects;
    for (int i = 0; i < 4; ++i) projects.push_back(base::NewUuidHex());
    for (const std::string& project : projects)
      takers.emplace_back([&, project] {
        if (transfers_.Accept(*MemberOf(project), id, key_).has_value()) ++taken;
      });
    const bool called_off = transfers_.Delete(*me_, id).has_value();
    for (std::thread& taker : takers) taker.join();
    EXPECT_EQ(taken + (called_off ? 1 : 0), 1);
    int64_t used = Used(kMyProject, kVolumesResource);
    if (called_off) {
      ASSERT_OK(api_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
        ASSIGN_OR_RETURN(const VolumeRecord held, transaction.GetVolume(volume.id));
        return transaction.Remove(held);
      }));
      --used;
    }
    for (const std::string& project : projects) used += Used(project, kVolumesResource);
    EXPECT_EQ(used, called_off ? 0 : 1);
  }
}

}  // namespace
}  // namespace blockd::tenancy
