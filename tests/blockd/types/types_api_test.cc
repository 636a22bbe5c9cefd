#include <gmock/gmock.h>

#include "base/uuid.h"
#include "tests/blockd/types/world.h"

// The calls about types against what Cinder's clients expect, to the member: Tempest's schemas
// allow no others.

namespace blockd::types {
namespace {

using base::Json;
using base::http::Response;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

std::vector<std::string> NamesIn(const Response& response) {
  std::vector<std::string> names;
  const Json body = BodyOf(response);
  const Json& types = At(body, "volume_types");
  if (!types.is_array()) return {"no list: " + response.body};
  for (const Json& type : types.get_array()) names.push_back(*base::FindString(type, "name"));
  return names;
}

using TypesApiTest = TypesTest;

TEST_F(TypesApiTest, ListHasTheFieldsOfTheCaller) {
  const Response all = Ask(admin_, "GET", "/types");
  EXPECT_EQ(all.status, 200);
  EXPECT_THAT(NamesOf(At(BodyOf(all), "volume_types", 0)),
              UnorderedElementsAre("id", "name", "is_public", "description", "extra_specs",
                                   "qos_specs_id", "os-volume-type-access:is_public"));
  EXPECT_TRUE(At(BodyOf(all), "volume_types", 0, "qos_specs_id").is_null());
  const Response mine = Ask(me_, "GET", "/types", "", 0);
  EXPECT_THAT(NamesOf(At(BodyOf(mine), "volume_types", 0)),
              UnorderedElementsAre("id", "name", "is_public", "description", "extra_specs",
                                   "os-volume-type-access:is_public"));
}

TEST_F(TypesApiTest, TheDefaultHasAName) {
  const Response standard = Ask(admin_, "GET", "/types/default");
  EXPECT_EQ(TextAt(standard, "volume_type", "name"), "__DEFAULT__");
  EXPECT_EQ(TextAt(standard, "volume_type", "description"), "Default Volume Type");
  EXPECT_THAT(NamesOf(At(BodyOf(standard), "volume_type")),
              UnorderedElementsAre("id", "name", "is_public", "description", "extra_specs",
                                   "qos_specs_id"));
}

TEST_F(TypesApiTest, CreateAnswersWithItsFields) {
  const Response made = Ask(
      admin_, "POST", "/types",
      R"({"volume_type": {"name": "fast", "description": "d", "os-volume-type-access:is_public": true,
          "extra_specs": {"spec1": "val1"}}})");
  EXPECT_EQ(made.status, 200) << made.body;
  EXPECT_THAT(NamesOf(At(BodyOf(made), "volume_type")),
              UnorderedElementsAre("id", "name", "is_public", "description", "extra_specs",
                                   "os-volume-type-access:is_public"));
  EXPECT_EQ(TextAt(made, "volume_type", "extra_specs", "spec1"), "val1");
  const Response shown = Ask(me_, "GET", "/types/" + TextAt(made, "volume_type", "id"));
  EXPECT_EQ(shown.status, 200);
  // How the back end is chosen is no business of tenants.
  EXPECT_THAT(NamesOf(At(BodyOf(shown), "volume_type", "extra_specs")), ElementsAre());
}

TEST_F(TypesApiTest, CreateRefusesInCindersWords) {
  EXPECT_EQ(
      Message(Ask(admin_, "POST", "/types", R"({"volume_type": {"name": ""}})"), "badRequest"),
      "Invalid input for field/attribute name. Value: . '' is too short");
  EXPECT_EQ(Message(Ask(admin_, "POST", "/types", R"({"volume_type": {"name": "__DEFAULT__"}})"),
                    "conflictingRequest"),
            "Volume Type __DEFAULT__ already exists.");
  EXPECT_EQ(Ask(admin_, "POST", "/types", R"({"volume_type": {}})").status, 400);
  EXPECT_EQ(Ask(admin_, "POST", "/types",
                R"({"volume_type": {"name": "a", "extra_specs": {"quarry:provisioning": "fat"}}})")
                .status,
            400);
}

TEST_F(TypesApiTest, UpdateAndDelete) {
  const std::string id = MakeType("fast");
  const Response changed =
      Ask(admin_, "PUT", "/types/" + id,
          R"({"volume_type": {"name": "faster", "description": "x", "is_public": false}})");
  EXPECT_EQ(changed.status, 200);
  EXPECT_THAT(NamesOf(At(BodyOf(changed), "volume_type")),
              UnorderedElementsAre("id", "name", "is_public", "description", "extra_specs"));
  EXPECT_EQ(Ask(admin_, "PUT", "/types/" + id, R"({"volume_type": {}})").status, 400);
  EXPECT_EQ(Ask(me_, "GET", "/types/" + id).status, 404);
  EXPECT_EQ(Ask(admin_, "DELETE", "/types/" + id).status, 202);
  EXPECT_EQ(Message(Ask(admin_, "DELETE", "/types/" + id), "itemNotFound"),
            "Volume type " + id + " could not be found.");
  EXPECT_EQ(Ask(admin_, "GET", "/types/faster").status, 404);
}

TEST_F(TypesApiTest, ListsFilterSortAndPage) {
  MakeType("a");
  MakeType("b");
  MakeType("hidden", false);
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?sort=name:asc")),
              ElementsAre("__DEFAULT__", "a", "b"));
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?sort=name:asc&is_public=None")),
              ElementsAre("__DEFAULT__", "a", "b", "hidden"));
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?is_public=False")), ElementsAre("hidden"));
  EXPECT_THAT(NamesIn(Ask(me_, "GET", "/types?sort=name:asc&is_public=None")),
              ElementsAre("__DEFAULT__", "a", "b"));
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?name=b")), ElementsAre("b"));
  const Response page = Ask(admin_, "GET", "/types?sort=name:asc&limit=2");
  EXPECT_THAT(NamesIn(page), ElementsAre("__DEFAULT__", "a"));
  const std::string next = TextAt(page, "volume_type_links", 0, "href");
  ASSERT_NE(next.find("marker="), std::string::npos) << page.body;
  const std::string marker = next.substr(next.find("marker="));
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?sort=name:asc&limit=2&" + marker)),
              ElementsAre("b"));
  EXPECT_EQ(Ask(admin_, "GET", "/types?marker=nosuch").status, 404);
}

TEST_F(TypesApiTest, ListsFilterByExtraSpecs) {
  const std::string id = MakeType("multi");
  Ask(admin_, "POST", "/types/" + id + "/extra_specs",
      R"({"extra_specs": {"multiattach": "<is> True", "x": "y"}})");
  const std::string query = "/types?extra_specs=%7B'multiattach':'%3Cis%3E%20True'%7D";
  EXPECT_THAT(NamesIn(Ask(me_, "GET", query)), ElementsAre("multi"));
  EXPECT_EQ(NamesIn(Ask(me_, "GET", query, "", 51)).size(), 2u);
  // What one may not see can't be found out by filtering either.
  EXPECT_THAT(NamesIn(Ask(me_, "GET", "/types?extra_specs=%7B'x':'y'%7D")), ElementsAre());
  EXPECT_THAT(NamesIn(Ask(admin_, "GET", "/types?extra_specs=%7B'x':'y'%7D")),
              ElementsAre("multi"));
  EXPECT_EQ(Ask(me_, "GET", "/types?extra_specs=%7B").status, 400);
}

TEST_F(TypesApiTest, ExtraSpecs) {
  const std::string path = "/types/" + MakeType("fast") + "/extra_specs";
  Response answer = Ask(admin_, "POST", path, R"({"extra_specs": {"spec1": "v1", "spec2": "v2"}})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(NamesOf(At(BodyOf(answer), "extra_specs")), UnorderedElementsAre("spec1", "spec2"));
  answer = Ask(admin_, "PUT", path + "/spec2", R"({"spec2": "v3"})");
  EXPECT_EQ(answer.body, R"({"spec2":"v3"})");
  EXPECT_EQ(Ask(admin_, "GET", path + "/spec2").body, R"({"spec2":"v3"})");
  EXPECT_EQ(Ask(admin_, "DELETE", path + "/spec2").status, 202);
  EXPECT_EQ(Ask(admin_, "DELETE", path + "/spec2").status, 404);
  EXPECT_EQ(Ask(admin_, "GET", path).body, R"({"extra_specs":{"spec1":"v1"}})");
  EXPECT_EQ(Ask(me_, "GET", path + "/spec1").status, 404);
}

TEST_F(TypesApiTest, ExtraSpecsRefuseInCindersWords) {
  const std::string id = MakeType("fast");
  const std::string path = "/types/" + id + "/extra_specs";
  const auto refusal = [&](std::string_view method, const std::string& target,
                           std::string_view body) {
    return Message(Ask(admin_, method, target, body), "badRequest");
  };
  EXPECT_EQ(refusal("POST", path, R"({"extra_specs": null})"),
            "Invalid input for field/attribute extra_specs. Value: None. None is not of type "
            "'object'");
  EXPECT_EQ(refusal("PUT", path + "/a", R"({"b": "x"})"), "Request body and URI mismatch");
  EXPECT_EQ(refusal("PUT", path + "/a", "null"), "None is not of type 'object'");
  EXPECT_THAT(refusal("PUT", path + "/a", R"({"a": "x", "b": "y"})"),
              testing::EndsWith(" has too many properties"));
  EXPECT_EQ(Message(Ask(admin_, "GET", path + "/nosuch"), "itemNotFound"),
            "Volume Type " + id + " has no extra specs with key nosuch.");
  EXPECT_EQ(Ask(admin_, "POST", "/types/" + base::NewUuid() + "/extra_specs",
                R"({"extra_specs": {"a": "b"}})")
                .status,
            404);
}

TEST_F(TypesApiTest, AccessIsGivenAndTaken) {
  const std::string id = MakeType("secret", false);
  const std::string action = "/types/" + id + "/action";
  const std::string add =
      R"({"addProjectAccess": {"project": ")" + std::string(kMyProject) + "\"}}";
  const std::string remove =
      R"({"removeProjectAccess": {"project": ")" + std::string(kMyProject) + "\"}}";
  EXPECT_EQ(Ask(me_, "GET", "/types/" + id).status, 404);
  EXPECT_EQ(Ask(admin_, "POST", action, add).status, 202);
  EXPECT_EQ(Ask(admin_, "POST", action, add).status, 409);
  EXPECT_EQ(Ask(me_, "GET", "/types/" + id).status, 200);
  EXPECT_EQ(Ask(you_, "GET", "/types/" + id).status, 404);
  EXPECT_EQ(NamesIn(Ask(me_, "GET", "/types")).size(), 2u);
  const Response list = Ask(admin_, "GET", "/types/" + id + "/os-volume-type-access");
  EXPECT_EQ(TextAt(list, "volume_type_access", 0, "project_id"), kMyProject);
  EXPECT_EQ(TextAt(list, "volume_type_access", 0, "volume_type_id"), id);
  EXPECT_EQ(Ask(admin_, "POST", action, remove).status, 202);
  EXPECT_EQ(Ask(admin_, "POST", action, remove).status, 404);
  EXPECT_EQ(Ask(admin_, "POST", action, R"({"os-zzz": {}})").status, 400);
  const std::string open = MakeType("open");
  EXPECT_EQ(Ask(admin_, "POST", "/types/" + open + "/action", add).status, 400);
  EXPECT_EQ(Ask(admin_, "GET", "/types/" + open + "/os-volume-type-access").status, 404);
}

TEST_F(TypesApiTest, DefaultTypesOfProjects) {
  const std::string id = MakeType("fast");
  const std::string path = "/default-types/" + std::string(kMyProject);
  EXPECT_EQ(Ask(admin_, "GET", path).status, 404);
  const Response set = Ask(admin_, "PUT", path, R"({"default_type": {"volume_type": "fast"}})");
  EXPECT_EQ(set.status, 200) << set.body;
  EXPECT_EQ(TextAt(set, "default_type", "volume_type_id"), id);
  EXPECT_EQ(TextAt(set, "default_type", "project_id"), kMyProject);
  EXPECT_EQ(TextAt(Ask(admin_, "GET", "/default-types"), "default_types", 0, "volume_type_id"), id);
  EXPECT_EQ(TextAt(Ask(me_, "GET", "/types/default"), "volume_type", "name"), "fast");
  EXPECT_EQ(Ask(admin_, "DELETE", path).status, 204);
  EXPECT_EQ(Ask(admin_, "GET", path).status, 404);
  EXPECT_EQ(Ask(admin_, "GET", path, "", 61).status, 404);
}

TEST_F(TypesApiTest, NothingIsEncrypted) {
  const std::string path = "/types/" + MakeType("fast") + "/encryption";
  EXPECT_EQ(Ask(admin_, "GET", path).body, "{}");
  EXPECT_EQ(Ask(admin_, "GET", path + "/cipher").status, 404);
  EXPECT_EQ(Ask(admin_, "POST", path, R"({"encryption": {}})").status, 400);
  EXPECT_EQ(Ask(admin_, "POST", "/types/" + base::NewUuid() + "/encryption", "{}").status, 404);
}

TEST_F(TypesApiTest, QosSpecs) {
  const Response made =
      Ask(admin_, "POST", "/qos-specs",
          R"({"qos_specs": {"name": "gold", "consumer": "front-end", "read_iops_sec": "2000"}})");
  EXPECT_EQ(made.status, 200) << made.body;
  EXPECT_THAT(NamesOf(BodyOf(made)), UnorderedElementsAre("qos_specs", "links"));
  EXPECT_THAT(NamesOf(At(BodyOf(made), "qos_specs")),
              UnorderedElementsAre("id", "name", "consumer", "specs"));
  const std::string id = TextAt(made, "qos_specs", "id");
  const std::string path = "/qos-specs/" + id;
  EXPECT_EQ(Ask(admin_, "GET", path).body, made.body);
  EXPECT_EQ(Ask(admin_, "PUT", path, R"({"qos_specs": {"iops_bytes": "500"}})").body,
            R"({"qos_specs":{"iops_bytes":"500"}})");
  EXPECT_EQ(TextAt(Ask(admin_, "GET", "/qos-specs"), "qos_specs", 0, "specs", "iops_bytes"), "500");
  EXPECT_EQ(Ask(admin_, "PUT", path + "/delete_keys", R"({"keys": ["iops_bytes"]})").status, 202);
  EXPECT_EQ(Ask(admin_, "PUT", path + "/delete_keys", R"({"keys": ["iops_bytes"]})").status, 404);
  EXPECT_EQ(Ask(admin_, "PUT", path, R"({"qos_specs": {"read_iops_sec": "no"}})").status, 400);
  EXPECT_EQ(Ask(admin_, "PUT", path, R"({"qos_specs": {"consumer": "nobody"}})").status, 400);
  EXPECT_EQ(Ask(admin_, "DELETE", path + "?force=False").status, 202);
  EXPECT_EQ(Message(Ask(admin_, "GET", path), "itemNotFound"), "No such QoS spec " + id + ".");
}

TEST_F(TypesApiTest, QosAssociations) {
  const std::string qos = "/qos-specs/" + MakeQos("gold", {{"total_iops_sec", "100"}});
  const std::string type = MakeType("fast");
  EXPECT_EQ(Ask(admin_, "GET", qos + "/associate?vol_type_id=" + type).status, 202);
  const Response list = Ask(admin_, "GET", qos + "/associations");
  EXPECT_EQ(TextAt(list, "qos_associations", 0, "id"), type);
  EXPECT_EQ(TextAt(list, "qos_associations", 0, "association_type"), "volume_type");
  EXPECT_EQ(TextAt(list, "qos_associations", 0, "name"), "fast");
  EXPECT_EQ(Ask(admin_, "DELETE", qos).status, 400);
  EXPECT_EQ(Ask(admin_, "GET", qos + "/disassociate?vol_type_id=" + type).status, 202);
  EXPECT_EQ(Ask(admin_, "GET", qos + "/associations").body, R"({"qos_associations":[]})");
  EXPECT_EQ(Ask(admin_, "GET", qos + "/associate").status, 400);
  EXPECT_EQ(Ask(admin_, "GET", qos + "/disassociate_all").status, 202);
}

TEST_F(TypesApiTest, AChangeOfLimitsReachesAttachedVolumesAtOnce) {
  const std::string qos_id = MakeQos("gold", {{"total_iops_sec", "100"}});
  const std::string qos = "/qos-specs/" + qos_id;
  const std::string type = MakeType("fast");
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type);
  const VolumeRecord idle = api_.AddVolume(kMyProject, 1, type);
  AttachmentRecord attachment;
  attachment.id = base::NewUuid();
  attachment.volume_id = volume.id;
  attachment.project_id = volume.project_id;
  ASSERT_OK(api_.catalog.Transact([&](Transaction& transaction) -> base::Result<void> {
    RETURN_IF_ERROR(transaction.GetVolume(volume.id));
    return transaction.Put(attachment);
  }));
  const auto limit = [&] { return api_.exports.limits[volume.id]["total_iops_sec"]; };
  Ask(admin_, "GET", qos + "/associate?vol_type_id=" + type);
  EXPECT_EQ(limit(), "100");
  Ask(admin_, "PUT", qos, R"({"qos_specs": {"total_iops_sec": "200"}})");
  EXPECT_EQ(limit(), "200");
  Ask(admin_, "GET", qos + "/disassociate_all");
  EXPECT_EQ(limit(), "");
  EXPECT_FALSE(api_.exports.limits.contains(idle.id));
}

}  // namespace
}  // namespace blockd::types
