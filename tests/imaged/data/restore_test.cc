#include "imaged/restore.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "chunkstore/jobs/journal.h"
#include "imaged/digests.h"
#include "imaged/holder.h"
#include "imaged/index.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

constexpr size_t kChunk = chunkstore::kChunkBytes;

void LosePartition(Service& service, std::string_view partition) {
  std::vector<std::string> keys;
  ASSERT_OK(service.meta().Scan(partition, "", "\xff", 100'000,
                                [&](std::string_view key, std::string_view) {
                                  keys.emplace_back(key);
                                  return true;
                                }));
  chunkstore::MetaBatch batch;
  for (const std::string& key : keys) batch.Delete(key);
  ASSERT_OK(service.meta().Commit(partition, batch));
}

base::Result<RestoreReport> Restore(Service& service,
                                    ChecksumPolicy policy = ChecksumPolicy::kOff) {
  DataOptions options;
  options.checksum = policy;
  return RestoreImages(service.store(), service.meta(), service.catalog(), options,
                       [] { return true; });
}

std::string Md5(std::string_view bytes) {
  auto digester = base::Digester::Create("md5");
  CHECK(digester.has_value());
  (*digester)->Update(base::AsBytes(bytes));
  return (*digester)->FinishHex();
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
  LosePartition(service, kImagesPartition);
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

TEST(Restore, LeavesTheChecksumToAJobOfTheService) {
  Service::Options options = Service::Defaults();
  options.data.checksum = ChecksumPolicy::kBackground;
  Service service(options);
  const std::string bytes = RandomBytes(kChunk + 5);
  const std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  ASSERT_TRUE(service.Eventually([&] { return service.ImageOf(id).checksum.has_value(); }));
  service.StopServer();
  LosePartition(service, kImagesPartition);
  LosePartition(service, "digests");
  ASSERT_OK(Restore(service, ChecksumPolicy::kBackground));
  service.Restart();
  EXPECT_TRUE(service.Eventually([&] { return service.ImageOf(id).checksum.has_value(); }));
  EXPECT_EQ(service.ImageOf(id).checksum, Md5(bytes));
}

TEST(Restore, MakesTheChecksumItselfWhereUploadsDo) {
  Service service;
  const std::string bytes = RandomBytes(kChunk + 5);
  const std::string id = service.CreateImage();
  const std::string twin = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  ASSERT_EQ(service.Upload(twin, bytes).status, 204);
  LosePartition(service, kImagesPartition);
  LosePartition(service, "digests");
  ASSERT_OK(Restore(service, ChecksumPolicy::kInline));
  EXPECT_EQ(service.ImageOf(id).checksum, Md5(bytes));
  EXPECT_EQ(service.ImageOf(twin).checksum, Md5(bytes));
}

// Nothing is read for it and no job is made: the bytes are the same.
TEST(Restore, TakesAChecksumThatIsKnown) {
  Service service;
  const std::string bytes = RandomBytes(kChunk + 5);
  const std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  const chunkstore::Root root = service.ImageOf(id).data->root;
  ASSERT_OK(DigestStore(service.meta()).Add(root, {{"md5", "0123456789abcdef0123456789abcdef"}}));
  LosePartition(service, kImagesPartition);
  ASSERT_OK(Restore(service, ChecksumPolicy::kBackground));
  EXPECT_EQ(service.ImageOf(id).checksum, "0123456789abcdef0123456789abcdef");
  chunkstore::jobs::Journal jobs(service.meta(), base::SystemClock(), std::string(kJobsPartition),
                                 "test");
  ASSERT_OK_AND_ASSIGN(const auto due, jobs.List(kChecksumJob));
  EXPECT_TRUE(due.empty());
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
  const std::string raw = NewRawHolder("some-id");
  EXPECT_EQ(ImageOfRawHolder(raw), "some-id");
  EXPECT_EQ(ImageOfHolder(raw), "") << "holds no image's own bytes";
  EXPECT_EQ(ImageOfRawHolder(holder), "");
}

}  // namespace
}  // namespace imaged
