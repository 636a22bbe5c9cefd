#include "imaged/download.h"

#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

constexpr size_t kChunk = chunkstore::kChunkBytes;

// Noise, text and zeros: raw blobs, compressed ones and holes.
std::string Mixture(size_t chunks) {
  std::string bytes;
  for (size_t i = 0; i < chunks; ++i) {
    if (i % 3 == 0) bytes += RandomBytes(kChunk, i + 7);
    if (i % 3 == 1) {
      while (bytes.size() < (i + 1) * kChunk)
        bytes += fmt::format("line {} of text\n", bytes.size());
      bytes.resize((i + 1) * kChunk);
    }
    if (i % 3 == 2) bytes.append(kChunk, '\0');
  }
  return bytes;
}

TEST(Download, OfRanges) {
  Service service;
  std::string bytes = Mixture(7) + "the end";
  std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  struct Case {
    std::string fields;
    size_t offset, length;
  };
  for (const Case& part :
       {Case{"Range: bytes=0-0\r\n", 0, 1}, Case{"Range: bytes=5-\r\n", 5, bytes.size() - 5},
        Case{"Range: bytes=-7\r\n", bytes.size() - 7, 7},
        Case{fmt::format("Range: bytes={}-{}\r\n", kChunk - 1, 3 * kChunk), kChunk - 1,
             2 * kChunk + 2},
        Case{fmt::format("Range: bytes={}-{}\r\n", 2 * kChunk + 5, 2 * kChunk + 10), 2 * kChunk + 5,
             6},
        Case{"Content-Range: bytes 2-4/*\r\n", 2, 3}}) {
    Answer answer = service.Download(id, part.fields);
    EXPECT_EQ(answer.status, 206) << part.fields;
    EXPECT_EQ(
        answer.Field("Content-Range"),
        fmt::format("bytes {}-{}/{}", part.offset, part.offset + part.length - 1, bytes.size()));
    EXPECT_TRUE(answer.body == bytes.substr(part.offset, part.length)) << part.fields;
  }
  Answer whole = service.Download(id, "Range: lines=1-2\r\n");
  EXPECT_EQ(whole.status, 200);
  EXPECT_TRUE(whole.body == bytes);
  Answer beyond = service.Download(id, fmt::format("Range: bytes={}-\r\n", bytes.size()));
  EXPECT_EQ(beyond.status, 416);
  EXPECT_EQ(beyond.Field("Content-Range"), fmt::format("bytes */{}", bytes.size()));
}

TEST(Download, OfImagesWithoutBytesAndOfDeactivatedOnes) {
  Service service;
  std::string id = service.CreateImage();
  Answer queued = service.Download(id);
  EXPECT_EQ(queued.status, 204);
  EXPECT_EQ(queued.body, "");
  ASSERT_EQ(service.Upload(id, "hello-world").status, 204);
  EXPECT_EQ(service.Download(id, "", "p2").status, 404);
  EXPECT_EQ(service.Call("admin", "POST", "/v2/images/" + id + "/actions/deactivate").status, 204);
  Answer deactivated = service.Download(id);
  EXPECT_EQ(deactivated.status, 403);
  EXPECT_NE(deactivated.body.find("has been deactivated"), std::string::npos);
  EXPECT_EQ(service.Download(id, "", "admin").body, "hello-world");
  EXPECT_EQ(service.Download("no-such-image").status, 404);
}

// Who has begun to read gets all of it; the bytes go when the last reader has gone.
TEST(Download, GoesOnWhileTheImageIsDeleted) {
  Service service;
  std::string bytes = RandomBytes(16 * kChunk);
  std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  RawClient client(service.address());
  client.Send(Service::Head("p1", "GET", "/v2/images/" + id + "/file", ""));
  ASSERT_TRUE(
      service.Eventually([&] { return service.path().download_memory().used_bytes() > 0; }));
  ASSERT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_OK(service.path().ReleasePending());
  EXPECT_OK(service.store().Collect(true, nullptr));
  Answer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.body == bytes);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
  EXPECT_EQ(service.path().download_memory().used_bytes(), 0u);
}

TEST(Download, StaysWithinItsMemory) {
  Service::Options options = Service::Defaults();
  options.data.download_memory_bytes = 2 * DownloadSource::kSmallSliceBytes;
  options.data.admission_ms = 60'000;
  Service service(options);
  std::string bytes = Mixture(5);
  std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([&] { EXPECT_TRUE(service.Download(id).body == bytes); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(
      service.Eventually([&] { return service.path().download_memory().used_bytes() == 0; }));
}

TEST(FairBudget, LeavesAsMuchFreeAsAProjectHolds) {
  auto budget = std::make_shared<FairBudget>(12);
  std::vector<FairBudget::Share> held;
  auto take_all = [&](const std::string& project, uint64_t at_once) {
    size_t count = 0;
    while (FairBudget::Share share = budget->TryTake(project, at_once)) {
      held.push_back(std::move(share));
      ++count;
    }
    return count;
  };
  EXPECT_EQ(take_all("a", 1), 6u);
  EXPECT_EQ(take_all("b", 1), 3u);
  FairBudget::Refusal why = FairBudget::Refusal::kLimit;
  EXPECT_EQ(budget->TryTake("a", 1, &why), nullptr);
  EXPECT_EQ(why, FairBudget::Refusal::kShare);
  // Whoever holds nothing may have the rest, at once or in parts; then there is none.
  EXPECT_EQ(take_all("c", 3), 1u);
  EXPECT_EQ(budget->TryTake("d", 1, &why), nullptr);
  EXPECT_EQ(why, FairBudget::Refusal::kLimit);
  EXPECT_NE(budget->TryTake("d", 0), nullptr);
  EXPECT_EQ(budget->used_bytes(), 12u);
  held.clear();
  EXPECT_EQ(budget->used_bytes(), 0u);
  EXPECT_EQ(take_all("a", 1), 6u);
}

// Clients that never read hold what they have got for as long as they like.
TEST(Download, ByOneProjectLeavesRoomForOthersAndForShortReads) {
  constexpr int kStalled = 20;
  Service::Options options = Service::Defaults();
  options.data.download_memory_bytes = 16 * DownloadSource::kSmallSliceBytes;
  options.data.admission_ms = 100;
  Service service(options);
  // More than what lies in the buffers of sockets, and decoded into memory.
  std::string bytes;
  while (bytes.size() < 12 * kChunk) bytes += fmt::format("line {} of text\n", bytes.size() % 7);
  std::string mine = service.CreateImage("p1");
  std::string theirs = service.CreateImage("p2");
  ASSERT_EQ(service.Upload(mine, bytes).status, 204);
  ASSERT_EQ(service.Upload(theirs, bytes, "p2").status, 204);
  std::vector<std::unique_ptr<RawClient>> stalled;
  for (int i = 0; i < kStalled; ++i) {
    stalled.push_back(std::make_unique<RawClient>(service.address()));
    stalled.back()->Send(Service::Head("p1", "GET", "/v2/images/" + mine + "/file", ""));
  }
  Answer refused;
  ASSERT_TRUE(service.Eventually([&] {
    refused = service.Download(mine);
    return refused.status == 503;
  }));
  EXPECT_NE(refused.body.find("of your project"), std::string::npos) << refused.body;
  EXPECT_NE(refused.Field("Retry-After"), "");
  EXPECT_NE(
      service.metrics().Render().find("quarry_imaged_refused_downloads_total{limit=\"project\"}"),
      std::string::npos);
  Answer whole = service.Download(theirs, "", "p2");
  EXPECT_EQ(whole.status, 200) << whole.body;
  EXPECT_TRUE(whole.body == bytes);
  Answer part = service.Download(mine, "Range: bytes=100-199\r\n");
  EXPECT_EQ(part.status, 206) << part.body;
  EXPECT_EQ(part.body, bytes.substr(100, 100));
  stalled.clear();
  EXPECT_TRUE(
      service.Eventually([&] { return service.path().download_memory().used_bytes() == 0; }));
  EXPECT_EQ(service.Download(mine).status, 200);
}

TEST(Download, ByClientsThatGoAwayGivesEverythingBack) {
  Service service;
  std::string bytes = Mixture(6);
  std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  for (int i = 0; i < 5; ++i) {
    RawClient client(service.address());
    client.Send(Service::Head("p1", "GET", "/v2/images/" + id + "/file", ""));
    client.Reset();
  }
  EXPECT_TRUE(
      service.Eventually([&] { return service.path().download_memory().used_bytes() == 0; }));
  EXPECT_TRUE(service.Download(id).body == bytes);
}

}  // namespace
}  // namespace imaged
