#include "imaged/restore.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "imaged/holder.h"
#include "imaged/index.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

constexpr size_t kChunk = chunkstore::kChunkBytes;

// The catalog's whole partition is gone.
void LoseRecords(Service& service) {
  std::vector<std::string> keys;
  ASSERT_OK(service.meta().Scan(kImagesPartition, "", "\xff", 100'000,
                                [&](std::string_view key, std::string_view) {
                                  keys.emplace_back(key);
                                  return true;
                                }));
  chunkstore::MetaBatch batch;
  for (const std::string& key : keys) batch.Delete(key);
  ASSERT_OK(service.meta().Commit(kImagesPartition, batch));
}

base::Result<RestoreReport> Restore(Service& service) {
  return RestoreImages(service.store(), service.catalog(), "quarry", "sha256", [] { return true; });
}

// Their projects are lost with the records; an admin gives the images to somebody who is there.
TEST(Restore, SaysWhoOwnsTheImagesAndAnAdminGivesThemAway) {
  Service service;
  std::string bytes = RandomBytes(kChunk + 5);
  std::string first = service.CreateImage("lost-project");
  std::string second = service.CreateImage("lost-project");
  std::string other = service.CreateImage("p2");
  ASSERT_EQ(service.Upload(first, bytes, "lost-project").status, 204);
  ASSERT_EQ(service.Upload(second, "two", "lost-project").status, 204);
  ASSERT_EQ(service.Upload(other, "three", "p2").status, 204);
  // Bytes of an image that carry no record.
  const std::string nameless = "11111111-2222-4333-8444-555555555555";
  ASSERT_OK_AND_ASSIGN(auto ingest, service.store().NewIngest(NewHolder(nameless), ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(std::string_view("four"))));
  ASSERT_OK(ingest->Finish(4));
  LoseRecords(service);
  ASSERT_EQ(service.Download(first, "", "admin").status, 404);

  ASSERT_OK_AND_ASSIGN(const RestoreReport report, Restore(service));
  EXPECT_EQ(report.restored.size(), 4u);
  const std::map<std::string, size_t> owners = {{"", 1}, {"lost-project", 2}, {"p2", 1}};
  EXPECT_EQ(report.owners, owners);
  ASSERT_OK_AND_ASSIGN(const RestoreReport again, Restore(service));
  EXPECT_TRUE(again.owners.empty());

  for (const std::string& id : {first, nameless}) {
    EXPECT_EQ(service.Download(id, "", "p3").status, 404);
    const Answer given = service.Call("admin", "PATCH", "/v2/images/" + id,
                                      R"([{"op":"replace","path":"/owner","value":"p3"}])",
                                      "application/openstack-images-v2.1-json-patch");
    EXPECT_EQ(given.status, 200) << given.body;
  }
  EXPECT_TRUE(service.Download(first, "", "p3").body == bytes);
  EXPECT_EQ(service.Download(nameless, "", "p3").body, "four");
  EXPECT_EQ(service.Download(first, "", "lost-project").status, 404);
  EXPECT_EQ(service.Call("p3", "DELETE", "/v2/images/" + first).status, 204);
}

TEST(Holder, NamesItsImage) {
  const std::string holder = NewHolder("some-id");
  EXPECT_NE(holder, NewHolder("some-id"));
  EXPECT_TRUE(holder.starts_with(HolderPrefix("some-id")));
  EXPECT_EQ(ImageOfHolder(holder), "some-id");
  EXPECT_EQ(ImageOfHolder("image/some-id/1"), "some-id");  // as it stands in stores
  for (const char* none : {"", "image", "image/", "image/x", "volume/x/1", "ximage/x/1"}) {
    EXPECT_EQ(ImageOfHolder(none), "") << none;
  }
}

}  // namespace
}  // namespace imaged
