#include <map>

#include "base/uuid.h"
#include "blockd/discovery/discovery.h"
#include "blockd/types/handlers.h"
#include "tests/blockd/tenancy/world.h"

// Every route about types, projects and the service itself, against every kind of caller: no token
// 401, the wrong role 403, another project's object 404. A route without a row fails the test.

namespace blockd::tenancy {
namespace {

using base::http::Access;

enum class Rule {
  kOpen,     // no token needed
  kAnybody,  // any token
  kAdmin,
  kRead,    // the project's readers; others are told 404
  kWrite,   // the project's members; its readers are told 403, others 404
  kCreate,  // needs the role member, but no object
  kOfOwn,   // the project's readers; others are told 403: that there is a project is no secret
};

struct Row {
  Rule rule;
  int status = 200;  // for one who may
  std::string body;
};

using Rows = std::map<std::string, Row>;
Rows AllRows() {
  Rows rows = {
      {"GET /", {Rule::kOpen, 300}},
      {"GET /v3/", {Rule::kOpen}},
      {"GET /types", {Rule::kAnybody}},
      {"GET /types/{type_id}", {Rule::kAnybody}},
      {"POST /types", {Rule::kAdmin, 200, R"({"volume_type": {"name": "new"}})"}},
      {"PUT /types/{type_id}", {Rule::kAdmin, 200, R"({"volume_type": {"name": "new"}})"}},
      {"DELETE /types/{type_id}", {Rule::kAdmin, 202}},
      {"GET /types/{type_id}/os-volume-type-access", {Rule::kAdmin, 404}},
      {"POST /types/{type_id}/action",
       {Rule::kAdmin, 400, R"({"addProjectAccess": {"project": "p"}})"}},
      {"GET /types/{type_id}/extra_specs", {Rule::kAnybody}},
      {"POST /types/{type_id}/extra_specs", {Rule::kAdmin, 200, R"({"extra_specs": {"a": "b"}})"}},
      {"GET /types/{type_id}/extra_specs/{key}", {Rule::kAnybody}},
      {"PUT /types/{type_id}/extra_specs/{key}",
       {Rule::kAdmin, 200, R"({"multiattach": "<is> False"})"}},
      {"DELETE /types/{type_id}/extra_specs/{key}", {Rule::kAdmin, 202}},
      {"GET /types/{type_id}/encryption", {Rule::kAdmin}},
      {"POST /types/{type_id}/encryption", {Rule::kAdmin, 400}},
      {"GET /types/{type_id}/encryption/{key}", {Rule::kAdmin, 404}},
      {"PUT /types/{type_id}/encryption/{key}", {Rule::kAdmin, 404}},
      {"DELETE /types/{type_id}/encryption/{key}", {Rule::kAdmin, 404}},
      {"GET /default-types", {Rule::kAdmin}},
      {"GET /default-types/{of_project_id}", {Rule::kAdmin}},
      {"PUT /default-types/{of_project_id}",
       {Rule::kAdmin, 200, R"({"default_type": {"volume_type": "fast"}})"}},
      {"DELETE /default-types/{of_project_id}", {Rule::kAdmin, 204}},
      {"GET /qos-specs", {Rule::kAdmin}},
      {"POST /qos-specs", {Rule::kAdmin, 200, R"({"qos_specs": {"name": "new"}})"}},
      {"GET /qos-specs/{qos_id}", {Rule::kAdmin}},
      {"PUT /qos-specs/{qos_id}", {Rule::kAdmin, 200, R"({"qos_specs": {"a": "b"}})"}},
      {"DELETE /qos-specs/{qos_id}", {Rule::kAdmin, 202}},
      {"PUT /qos-specs/{qos_id}/delete_keys", {Rule::kAdmin, 202, R"({"keys": []})"}},
      {"GET /qos-specs/{qos_id}/associations", {Rule::kAdmin}},
      {"GET /qos-specs/{qos_id}/associate", {Rule::kAdmin, 202}},
      {"GET /qos-specs/{qos_id}/disassociate", {Rule::kAdmin, 202}},
      {"GET /qos-specs/{qos_id}/disassociate_all", {Rule::kAdmin, 202}},
      {"GET /os-quota-sets/{target_id}", {Rule::kOfOwn}},
      {"PUT /os-quota-sets/{target_id}", {Rule::kAdmin, 200, R"({"quota_set": {}})"}},
      {"DELETE /os-quota-sets/{target_id}", {Rule::kAdmin}},
      {"GET /os-quota-sets/{target_id}/defaults", {Rule::kOfOwn}},
      {"GET /os-quota-class-sets/{class_name}", {Rule::kAdmin}},
      {"PUT /os-quota-class-sets/{class_name}", {Rule::kAdmin, 200, R"({"quota_class_set": {}})"}},
      {"GET /limits", {Rule::kAnybody}},
      {"GET /volumes/summary", {Rule::kAnybody}},
      {"GET /messages", {Rule::kAnybody}},
      {"GET /messages/{message_id}", {Rule::kRead}},
      {"DELETE /messages/{message_id}", {Rule::kWrite, 204}},
      {"GET /os-services", {Rule::kAdmin}},
      {"PUT /os-services/{action}",
       {Rule::kAdmin, 200, R"({"binary": "cinder-volume", "host": "quarry@store"})"}},
      {"GET /os-hosts", {Rule::kAdmin}},
      {"GET /os-hosts/{host}", {Rule::kAdmin}},
      {"GET /os-availability-zone", {Rule::kAnybody}},
      {"GET /scheduler-stats/get_pools", {Rule::kAdmin}},
      {"GET /capabilities/{host}", {Rule::kAdmin}},
      {"GET /extensions", {Rule::kAnybody}},
      {"GET /extensions/{alias}", {Rule::kAnybody}},
      {"GET /resource_filters", {Rule::kAnybody}},
      {"GET /clusters", {Rule::kAdmin}},
      {"GET /clusters/detail", {Rule::kAdmin}},
      {"GET /clusters/{id}", {Rule::kAdmin, 404}},
  };
  for (const std::string kind : {"group_types", "groups", "group_snapshots"}) {
    rows["GET /" + kind] = {Rule::kAnybody};
    rows["POST /" + kind] = {Rule::kAnybody, 400};
    if (kind != "group_types") rows["GET /" + kind + "/detail"] = {Rule::kAnybody};
    rows["GET /" + kind + "/{id}"] = {Rule::kAnybody, 404};
  }
  rows["POST /groups/action"] = {Rule::kAnybody, 400};
  for (const std::string name : {"os-volume-transfer", "volume-transfers"}) {
    rows["GET /" + name] = {Rule::kAnybody};
    rows["GET /" + name + "/detail"] = {Rule::kAnybody};
    rows["POST /" + name] = {Rule::kCreate, 202, R"({"transfer": {"volume_id": "{volume}"}})"};
    rows["GET /" + name + "/{transfer_id}"] = {Rule::kRead};
    rows["DELETE /" + name + "/{transfer_id}"] = {Rule::kWrite, 202};
    // Whoever has the key may take it.
    rows["POST /" + name + "/{transfer_id}/accept"] = {Rule::kCreate, 202,
                                                       R"({"accept": {"auth_key": "{auth_key}"}})"};
  }
  return rows;
}

// A fresh world for each request, since some of them take the object away.
class AccessWorld {
 public:
  AccessWorld() {
    EXPECT_OK(types_.Start());
    FillTypes();
    const CallerPtr me = MemberOf();
    const std::string offered = api_.AddVolume(kMyProject, 1, standard_).id;
    const auto offer = transfers_.Create(*me, offered, "", false);
    ids_["{transfer_id}"] = offer->transfer.id;
    ids_["{auth_key}"] = offer->auth_key;
    MessageRecord message;
    message.project_id = std::string(kMyProject);
    EXPECT_OK(api_.catalog.Transact([&](Transaction& transaction) -> base::Result<void> {
      ASSIGN_OR_RETURN(message, messages_.Add(transaction, message));
      return {};
    }));
    ids_["{message_id}"] = message.id;
    ids_["{target_id}"] = std::string(kMyProject);
    ids_["{class_name}"] = "default";
    ids_["{host}"] = "quarry@store";
    ids_["{action}"] = "enable";
    ids_["{alias}"] = "os-hosts";
    ids_["{id}"] = "x";
    Mount();
  }

  int Status(const CallerPtr& caller, const base::http::Route& route, std::string_view below,
             std::string body) {
    // Each offers a volume of its own.
    if (caller != nullptr && body.find("{volume}") != std::string::npos)
      ids_["{volume}"] = api_.AddVolume(caller->project_id, 1, standard_).id;
    std::string target(below);
    for (const auto& [name, id] : ids_)
      for (std::string* text : {&target, &body})
        if (const size_t at = text->find(name); at != std::string::npos)
          text->replace(at, name.size(), id);
    if (route.pattern.ends_with("ssociate")) target += "?vol_type_id=" + ids_["{type_id}"];
    if (route.access == Access::kPublic)
      return api_.CallAt(caller, route.method, target, body, {}).status;
    return api_.Call(caller, route.method, target, body, api::kNewestMinor).status;
  }
  const std::vector<base::http::Route>& routes() { return api_.router().services()[0]->routes; }

 private:
  void FillTypes() {
    standard_ = types_.GetByName(types::kDefaultTypeName)->id;
    types::VolumeType type;
    type.name = "fast";
    type.extra_specs = {{"multiattach", "<is> True"}};
    ids_["{type_id}"] = types_.Create(type)->id;
    ids_["{key}"] = "multiattach";
    type.name = "of-project";
    EXPECT_OK(types_.Create(type));
    EXPECT_OK(types_.SetDefault(kMyProject, "of-project"));
    ids_["{of_project_id}"] = std::string(kMyProject);
    types::QosSpec spec;
    spec.name = "gold";
    ids_["{qos_id}"] = types_.CreateQos(spec)->id;
  }
  void Mount() {
    std::vector<api::Route> routes;
    types::AppendRoutes({api_.catalog, types_, api_.exports}, &routes);
    AppendRoutes({api_.catalog, types_, messages_, transfers_}, &routes);
    discovery::AppendServiceRoutes({options_, api_.catalog, nullptr}, &routes);
    discovery::AppendListRoutes(&routes);
    std::vector<base::http::Route> bound;
    discovery::AppendVersionRoutes("/volume", &bound);
    api::AppendRoutes("/volume", routes, &bound);
    api_.Mount(std::move(bound));
  }

  const ServiceOptions options_;
  Harness api_;
  types::TypeStore types_{api_.catalog};
  Messages messages_{api_.catalog};
  Transfers transfers_{api_.catalog, types_};
  std::string standard_;
  std::map<std::string, std::string> ids_;
};

// "/v3/{project_id}/types" is "/types".
std::string BelowProject(const std::string& pattern) {
  for (const std::string prefix : {"/v3/{project_id}/", "/v3/"})
    if (pattern.starts_with(prefix) && pattern != prefix) return pattern.substr(prefix.size() - 1);
  return pattern;
}

void CheckRoute(const base::http::Route& route, const std::string& below, const Row& row) {
  const auto status = [&](const CallerPtr& caller) {
    AccessWorld world;
    return world.Status(caller, route, below, row.body);
  };
  const int none = status(nullptr);
  if (row.rule == Rule::kOpen) {
    EXPECT_EQ(route.access, Access::kPublic);
    EXPECT_EQ(none, row.status);
    return;
  }
  EXPECT_EQ(none, 401);
  const int reader = status(Reader());
  const int member = status(MemberOf());
  const int stranger = status(MemberOf(kYourProject));
  const int admin = status(Admin());
  EXPECT_EQ(admin, row.status);
  switch (row.rule) {
    case Rule::kOpen:
      break;
    case Rule::kAnybody:
      for (const int other : {reader, member, stranger}) EXPECT_EQ(other, row.status);
      break;
    case Rule::kAdmin:
      EXPECT_EQ(route.access, Access::kAdmin);
      for (const int other : {reader, member, stranger}) EXPECT_EQ(other, 403);
      break;
    case Rule::kRead:
      for (const int other : {reader, member}) EXPECT_EQ(other, row.status);
      EXPECT_EQ(stranger, 404);
      break;
    case Rule::kWrite:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, row.status);
      EXPECT_EQ(stranger, 404);
      break;
    case Rule::kCreate:
      EXPECT_EQ(reader, 403);
      for (const int other : {member, stranger}) EXPECT_EQ(other, row.status);
      break;
    case Rule::kOfOwn:
      for (const int other : {reader, member}) EXPECT_EQ(other, row.status);
      EXPECT_EQ(stranger, 403);
      break;
  }
}

TEST(AccessTest, EveryRouteHasARowAndKeepsIt) {
  const Rows rows = AllRows();
  AccessWorld world;
  std::map<std::string, int> checked;
  for (const base::http::Route& route : world.routes()) {
    const std::string below = BelowProject(route.pattern);
    const std::string name = route.method + " " + below;
    SCOPED_TRACE(name);
    const auto row = rows.find(name);
    if (row == rows.end()) {
      ADD_FAILURE() << "a route without a row: say who may call it";
      continue;
    }
    if (++checked[name] == 1) CheckRoute(route, below, row->second);
  }
  EXPECT_EQ(checked.size(), rows.size()) << "a row without a route";
}

}  // namespace
}  // namespace blockd::tenancy
