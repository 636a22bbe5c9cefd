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
      service.Eventually([&] { return service.path().download_budget()->used_bytes() > 0; }));
  ASSERT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_OK(service.path().ReleasePending());
  EXPECT_OK(service.store().Collect(true, nullptr));
  Answer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.body == bytes);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
  EXPECT_EQ(service.path().download_budget()->used_bytes(), 0u);
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
      service.Eventually([&] { return service.path().download_budget()->used_bytes() == 0; }));
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
      service.Eventually([&] { return service.path().download_budget()->used_bytes() == 0; }));
  EXPECT_TRUE(service.Download(id).body == bytes);
}

}  // namespace
}  // namespace imaged
