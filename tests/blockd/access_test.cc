#include <map>
#include <string>

#include "tests/blockd/world.h"

// Every route of this folder, and its actions, against every kind of caller: no token 401, the
// wrong role 403, another project's object 404. A route without a row fails the test.

namespace blockd {
namespace {

enum class Rule {
  kList,       // any token: one's own
  kCreate,     // needs the role member, but no object
  kRead,       // the project's readers; others are told 404
  kWrite,      // the project's members; others are told 404
  kAdminOnly,  // an administrator's action on anybody's object; strangers are told 403 or 404
  kOfOwn,      // the project's readers; others are told 403: that there is a project is no secret
};

struct Row {
  Rule rule;
  int status;        // for one who may
  std::string body;  // of a request that succeeds
};

// "POST /volumes/{volume_id}/action <name>" for the actions. In bodies {volume}, {snapshot} and
// {attachment} stand for ids.
using Rows = std::map<std::string, Row>;
const Rows& AllRows() {
  const std::string volume = "/volumes/{volume_id}";
  const std::string snapshot = "/snapshots/{snapshot_id}";
  const std::string attachment = "/attachments/{attachment_id}";
  const std::string backup = "/backups/{backup_id}";
  const auto metadata = [](const std::string& path, Rows* rows) {
    const std::string pairs = R"({"metadata": {"k": "v"}})";
    (*rows)["GET " + path + "/metadata"] = {Rule::kRead, 200, ""};
    (*rows)["POST " + path + "/metadata"] = {Rule::kWrite, 200, pairs};
    (*rows)["PUT " + path + "/metadata"] = {Rule::kWrite, 200, pairs};
    (*rows)["GET " + path + "/metadata/{key}"] = {Rule::kRead, 200, ""};
    (*rows)["PUT " + path + "/metadata/{key}"] = {Rule::kWrite, 200, R"({"meta": {"k": "w"}})"};
    (*rows)["DELETE " + path + "/metadata/{key}"] = {Rule::kWrite, 200, ""};
  };
  static const Rows* const all = [&] {
    auto* rows = new Rows{
        {"POST /volumes", {Rule::kCreate, 202, R"({"volume": {"size": 1}})"}},
        {"GET /volumes", {Rule::kList, 200, ""}},
        {"GET /volumes/detail", {Rule::kList, 200, ""}},
        {"GET " + volume, {Rule::kRead, 200, ""}},
        {"PUT " + volume, {Rule::kWrite, 200, R"({"volume": {"name": "n"}})"}},
        {"DELETE " + volume, {Rule::kWrite, 202, ""}},
        {"POST /snapshots",
         {Rule::kWrite, 202, R"({"snapshot": {"volume_id": "{volume}", "force": true}})"}},
        {"GET /snapshots", {Rule::kList, 200, ""}},
        {"GET /snapshots/detail", {Rule::kList, 200, ""}},
        {"GET " + snapshot, {Rule::kRead, 200, ""}},
        {"PUT " + snapshot, {Rule::kWrite, 200, R"({"snapshot": {"name": "n"}})"}},
        {"DELETE " + snapshot, {Rule::kWrite, 202, ""}},
        {"POST /attachments",
         {Rule::kWrite, 200, R"({"attachment": {"volume_uuid": "{volume}"}})"}},
        {"GET /attachments", {Rule::kList, 200, ""}},
        {"GET /attachments/detail", {Rule::kList, 200, ""}},
        {"GET " + attachment, {Rule::kRead, 200, ""}},
        {"PUT " + attachment,
         {Rule::kWrite, 200, R"({"attachment": {"connector": {"host": "h"}}})"}},
        {"DELETE " + attachment, {Rule::kWrite, 200, ""}},
        {"POST /backups", {Rule::kWrite, 202, R"({"backup": {"volume_id": "{volume}"}})"}},
        {"GET /backups", {Rule::kList, 200, ""}},
        {"GET /backups/detail", {Rule::kList, 200, ""}},
        {"GET " + backup, {Rule::kRead, 200, ""}},
        {"PUT " + backup, {Rule::kWrite, 200, R"({"backup": {"name": "n"}})"}},
        {"DELETE " + backup, {Rule::kWrite, 202, ""}},
        {"POST " + backup + "/restore", {Rule::kWrite, 202, R"({"restore": {}})"}},
        {"GET " + backup + "/export_record", {Rule::kAdminOnly, 200, ""}},
        // A record of nothing that is kept.
        {"POST /backups/import_record",
         {Rule::kAdminOnly, 400,
          R"({"backup-record": {"backup_service": "s", "backup_url": "u"}})"}},
        {"POST /backups/import_all", {Rule::kAdminOnly, 201, "{}"}},
        {"GET /os-project-qos", {Rule::kAdminOnly, 200, ""}},
        {"GET /os-project-qos/{target_id}", {Rule::kOfOwn, 200, ""}},
        {"PUT /os-project-qos/{target_id}",
         {Rule::kAdminOnly, 200, R"({"project_qos": {"specs": {}}})"}},
        {"DELETE /os-project-qos/{target_id}", {Rule::kAdminOnly, 204, ""}},
    };
    metadata(volume, rows);
    metadata(snapshot, rows);
    const auto act = [&](const std::string& path, const std::string& name, Rule rule, int status,
                         const std::string& argument) {
      (*rows)["POST " + path + "/action " + name] = {rule, status,
                                                     "{\"" + name + "\": " + argument + "}"};
    };
    act(volume, "os-extend", Rule::kWrite, 202, R"({"new_size": 5})");
    act(volume, "os-reset_status", Rule::kAdminOnly, 202, R"({"status": "error"})");
    act(volume, "os-force_delete", Rule::kAdminOnly, 202, "{}");
    act(volume, "os-set_bootable", Rule::kWrite, 200, R"({"bootable": true})");
    act(volume, "os-update_readonly_flag", Rule::kWrite, 202, R"({"readonly": true})");
    act(volume, "os-retype", Rule::kWrite, 202, R"({"new_type": "other"})");
    act(volume, "revert", Rule::kWrite, 202, R"({"snapshot_id": "{snapshot}"})");
    act(volume, "os-reimage", Rule::kWrite, 202, R"({"image_id": "image"})");
    act(volume, "os-volume_upload_image", Rule::kWrite, 202, R"({"image_name": "i"})");
    act(volume, "os-set_image_metadata", Rule::kWrite, 200, R"({"metadata": {"k": "v"}})");
    act(volume, "os-unset_image_metadata", Rule::kWrite, 200, R"({"key": "i"})");
    act(volume, "os-show_image_metadata", Rule::kRead, 200, "null");
    // There is nowhere to go, and nothing that waits.
    act(volume, "os-migrate_volume", Rule::kAdminOnly, 400, R"({"host": "other@store"})");
    act(volume, "os-extend_volume_completion", Rule::kAdminOnly, 400, "{}");
    act(volume, "os-reserve", Rule::kWrite, 202, "null");
    act(volume, "os-unreserve", Rule::kWrite, 202, "null");
    act(volume, "os-begin_detaching", Rule::kWrite, 202, "null");
    act(volume, "os-roll_detaching", Rule::kWrite, 202, "null");
    act(volume, "os-initialize_connection", Rule::kWrite, 200, R"({"connector": {"host": "h"}})");
    act(volume, "os-attach", Rule::kWrite, 202, R"({"mountpoint": "/dev/vdb"})");
    act(volume, "os-terminate_connection", Rule::kWrite, 202, R"({"connector": {}})");
    act(volume, "os-detach", Rule::kWrite, 202, "{}");
    act(snapshot, "os-reset_status", Rule::kAdminOnly, 202, R"({"status": "error"})");
    act(snapshot, "os-update_snapshot_status", Rule::kWrite, 202, R"({"status": "error"})");
    act(snapshot, "os-force_delete", Rule::kAdminOnly, 202, "{}");
    act(backup, "os-reset_status", Rule::kAdminOnly, 202, R"({"status": "error"})");
    act(backup, "os-force_delete", Rule::kAdminOnly, 202, "{}");
    act(attachment, "os-complete", Rule::kWrite, 204, "null");
    return rows;
  }();
  return *all;
}

void Replace(std::string* text, const std::string& what, const std::string& with) {
  const size_t at = text->find(what);
  if (at != std::string::npos) text->replace(at, what.size(), with);
}

// A fresh world for each request, since some of them take the object away.
class World {
 public:
  explicit World(const std::string& name) {
    const CallerPtr me = MemberOf();
    types::VolumeType type;
    type.name = "other";
    EXPECT_OK(world_.types->Create(type));
    volume_ = TextAt(world_.Ask(me, "POST", "/volumes",
                                R"({"volume": {"size": 2, "imageRef": "image",
                                               "metadata": {"k": "v"}}})"),
                     "volume", "id");
    world_.RunJobs();
    (void)world_.Act(me, volume_, R"({"os-set_image_metadata": {"metadata": {"i": "v"}}})");
    // Where nothing may stand on the volume, the snapshot is another's.
    const bool alone = name.starts_with("DELETE /volumes/{volume_id}") ||
                       name.ends_with("/volumes/{volume_id}/action os-force_delete") ||
                       name.ends_with("os-reimage");
    const std::string snapshotted = alone ? world_.CreateVolume(me) : volume_;
    world_.RunJobs();
    snapshot_ = TextAt(world_.Ask(me, "POST", "/snapshots",
                                  R"({"snapshot": {"volume_id": ")" + snapshotted +
                                      R"(", "metadata": {"k": "v"}}})"),
                       "snapshot", "id");
    world_.RunJobs();
    const std::string attached = world_.CreateVolume(me);
    world_.RunJobs();
    attachment_ = TextAt(world_.Ask(me, "POST", "/attachments",
                                    R"({"attachment": {"connector": {"host": "h"},
                                        "volume_uuid": ")" +
                                        attached + R"("}})"),
                         "attachment", "id");
    if (name.ends_with("os-update_snapshot_status"))
      (void)world_.Ask(Admin(), "POST", "/snapshots/" + snapshot_ + "/action",
                       R"({"os-reset_status": {"status": "creating"}})");
    backup_ = world_.CreateBackup(me, volume_);
    world_.RunJobs();
    if (name.ends_with("os-begin_detaching") || name.ends_with("os-roll_detaching")) {
      (void)world_.Act(me, volume_, R"({"os-attach": {}})");
      if (name.ends_with("os-roll_detaching"))
        (void)world_.Act(me, volume_, R"({"os-begin_detaching": null})");
    }
  }

  int Status(const CallerPtr& caller, const std::string& name, std::string body) {
    const size_t space = name.find(' ');
    std::string path = name.substr(space + 1, name.find(' ', space + 1) - space - 1);
    Replace(&path, "{volume_id}", volume_);
    Replace(&path, "{snapshot_id}", snapshot_);
    Replace(&path, "{attachment_id}", attachment_);
    Replace(&path, "{backup_id}", backup_);
    Replace(&path, "{key}", "k");
    Replace(&path, "{target_id}", std::string(kMyProject));
    Replace(&body, "{volume}", volume_);
    Replace(&body, "{snapshot}", snapshot_);
    return world_.Ask(caller, name.substr(0, space), path, body, 71).status;
  }
  base::http::Router& router() { return world_.router(); }

 private:
  BlockWorld world_;
  std::string volume_;
  std::string snapshot_;
  std::string attachment_;
  std::string backup_;
};

int StatusFor(const CallerPtr& caller, const std::string& name, const std::string& body) {
  World world(name);
  return world.Status(caller, name, body);
}

void CheckRow(const std::string& name, const Row& row) {
  SCOPED_TRACE(name);
  EXPECT_EQ(StatusFor(nullptr, name, row.body), 401);
  const int reader = StatusFor(Reader(), name, row.body);
  const int member = StatusFor(MemberOf(), name, row.body);
  const int stranger = StatusFor(MemberOf(kYourProject), name, row.body);
  const int admin = StatusFor(Admin(), name, row.body);
  EXPECT_EQ(admin, row.status);
  switch (row.rule) {
    case Rule::kList:
      EXPECT_EQ(reader, row.status);
      EXPECT_EQ(stranger, row.status);
      break;
    case Rule::kCreate:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, row.status);
      break;
    case Rule::kRead:
      EXPECT_EQ(reader, row.status);
      EXPECT_EQ(stranger, 404);
      break;
    case Rule::kWrite:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, row.status);
      EXPECT_EQ(stranger, 404);
      break;
    case Rule::kAdminOnly:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, 403);
      EXPECT_TRUE(stranger == 403 || stranger == 404) << stranger;
      break;
    case Rule::kOfOwn:
      EXPECT_EQ(reader, row.status);
      EXPECT_EQ(stranger, 403);
      break;
  }
}

TEST(BlockAccessTest, EveryRouteHasARowAndKeepsIt) {
  for (const auto& [name, row] : AllRows()) CheckRow(name, row);
  World world("");
  std::set<std::string> routes;
  constexpr std::string_view kProject = "/v3/{project_id}";
  for (const base::http::Route& route : world.router().services()[0]->routes) {
    ASSERT_NE(route.access, base::http::Access::kPublic);
    if (!route.pattern.starts_with(kProject)) continue;
    routes.insert(route.method + " " + route.pattern.substr(kProject.size()));
  }
  for (const std::string& route : routes) {
    const auto row = AllRows().lower_bound(route);
    EXPECT_TRUE(row != AllRows().end() && row->first.starts_with(route))
        << route << ": a route without a row: say who may call it";
  }
  for (const auto& [name, row] : AllRows()) {
    const std::string route = name.substr(0, name.find(' ', name.find(' ') + 1));
    EXPECT_TRUE(routes.contains(route)) << name << ": a row without a route";
  }
}

}  // namespace
}  // namespace blockd
