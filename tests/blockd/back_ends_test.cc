#include "blockd/back_ends.h"

#include <gtest/gtest.h>

#include "tests/blockd/world.h"

// Several back ends behind one service: types choose, and a retype moves.

namespace blockd {
namespace {

using base::Code;
using base::Error;
using support::FaultPlan;

class BackEndsTest : public testing::Test {
 protected:
  BackEndsTest() {
    types::VolumeType type;
    type.name = "fast";
    type.extra_specs = {{"volume_backend_name", "rbd"}};
    EXPECT_OK(world_->types->Create(type));
    type.name = "plain";
    type.extra_specs = {{"volume_backend_name", "store"}};
    EXPECT_OK(world_->types->Create(type));
  }

  std::string Made(std::string_view rest) {
    const std::string id = world_->CreateVolume(me_, rest);
    world_->RunJobs();
    EXPECT_EQ(world_->StatusOf(id), "available");
    return id;
  }
  base::http::Response Retype(const std::string& id, std::string_view type,
                              std::string_view policy = "on-demand") {
    return world_->Act(me_, id,
                       R"({"os-retype": {"new_type": ")" + std::string(type) +
                           R"(", "migration_policy": ")" + std::string(policy) + R"("}})");
  }
  std::string HostOfVolume(const std::string& id) {
    return TextAt(world_->Ask(Admin(), "GET", "/volumes/" + id), "volume", "os-vol-host-attr:host");
  }

  std::unique_ptr<BlockWorld> world_ = BlockWorld::WithTwoBackEnds();
  CallerPtr me_ = MemberOf();
};

TEST_F(BackEndsTest, ATypeChooses) {
  const std::string fast = Made(R"(, "volume_type": "fast")");
  const std::string plain = Made(R"(, "volume_type": "plain")");
  const std::string either = Made("");
  EXPECT_TRUE(world_->rbd.volumes.contains(fast));
  EXPECT_TRUE(world_->store.volumes.contains(plain));
  EXPECT_TRUE(world_->store.volumes.contains(either)) << "the first is the default";
  EXPECT_EQ(HostOfVolume(fast), "quarry@rbd#rbd");
  EXPECT_EQ(HostOfVolume(plain), "quarry@store#store");
  world_->ExpectSettled();
}

TEST_F(BackEndsTest, ASnapshotBecomesAVolumeOfAnotherBackEndAndAVolumeDoesNot) {
  const std::string fast = Made(R"(, "volume_type": "fast")");
  const std::string snapshot = world_->CreateSnapshot(me_, fast);
  world_->RunJobs();
  const std::string copy = Made(R"(, "volume_type": "plain", "snapshot_id": ")" + snapshot + '"');
  EXPECT_EQ(world_->store.sources[copy].kind, VolumeSource::Kind::kContent);
  const std::string sibling = Made(R"(, "snapshot_id": ")" + snapshot + '"');
  EXPECT_EQ(world_->rbd.sources[sibling].kind, VolumeSource::Kind::kSnapshot)
      << "of the type of its source, if none is said";
  const auto refused =
      world_->Ask(me_, "POST", "/volumes",
                  R"({"volume": {"volume_type": "plain", "source_volid": ")" + fast + R"("}})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("make the volume of a snapshot of it"), std::string::npos);
  EXPECT_NE(Made(R"(, "source_volid": ")" + fast + '"'), "");
  world_->ExpectSettled();
}

TEST_F(BackEndsTest, ARetypeMoves) {
  const std::string id = Made(R"(, "volume_type": "plain")");
  EXPECT_EQ(Retype(id, "fast", "sometimes").status, 400);
  const auto refused = Retype(id, "fast", "never");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("on-demand"), std::string::npos);
  EXPECT_EQ(Retype(id, "fast").status, 202);
  EXPECT_EQ(world_->StatusOf(id), "retyping");
  world_->RunJobs();
  EXPECT_EQ(world_->StatusOf(id), "available");
  EXPECT_TRUE(world_->rbd.volumes.contains(id));
  EXPECT_EQ(TextAt(world_->Ask(me_, "GET", "/volumes/" + id), "volume", "volume_type"), "fast");
  world_->ExpectSettled();
}

TEST_F(BackEndsTest, ASnapshotOrAnAttachmentKeepsAVolumeWhereItIs) {
  const std::string id = Made(R"(, "volume_type": "plain")");
  const std::string snapshot = world_->CreateSnapshot(me_, id);
  world_->RunJobs();
  EXPECT_NE(Retype(id, "fast").body.find("has snapshots"), std::string::npos);
  EXPECT_EQ(world_->Ask(me_, "DELETE", "/snapshots/" + snapshot).status, 202);
  world_->RunJobs();
  ASSERT_EQ(world_
                ->Ask(me_, "POST", "/attachments",
                      R"({"attachment": {"volume_uuid": ")" + id +
                          R"(", "instance_uuid": "2ab0bc1f-9b1b-4f0a-90c6-0a6c0b9f8a31",
                            "connector": {"host": "h"}}})")
                .status,
            200);
  EXPECT_EQ(Retype(id, "fast").status, 400);
  EXPECT_TRUE(world_->store.volumes.contains(id));
}

// Whatever fails, and however it failed: the volume is in one place, and the move ends or is given
// up.
TEST_F(BackEndsTest, AMoveStandsEveryFault) {
  for (const auto when : {FaultPlan::When::kBefore, FaultPlan::When::kAfter}) {
    for (uint64_t n = 1; n < 12; ++n) {
      SCOPED_TRACE(n);
      const std::string id = Made(R"(, "volume_type": "plain")");
      ASSERT_EQ(Retype(id, "fast").status, 202);
      world_->plan.FailAt(n, Error(Code::kIo, "injected"), when);
      world_->RunJobs();
      world_->plan.Clear();
      world_->RunJobs(60);
      EXPECT_TRUE(world_->rbd.volumes.contains(id));
      world_->ExpectSettled();
      EXPECT_EQ(world_->Ask(me_, "DELETE", "/volumes/" + id).status, 202);
      world_->RunJobs();
    }
  }
}

TEST_F(BackEndsTest, AMoveThatIsGivenUpLeavesTheVolume) {
  for (uint64_t n = 1; n < 8; ++n) {
    SCOPED_TRACE(n);
    const std::string id = Made(R"(, "volume_type": "plain")");
    const NewVolume wanted = {id, base::kGiB, false, {}, "rbd"};
    world_->plan.FailAt(n, Error(Code::kIo, "injected"), FaultPlan::When::kAfter);
    const bool moved = world_->both.Move(wanted).has_value();
    world_->plan.Clear();
    EXPECT_OK(world_->both.GiveUpMove(id));
    EXPECT_EQ(world_->store.volumes.count(id) + world_->rbd.volumes.count(id), 1u);
    EXPECT_TRUE(world_->store.snapshots.empty() && world_->rbd.snapshots.empty());
    // What was left of an earlier move is not taken for the volume of a later one.
    if (moved) continue;
    EXPECT_OK(world_->both.Move(wanted));
    EXPECT_TRUE(world_->rbd.volumes.contains(id));
  }
}

TEST_F(BackEndsTest, AVolumeGoesInTheMiddleOfItsMove) {
  size_t in_both = 0;
  for (uint64_t n = 1; n < 8; ++n) {
    const std::string id = Made(R"(, "volume_type": "plain")");
    world_->plan.FailAt(n, Error(Code::kIo, "injected"), FaultPlan::When::kAfter);
    (void)world_->both.Move({id, base::kGiB, false, {}, "rbd"}).has_value();
    world_->plan.Clear();
    in_both += world_->store.volumes.count(id) + world_->rbd.volumes.count(id) - 1;
    EXPECT_OK(world_->both.Remove(id));
    EXPECT_TRUE(world_->store.volumes.empty() && world_->rbd.volumes.empty());
    EXPECT_TRUE(world_->store.snapshots.empty() && world_->rbd.snapshots.empty());
    EXPECT_EQ(world_->both.Remove(id).error().code(), Code::kNotFound);
  }
  EXPECT_GT(in_both, 0u);
}

TEST_F(BackEndsTest, AMigrationToAnotherBackEndIsARetype) {
  const std::string id = Made(R"(, "volume_type": "plain")");
  const auto elsewhere =
      world_->Act(Admin(), id, R"({"os-migrate_volume": {"host": "quarry@rbd#rbd"}})");
  EXPECT_EQ(elsewhere.status, 400);
  EXPECT_NE(elsewhere.body.find("retype it"), std::string::npos);
}

}  // namespace
}  // namespace blockd
