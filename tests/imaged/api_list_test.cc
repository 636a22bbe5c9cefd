#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/imaged/api.h"

namespace imaged {
namespace {

using base::Json;
using base::http::Response;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// --- lists ---

TEST_F(ApiTest, ListHasLinks) {
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    api_.clock().AdvanceUs(10);
    ids.push_back(api_.CreateImage(me_, R"({"name": "a b"})"));
  }
  const Response all = api_.Call(me_, "GET", "/v2/images");
  EXPECT_THAT(IdsIn(all), ElementsAre(ids[2], ids[1], ids[0]));
  EXPECT_EQ(Field(all, "first"), "/v2/images");
  EXPECT_EQ(Field(all, "schema"), "/v2/schemas/images");
  EXPECT_EQ(Field(all, "next"), "");

  const Response page = api_.Call(me_, "GET", "/v2/images?limit=2&sort=name:asc&name=a+b");
  EXPECT_THAT(IdsIn(page), ElementsAre(ids[0], ids[1]));
  EXPECT_EQ(Field(page, "first"), "/v2/images?limit=2&sort=name%3Aasc&name=a+b");
  EXPECT_EQ(Field(page, "next"), "/v2/images?limit=2&sort=name%3Aasc&name=a+b&marker=" + ids[1]);
  EXPECT_THAT(IdsIn(api_.Call(me_, "GET", Field(page, "next"))), ElementsAre(ids[2]));
  EXPECT_THAT(IdsIn(api_.Call(me_, "GET", "/v2/images?limit=0")), IsEmpty());
}

TEST_F(ApiTest, ListFilters) {
  auto create = [&](const char* body) {
    api_.clock().AdvanceUs(base::kSecondUs);
    return api_.CreateImage(me_, body);
  };
  const std::string a =
      create(R"({"name": "a", "disk_format": "raw", "tags": ["x", "y"], "os": "debian"})");
  const std::string b = create(R"({"name": "b,c", "disk_format": "qcow2", "tags": ["x"]})");
  const std::string hidden = create(R"({"name": "h", "os_hidden": true, "protected": true})");
  api_.Activate(a, "0123456789");
  auto list = [&](const std::string& query) {
    return IdsIn(api_.Call(me_, "GET", "/v2/images?sort=name:asc&" + query));
  };
  EXPECT_THAT(list("name=a"), ElementsAre(a));
  EXPECT_THAT(list("name=in:a,%22b,c%22"), ElementsAre(a, b));
  EXPECT_THAT(list("status=queued"), ElementsAre(b));
  EXPECT_THAT(list("status=in:queued,active"), ElementsAre(a, b));
  EXPECT_THAT(list("disk_format=in:raw,iso"), ElementsAre(a));
  EXPECT_THAT(list("id=" + b), ElementsAre(b));
  EXPECT_THAT(list("tag=x&tag=y"), ElementsAre(a));
  EXPECT_THAT(list("os=debian"), ElementsAre(a));
  EXPECT_THAT(list("owner=me"), ElementsAre(a, b));
  EXPECT_THAT(list("owner=you"), IsEmpty());
  EXPECT_THAT(list("size_min=10&size_max=10"), ElementsAre(a));
  EXPECT_THAT(list("size_min=11"), IsEmpty());
  EXPECT_THAT(list("size=10"), ElementsAre(a));
  EXPECT_THAT(list("os_hidden=true"), ElementsAre(hidden));
  EXPECT_THAT(list("protected=true"), IsEmpty()) << "hidden";
  EXPECT_THAT(list("checksum=2095312189753de6ad47dfe20cbe97ec"), ElementsAre(a));
  const std::string made = Field(api_.Call(me_, "GET", PathOf(b)), "created_at");
  EXPECT_THAT(list("created_at=lt:" + made), ElementsAre(a));
  EXPECT_THAT(list("created_at=gte:" + made), ElementsAre(b));
  EXPECT_THAT(list("created_at=" + made), ElementsAre(b));
  EXPECT_THAT(list("visibility=private"), IsEmpty());
}

TEST_F(ApiTest, BadListRequests) {
  const std::pair<const char*, const char*> kBad[] = {
      {"limit=x", "limit param must be an integer"},
      {"limit=-1", "limit param must be positive"},
      {"marker=x", "No image found with ID x"},
      {"sort=zz:asc",
       "Invalid sort key: zz. It must be one of the following: name, status, container_format, "
       "disk_format, size, id, created_at, updated_at."},
      {"sort=name:up", "Invalid sort direction: up"},
      {"sort=name&sort_key=name", "Old and new sorting syntax cannot be combined"},
      {"sort_key=name&sort_dir=asc&sort_dir=desc",
       "Number of sort dirs does not match the number of sort keys"},
      {"visibility=zz", "Invalid visibility value: zz"},
      {"member_status=zz", "Invalid status: zz"},
      {"os_hidden=zz", "Invalid value 'zz' for 'os_hidden' filter"},
      {"protected=zz", "Invalid value 'zz' for 'protected' filter"},
      {"size_min=zz", "non-numeric"},
      {"created_at=gt:zz", "ISO 8601"},
      {"name=in:%22a", "quote"},
      {"name=gt:a", "unknown operator"},
      {"changes-since=1", "no longer available"}};
  for (const auto& [query, message] : kBad) {
    const Response refused = api_.Call(me_, "GET", std::string("/v2/images?") + query);
    EXPECT_EQ(refused.status, 400) << query;
    EXPECT_THAT(refused.body, HasSubstr(message)) << query;
  }
}

TEST_F(ApiTest, AMarkerOfAnotherProjectIsNone) {
  const std::string theirs = api_.CreateImage(you_, R"({"visibility": "private"})");
  EXPECT_EQ(api_.Call(me_, "GET", "/v2/images?marker=" + theirs).status, 400);
}

// --- metadata definitions ---

TEST_F(ApiTest, MetadefNamespaceLife) {
  const std::string root = "/v2/metadefs/namespaces";
  const Response created =
      api_.Call(admin_, "POST", root,
                R"({"namespace": "n1", "visibility": "public", "protected": true,
                                         "resource_type_associations": [{"name": "OS::Nova::Server"}]})");
  ASSERT_EQ(created.status, 201) << created.body;
  EXPECT_EQ(created.headers.Get("Location"),
            "http://127.0.0.1:9292/image/v2/metadefs/namespaces/n1");
  EXPECT_EQ(api_.Call(admin_, "POST", root, R"({"namespace": "n1"})").status, 409);
  EXPECT_EQ(Field(api_.Call(me_, "GET", root + "/n1"), "visibility"), "public");
  EXPECT_EQ(api_.Call(admin_, "DELETE", root + "/n1").status, 403);
  const Response updated =
      api_.Call(admin_, "PUT", root + "/n1",
                R"({"namespace": "n2", "visibility": "private", "protected": false})");
  EXPECT_EQ(updated.status, 200) << updated.body;
  EXPECT_EQ(Field(updated, "namespace"), "n2");
  EXPECT_EQ(api_.Call(me_, "GET", root + "/n2").status, 404) << "private";
  EXPECT_EQ(api_.Call(admin_, "DELETE", root + "/n2").status, 204);
  const Response gone = api_.Call(admin_, "GET", root + "/n2");
  EXPECT_EQ(gone.status, 404);
  EXPECT_THAT(gone.body, HasSubstr("Metadata definition namespace=n2 was not found."));
}

TEST_F(ApiTest, MetadefItems) {
  const std::string n = "/v2/metadefs/namespaces/n";
  api_.Call(admin_, "POST", "/v2/metadefs/namespaces", R"({"namespace": "n"})");
  struct Step {
    const char* method;
    std::string path;
    const char* body;
    int status;
  };
  const Step kSteps[] = {
      {"POST", n + "/objects", R"({"name": "o"})", 201},
      {"POST", n + "/objects", R"({"name": "o"})", 409},
      {"POST", n + "/objects", R"({"name": "o2", "odd": 1})", 400},
      {"POST", n + "/objects", "{}", 400},
      {"PUT", n + "/objects/o", R"({"name": "p"})", 200},
      {"GET", n + "/objects/o", "", 404},
      {"GET", n + "/objects/p", "", 200},
      {"DELETE", n + "/objects/p", "", 204},
      {"DELETE", n + "/objects/p", "", 404},
      {"POST", n + "/properties", R"({"name": "q", "title": "t", "type": "string", "enum": ["a"]})",
       201},
      {"POST", n + "/properties", R"({"name": "r"})", 400},
      {"PUT", n + "/properties/q", R"({"name": "q", "title": "u", "type": "string"})", 200},
      {"GET", n + "/properties", "", 200},
      {"DELETE", n + "/properties/q", "", 204},
      {"POST", n + "/tags", R"({"tags": [{"name": "x"}, {"name": "y"}]})", 201},
      {"POST", n + "/tags/z", "", 201},
      {"PUT", n + "/tags/z", R"({"name": "w"})", 200},
      {"GET", n + "/tags/w", "", 200},
      {"DELETE", n + "/tags/w", "", 204},
      {"DELETE", n + "/tags", "", 204},
      {"POST", n + "/resource_types", R"({"name": "OS::Nova::Server"})", 201},
      {"GET", n + "/resource_types", "", 200},
      {"DELETE", n + "/resource_types/OS::Nova::Server", "", 204},
      {"GET", "/v2/metadefs/resource_types", "", 200},
  };
  for (const Step& step : kSteps) {
    const Response response = api_.Call(admin_, step.method, step.path, step.body);
    EXPECT_EQ(response.status, step.status) << step.method << step.path << response.body;
  }
  EXPECT_EQ(api_.Call(admin_, "GET", n + "/tags").body, R"({"tags":[]})");
}

TEST_F(ApiTest, MetadefsNestedTooDeeplyAreRefusedNotBroken) {
  api_.Call(admin_, "POST", "/v2/metadefs/namespaces", R"({"namespace": "n"})");
  std::string deep = R"({"name": "o", "properties": {"p": )";
  for (int i = 0; i < 30; ++i) deep += "[";
  for (int i = 0; i < 30; ++i) deep += "]";
  deep += "}}";
  EXPECT_EQ(api_.Call(admin_, "POST", "/v2/metadefs/namespaces/n/objects", deep).status, 400);
  EXPECT_EQ(api_.Call(admin_, "GET", "/v2/metadefs/namespaces/n").status, 200);
}

}  // namespace
}  // namespace imaged
