#include "blockd/discovery/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/blockd/api/harness.h"

// What the service says of itself, to the member: Tempest's schemas allow no others.

namespace blockd::discovery {
namespace {

using base::http::Response;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

class DiscoveryTest : public testing::Test {
 protected:
  DiscoveryTest() {
    std::vector<base::http::Route> bound;
    AppendVersionRoutes("/volume", &bound);
    std::vector<api::Route> routes;
    const auto capacity = [this](const std::string&) -> base::Result<std::optional<Capacity>> {
      return capacity_;
    };
    AppendServiceRoutes(Context{options_, api_.catalog, capacity}, &routes);
    AppendListRoutes(&routes);
    api::AppendRoutes("/volume", routes, &bound);
    api_.Mount(std::move(bound));
  }
  Response Get(std::string_view target, int minor = 70) {
    return api_.Call(Admin(), "GET", target, "", minor);
  }
  Response Put(std::string_view target, std::string_view body) {
    return api_.Call(Admin(), "PUT", target, body);
  }

  ServiceOptions options_;
  Capacity capacity_{8 * base::kGiB, 2 * base::kGiB};
  Harness api_;
};

TEST(HostNameTest, ComesApart) {
  const HostName full = ParseHost("node@back#pool");
  EXPECT_EQ(full.pool, "node@back#pool");
  EXPECT_EQ(full.backend, "node@back");
  EXPECT_EQ(full.node, "node");
  EXPECT_EQ(full.name, "back");
  EXPECT_EQ(ParseHost("node").backend, "node");
  EXPECT_EQ(ParseHost("node").name, "node");
}

TEST_F(DiscoveryTest, VersionsAreFoundWithoutAToken) {
  const Response choices = api_.CallAt(nullptr, "GET", "/", "", {});
  EXPECT_EQ(choices.status, 300);
  EXPECT_THAT(NamesOf(At(BodyOf(choices), "versions", 0)),
              UnorderedElementsAre("id", "status", "version", "min_version", "updated", "links",
                                   "media-types"));
  EXPECT_EQ(TextAt(choices, "versions", 0, "id"), "v3.0");
  EXPECT_EQ(TextAt(choices, "versions", 0, "status"), "CURRENT");
  EXPECT_EQ(TextAt(choices, "versions", 0, "version"), "3.71");
  EXPECT_EQ(TextAt(choices, "versions", 0, "links", 1, "href"), "http://127.0.0.1:9696/volume/v3/");
  EXPECT_EQ(choices.headers.Get("OpenStack-API-Version"), "volume 3.0");
  const Response current = api_.CallAt(nullptr, "GET", "/v3/", "", {});
  EXPECT_EQ(current.status, 200);
  EXPECT_EQ(current.body, choices.body);
  EXPECT_EQ(api_.CallAt(nullptr, "GET", "/v3", "", {}).status, 200);
  EXPECT_EQ(api_.CallAt(nullptr, "GET", "/v2/", "", {}).status, 404);
}

TEST_F(DiscoveryTest, EveryBackEndIsAServiceAndAPool) {
  options_.back_ends = {"store", "rbd"};
  const Response services = Get("/os-services?binary=cinder-volume");
  EXPECT_EQ(TextAt(services, "services", 0, "host"), "quarry@store");
  EXPECT_EQ(TextAt(services, "services", 1, "host"), "quarry@rbd");
  const Response pools = Get("/scheduler-stats/get_pools?detail=True");
  EXPECT_EQ(TextAt(pools, "pools", 0, "name"), "quarry@store#store");
  EXPECT_EQ(TextAt(pools, "pools", 1, "name"), "quarry@rbd#rbd");
  EXPECT_EQ(TextAt(pools, "pools", 1, "capabilities", "volume_backend_name"), "rbd");
  EXPECT_EQ(TextAt(Get("/capabilities/quarry@rbd"), "volume_backend_name"), "rbd");
  EXPECT_EQ(Get("/capabilities/quarry@ceph").status, 404);
  EXPECT_EQ(Get("/os-hosts/quarry@rbd").status, 200);
}

TEST_F(DiscoveryTest, ServicesHaveTheFieldsOfTheirVersion) {
  const Response newest = Get("/os-services");
  EXPECT_THAT(NamesOf(At(BodyOf(newest), "services", 0)),
              UnorderedElementsAre("binary", "host", "zone", "status", "state", "updated_at",
                                   "cluster", "disabled_reason"));
  EXPECT_THAT(NamesOf(At(BodyOf(newest), "services", 1)),
              UnorderedElementsAre("binary", "host", "zone", "status", "state", "updated_at",
                                   "cluster", "disabled_reason", "backend_state",
                                   "replication_status", "active_backend_id", "frozen"));
  const Response oldest = Get("/os-services?binary=cinder-volume", 0);
  EXPECT_THAT(
      NamesOf(At(BodyOf(oldest), "services", 0)),
      UnorderedElementsAre("binary", "host", "zone", "status", "state", "updated_at",
                           "disabled_reason", "replication_status", "active_backend_id", "frozen"));
  EXPECT_EQ(TextAt(oldest, "services", 0, "host"), "quarry@store");
  EXPECT_EQ(At(BodyOf(Get("/os-services?host=quarry")), "services").get_array().size(), 2u);
  EXPECT_EQ(At(BodyOf(Get("/os-services?host=quarry@store")), "services").get_array().size(), 1u);
  EXPECT_EQ(Get("/os-services?host=other").body, R"({"services":[]})");
}

TEST_F(DiscoveryTest, BackupsAreAServiceWhereTheyAreSet) {
  const std::string row = "/os-services?binary=cinder-backup";
  EXPECT_EQ(Get(row).body, R"({"services":[]})");
  options_.backup_service = BackupService::kUp;
  EXPECT_EQ(TextAt(Get(row), "services", 0, "host"), "quarry");
  EXPECT_EQ(TextAt(Get(row), "services", 0, "state"), "up");
  options_.backup_service = BackupService::kDown;
  EXPECT_EQ(TextAt(Get(row), "services", 0, "state"), "down");
}

TEST_F(DiscoveryTest, ServicesAreEnabledAndStaySo) {
  EXPECT_EQ(Message(Put("/os-services/disable", R"({"binary": "invalid", "host": "quarry"})"),
                    "itemNotFound"),
            "Service invalid could not be found on host quarry.");
  EXPECT_EQ(Message(Put("/os-services/freeze", R"({"host": "invalid_host"})"), "badRequest"),
            "No service found with host=invalid_host");
  EXPECT_EQ(Put("/os-services/thaw", R"({"host": "quarry@store"})").status, 202);
  EXPECT_EQ(
      Message(
          Put("/os-services/disable-log-reason",
              R"({"binary": "cinder-volume", "host": "quarry@store", "disabled_reason": null})"),
          "badRequest"),
      "Invalid input for field/attribute disabled_reason. Value: None. None is not of type "
      "'string'");
  const Response enabled =
      Put("/os-services/enable", R"({"binary": "cinder-volume", "host": "quarry@store"})");
  EXPECT_EQ(TextAt(enabled, "status"), "enabled");
  EXPECT_EQ(
      Put("/os-services/disable", R"({"binary": "cinder-volume", "host": "quarry@store"})").status,
      400);
  EXPECT_EQ(Put("/os-services/dance", "{}").status, 404);
}

TEST_F(DiscoveryTest, HostsCountWhatLiesOnThem) {
  api_.AddVolume(kMyProject, 3, "t");
  api_.AddVolume(kYourProject, 4, "t");
  const Response hosts = Get("/os-hosts");
  EXPECT_THAT(NamesOf(At(BodyOf(hosts), "hosts", 0)),
              UnorderedElementsAre("host_name", "service", "zone", "service-status",
                                   "service-state", "last-update"));
  const Response host = Get("/os-hosts/quarry@store");
  EXPECT_THAT(NamesOf(At(BodyOf(host), "host", 0, "resource")),
              UnorderedElementsAre("host", "project", "volume_count", "total_volume_gb",
                                   "snapshot_count", "total_snapshot_gb"));
  EXPECT_EQ(TextAt(host, "host", 0, "resource", "project"), "(total)");
  EXPECT_EQ(TextAt(host, "host", 0, "resource", "volume_count"), "2");
  EXPECT_EQ(TextAt(host, "host", 0, "resource", "total_volume_gb"), "7");
  EXPECT_EQ(TextAt(host, "host", 1, "resource", "total_volume_gb"), "3");
  EXPECT_EQ(Get("/os-hosts/other").status, 404);
}

TEST_F(DiscoveryTest, PoolsTellTheirCapacity) {
  EXPECT_EQ(Get("/scheduler-stats/get_pools").body, R"({"pools":[{"name":"quarry@store#store"}]})");
  api_.AddVolume(kMyProject, 3, "t");
  const base::Json body = BodyOf(Get("/scheduler-stats/get_pools?detail=True"));
  const base::Json& capabilities = At(body, "pools", 0, "capabilities");
  EXPECT_THAT(NamesOf(capabilities),
              UnorderedElementsAre(
                  "volume_backend_name", "vendor_name", "driver_version", "storage_protocol",
                  "total_capacity_gb", "free_capacity_gb", "reserved_percentage", "QoS_support",
                  "sparse_copy_volume", "provisioned_capacity_gb", "max_over_subscription_ratio",
                  "thin_provisioning_support", "thick_provisioning_support",
                  "allocated_capacity_gb", "filter_function", "goodness_function", "timestamp"));
  // What extra specs may ask for.
  EXPECT_EQ(base::FindString(capabilities, "volume_backend_name"), std::string(kBackEndName));
  EXPECT_EQ(base::FindString(capabilities, "vendor_name"), std::string(kBackEndVendor));
  EXPECT_EQ(base::FindString(capabilities, "storage_protocol"), std::string(kBackEndProtocol));
  EXPECT_EQ(At(capabilities, "total_capacity_gb").get_double(), 8.0);
  EXPECT_EQ(At(capabilities, "free_capacity_gb").get_double(), 2.0);
  EXPECT_EQ(At(capabilities, "provisioned_capacity_gb").get_double(), 3.0);
}

TEST_F(DiscoveryTest, CapabilitiesOfTheBackEnd) {
  const Response response = Get("/capabilities/quarry@store");
  EXPECT_THAT(
      NamesOf(BodyOf(response)),
      UnorderedElementsAre("namespace", "vendor_name", "volume_backend_name", "pool_name",
                           "driver_version", "storage_protocol", "display_name", "description",
                           "visibility", "replication_targets", "properties"));
  EXPECT_THAT(
      NamesOf(At(BodyOf(response), "properties")),
      UnorderedElementsAre("thin_provisioning", "compression", "qos", "replication_enabled"));
  EXPECT_EQ(Get("/capabilities/nowhere").status, 404);
}

TEST_F(DiscoveryTest, ListsThatAreAlwaysTheSame) {
  EXPECT_EQ(api_.Call(Reader(), "GET", "/os-availability-zone").body,
            R"({"availabilityZoneInfo":[{"zoneName":"nova","zoneState":{"available":true}}]})");
  EXPECT_EQ(Get("/clusters").body, R"({"clusters":[]})");
  EXPECT_EQ(Get("/groups/detail").body, R"({"groups":[]})");
  EXPECT_EQ(Get("/group_snapshots/detail").body, R"({"group_snapshots":[]})");
  EXPECT_EQ(Get("/group_types").body, R"({"group_types":[]})");
  EXPECT_EQ(Message(Get("/groups/x"), "itemNotFound"), "Group x could not be found.");
  EXPECT_EQ(Get("/clusters", 6).status, 404);
  EXPECT_EQ(Get("/groups", 12).status, 404);
  EXPECT_THAT(NamesOf(At(BodyOf(Get("/extensions")), "extensions", 0)),
              UnorderedElementsAre("name", "alias", "description", "updated", "links"));
  EXPECT_EQ(TextAt(Get("/extensions/os-hosts"), "extension", "name"), "Hosts");
  EXPECT_EQ(Get("/extensions/nosuch").status, 404);
  const Response filters = Get("/resource_filters?resource=snapshot");
  EXPECT_EQ(At(BodyOf(filters), "resource_filters").get_array().size(), 1u);
  EXPECT_EQ(TextAt(filters, "resource_filters", 0, "filters", 0), "name");
}

}  // namespace
}  // namespace blockd::discovery
