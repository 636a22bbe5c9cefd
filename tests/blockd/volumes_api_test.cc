#include <algorithm>

#include "tests/blockd/world.h"

// Calls about volumes, snapshots and attachments: the exact fields of each microversion (suites
// check answers against strict schemas), and what clients print.

namespace blockd {
namespace {

using base::http::Response;
using Names = std::set<std::string>;

const Names kBase = {"id",
                     "status",
                     "size",
                     "availability_zone",
                     "created_at",
                     "name",
                     "updated_at",
                     "description",
                     "volume_type",
                     "snapshot_id",
                     "metadata",
                     "links",
                     "source_volid",
                     "user_id",
                     "bootable",
                     "encrypted",
                     "multiattach",
                     "attachments",
                     "replication_status",
                     "consistencygroup_id",
                     "migration_status"};

Names With(Names names, const Names& more) {
  names.insert(more.begin(), more.end());
  return names;
}

class VolumesApiTest : public testing::Test {
 protected:
  std::string Available(std::string_view rest = "") {
    const std::string id = world_.CreateVolume(me_, rest);
    EXPECT_FALSE(id.empty());
    world_.RunJobs();
    return id;
  }
  Response Get(const CallerPtr& caller, const std::string& target, int minor = 70) {
    return world_.Ask(caller, "GET", target, "", minor);
  }
  std::string Body(std::string_view rest) { return R"({"volume": {)" + std::string(rest) + "}}"; }
  Response Create(std::string_view rest) { return world_.Ask(me_, "POST", "/volumes", Body(rest)); }
  std::vector<std::string> Ids(const Response& response, std::string_view list) {
    std::vector<std::string> ids;
    const base::Json body = BodyOf(response);
    const base::Json* array = base::Find(body, list);
    if (array == nullptr || !array->is_array()) return ids;
    for (const base::Json& item : array->get_array()) ids.push_back(*base::FindString(item, "id"));
    return ids;
  }
  std::string Attach(const std::string& volume_id) {
    const Response attached = world_.Ask(
        me_, "POST", "/attachments",
        R"({"attachment": {"volume_uuid": ")" + volume_id + R"(", "connector": {"host": "h"}}})");
    const std::string id = TextAt(attached, "attachment", "id");
    EXPECT_EQ(world_.Ask(me_, "POST", "/attachments/" + id + "/action", R"({"os-complete": null})")
                  .status,
              204);
    return id;
  }

  BlockWorld world_;
  const CallerPtr me_ = MemberOf();
  const CallerPtr you_ = MemberOf(kYourProject);
  const CallerPtr admin_ = Admin();
};

TEST_F(VolumesApiTest, FieldsByMicroversion) {
  const std::string id = Available();
  const Names tenant = {"os-vol-tenant-attr:tenant_id"};
  const Names admins = With(tenant, {"os-vol-mig-status-attr:migstat",
                                     "os-vol-mig-status-attr:name_id", "os-vol-host-attr:host"});
  const std::vector<std::pair<int, Names>> brought = {
      {0, {}},
      {12, {}},
      {13, {"group_id"}},
      {47, {"group_id"}},
      {48, {"group_id", "shared_targets", "service_uuid"}},
      {63, {"group_id", "shared_targets", "service_uuid", "volume_type_id"}},
      {65, {"group_id", "shared_targets", "service_uuid", "volume_type_id", "consumes_quota"}},
      {71, {"group_id", "shared_targets", "service_uuid", "volume_type_id", "consumes_quota"}}};
  for (const auto& [minor, more] : brought) {
    SCOPED_TRACE("3." + std::to_string(minor));
    const Response mine = Get(me_, "/volumes/" + id, minor);
    EXPECT_EQ(NamesOf(At(BodyOf(mine), "volume")), With(With(kBase, more), tenant));
    Names of_admin = With(With(kBase, more), admins);
    if (minor >= 21) of_admin.insert("provider_id");
    if (minor >= 61) of_admin.insert("cluster_name");
    const Response theirs = Get(admin_, "/volumes/" + id, minor);
    EXPECT_EQ(NamesOf(At(BodyOf(theirs), "volume")), of_admin);
  }
  const Response created = Create(R"("size": 1)");
  EXPECT_EQ(created.status, 202);
  EXPECT_EQ(NamesOf(At(BodyOf(created), "volume")), With(kBase, brought.back().second));
  EXPECT_EQ(TextAt(created, "volume", "status"), "creating");
  EXPECT_EQ(TextAt(created, "volume", "volume_type"), "__DEFAULT__");
  EXPECT_EQ(TextAt(created, "volume", "availability_zone"), "nova");
  EXPECT_EQ(NamesOf(At(BodyOf(Get(me_, "/volumes")), "volumes", 0)),
            (Names{"id", "name", "links"}));
}

TEST_F(VolumesApiTest, SnapshotAndAttachmentFields) {
  const std::string volume = Available();
  const Names created = {"id",        "created_at", "updated_at", "name",    "description",
                         "volume_id", "status",     "size",       "metadata"};
  const Response snapshot = world_.Ask(me_, "POST", "/snapshots",
                                       R"({"snapshot": {"volume_id": ")" + volume + R"("}})", 0);
  EXPECT_EQ(snapshot.status, 202);
  EXPECT_EQ(NamesOf(At(BodyOf(snapshot), "snapshot")), created);
  world_.RunJobs();
  const std::string id = TextAt(snapshot, "snapshot", "id");
  const Names extended = With(created, {"os-extended-snapshot-attributes:project_id",
                                        "os-extended-snapshot-attributes:progress"});
  EXPECT_EQ(NamesOf(At(BodyOf(Get(me_, "/snapshots/" + id, 0)), "snapshot")), extended);
  EXPECT_EQ(NamesOf(At(BodyOf(Get(me_, "/snapshots/" + id)), "snapshot")),
            With(extended, {"group_snapshot_id", "user_id", "consumes_quota"}));
  EXPECT_EQ(
      TextAt(Get(me_, "/snapshots/" + id), "snapshot", "os-extended-snapshot-attributes:progress"),
      "100%");

  const Response attachment = world_.Ask(me_, "POST", "/attachments",
                                         R"({"attachment": {"volume_uuid": ")" + volume + R"("}})");
  EXPECT_EQ(attachment.status, 200);
  EXPECT_EQ(NamesOf(At(BodyOf(attachment), "attachment")),
            (Names{"id", "status", "instance", "volume_id", "attached_at", "detached_at",
                   "attach_mode", "connection_info"}));
  EXPECT_EQ(TextAt(attachment, "attachment", "status"), "reserved");
  EXPECT_EQ(TextAt(attachment, "attachment", "attach_mode"), "null");
}

TEST_F(VolumesApiTest, WhatACreateRefuses) {
  EXPECT_EQ(Message(Create(""), "badRequest"),
            "The server could not comply with the request since it is either malformed or "
            "otherwise incorrect.");
  EXPECT_EQ(Message(Create(R"("size": 0)"), "badRequest"),
            "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1");
  EXPECT_EQ(Create(R"("size": 16385)").status, 400);
  EXPECT_EQ(Create(R"("size": "1")").status, 202);
  EXPECT_EQ(Create(R"("size": 1, "zzz": 1)").status, 202);
  EXPECT_EQ(Create(R"("size": 1, "volume_type": "none")").status, 404);
  EXPECT_EQ(Create(R"("size": 1, "availability_zone": "mars")").status, 400);
  EXPECT_EQ(Create(R"("size": 1, "imageRef": "image")").status, 400) << "the image is larger";
  EXPECT_EQ(Create(R"("size": 2, "imageRef": "other")").status, 404);
  EXPECT_EQ(Create(R"("size": 2, "imageRef": "image", "snapshot_id": "x")").status, 400);
  EXPECT_EQ(world_.Ask(me_, "POST", "/volumes", "{").status, 400);
  const std::string large = Available(R"(, "name": "large")");
  EXPECT_EQ(world_.Act(me_, large, R"({"os-extend": {"new_size": 2}})").status, 202);
  world_.RunJobs();
  EXPECT_EQ(Message(Create(R"("size": 1, "source_volid": ")" + large + '"'), "badRequest"),
            "Invalid input received: Volume size '1'GB cannot be smaller than original volume size "
            " 2GB. They must be >= original volume size.");
}

TEST_F(VolumesApiTest, FromImageSnapshotAndVolume) {
  const std::string of_image = TextAt(Create(R"("size": 3, "imageRef": "image")"), "volume", "id");
  world_.RunJobs();
  const Response shown = Get(me_, "/volumes/" + of_image);
  EXPECT_EQ(TextAt(shown, "volume", "status"), "available");
  EXPECT_EQ(TextAt(shown, "volume", "bootable"), "true");
  EXPECT_EQ(TextAt(shown, "volume", "volume_image_metadata", "image_id"), "image");
  EXPECT_EQ(world_.store.sources[of_image].name, "image/image/1");

  const std::string snapshot = world_.CreateSnapshot(me_, of_image);
  world_.RunJobs();
  const Response of_snapshot = Create(R"("snapshot_id": ")" + snapshot + '"');
  EXPECT_EQ(TextAt(of_snapshot, "volume", "snapshot_id"), snapshot);
  EXPECT_EQ(TextAt(of_snapshot, "volume", "bootable"), "true");
  const Response of_volume = Create(R"("source_volid": ")" + of_image + '"');
  EXPECT_EQ(TextAt(of_volume, "volume", "source_volid"), of_image);
  world_.RunJobs();
  world_.ExpectSettled();
  // Another project sees neither.
  for (const std::string& body :
       {R"("snapshot_id": ")" + snapshot, R"("source_volid": ")" + of_image})
    EXPECT_EQ(world_.Ask(you_, "POST", "/volumes", Body(body + '"')).status, 404);
}

TEST_F(VolumesApiTest, QuotasSayHowMuch) {
  ASSERT_OK(world_.catalog->SetLimits(kMyProject, {{"volumes", 1}, {"gigabytes", 2}}));
  EXPECT_EQ(Message(Create(R"("size": 3)"), "overLimit"),
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed "
            "gigabytes quota. Requested 3G, quota is 2G and 0G has been consumed.");
  const std::string id = Available();
  const Response over = Create(R"("size": 1)");
  EXPECT_EQ(over.status, 413);
  EXPECT_EQ(Message(over, "overLimit"),
            "VolumeLimitExceeded: Maximum number of volumes allowed (1) exceeded for quota "
            "'volumes'.");
  EXPECT_EQ(TextAt(over, "overLimit", "retryAfter"), "0");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend": {"new_size": 3}})").status, 413);
  ASSERT_OK(world_.catalog->SetLimits(kMyProject, {{"per_volume_gigabytes", 1}}));
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend": {"new_size": 2}})").status, 413);
}

TEST_F(VolumesApiTest, ListsFilterSortAndPage) {
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(Available(R"(, "name": "v)" + std::to_string(i) + R"(", "metadata": {"n": ")" +
                            std::to_string(i) + R"("})"));
    world_.clock.AdvanceUs(10);
  }
  EXPECT_EQ(Ids(Get(me_, "/volumes"), "volumes"), (std::vector{ids[2], ids[1], ids[0]}));
  EXPECT_EQ(Ids(Get(me_, "/volumes?sort=name:asc&limit=2"), "volumes"),
            (std::vector{ids[0], ids[1]}));
  EXPECT_EQ(Ids(Get(me_, "/volumes?name=v1"), "volumes"), std::vector{ids[1]});
  EXPECT_EQ(Ids(Get(me_, "/volumes?metadata=%7B%27n%27%3A%20%272%27%7D"), "volumes"),
            std::vector{ids[2]});
  EXPECT_EQ(Ids(Get(me_, "/volumes?status=error"), "volumes"), std::vector<std::string>());
  EXPECT_EQ(Ids(Get(me_, "/volumes?bootable=true"), "volumes"), std::vector<std::string>());
  const Response page = Get(me_, "/volumes/detail?limit=1&with_count=True");
  const base::Json page_body = BodyOf(page);
  EXPECT_EQ(At(page_body, "count").to_number<int>(), 3);
  EXPECT_NE(TextAt(page, "volumes_links", 0, "href").find("marker=" + ids[2]), std::string::npos);
  EXPECT_EQ(Ids(Get(me_, "/volumes?limit=1&marker=" + ids[2]), "volumes"), std::vector{ids[1]});
  EXPECT_EQ(Get(me_, "/volumes?sort_key=secret").status, 400);
  EXPECT_EQ(Get(me_, "/volumes?limit=x").status, 400);
  EXPECT_EQ(Ids(Get(you_, "/volumes?all_tenants=1"), "volumes"), std::vector<std::string>());
  EXPECT_EQ(Ids(Get(admin_, "/volumes?all_tenants=1"), "volumes").size(), 3u);
  EXPECT_EQ(Ids(Get(admin_, "/volumes"), "volumes").size(), 0u);
  EXPECT_EQ(Get(me_, "/volumes/detail?marker=nosuch").status, 404);
}

TEST_F(VolumesApiTest, UpdateAndMetadata) {
  const std::string id = Available();
  const std::string path = "/volumes/" + id;
  const Response updated =
      world_.Ask(me_, "PUT", path, R"({"volume": {"name": "n", "description": null}})");
  EXPECT_EQ(updated.status, 200);
  EXPECT_EQ(TextAt(updated, "volume", "name"), "n");
  const std::string metadata = path + "/metadata";
  EXPECT_EQ(world_.Ask(me_, "POST", metadata, R"({"metadata": {"a": "1", "b": "2"}})").status, 200);
  EXPECT_EQ(world_.Ask(me_, "PUT", metadata + "/a", R"({"meta": {"a": "3"}})").status, 200);
  EXPECT_EQ(TextAt(Get(me_, metadata + "/a"), "meta", "a"), "3");
  EXPECT_EQ(world_.Ask(me_, "PUT", metadata + "/a", R"({"meta": {"b": "3"}})").status, 400);
  EXPECT_EQ(world_.Ask(me_, "DELETE", metadata + "/a").status, 200);
  EXPECT_EQ(Get(me_, metadata + "/a").status, 404);
  EXPECT_EQ(NamesOf(At(BodyOf(Get(me_, metadata)), "metadata")), Names{"b"});
  EXPECT_EQ(world_.Ask(me_, "PUT", metadata, R"({"metadata": {"c": "1"}})").status, 200);
  EXPECT_EQ(NamesOf(At(BodyOf(Get(me_, metadata)), "metadata")), Names{"c"});
}

// What somebody else changed meanwhile is not written over by who says what he has read.
TEST_F(VolumesApiTest, EtagsOfMetadata) {
  const std::string path = "/volumes/" + Available() + "/metadata";
  EXPECT_EQ(world_.Ask(me_, "PUT", path, R"({"metadata": {"a": "1"}})").status, 200);
  EXPECT_FALSE(world_.Ask(me_, "GET", path, "", 14).headers.Has("ETag"));
  const auto etag = [&] { return std::string(Get(me_, path).headers.Get("ETag")); };
  const auto put = [&](const std::string& target, const std::string& body, const std::string& tags,
                       const std::string& version = "volume 3.15") {
    return world_
        .AskAt(me_, "PUT", "/v3/" + me_->project_id + target, body,
               {{"OpenStack-API-Version", version}, {"If-Match", tags}})
        .status;
  };
  const std::string read = etag();
  EXPECT_EQ(read.size(), 32u);
  EXPECT_EQ(put(path + "/a", R"({"meta": {"a": "2"}})", read), 200);
  EXPECT_NE(etag(), read);
  EXPECT_EQ(put(path + "/a", R"({"meta": {"a": "3"}})", read), 412);
  EXPECT_EQ(put(path, R"({"metadata": {"b": "3"}})", read), 412);
  EXPECT_EQ(TextAt(Get(me_, path + "/a"), "meta", "a"), "2");
  EXPECT_EQ(put(path, R"({"metadata": {"b": "3"}})", "\"x\", \"" + etag() + "\""), 200);
  EXPECT_EQ(put(path, R"({"metadata": {"b": "4"}})", "*"), 200);
  EXPECT_EQ(put(path, R"({"metadata": {"b": "5"}})", read, "volume 3.14"), 200);
}

TEST_F(VolumesApiTest, NothingMovesAndNoExtensionWaits) {
  const std::string id = Available();
  const auto says = [&](const std::string& action, int minor = 71) {
    return Message(world_.Act(admin_, id, action, minor), "badRequest");
  };
  EXPECT_EQ(says(R"({"os-migrate_volume": {"host": "far@store#store"}})"),
            "Invalid host: No available service named far@store#store");
  const std::string here = TextAt(Get(admin_, "/volumes/" + id), "volume", "os-vol-host-attr:host");
  EXPECT_NE(says(R"({"os-migrate_volume": {"host": ")" + here + R"("}})").find("must be different"),
            std::string::npos);
  EXPECT_NE(says(R"({"os-migrate_volume": {"cluster": "c"}})").find("cluster"), std::string::npos);
  EXPECT_NE(says(R"({"os-migrate_volume": {"host": "h", "lock_volume": "odd"}})"), "");
  EXPECT_NE(says(R"({"os-extend_volume_completion": {"error": false}})").find(id),
            std::string::npos);
  EXPECT_NE(says(R"({"os-extend_volume_completion": {}})", 70).find("no such action"),
            std::string::npos);
  EXPECT_EQ(world_.StatusOf(id), "available");
}

TEST_F(VolumesApiTest, DeleteAsksForNothingOnTop) {
  const std::string id = Available();
  const std::string snapshot = world_.CreateSnapshot(me_, id);
  world_.RunJobs();
  const Response refused = world_.Ask(me_, "DELETE", "/volumes/" + id);
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(Message(refused, "badRequest").find("have snapshots"), std::string::npos);
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + id + "?cascade=true").status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "gone");
  EXPECT_EQ(world_.SnapshotStatusOf(snapshot), "gone");
  world_.ExpectSettled();
}

// As a transfer without snapshots leaves it.
TEST_F(VolumesApiTest, ASnapshotThatAnotherProjectKeptIsNotTheOwnersToDeleteOrUse) {
  const std::string id = Available();
  const std::string path = "/volumes/" + id;
  const std::string snapshot = world_.CreateSnapshot(me_, id);
  world_.RunJobs();
  ASSERT_OK(world_.catalog->Transact([&](Transaction& transaction) -> base::Result<void> {
    ASSIGN_OR_RETURN(SnapshotRecord record, transaction.GetSnapshot(snapshot));
    record.project_id = "another";
    return transaction.Put(record);
  }));
  EXPECT_EQ(world_.Ask(me_, "DELETE", path + "?cascade=true").status, 400);
  const auto revert = [&](const std::string& to) {
    const Response refused = world_.Act(me_, id, R"({"revert":{"snapshot_id":")" + to + R"("}})");
    EXPECT_EQ(refused.status, 404);
    return Message(refused, "itemNotFound");
  };
  EXPECT_EQ(revert(snapshot), "Snapshot " + snapshot + " could not be found.");
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_EQ(world_.SnapshotStatusOf(snapshot), "available");
  EXPECT_EQ(world_.Ask(admin_, "DELETE", path + "?cascade=true").status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.SnapshotStatusOf(snapshot), "gone");
}

TEST_F(VolumesApiTest, Actions) {
  const std::string id = Available();
  EXPECT_EQ(Message(world_.Act(me_, id, R"({"os-zzz":{}})"), "badRequest"),
            "There is no such action: os-zzz. Verify the request body and Content-Type header and "
            "try again.");
  EXPECT_EQ(Message(world_.Act(me_, id, R"({"os-extend":{"new_size":1}})"), "badRequest"),
            "Invalid input received: New size for extend must be greater than current size. "
            "(current: 1, extended: 1).");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend":{"new_size":"abc"}})").status, 400);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-set_bootable":{"bootable":true}})").status, 200);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-update_readonly_flag":{"readonly":true}})").status, 202);
  EXPECT_EQ(TextAt(Get(me_, "/volumes/" + id), "volume", "metadata", "readonly"), "True");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-reset_status":{"status":"error"}})").status, 403);
  EXPECT_EQ(world_.Act(admin_, id, R"({"os-reset_status":{"status":"odd"}})").status, 400);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-set_image_metadata":{"metadata":{"k":"v"}}})").status, 200);
  EXPECT_EQ(TextAt(world_.Act(me_, id, R"({"os-show_image_metadata":null})"), "metadata", "k"),
            "v");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-unset_image_metadata":{"key":"k"}})").status, 200);
  const std::string snapshot = world_.CreateSnapshot(me_, id);
  world_.RunJobs();
  const std::string revert = R"({"revert":{"snapshot_id":")" + snapshot + R"("}})";
  EXPECT_EQ(world_.Act(me_, id, revert, 39).status, 400);
  EXPECT_EQ(world_.Act(me_, id, revert, 40).status, 202);
  EXPECT_EQ(world_.StatusOf(id), "reverting");
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/snapshots/" + snapshot).status, 400);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "available");
}

TEST_F(VolumesApiTest, ArgumentsOfActionsHaveTypes) {
  const std::string id = Available();
  (void)Attach(id);
  const std::string very_long(5000, 'x');
  for (const std::string& body : {
           std::string(R"({"os-detach": 7})"),
           std::string(R"({"os-detach": {"attachment_id": 7}})"),
           std::string(R"({"os-terminate_connection": "x"})"),
           std::string(R"({"os-terminate_connection": {"connector": "x"}})"),
           std::string(R"({"os-reset_status": {"status": 7}})"),
           std::string(R"({"os-reset_status": {"status": "error", "attach_status": {}}})"),
           std::string(R"({"os-reset_status": {"attach_status": "odd"}})"),
           std::string(R"({"os-unset_image_metadata": {"key": []}})"),
           std::string(R"({"revert": {"snapshot_id": 7}})"),
           R"({"revert": {"snapshot_id": ")" + very_long + R"("}})",
           std::string(R"({"os-reimage": {"image_id": null}})"),
           R"({"os-reimage": {"image_id": ")" + very_long + R"("}})",
       }) {
    EXPECT_EQ(world_.Act(admin_, id, body).status, 400) << body;
  }
  EXPECT_EQ(world_.StatusOf(id), "in-use");
  EXPECT_EQ(world_.exports.published.size(), 1u);
}

TEST_F(VolumesApiTest, AMemberGivesASnapshotUpButCannotSayThatItIsThere) {
  const std::string snapshot = world_.CreateSnapshot(me_, Available());
  const auto act = [&](const CallerPtr& caller, const std::string& body) {
    return world_.Ask(caller, "POST", "/snapshots/" + snapshot + "/action",
                      R"({"os-update_snapshot_status": )" + body + "}");
  };
  EXPECT_EQ(act(me_, R"({"status": "available"})").status, 403);
  EXPECT_EQ(act(me_, R"({"status": "deleting"})").status, 400);
  EXPECT_EQ(act(me_, R"({"status": "error", "progress": "101%"})").status, 400);
  EXPECT_EQ(act(me_, R"({"status": "error", "progress": "80%"})").status, 202);
  EXPECT_EQ(world_.SnapshotStatusOf(snapshot), "error");
  EXPECT_EQ(TextAt(Get(me_, "/snapshots/" + snapshot), "snapshot",
                   "os-extended-snapshot-attributes:progress"),
            "80%");
  EXPECT_EQ(act(admin_, R"({"status": "available"})").status, 400) << "it is on no way any more";
}

// As Cinder's scheduler has it: accepted, then no back end is found.
TEST_F(VolumesApiTest, ATypeMayAskForAnotherBackEnd) {
  types::VolumeType type;
  type.name = "here";
  type.extra_specs = {{"volume_backend_name", "store"}, {"vendor_name", "Quarry"}};
  ASSERT_OK(world_.types->Create(type));
  type.name = "elsewhere";
  type.extra_specs = {{"volume_backend_name", "ceph"}};
  ASSERT_OK(world_.types->Create(type));
  const std::string here = world_.CreateVolume(me_, R"(, "volume_type": "here")");
  const std::string elsewhere = world_.CreateVolume(me_, R"(, "volume_type": "elsewhere")");
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(here), "available");
  EXPECT_EQ(world_.StatusOf(elsewhere), "error");
  EXPECT_EQ(
      Message(world_.Act(me_, here, R"({"os-retype": {"new_type": "elsewhere"}})"), "badRequest"),
      "Invalid input received: No valid backend was found: type elsewhere asks for another "
      "one by its extra spec volume_backend_name.");
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + elsewhere).status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(elsewhere), "gone");
}

TEST_F(VolumesApiTest, TheSizeHasBounds) {
  EXPECT_EQ(
      Message(world_.Ask(me_, "POST", "/volumes", R"({"volume": {"size": 0}})"), "badRequest"),
      "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1");
  EXPECT_EQ(
      Message(world_.Ask(me_, "POST", "/volumes", R"({"volume": {"size": 16385}})"), "badRequest"),
      "Invalid input for field/attribute size. Value: 16385. 16385 is greater than the "
      "maximum of 16384");
  const std::string id = Available();
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend": {"new_size": 16385}})").status, 400);
}

TEST_F(VolumesApiTest, UploadHandsTheRootOver) {
  const std::string id = Available();
  const Response uploading =
      world_.Act(me_, id, R"({"os-volume_upload_image":{"image_name":"i","disk_format":"raw"}})");
  EXPECT_EQ(uploading.status, 202) << uploading.body;
  EXPECT_EQ(TextAt(uploading, "os-volume_upload_image", "status"), "uploading");
  world_.RunJobs();
  EXPECT_EQ(world_.images.filled["new-i"], "layer/upload-new-i");
  EXPECT_TRUE(world_.store.snapshots.empty());
  EXPECT_EQ(world_.StatusOf(id), "available");
}

TEST_F(VolumesApiTest, AnAttachmentFromReservedToGone) {
  const std::string id = Available();
  const std::string attachment = Attach(id);
  EXPECT_EQ(world_.StatusOf(id), "in-use");
  const Response shown = Get(me_, "/attachments/" + attachment);
  EXPECT_EQ(TextAt(shown, "attachment", "status"), "attached");
  EXPECT_EQ(TextAt(shown, "attachment", "attach_mode"), "rw");
  EXPECT_EQ(TextAt(shown, "attachment", "connection_info", "driver_volume_type"), "nbd");
  const std::string name = TextAt(shown, "attachment", "connection_info", "export");
  EXPECT_EQ(name, attachment + "." + world_.exports.published.at(attachment).secret);
  // A capability: who may only read doesn't learn it.
  EXPECT_EQ(TextAt(Get(Reader(), "/attachments/" + attachment), "attachment", "connection_info",
                   "export"),
            "");
  EXPECT_EQ(TextAt(Get(me_, "/volumes/" + id), "volume", "attachments", 0, "attachment_id"),
            attachment);
  EXPECT_EQ(Ids(Get(me_, "/attachments"), "attachments"), std::vector{attachment});

  const Response second = world_.Ask(me_, "POST", "/attachments",
                                     R"({"attachment": {"volume_uuid": ")" + id + R"("}})");
  EXPECT_EQ(second.status, 400) << "one writer, unless the type says otherwise";
  EXPECT_EQ(world_.Ask(me_, "DELETE", "/volumes/" + id).status, 400);

  const Response deleted = world_.Ask(me_, "DELETE", "/attachments/" + attachment);
  EXPECT_EQ(deleted.status, 200);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_TRUE(world_.exports.published.empty());
  EXPECT_EQ(Get(me_, "/attachments/" + attachment).status, 404);
  world_.ExpectSettled();
}

TEST_F(VolumesApiTest, AttachmentsByMicroversion) {
  EXPECT_EQ(Get(me_, "/attachments", 26).status, 404);
  EXPECT_EQ(Get(me_, "/attachments", 27).status, 200);
}

TEST_F(VolumesApiTest, TheOlderWayToAttach) {
  const std::string id = Available();
  EXPECT_EQ(world_.Act(me_, id, R"({"os-reserve":null})").status, 202);
  EXPECT_EQ(Message(world_.Act(me_, id, R"({"os-reserve":null})"), "badRequest"),
            "Invalid volume: Volume status must be available to reserve, but the status is "
            "attaching.");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-unreserve":null})").status, 202);
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-reserve":null})").status, 202);
  const std::string connector = R"({"os-initialize_connection":{"connector":{"host":"h"}}})";
  const Response first = world_.Act(me_, id, connector);
  EXPECT_EQ(TextAt(first, "connection_info", "driver_volume_type"), "nbd");
  const std::string name = TextAt(first, "connection_info", "data", "export");
  EXPECT_FALSE(name.empty());
  EXPECT_EQ(TextAt(world_.Act(me_, id, connector), "connection_info", "data", "export"), name);
  EXPECT_EQ(
      world_.Act(me_, id, R"({"os-attach":{"instance_uuid":"i","mountpoint":"/dev/vdb"}})").status,
      202);
  EXPECT_EQ(world_.StatusOf(id), "in-use");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-begin_detaching":null})").status, 202);
  EXPECT_EQ(world_.StatusOf(id), "detaching");
  EXPECT_EQ(world_.Act(me_, id, R"({"os-roll_detaching":null})").status, 202);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-begin_detaching":null})").status, 202);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-terminate_connection":{"connector":{"host":"h"}}})").status,
            202);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-detach":{}})").status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "available");
  EXPECT_TRUE(world_.exports.published.empty());
  world_.ExpectSettled();
}

TEST_F(VolumesApiTest, ExtendWhileAttached) {
  const std::string id = Available();
  (void)Attach(id);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend":{"new_size":2}})", 41).status, 400);
  EXPECT_EQ(world_.Act(me_, id, R"({"os-extend":{"new_size":2}})", 42).status, 202);
  world_.RunJobs();
  EXPECT_EQ(world_.StatusOf(id), "in-use");
  EXPECT_EQ(world_.exports.limits[id], 2u);
}

}  // namespace
}  // namespace blockd
