#include "tests/imaged/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/uuid.h"
#include "imaged/attributes.h"

namespace imaged {
namespace {

using base::Json;
using base::http::Response;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// --- discovery ---

TEST_F(ApiTest, VersionsArePublic) {
  const Response root = api_.Call(nullptr, "GET", "/");
  EXPECT_EQ(root.status, 300);
  const Json body = BodyOf(root);
  const Json& newest = body.at("versions").at(0);
  EXPECT_EQ(newest.at("id"), "v2.15");
  EXPECT_EQ(newest.at("status"), "CURRENT");
  EXPECT_EQ(newest.at("links").at(0).at("href"), "http://127.0.0.1:9292/image/v2/");
  EXPECT_EQ(api_.Call(nullptr, "GET", "/versions").status, 200);
  const Response two = api_.Call(nullptr, "GET", "/v2");
  EXPECT_EQ(two.status, 302);
  EXPECT_EQ(two.headers.Get("Location"), "http://127.0.0.1:9292/image/v2/");
  EXPECT_EQ(api_.Call(nullptr, "GET", "/v2/").status, 300);
}

TEST_F(ApiTest, SchemasParseAndNameThemselves) {
  const std::pair<const char*, const char*> kNames[] = {
      {"image", "image"},
      {"images", "images"},
      {"member", "member"},
      {"members", "members"},
      {"task", "task"},
      {"tasks", "tasks"},
      {"metadefs/namespace", "namespace"},
      {"metadefs/namespaces", "namespaces"},
      {"metadefs/object", "object"},
      {"metadefs/objects", "objects"},
      {"metadefs/property", "property"},
      {"metadefs/properties", "properties"},
      {"metadefs/resource_type", "resource_type_association"},
      {"metadefs/resource_types", "resource_type_associations"},
      {"metadefs/tag", "tag"},
      {"metadefs/tags", "tags"}};
  for (const auto& [path, name] : kNames) {
    const Response response = api_.Call(me_, "GET", std::string("/v2/schemas/") + path);
    EXPECT_EQ(response.status, 200) << path;
    EXPECT_EQ(Field(response, "name"), name) << path;
    EXPECT_EQ(response.body.find('@'), std::string::npos) << "a placeholder stayed in " << path;
  }
  EXPECT_EQ(api_.Call(me_, "GET", "/v2/schemas/nothing").status, 404);
}

TEST_F(ApiTest, Info) {
  EXPECT_EQ(BodyOf(api_.Call(me_, "GET", "/v2/info/import")).at("import-methods").at("value"),
            base::ParseJson(R"(["glance-direct", "web-download"])").value());
  EXPECT_EQ(
      BodyOf(api_.Call(me_, "GET", "/v2/info/stores")),
      base::ParseJson(
          R"({"stores": [{"id": "s1", "default": "true"}, {"id": "s2", "description": "second"}]})")
          .value());
  EXPECT_EQ(api_.Call(me_, "GET", "/v2/info/stores/detail").status, 403);
  EXPECT_EQ(api_.Call(admin_, "GET", "/v2/info/stores/detail").status, 200);
}

TEST_F(ApiTest, InfoUsageCounts) {
  api_.CreateImage(me_);
  api_.Activate(api_.CreateImage(me_));
  const Json usage = BodyOf(api_.Call(me_, "GET", "/v2/info/usage")).at("usage");
  EXPECT_EQ(usage.at("image_count_total").at("usage"), 2);
  EXPECT_EQ(usage.at("image_count_total").at("limit"), -1);
  EXPECT_EQ(usage.at("image_size_total").at("usage"), 1) << "MiB, rounded up";
}

// --- create and show ---

TEST_F(ApiTest, CreateEmptyIsGlances) {
  const Response created = api_.Call(me_, "POST", "/v2/images", "{}");
  EXPECT_EQ(created.status, 201);
  const std::string id = Field(created, "id");
  EXPECT_TRUE(base::IsUuid(id));
  const std::string time = base::FormatTimeSeconds(api_.clock().NowUs());
  const std::string expected =
      R"({"name": null, "disk_format": null, "container_format": null, "visibility": "shared", )"
      R"("size": null, "virtual_size": null, "status": "queued", "checksum": null, )"
      R"("protected": false, "min_ram": 0, "min_disk": 0, "owner": "me", "os_hidden": false, )"
      R"("os_hash_algo": null, "os_hash_value": null, "id": ")" +
      id + R"(", "created_at": ")" + time + R"(", "updated_at": ")" + time +
      R"(", "tags": [], "self": "/v2/images/)" + id + R"(", "file": "/v2/images/)" + id +
      R"(/file", "schema": "/v2/schemas/image"})";
  EXPECT_EQ(created.body, expected);
  EXPECT_EQ(created.headers.Get("Location"), "http://127.0.0.1:9292/image/v2/images/" + id);
  EXPECT_EQ(created.headers.Get("OpenStack-image-import-methods"), "glance-direct,web-download");
  EXPECT_EQ(created.headers.Get("OpenStack-image-store-ids"), "s1,s2");
  EXPECT_EQ(created.headers.Get("Content-Type"), "application/json");
  EXPECT_EQ(api_.Call(me_, "GET", PathOf(id)).body, expected);
}

TEST_F(ApiTest, CreateFull) {
  const std::string id = base::NewUuid();
  const Response created =
      api_.Call(me_, "POST", "/v2/images",
                R"({"id": ")" + id +
                    R"(", "name": "gold", "disk_format": "qcow2", "container_format": "bare",
              "visibility": "private", "protected": true, "os_hidden": true, "min_disk": 3,
              "min_ram": 512, "tags": ["b", "a", "b"], "prop": "v\n\"\u20ac", "kernel_id": null})");
  ASSERT_EQ(created.status, 201) << created.body;
  const Json body = BodyOf(api_.Call(me_, "GET", PathOf(id)));
  EXPECT_EQ(body.at("id"), Json(id));
  EXPECT_EQ(body.at("name"), "gold");
  EXPECT_EQ(body.at("disk_format"), "qcow2");
  EXPECT_EQ(body.at("protected"), true);
  EXPECT_EQ(body.at("os_hidden"), true);
  EXPECT_EQ(body.at("min_disk"), 3);
  EXPECT_EQ(body.at("min_ram"), 512);
  EXPECT_EQ(body.at("tags"), (base::JsonArray{"a", "b"}));
  EXPECT_EQ(body.at("prop"), "v\n\"\xe2\x82\xac");
  EXPECT_TRUE(body.at("kernel_id").is_null());
}

TEST_F(ApiTest, ShowActive) {
  const std::string id = api_.CreateImage(me_, R"({"name": "gold"})");
  api_.Activate(id);
  const Json body = BodyOf(api_.Call(me_, "GET", PathOf(id)));
  EXPECT_EQ(body.at("status"), "active");
  EXPECT_EQ(body.at("size"), 11);
  EXPECT_EQ(body.at("virtual_size"), 11);
  EXPECT_EQ(body.at("checksum"), "2095312189753de6ad47dfe20cbe97ec");
  EXPECT_EQ(body.at("os_hash_algo"), "sha512");
  EXPECT_EQ(body.at("stores"), "s1");
}

struct BadCreate {
  const char* body;
  int status;
  const char* message;
};
class BadCreateTest : public ApiTest, public testing::WithParamInterface<BadCreate> {};

TEST_P(BadCreateTest, IsRefusedAndMakesNothing) {
  const Response refused = api_.Call(me_, "POST", "/v2/images", GetParam().body);
  EXPECT_EQ(refused.status, GetParam().status) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr(GetParam().message));
  EXPECT_THAT(IdsIn(api_.Call(admin_, "GET", "/v2/images?visibility=all")), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadCreateTest,
    testing::Values(
        BadCreate{"{", 400, "Malformed JSON in request body."}, BadCreate{"", 400, "Body expected"},
        BadCreate{"[]", 400, "must be a JSON object"}, BadCreate{"\"x\"", 400, "JSON object"},
        BadCreate{R"({"visibility": "zz"})", 400,
                  "Provided object does not match schema 'image': 'zz' is not one of "
                  "['community', 'public', 'private', 'shared']"},
        BadCreate{R"({"visibility": 1})", 400, "schema 'image'"},
        BadCreate{R"({"visibility": "public"})", 403,
                  "You are not authorized to complete publicize_image action."},
        BadCreate{R"({"container_format": "wrong"})", 400, "'wrong' is not one of"},
        BadCreate{R"({"disk_format": "wrong"})", 400, "'wrong' is not one of"},
        BadCreate{R"({"disk_format": {}})", 400, "is not one of"},
        BadCreate{R"({"name": 3})", 400, "of type 'null', 'string'"},
        BadCreate{R"({"name": "a\u0000b"})", 400, "NUL"},
        BadCreate{R"({"protected": "yes"})", 400, "of type 'boolean'"},
        BadCreate{R"({"os_hidden": 0})", 400, "of type 'boolean'"},
        BadCreate{R"({"min_disk": -1})", 400, "min_disk"},
        BadCreate{R"({"min_ram": 2147483648})", 400, "min_ram"},
        BadCreate{R"({"min_ram": 18446744073709551615})", 400, "min_ram"},
        BadCreate{R"({"min_ram": 1.5})", 400, "of type 'integer'"},
        BadCreate{R"({"tags": "x"})", 400, "tags"}, BadCreate{R"({"tags": [1]})", 400, "tags"},
        BadCreate{R"({"prop": 1})", 400, "of type 'string'"},
        BadCreate{R"({"prop": null})", 400, "of type 'string'"},
        BadCreate{R"({"kernel_id": "x"})", 400, "kernel_id"},
        BadCreate{R"({"id": "x"})", 400, "UUID"}, BadCreate{R"({"id": 5})", 400, "UUID"},
        BadCreate{R"({"id": "../../etc/passwd"})", 400, "UUID"},
        BadCreate{R"({"owner": "you"})", 403, "not permitted to create images owned by"},
        BadCreate{R"({"status": "active"})", 403, "Attribute 'status' is read-only."},
        BadCreate{R"({"size": 5})", 403, "Attribute 'size' is read-only."},
        BadCreate{R"({"created_at": "x"})", 403, "read-only"},
        BadCreate{
            R"({"os_glance_foo": "x"})", 403,
            R"(Access was denied to this resource.<br /><br />\nAttribute 'os_glance_foo' is reserved.)"},
        BadCreate{R"({"deleted": true})", 403, "reserved"},
        BadCreate{R"({"locations": []})", 403, "locations"}));

TEST_F(ApiTest, LimitsOfOneImage) {
  const std::string long_name(255, 'n');
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", R"({"name": ")" + long_name + "\"}").status, 201);
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", R"({"name": ")" + long_name + "n\"}").status, 400);
  std::string wide;  // 255 characters of two bytes each
  for (int i = 0; i < 255; ++i) wide += "\xc3\xa9";
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", R"({"name": ")" + wide + "\"}").status, 201);

  auto properties = [](int count) {
    std::string body = "{";
    for (int i = 0; i < count; ++i)
      body += (i > 0 ? ", \"p" : "\"p") + std::to_string(i) + "\": \"v\"";
    return body + "}";
  };
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", properties(128)).status, 201);
  const Response over = api_.Call(me_, "POST", "/v2/images", properties(129));
  EXPECT_EQ(over.status, 413);
  EXPECT_THAT(over.body, HasSubstr("Attempted: 129, Maximum: 128"));

  auto tags = [](int count) {
    std::string body = R"({"tags": [)";
    for (int i = 0; i < count; ++i) body += (i > 0 ? ", \"t" : "\"t") + std::to_string(i) + "\"";
    return body + "]}";
  };
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", tags(128)).status, 201);
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", tags(129)).status, 413);
  const std::string big(kMaxPropertyBytes + 1, 'x');
  EXPECT_EQ(api_.Call(me_, "POST", "/v2/images", R"({"p": ")" + big + "\"}").status, 400);
}

TEST_F(ApiTest, SameIdTwiceIsAConflict) {
  const std::string id = api_.CreateImage(me_);
  const Response again = api_.Call(you_, "POST", "/v2/images", R"({"id": ")" + id + "\"}");
  EXPECT_EQ(again.status, 409);
  EXPECT_THAT(again.body, HasSubstr("Image ID " + id + " already exists!"));
}

// Compute hosts keep an image's bytes under its id: another image must never come by it.
TEST_F(ApiTest, TheIdOfADeletedImageIsNotGivenAgain) {
  const std::string id = api_.CreateImage(me_);
  ASSERT_EQ(api_.Call(me_, "DELETE", "/v2/images/" + id).status, 204);
  for (const auto& who : {me_, you_, admin_}) {
    const Response again = api_.Call(who, "POST", "/v2/images", R"({"id": ")" + id + "\"}");
    EXPECT_EQ(again.status, 409);
    EXPECT_THAT(again.body, HasSubstr("Image ID " + id + " already exists!"));
  }
  EXPECT_EQ(api_.Call(me_, "GET", "/v2/images/" + id).status, 404);
}

TEST_F(ApiTest, AdminMayChooseOwnerAndPublic) {
  const Response created =
      api_.Call(admin_, "POST", "/v2/images", R"({"owner": "you", "visibility": "public"})");
  EXPECT_EQ(created.status, 201);
  EXPECT_EQ(Field(created, "owner"), "you");
}

TEST_F(ApiTest, QuotaIs413AndSaysWhich) {
  Api limited({.images = 1});
  limited.CreateImage(me_);
  const Response refused = limited.Call(me_, "POST", "/v2/images", "{}");
  EXPECT_EQ(refused.status, 413);
  EXPECT_THAT(refused.body, HasSubstr("image_count_total"));
  EXPECT_EQ(limited.Call(you_, "POST", "/v2/images", "{}").status, 201);
}

TEST_F(ApiTest, MissingAndOddIdsAre404) {
  for (const char* id : {"nosuch", "..%2f..%2fetc", "%00", "55828f4d-2f3f-4b84-afe8-dce755e947a2",
                         "a%20b", "%2e%2e"}) {
    const Response response = api_.Call(me_, "GET", PathOf(id));
    EXPECT_TRUE(response.status == 404 || response.status == 400) << id << response.status;
  }
  EXPECT_EQ(api_.Call(me_, "GET", "/v2/images/").status, 404);
  EXPECT_EQ(api_.Call(me_, "DELETE", "/v2/images/").status, 404);
}

// --- errors ---

TEST_F(ApiTest, ErrorsFollowAccept) {
  const Response html = api_.Call(me_, "GET", "/v2/images/nosuch", "", {{"Accept", "*/*"}});
  EXPECT_EQ(html.headers.Get("Content-Type"), "text/html; charset=UTF-8");
  EXPECT_EQ(html.body,
            "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n"
            "  <h1>404 Not Found</h1>\n  No image found with ID nosuch<br /><br />\n\n\n\n"
            " </body>\n</html>");
  const Response json = api_.Call(me_, "GET", "/v2/images/nosuch");
  EXPECT_EQ(json.body, R"({"message": "No image found with ID nosuch<br /><br />\n\n\n", )"
                       R"("code": "404 Not Found", "title": "Not Found"})");
  const Response plain = api_.Call(me_, "GET", "/v2/images/nosuch", "", {{"Accept", "text/plain"}});
  EXPECT_EQ(plain.headers.Get("Content-Type"), "text/plain; charset=UTF-8");
  EXPECT_EQ(plain.body, "404 Not Found\n\nNo image found with ID nosuch\n\n   ");
  // What openstacksdk sends with an upload; it finds the sentence only in HTML.
  const Response sdk = api_.Call(me_, "GET", "/v2/images/nosuch", "", {{"Accept", ""}});
  EXPECT_EQ(sdk.headers.Get("Content-Type"), "text/html; charset=UTF-8");
}

TEST_F(ApiTest, ErrorsEscapeWhatCameFromOutside) {
  const Response html =
      api_.Call(me_, "GET", "/v2/images/%3Cscript%3E'", "", {{"Accept", "text/html"}});
  EXPECT_THAT(html.body, HasSubstr("No image found with ID &lt;script&gt;&#x27;"));
}

TEST_F(ApiTest, NoTokenIs401WithTheWayThere) {
  const Response response = api_.Call(nullptr, "GET", "/v2/images");
  EXPECT_EQ(response.status, 401);
  EXPECT_EQ(response.headers.Get("WWW-Authenticate"),
            "Keystone uri=\"http://127.0.0.1:9292/identity/v3\"");
}

// --- patch ---

TEST_F(ApiTest, PatchV21) {
  const std::string id = api_.CreateImage(me_, R"({"prop": "v"})");
  const Response patched = api_.Patch(
      me_, id,
      R"([{"op": "replace", "path": "/name", "value": "gold2"}, {"op": "add", "path": "/k", "value": "v"},
          {"op": "add", "path": "/a~1b~0c", "value": "x"}, {"op": "remove", "path": "/prop"},
          {"op": "replace", "path": "/tags", "value": ["x"]}])");
  ASSERT_EQ(patched.status, 200) << patched.body;
  const Json body = BodyOf(patched);
  EXPECT_EQ(body.at("name"), "gold2");
  EXPECT_EQ(body.at("k"), "v");
  EXPECT_EQ(body.at("a/b~c"), "x");
  EXPECT_EQ(base::Find(body, "prop"), nullptr);
  EXPECT_EQ(body.at("tags"), base::JsonArray{"x"});
}

TEST_F(ApiTest, PatchV20) {
  const std::string id = api_.CreateImage(me_);
  const Response patched =
      api_.Call(me_, "PATCH", PathOf(id), R"([{"replace": "/name", "value": "g3"}])",
                {{"Content-Type", "application/openstack-images-v2.0-json-patch"}});
  EXPECT_EQ(patched.status, 200);
  EXPECT_EQ(Field(patched, "name"), "g3");
}

TEST_F(ApiTest, PatchOfAnotherTypeIs415) {
  const std::string id = api_.CreateImage(me_);
  const Response refused =
      api_.Call(me_, "PATCH", PathOf(id), "[]", {{"Content-Type", "application/json"}});
  EXPECT_EQ(refused.status, 415);
  EXPECT_EQ(refused.headers.Get("Accept-Patch"),
            "application/openstack-images-v2.0-json-patch, "
            "application/openstack-images-v2.1-json-patch");
  EXPECT_THAT(refused.body, HasSubstr("The request media type application/json is not supported"));
}

class BadPatchTest : public ApiTest, public testing::WithParamInterface<BadCreate> {};

TEST_P(BadPatchTest, ChangesNothing) {
  const std::string id = api_.CreateImage(me_, R"({"name": "n", "prop": "v"})");
  api_.Activate(id);
  const std::string before = api_.Call(me_, "GET", PathOf(id)).body;
  const Response refused = api_.Patch(me_, id, GetParam().body);
  EXPECT_EQ(refused.status, GetParam().status) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr(GetParam().message));
  EXPECT_EQ(api_.Call(me_, "GET", PathOf(id)).body, before);
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, BadPatchTest,
    testing::Values(
        BadCreate{"{", 400, "Malformed JSON"}, BadCreate{"{}", 400, "JSON array"},
        BadCreate{"[1]", 400, "Operations must be JSON objects."},
        BadCreate{R"([{"path": "/name", "value": "x"}])", 400, "'op'"},
        BadCreate{R"([{"op": "move", "path": "/name"}])", 400, "add, remove, replace"},
        BadCreate{R"([{"op": "add", "path": "/name", "value": "a\u0000"}])", 400, "NUL"},
        BadCreate{R"([{"op": "add", "value": "x"}])", 400, "'path'"},
        BadCreate{R"([{"op": "add", "path": 1, "value": "x"}])", 400, "string"},
        BadCreate{R"([{"op": "add", "path": "name", "value": "x"}])", 400, "start with"},
        BadCreate{R"([{"op": "add", "path": "/", "value": "x"}])", 400, "names nothing"},
        BadCreate{R"([{"op": "add", "path": "/k/x", "value": "x"}])", 400, "Invalid JSON pointer"},
        BadCreate{R"([{"op": "add", "path": "/k~2", "value": "x"}])", 400, "escape sequence"},
        BadCreate{R"([{"op": "add", "path": "/k~", "value": "x"}])", 400, "escape sequence"},
        BadCreate{R"([{"op": "add", "path": "/k"}])", 400, "value"},
        BadCreate{
            R"([{"op": "replace", "path": "/name", "value": "x"}, {"op": "remove", "path": "/zz"}])",
            409,
            R"(There was a conflict when trying to complete your request.<br /><br />\nProperty zz does not exist.)"},
        BadCreate{R"([{"op": "replace", "path": "/zz", "value": "x"}])", 409, "does not exist"},
        BadCreate{R"([{"op": "replace", "path": "/status", "value": "active"}])", 403,
                  "Attribute 'status' is read-only."},
        BadCreate{R"([{"op": "replace", "path": "/id", "value": "x"}])", 403, "read-only"},
        BadCreate{R"([{"op": "add", "path": "/os_glance_foo", "value": "x"}])", 403, "reserved"},
        BadCreate{R"([{"op": "add", "path": "/locations/-", "value": {}}])", 403, "locations"},
        BadCreate{R"([{"op": "remove", "path": "/name"}])", 403, "may not be removed"},
        BadCreate{R"([{"op": "replace", "path": "/owner", "value": "you"}])", 403, "non admin"},
        BadCreate{R"([{"op": "replace", "path": "/visibility", "value": "public"}])", 403,
                  "publicize_image"},
        BadCreate{R"([{"op": "replace", "path": "/disk_format", "value": "raw"}])", 403,
                  "only replaced for a queued image"},
        BadCreate{R"([{"op": "add", "path": "/k", "value": 1}])", 400, "of type 'string'"}));

TEST_F(ApiTest, PatchTellsStrangersNothing) {
  const std::string id = api_.CreateImage(me_, R"({"visibility": "private"})");
  EXPECT_EQ(api_.Patch(you_, id, "[]").status, 404);
  const std::string open = api_.CreateImage(admin_, R"({"visibility": "public"})");
  EXPECT_EQ(api_.Patch(you_, open, "[]").status, 403);
}

// --- delete, actions, tags ---

TEST_F(ApiTest, DeletedIsGone) {
  const std::string id = api_.CreateImage(me_);
  const Response deleted = api_.Call(me_, "DELETE", PathOf(id));
  EXPECT_EQ(deleted.status, 204);
  EXPECT_TRUE(deleted.body.empty());
  EXPECT_EQ(api_.Call(me_, "GET", PathOf(id)).status, 404);
  const Response again = api_.Call(me_, "DELETE", PathOf(id));
  EXPECT_EQ(again.status, 404);
  EXPECT_THAT(again.body, HasSubstr("Failed to find image " + id + " to delete"));
}

TEST_F(ApiTest, ProtectedStays) {
  const std::string id = api_.CreateImage(me_, R"({"protected": true})");
  const Response refused = api_.Call(me_, "DELETE", PathOf(id));
  EXPECT_EQ(refused.status, 403);
  EXPECT_THAT(refused.body, HasSubstr("Image " + id + " is protected and cannot be deleted."));
  EXPECT_EQ(api_.Call(admin_, "DELETE", PathOf(id)).status, 403);
  EXPECT_EQ(
      api_.Patch(me_, id, R"([{"op": "replace", "path": "/protected", "value": false}])").status,
      200);
  EXPECT_EQ(api_.Call(me_, "DELETE", PathOf(id)).status, 204);
}

TEST_F(ApiTest, DeactivateAndReactivate) {
  const std::string id = api_.CreateImage(me_);
  const std::string off = PathOf(id) + "/actions/deactivate";
  const std::string on = PathOf(id) + "/actions/reactivate";
  EXPECT_EQ(api_.Call(me_, "POST", off).status, 403) << "queued";
  api_.Activate(id);
  EXPECT_EQ(api_.Call(me_, "POST", off).status, 204);
  EXPECT_EQ(Field(api_.Call(me_, "GET", PathOf(id)), "status"), "deactivated");
  EXPECT_EQ(api_.Call(me_, "POST", off).status, 204) << "again";
  EXPECT_EQ(api_.Call(you_, "POST", on).status, 404);
  EXPECT_EQ(api_.Call(me_, "POST", on).status, 204);
  EXPECT_EQ(Field(api_.Call(me_, "GET", PathOf(id)), "status"), "active");
}

TEST_F(ApiTest, Tags) {
  const std::string id = api_.CreateImage(me_);
  EXPECT_EQ(api_.Call(me_, "PUT", PathOf(id) + "/tags/a%20b").status, 204);
  EXPECT_EQ(api_.Call(me_, "PUT", PathOf(id) + "/tags/a%20b").status, 204);
  EXPECT_EQ(BodyOf(api_.Call(me_, "GET", PathOf(id))).at("tags"), base::JsonArray{"a b"});
  EXPECT_EQ(api_.Call(me_, "DELETE", PathOf(id) + "/tags/other").status, 404);
  EXPECT_EQ(api_.Call(me_, "DELETE", PathOf(id) + "/tags/a%20b").status, 204);
  EXPECT_EQ(api_.Call(me_, "PUT", PathOf(id) + "/tags/" + std::string(256, 'x')).status, 400);
  const std::string missing = base::NewUuid();
  const Response none = api_.Call(me_, "PUT", PathOf(missing) + "/tags/x");
  EXPECT_EQ(none.status, 404);
  EXPECT_THAT(none.body, HasSubstr("Image " + missing + " not found."));
}

// --- members ---

TEST_F(ApiTest, ShareAcceptReject) {
  const std::string id = api_.CreateImage(me_, R"({"name": "shared"})");
  const std::string members = PathOf(id) + "/members";
  EXPECT_EQ(api_.Call(you_, "GET", PathOf(id)).status, 404);
  const Response added = api_.Call(me_, "POST", members, R"({"member": "you"})");
  EXPECT_EQ(added.status, 200);
  EXPECT_EQ(Field(added, "member_id"), "you");
  EXPECT_EQ(Field(added, "image_id"), id);
  EXPECT_EQ(Field(added, "status"), "pending");
  EXPECT_EQ(Field(added, "schema"), "/v2/schemas/member");
  const Response twice = api_.Call(me_, "POST", members, R"({"member": "you"})");
  EXPECT_EQ(twice.status, 409);

  // Offered: it can be shown, but stands on no list until it is accepted.
  EXPECT_EQ(api_.Call(you_, "GET", PathOf(id)).status, 200);
  EXPECT_THAT(IdsIn(api_.Call(you_, "GET", "/v2/images")), IsEmpty());
  EXPECT_THAT(IdsIn(api_.Call(you_, "GET", "/v2/images?visibility=shared&member_status=pending")),
              ElementsAre(id));
  const Response by_owner = api_.Call(me_, "PUT", members + "/you", R"({"status": "accepted"})");
  EXPECT_EQ(by_owner.status, 403);
  EXPECT_THAT(by_owner.body, HasSubstr("Not allowed to update members for image " + id + "."));
  const Response odd = api_.Call(you_, "PUT", members + "/you", R"({"status": "odd"})");
  EXPECT_EQ(odd.status, 400);
  EXPECT_THAT(odd.body, HasSubstr(R"(Status must be \"pending\", \"accepted\" or \"rejected\".)"));
  EXPECT_EQ(api_.Call(you_, "PUT", members + "/you", R"({"status": "accepted"})").status, 200);
  EXPECT_THAT(IdsIn(api_.Call(you_, "GET", "/v2/images")), ElementsAre(id));
  EXPECT_EQ(api_.Call(you_, "PUT", members + "/you", R"({"status": "rejected"})").status, 200);
  EXPECT_THAT(IdsIn(api_.Call(you_, "GET", "/v2/images")), IsEmpty());

  // A member neither changes the image nor its members.
  EXPECT_EQ(api_.Patch(you_, id, "[]").status, 403);
  EXPECT_EQ(api_.Call(you_, "DELETE", PathOf(id)).status, 403);
  EXPECT_EQ(api_.Call(you_, "POST", members, R"({"member": "x"})").status, 403);
  EXPECT_EQ(api_.Call(you_, "DELETE", members + "/you").status, 403);
  EXPECT_EQ(api_.Call(me_, "DELETE", members + "/you").status, 204);
  EXPECT_EQ(api_.Call(me_, "DELETE", members + "/you").status, 404);
  EXPECT_EQ(api_.Call(you_, "GET", PathOf(id)).status, 404);
}

TEST_F(ApiTest, MembersSeeOnlyThemselves) {
  const std::string id = api_.CreateImage(me_);
  const std::string members = PathOf(id) + "/members";
  EXPECT_EQ(api_.Call(me_, "GET", members).body,
            R"({"members": [], "schema": "/v2/schemas/members"})");
  api_.Call(me_, "POST", members, R"({"member": "you"})");
  api_.Call(me_, "POST", members, R"({"member": "third"})");
  EXPECT_EQ(BodyOf(api_.Call(me_, "GET", members)).at("members").get_array().size(), 2U);
  EXPECT_EQ(BodyOf(api_.Call(you_, "GET", members)).at("members").get_array().size(), 1U);
  EXPECT_EQ(api_.Call(you_, "GET", members + "/third").status, 404);
  EXPECT_EQ(api_.Call(you_, "GET", members + "/you").status, 200);
}

TEST_F(ApiTest, OnlySharedImagesHaveMembers) {
  const std::string id = api_.CreateImage(me_, R"({"visibility": "private"})");
  const Response refused = api_.Call(me_, "POST", PathOf(id) + "/members", R"({"member": "you"})");
  EXPECT_EQ(refused.status, 403);
  EXPECT_THAT(refused.body, HasSubstr("Only shared images have members."));
  const std::string shared = api_.CreateImage(me_);
  for (const char* body : {"{}", R"({"member": 1})", R"({"member": ""})", "[]", "{"})
    EXPECT_EQ(api_.Call(me_, "POST", PathOf(shared) + "/members", body).status, 400) << body;
}

}  // namespace
}  // namespace imaged
