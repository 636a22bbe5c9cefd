#include "blockd/project_qos.h"

#include <gmock/gmock.h>

#include "tests/blockd/world.h"

namespace blockd {
namespace {

using base::Code;
using testing::HasSubstr;

const std::string kMine = "/os-project-qos/" + std::string(kMyProject);

class ProjectQosTest : public testing::Test {
 protected:
  base::http::Response Put(const std::string& specs) {
    return world_.Ask(admin_, "PUT", kMine, R"({"project_qos": {"specs": )" + specs + "}}");
  }
  QosSpecs Applied() { return world_.exports.project_limits[std::string(kMyProject)]; }

  BlockWorld world_;
  const CallerPtr me_ = MemberOf();
  const CallerPtr admin_ = Admin();
};

TEST_F(ProjectQosTest, LimitsAreSetAppliedShownAndTakenOff) {
  EXPECT_EQ(world_.Ask(me_, "GET", kMine).body,
            R"({"project_qos":{"project_id":")" + std::string(kMyProject) + R"(","specs":{}}})");
  const auto set = Put(R"({"total_iops_sec": 500, "total_iops_sec_max": "900"})");
  EXPECT_EQ(set.status, 200) << set.body;
  const QosSpecs specs = {{"total_iops_sec", "500"}, {"total_iops_sec_max", "900"}};
  EXPECT_EQ(Applied(), specs);
  EXPECT_EQ(world_.Ask(me_, "GET", kMine).body, set.body);
  const auto all = world_.Ask(admin_, "GET", "/os-project-qos");
  EXPECT_EQ(TextAt(all, "project_qos", 0, "project_id"), kMyProject);
  // A PUT says all of them.
  EXPECT_EQ(Put(R"({"read_bytes_sec": 1048576})").status, 200);
  EXPECT_EQ(Applied(), (QosSpecs{{"read_bytes_sec", "1048576"}}));
  EXPECT_EQ(world_.Ask(admin_, "DELETE", kMine).status, 204);
  EXPECT_EQ(Applied(), QosSpecs());
  EXPECT_EQ(world_.Ask(admin_, "GET", "/os-project-qos").body, R"({"project_qos":[]})");
}

TEST_F(ProjectQosTest, TheyAreThereAgainAfterAStart) {
  ASSERT_EQ(Put(R"({"write_iops_sec": 7})").status, 200);
  world_.Restart(1);
  EXPECT_EQ(Applied(), (QosSpecs{{"write_iops_sec", "7"}}));
}

TEST_F(ProjectQosTest, WhatLimitsNoProjectIsRefusedByName) {
  const auto message = [&](const std::string& specs) { return Message(Put(specs), "badRequest"); };
  EXPECT_THAT(message(R"({"total_iops_sec_per_gb": 3})"), HasSubstr("total_iops_sec_per_gb"));
  EXPECT_THAT(message(R"({"total_iop_sec": 3})"), HasSubstr("total_iop_sec: no limit"));
  EXPECT_THAT(message(R"({"total_iops_sec": "many"})"), HasSubstr("total_iops_sec"));
  EXPECT_THAT(message(R"({"total_iops_sec": 3, "read_iops_sec": 3})"), HasSubstr("total_iops_sec"));
  EXPECT_THAT(message("[]"), HasSubstr("specs"));
  EXPECT_EQ(world_.Ask(admin_, "PUT", kMine, R"({"project_qos": {}})").status, 400);
  EXPECT_TRUE(world_.exports.project_limits.empty());
}

// Whoever is told last: the record and the exports agree when both have answered.
TEST_F(ProjectQosTest, OfTwoChangesTheLastStays) {
  const std::string project(kMyProject);
  struct Interrupted : RecordingExports {
    using RecordingExports::RecordingExports;
    base::Result<void> SetProjectLimits(std::string_view project_id, const QosSpecs& qos) override {
      if (before) std::exchange(before, nullptr)();
      return RecordingExports::SetProjectLimits(project_id, qos);
    }
    std::function<void()> before;
  } exports(world_.plan);
  ASSERT_OK(SetProjectQos(*world_.catalog, {project, {{"read_iops_sec", "1"}}}));
  exports.before = [&] {
    EXPECT_OK(SetProjectQos(*world_.catalog, {project, {{"read_iops_sec", "2"}}}));
    EXPECT_OK(ApplyProjectQos(*world_.catalog, exports, project));
  };
  ASSERT_OK(ApplyProjectQos(*world_.catalog, exports, project));
  EXPECT_EQ(exports.project_limits[project], (QosSpecs{{"read_iops_sec", "2"}}));
}

TEST_F(ProjectQosTest, ADeletedVolumeIsForgottenByTheExports) {
  const std::string id = world_.CreateVolume(me_);
  world_.RunJobs();
  ASSERT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + id).status, 202);
  EXPECT_TRUE(world_.exports.forgotten.contains(id));
}

}  // namespace
}  // namespace blockd
