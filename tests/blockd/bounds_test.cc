#include <string>

#include "blockd/api/body.h"
#include "blockd/attach.h"
#include "tests/blockd/world.h"

// What a member of a project could otherwise let grow without end.

namespace blockd {
namespace {

using base::http::Response;

class BoundsTest : public testing::Test {
 protected:
  std::string Available(std::string_view rest = "") {
    const std::string id = world_.CreateVolume(me_, rest);
    world_.RunJobs();
    EXPECT_EQ(world_.StatusOf(id), "available");
    return id;
  }
  std::string Pairs(const std::string& prefix, size_t count) {
    std::string pairs;
    for (size_t i = 0; i < count; ++i)
      pairs += (i == 0 ? "\"" : ", \"") + prefix + std::to_string(i) + R"(": "v")";
    return R"("metadata": {)" + pairs + "}";
  }

  BlockWorld world_;
  const CallerPtr me_ = MemberOf();
};

TEST_F(BoundsTest, AttachmentsOfAVolume) {
  types::VolumeType type;
  type.name = "shared";
  type.extra_specs = {{std::string(types::kMultiAttachSpec), "<is> True"}};
  ASSERT_OK(world_.types->Create(type));
  const std::string id = Available(R"(, "volume_type": "shared")");
  const auto attach = [&] {
    return world_.Ask(me_, "POST", "/attachments",
                      R"({"attachment": {"volume_uuid": ")" + id + R"("}})");
  };
  std::string last;
  for (size_t i = 0; i < kMaxAttachmentsOfVolume; ++i) {
    const Response attached = attach();
    ASSERT_EQ(attached.status, 200) << attached.body;
    last = TextAt(attached, "attachment", "id");
  }
  const std::string sentence = "Invalid volume: Volume " + id +
                               " has 128 attachments, and one volume may have 128: delete one "
                               "first.";
  EXPECT_EQ(Message(attach(), "badRequest"), sentence);
  // The older ways are no way round.
  EXPECT_EQ(
      Message(world_.Act(me_, id, R"({"os-attach": {"mountpoint": "/dev/vdb"}})"), "badRequest"),
      sentence);
  EXPECT_EQ(Message(world_.Act(me_, id, R"({"os-initialize_connection": {"connector": {}}})"),
                    "badRequest"),
            sentence);
  // None of them is meant more than another.
  EXPECT_EQ(Message(world_.Act(me_, id, R"({"os-detach": {}})"), "badRequest"),
            "Invalid volume: Detach volume failed: More than one attachment, but no attachment_id "
            "provided.");

  EXPECT_EQ(world_.Ask(me_, "DELETE", "/attachments/" + last).status, 200);
  EXPECT_EQ(attach().status, 200);
}

TEST_F(BoundsTest, MetadataOfARestoreOfARestore) {
  const std::string volume = Available(", " + Pairs("a", api::kMaxPairs));
  const std::string backup = world_.CreateBackup(me_, volume);
  world_.RunJobs();
  const auto restore = [&](const std::string& metadata) {
    return world_.Ask(me_, "POST", "/volumes",
                      R"({"volume": {"backup_id": ")" + backup + R"(", )" + metadata + "}}", 47);
  };
  const Response refused = restore(Pairs("b", 1));
  EXPECT_EQ(refused.status, 413) << refused.body;
  EXPECT_EQ(world_.BackupStatusOf(backup), "available");
  const Response whole = restore(Pairs("a", api::kMaxPairs));
  EXPECT_EQ(whole.status, 202) << whole.body;
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(TextAt(whole, "volume", "id")), "available");
}

}  // namespace
}  // namespace blockd
