#include <map>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "base/async/pool.h"
#include "base/metrics.h"
#include "chunkstore/memory/memory_blob_store.h"
#include "imaged/chunk_wire.h"
#include "imaged/data_path.h"
#include "tests/imaged/api.h"
#include "tests/support/results.h"

// Every route of the service against every kind of caller: no token 401, the wrong role 403,
// another project's object 404. A route without a row fails the test.

namespace imaged {
namespace {

using base::http::Access;

enum class Rule {
  kOpen,         // no token needed
  kAnybody,      // any token
  kRead,         // reads a private image: the project's readers; others are told 404
  kWrite,        // changes a private image: the project's members; others are told 404
  kMemberList,   // reads the members of a shared image
  kMemberWrite,  // changes the members of a shared image
  kCreate,       // needs the role member, but no object
  kAdminOnly,
  kNobody,
};

struct Row {
  Rule rule;
  int status;        // for one who may
  std::string body;  // of a request that succeeds
};

// {image} is a private image of "me", {shared} a shared one with the member "guest", {ns} a
// namespace.
using Rows = std::map<std::string, Row>;
const Rows& AllRows() {
  static const Rows* const rows = new Rows{
      {"GET /", {Rule::kOpen, 300, ""}},
      {"GET /versions/", {Rule::kOpen, 200, ""}},
      {"GET /v2/", {Rule::kOpen, 300, ""}},
      {"GET /v2/schemas/{name}", {Rule::kAnybody, 200, ""}},
      {"GET /v2/schemas/metadefs/{name}", {Rule::kAnybody, 200, ""}},
      {"GET /v2/info/import", {Rule::kAnybody, 200, ""}},
      {"GET /v2/info/stores", {Rule::kAnybody, 200, ""}},
      {"GET /v2/info/stores/detail", {Rule::kAdminOnly, 200, ""}},
      {"GET /v2/info/usage", {Rule::kAnybody, 200, ""}},
      {"GET /v2/images", {Rule::kAnybody, 200, ""}},
      {"POST /v2/images", {Rule::kCreate, 201, "{}"}},
      {"GET /v2/images/{image_id}", {Rule::kRead, 200, ""}},
      {"PATCH /v2/images/{image_id}", {Rule::kWrite, 200, "[]"}},
      {"DELETE /v2/images/{image_id}", {Rule::kWrite, 204, ""}},
      {"PUT /v2/images/{image_id}/tags/{tag}", {Rule::kWrite, 204, ""}},
      {"DELETE /v2/images/{image_id}/tags/{tag}", {Rule::kWrite, 204, ""}},
      {"POST /v2/images/{image_id}/actions/deactivate", {Rule::kWrite, 204, ""}},
      {"POST /v2/images/{image_id}/actions/reactivate", {Rule::kWrite, 204, ""}},
      {"GET /v2/images/{image_id}/members", {Rule::kMemberList, 200, ""}},
      {"POST /v2/images/{image_id}/members", {Rule::kMemberWrite, 200, R"({"member": "new"})"}},
      {"GET /v2/images/{image_id}/members/{member_id}", {Rule::kMemberList, 200, ""}},
      {"PUT /v2/images/{image_id}/members/{member_id}",
       {Rule::kMemberWrite, 403, R"({"status": "accepted"})"}},
      {"DELETE /v2/images/{image_id}/members/{member_id}", {Rule::kMemberWrite, 204, ""}},
      {"GET /v2/images/{image_id}/file", {Rule::kRead, 204, ""}},
      {"PUT /v2/images/{image_id}/file", {Rule::kWrite, 204, "bytes"}},
      {"PUT /v2/images/{image_id}/stage", {Rule::kWrite, 204, "bytes"}},
      {"POST /v2/images/{image_id}/import",
       {Rule::kWrite, 202, R"({"method": {"name": "glance-direct"}})"}},
      {"POST /v2/quarry/images/{image_id}/wanted",
       {Rule::kWrite, 200, EncodeChunkList({.size_bytes = 0})}},
      {"GET /v2/quarry/images/{image_id}/chunks", {Rule::kRead, 204, ""}},
      {"POST /v2/quarry/images/{image_id}/chunks", {Rule::kRead, 204, R"({"wanted": []})"}},
      {"POST /v2/quarry/images/{image_id}/blocks", {Rule::kRead, 204, ""}},
      {"GET /v2/quarry/images/{image_id}/trace", {Rule::kRead, 404, ""}},
      {"PUT /v2/quarry/images/{image_id}/trace", {Rule::kWrite, 415, "bytes"}},
      {"DELETE /v2/quarry/images/{image_id}/trace", {Rule::kWrite, 204, ""}},
      {"GET /v2/images/{image_id}/tasks", {Rule::kRead, 200, ""}},
      {"GET /v2/tasks", {Rule::kAnybody, 200, ""}},
      {"GET /v2/tasks/{task_id}", {Rule::kRead, 200, ""}},
      {"POST /v2/tasks", {Rule::kNobody, 403, "{}"}},
      {"GET /v2/metadefs/resource_types", {Rule::kAnybody, 200, ""}},
      {"GET /v2/metadefs/namespaces", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces", {Rule::kAdminOnly, 201, R"({"namespace": "new"})"}},
      {"GET /v2/metadefs/namespaces/{namespace}", {Rule::kAnybody, 200, ""}},
      {"PUT /v2/metadefs/namespaces/{namespace}", {Rule::kAdminOnly, 200, "{}"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/objects", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces/{namespace}/objects",
       {Rule::kAdminOnly, 201, R"({"name": "new"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/objects", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/objects/{name}", {Rule::kAnybody, 200, ""}},
      {"PUT /v2/metadefs/namespaces/{namespace}/objects/{name}",
       {Rule::kAdminOnly, 200, R"({"name": "item"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/objects/{name}", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/properties", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces/{namespace}/properties",
       {Rule::kAdminOnly, 201, R"({"name": "new", "title": "t", "type": "string"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/properties", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/properties/{name}", {Rule::kAnybody, 200, ""}},
      {"PUT /v2/metadefs/namespaces/{namespace}/properties/{name}",
       {Rule::kAdminOnly, 200, R"({"name": "item", "title": "t", "type": "string"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/properties/{name}", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/tags", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces/{namespace}/tags",
       {Rule::kAdminOnly, 201, R"({"tags": [{"name": "new"}]})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/tags", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/tags/{name}", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces/{namespace}/tags/{name}", {Rule::kAdminOnly, 409, ""}},
      {"PUT /v2/metadefs/namespaces/{namespace}/tags/{name}",
       {Rule::kAdminOnly, 200, R"({"name": "item"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/tags/{name}", {Rule::kAdminOnly, 204, ""}},
      {"GET /v2/metadefs/namespaces/{namespace}/resource_types", {Rule::kAnybody, 200, ""}},
      {"POST /v2/metadefs/namespaces/{namespace}/resource_types",
       {Rule::kAdminOnly, 201, R"({"name": "new"})"}},
      {"DELETE /v2/metadefs/namespaces/{namespace}/resource_types/{name}",
       {Rule::kAdminOnly, 204, ""}},
  };
  return *rows;
}

// The data path over stores in memory.
class Bytes {
 public:
  std::vector<base::http::Route> Start(chunkstore::MetaStore& meta, Catalog& catalog) {
    store_ = *chunkstore::ChunkStore::Open({}, blobs_, meta, base::SystemClock(), metrics_);
    path_ = std::make_unique<DataPath>(DataOptions(), *store_, meta, catalog, pool_,
                                       base::SystemClock(), metrics_);
    EXPECT_OK(path_->Start());
    return path_->Routes();
  }
  // Before the catalog goes.
  void Stop() {
    path_.reset();
    store_.reset();
  }

 private:
  chunkstore::MemoryBlobStore blobs_;
  base::Metrics metrics_;
  base::async::Pool pool_{"test", 2, 64};
  std::unique_ptr<chunkstore::ChunkStore> store_;
  std::unique_ptr<DataPath> path_;
};

// A fresh world for each request, since some of them take the object away.
class World {
 public:
  World()
      : api({}, [this](chunkstore::MetaStore& meta, Catalog& catalog) {
          return bytes_.Start(meta, catalog);
        }) {
    const auto me = MemberOf("me");
    const std::string formats = R"("disk_format": "raw", "container_format": "bare")";
    image_ = api.CreateImage(me, R"({"visibility": "private", "tags": ["tag"]})");
    api.Activate(image_);
    queued_ = api.CreateImage(me, R"({"visibility": "private", )" + formats + "}");
    staged_ = api.CreateImage(me, R"({"visibility": "private", )" + formats + "}");
    api.Call(me, "PUT", "/v2/images/" + staged_ + "/stage", "bytes", kOctets);
    const std::string imported = api.CreateImage(me, "{" + formats + "}");
    api.Call(me, "PUT", "/v2/images/" + imported + "/stage", "bytes", kOctets);
    api.Call(me, "POST", "/v2/images/" + imported + "/import",
             R"({"method": {"name": "glance-direct"}})");
    const base::Json tasks = BodyOf(api.Call(me, "GET", "/v2/images/" + imported + "/tasks"));
    task_ = *base::FindString(tasks.at("tasks").at(0), "id");
    shared_ = api.CreateImage(me);
    api.Call(me, "POST", "/v2/images/" + shared_ + "/members", R"({"member": "guest"})");
    const std::string n = "/v2/metadefs/namespaces";
    api.Call(Admin(), "POST", n, R"({"namespace": "ns", "visibility": "public"})");
    api.Call(Admin(), "POST", n + "/ns/objects", R"({"name": "item"})");
    api.Call(Admin(), "POST", n + "/ns/properties",
             R"({"name": "item", "title": "t", "type": "string"})");
    api.Call(Admin(), "POST", n + "/ns/tags/item");
    api.Call(Admin(), "POST", n + "/ns/resource_types", R"({"name": "item"})");
  }

  ~World() { bytes_.Stop(); }

  std::string PathOf(const base::http::Route& route) const {
    auto has = [&](std::string_view part) { return route.pattern.find(part) != std::string::npos; };
    const std::string& id = has("/members")                 ? shared_
                            : has("/import")                ? staged_
                            : has("/file") || has("/stage") ? queued_
                            : has("/wanted")                ? queued_
                            : has("/chunks")                ? queued_
                            : has("/blocks")                ? queued_
                            : has("/trace")                 ? queued_
                                                            : image_;
    std::string path = route.pattern;
    const bool schema = path.find("/schemas/") != std::string::npos;
    const bool metadef_schema = path.find("/schemas/metadefs") != std::string::npos;
    Replace(&path, "{image_id}", id);
    Replace(&path, "{task_id}", task_);
    Replace(&path, "{member_id}", "guest");
    Replace(&path, "{tag}", "tag");
    Replace(&path, "{namespace}", "ns");
    Replace(&path, "{name}", metadef_schema ? "tag" : schema ? "image" : "item");
    return path;
  }

  int Status(std::shared_ptr<const base::auth::Caller> caller, const base::http::Route& route,
             const std::string& body) {
    const Api::HeaderList patch = {
        {"Content-Type", "application/openstack-images-v2.1-json-patch"}};
    const Api::HeaderList list = {{"Content-Type", std::string(kChunkListType)}};
    const bool lists = route.pattern.ends_with("/wanted");
    return api
        .Call(std::move(caller), route.method, PathOf(route), body,
              route.method == "PATCH" ? patch
              : lists                 ? list
                                      : kOctets)
        .status;
  }

 private:
  Bytes bytes_;

 public:
  Api api;

 private:
  static inline const Api::HeaderList kOctets = {{"Content-Type", "application/octet-stream"}};

  static void Replace(std::string* path, const std::string& what, const std::string& with) {
    const size_t at = path->find(what);
    if (at != std::string::npos) path->replace(at, what.size(), with);
  }

  std::string image_;
  std::string shared_;
  std::string queued_;
  std::string staged_;
  std::string task_;
};

int StatusFor(std::shared_ptr<const base::auth::Caller> caller, const base::http::Route& route,
              const std::string& body) {
  World world;
  return world.Status(std::move(caller), route, body);
}

void CheckRoute(const base::http::Route& route, const Row& row) {
  const int none = StatusFor(nullptr, route, row.body);
  const int reader = StatusFor(Reader("me"), route, row.body);
  const int member = StatusFor(MemberOf("me"), route, row.body);
  const int stranger = StatusFor(MemberOf("you"), route, row.body);
  const int admin = StatusFor(Admin(), route, row.body);
  if (row.rule == Rule::kOpen) {
    EXPECT_EQ(route.access, Access::kPublic);
    EXPECT_EQ(none, row.status);
    return;
  }
  EXPECT_EQ(none, 401);
  switch (row.rule) {
    case Rule::kOpen:
    case Rule::kAnybody:
      EXPECT_EQ(reader, row.status);
      EXPECT_EQ(stranger, row.status);
      break;
    case Rule::kRead:
    case Rule::kMemberList:
      EXPECT_EQ(reader, row.status);
      EXPECT_EQ(member, row.status);
      EXPECT_EQ(stranger, 404);
      EXPECT_EQ(admin, row.status);
      break;
    case Rule::kWrite:
    case Rule::kMemberWrite:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, row.status);
      EXPECT_EQ(stranger, 404);
      EXPECT_TRUE(admin < 300 || admin == member) << admin;
      break;
    case Rule::kCreate:
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, row.status);
      EXPECT_EQ(admin, row.status);
      break;
    case Rule::kNobody:
      for (int status : {reader, member, stranger, admin}) EXPECT_EQ(status, row.status);
      break;
    case Rule::kAdminOnly:
      EXPECT_EQ(route.access, Access::kAdmin);
      EXPECT_EQ(reader, 403);
      EXPECT_EQ(member, 403);
      EXPECT_EQ(admin, row.status);
      break;
  }
}

TEST(AccessTest, EveryRouteHasARowAndKeepsIt) {
  World world;
  size_t checked = 0;
  for (const base::http::Route& route : world.api.router().services()[0]->routes) {
    const std::string name = route.method + " " + route.pattern;
    SCOPED_TRACE(name);
    const auto row = AllRows().find(name);
    if (row == AllRows().end()) {
      ADD_FAILURE() << "a route without a row: say who may call it";
      continue;
    }
    CheckRoute(route, row->second);
    ++checked;
  }
  EXPECT_EQ(checked, AllRows().size()) << "a row without a route";
}

}  // namespace
}  // namespace imaged
