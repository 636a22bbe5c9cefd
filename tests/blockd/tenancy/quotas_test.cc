#include <gmock/gmock.h>

#include "tests/blockd/tenancy/world.h"

namespace blockd::tenancy {
namespace {

using base::Json;
using base::http::Response;
using testing::UnorderedElementsAre;

using QuotasTest = TenancyTest;

const std::string kMine = "/os-quota-sets/" + std::string(kMyProject);
const std::string kClass = "/os-quota-class-sets/default";

int64_t NumberAt(const Response& response, std::string_view outer, std::string_view name) {
  const Json body = BodyOf(response);
  const Json& value = At(body, outer, name);
  return value.is_int64() ? value.get_int64() : INT64_MIN;
}

TEST_F(QuotasTest, HaveTheNamesOfCinder) {
  const Response shown = Ask(me_, "GET", kMine);
  EXPECT_THAT(
      NamesOf(At(BodyOf(shown), "quota_set")),
      UnorderedElementsAre("volumes", "per_volume_gigabytes", "snapshots", "gigabytes", "backups",
                           "backup_gigabytes", "volumes___DEFAULT__", "gigabytes___DEFAULT__",
                           "snapshots___DEFAULT__", "groups", "id"));
  EXPECT_EQ(NumberAt(shown, "quota_set", "volumes"), 10);
  EXPECT_EQ(NumberAt(shown, "quota_set", "gigabytes"), 1000);
  EXPECT_EQ(NumberAt(shown, "quota_set", "per_volume_gigabytes"), -1);
  EXPECT_EQ(NumberAt(shown, "quota_set", "volumes___DEFAULT__"), -1);
  EXPECT_EQ(TextAt(shown, "quota_set", "id"), kMyProject);
  EXPECT_EQ(Ask(me_, "GET", kMine + "/defaults").body, shown.body);
  EXPECT_EQ(Ask(you_, "GET", kMine).status, 403);
}

TEST_F(QuotasTest, SayWhatIsInUse) {
  api_.AddVolume(kMyProject, 3, type_);
  const Response shown = Ask(me_, "GET", kMine + "?usage=True");
  const Json body = BodyOf(shown);
  EXPECT_EQ(base::ToText(At(body, "quota_set", "gigabytes")),
            R"({"limit":1000,"in_use":3,"reserved":0})");
  EXPECT_EQ(base::ToText(At(body, "quota_set", "volumes___DEFAULT__")),
            R"({"limit":-1,"in_use":1,"reserved":0})");
}

TEST_F(QuotasTest, AreSetKeptToAndForgotten) {
  const Response set = Ask(admin_, "PUT", kMine,
                           R"({"quota_set": {"volumes": 1, "gigabytes": "5",
                               "volumes___DEFAULT__": 7}})");
  EXPECT_EQ(set.status, 200) << set.body;
  EXPECT_FALSE(NamesOf(At(BodyOf(set), "quota_set")).contains("id"));
  EXPECT_EQ(NumberAt(set, "quota_set", "gigabytes"), 5);
  EXPECT_EQ(NumberAt(set, "quota_set", "volumes___DEFAULT__"), 7);
  EXPECT_EQ(*api_.catalog.LimitOf(kMyProject, kVolumesResource), 1);
  EXPECT_EQ(*api_.catalog.LimitOf(kYourProject, kVolumesResource), 10);
  EXPECT_EQ(Ask(admin_, "DELETE", kMine).status, 200);
  EXPECT_EQ(NumberAt(Ask(me_, "GET", kMine), "quota_set", "volumes"), 10);
}

TEST_F(QuotasTest, RefuseWhatMeansNothing) {
  EXPECT_EQ(Message(Ask(admin_, "PUT", kMine, R"({"quota_set": {"bananas": 1}})"), "badRequest"),
            "Bad key(s) in quota set: bananas");
  for (const char* bad : {R"({"volumes": -2})", R"({"volumes": "many"})", R"({"volumes": null})",
                          R"({"volumes": 2147483648})", R"({"volumes": 1, "bananas": 2})"})
    EXPECT_EQ(Ask(admin_, "PUT", kMine, R"({"quota_set": )" + std::string(bad) + "}").status, 400)
        << bad;
  EXPECT_EQ(*api_.catalog.LimitOf(kMyProject, kVolumesResource), 10);
  api_.AddVolume(kMyProject, 3, type_);
  const std::string low = R"({"quota_set": {"gigabytes": 2}})";
  EXPECT_EQ(Ask(admin_, "PUT", kMine + "?skip_validation=False", low).status, 400);
  EXPECT_EQ(Ask(admin_, "PUT", kMine, low).status, 200);
}

TEST_F(QuotasTest, TheClassCountsWhereAProjectHasNothingOfItsOwn) {
  const Response shown = Ask(admin_, "GET", kClass);
  EXPECT_EQ(TextAt(shown, "quota_class_set", "id"), "default");
  const Response set =
      Ask(admin_, "PUT", kClass, R"({"quota_class_set": {"volumes": 20, "snapshots": 30}})");
  EXPECT_EQ(NumberAt(set, "quota_class_set", "volumes"), 20);
  EXPECT_FALSE(NamesOf(At(BodyOf(set), "quota_class_set")).contains("id"));
  Ask(admin_, "PUT", kMine, R"({"quota_set": {"volumes": 2}})");
  EXPECT_EQ(NumberAt(Ask(me_, "GET", kMine), "quota_set", "volumes"), 2);
  EXPECT_EQ(NumberAt(Ask(me_, "GET", kMine), "quota_set", "snapshots"), 30);
  EXPECT_EQ(NumberAt(Ask(me_, "GET", kMine + "/defaults"), "quota_set", "volumes"), 20);
  EXPECT_EQ(Ask(admin_, "GET", "/os-quota-class-sets/gold").status, 404);
}

TEST_F(QuotasTest, LimitsAreThoseOfTheCaller) {
  api_.AddVolume(kMyProject, 3, type_);
  const std::string mine = Ask(me_, "GET", "/limits").body;
  EXPECT_EQ(mine, R"({"limits":{"rate":[],"absolute":{"maxTotalVolumes":10,"totalVolumesUsed":1,)"
                  R"("maxTotalVolumeGigabytes":1000,"totalGigabytesUsed":3,"maxTotalSnapshots":10,)"
                  R"("totalSnapshotsUsed":0,"maxTotalBackups":10,"totalBackupsUsed":0,)"
                  R"("maxTotalBackupGigabytes":1000,"totalBackupGigabytesUsed":0}}})");
  const std::string asked = "/limits?project_id=" + std::string(kMyProject);
  EXPECT_EQ(Ask(admin_, "GET", asked).body, mine);
  EXPECT_NE(Ask(admin_, "GET", asked, "", 38).body, mine);
  EXPECT_NE(Ask(you_, "GET", asked).body, mine);
}

TEST_F(QuotasTest, TheSummaryIsOfTheCallersVolumes) {
  VolumeRecord volume = api_.AddVolume(kMyProject, 3, type_);
  ASSERT_OK(api_.catalog.Transact([&](Transaction& transaction) -> base::Result<void> {
    ASSIGN_OR_RETURN(volume, transaction.GetVolume(volume.id));
    volume.metadata = {{"a", "b"}};
    return transaction.Put(volume);
  }));
  api_.AddVolume(kYourProject, 4, type_);
  EXPECT_EQ(Ask(me_, "GET", "/volumes/summary").body,
            R"({"volume-summary":{"total_count":1,"total_size":3,"metadata":{"a":["b"]}}})");
  EXPECT_EQ(Ask(me_, "GET", "/volumes/summary", "", 12).body,
            R"({"volume-summary":{"total_count":1,"total_size":3}})");
  EXPECT_EQ(Ask(me_, "GET", "/volumes/summary?all_tenants=1", "", 12).body,
            R"({"volume-summary":{"total_count":1,"total_size":3}})");
  EXPECT_EQ(Ask(admin_, "GET", "/volumes/summary?all_tenants=1", "", 12).body,
            R"({"volume-summary":{"total_count":2,"total_size":7}})");
}

}  // namespace
}  // namespace blockd::tenancy
