#include "imaged/upload.h"

#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/async/run.h"
#include "base/async/sleep.h"
#include "base/hash.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

constexpr size_t kChunk = chunkstore::kChunkBytes;

std::string Digest(std::string_view algorithm, std::string_view bytes) {
  auto digester = base::Digester::Create(algorithm);
  (*digester)->Update(base::AsBytes(bytes));
  return (*digester)->FinishHex();
}

std::string FilePath(const std::string& id) { return "/v2/images/" + id + "/file"; }

// Sends bytes in HTTP's chunks of `step`, and the last one.
void SendChunked(RawClient* client, std::string_view bytes, size_t step) {
  for (size_t at = 0; at < bytes.size(); at += step) {
    std::string_view part = bytes.substr(at, step);
    client->Send(fmt::format("{:x}\r\n", part.size()));
    client->Send(part);
    client->Send("\r\n");
  }
}
constexpr std::string_view kOctets = "Content-Type: application/octet-stream\r\n";

TEST(Upload, ComesBackAsItWent) {
  Service service;
  for (size_t size :
       {size_t{0}, size_t{1}, size_t{1000}, kChunk - 1, kChunk, kChunk + 1, 5 * kChunk + 12345}) {
    std::string bytes = RandomBytes(size, size + 1);
    std::string id = service.CreateImage();
    Answer put = service.Upload(id, bytes);
    ASSERT_EQ(put.status, 204) << put.body;
    Image image = service.ImageOf(id);
    EXPECT_EQ(image.status, Status::kActive);
    EXPECT_EQ(image.size_bytes, size);
    EXPECT_EQ(image.virtual_size_bytes, size);
    EXPECT_EQ(image.os_hash_algo, "sha256");
    EXPECT_EQ(image.os_hash_value, Digest("sha256", bytes)) << size;
    EXPECT_EQ(image.checksum, std::nullopt);
    Answer got = service.Download(id);
    EXPECT_EQ(got.status, 200);
    EXPECT_EQ(got.Field("Content-Length"), std::to_string(size));
    EXPECT_TRUE(got.body == bytes) << size;
  }
}

TEST(Upload, InChunksOfHttp) {
  Service service;
  std::string bytes = RandomBytes(2 * kChunk + 777);
  std::string id = service.CreateImage();
  RawClient client(service.address());
  client.Send(Service::Head("p1", "PUT", FilePath(id),
                            std::string(kOctets) + "Transfer-Encoding: chunked\r\n"));
  SendChunked(&client, bytes, 100'000);
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().status, 204);
  EXPECT_TRUE(service.Download(id).body == bytes);
}

TEST(Upload, KnownBytesAreStoredOnceAndKeepTheirDigest) {
  Service service;
  std::string bytes = RandomBytes(9 * kChunk + 5);
  std::string first = service.CreateImage();
  ASSERT_EQ(service.Upload(first, bytes).status, 204);
  uint64_t before = service.BytesAfterCollect();
  std::string second = service.CreateImage("p2");
  ASSERT_EQ(service.Upload(second, bytes, "p2").status, 204);
  // A manifest more, and no chunk.
  EXPECT_LT(service.BytesAfterCollect() - before, 64 * base::kKiB);
  EXPECT_EQ(service.ImageOf(second).os_hash_value, Digest("sha256", bytes));
  // A known beginning, then something new: the digest was put off, and is made afterwards.
  std::string longer = bytes + RandomBytes(2 * kChunk, 99);
  std::string third = service.CreateImage();
  ASSERT_EQ(service.Upload(third, longer).status, 204);
  EXPECT_EQ(service.ImageOf(third).os_hash_value, Digest("sha256", longer));
}

TEST(Upload, MakesTheChecksumByPolicy) {
  for (auto policy : {ChecksumPolicy::kInline, ChecksumPolicy::kBackground}) {
    Service::Options options = Service::Defaults();
    options.data.checksum = policy;
    Service service(options);
    std::string bytes = RandomBytes(kChunk + 3);
    std::string id = service.CreateImage();
    ASSERT_EQ(service.Upload(id, bytes).status, 204);
    if (policy == ChecksumPolicy::kInline) EXPECT_NE(service.ImageOf(id).checksum, std::nullopt);
    EXPECT_TRUE(service.Eventually([&] { return service.ImageOf(id).checksum.has_value(); }));
    EXPECT_EQ(service.ImageOf(id).checksum, Digest("md5", bytes));
    EXPECT_EQ(service.Download(id).Field("Content-MD5"), Digest("md5", bytes));
  }
}

TEST(Upload, OfWrongFormIsRefusedAndLeavesTheImageQueued) {
  Service service;
  std::string id = service.CreateImage();
  Answer answer = service.Call("p1", "PUT", FilePath(id), "x", "application/json");
  EXPECT_EQ(answer.status, 415);
  EXPECT_NE(answer.body.find("application/json is not supported"), std::string::npos);
  auto put = [&](std::string_view fields) {
    return service.Call("p1", "PUT", FilePath(id), "hello", "application/octet-stream", fields);
  };
  EXPECT_EQ(put("x-openstack-image-size: 6\r\n").status, 400);
  EXPECT_EQ(put("x-openstack-image-size: -1\r\n").status, 400);
  EXPECT_EQ(put("x-image-meta-store: elsewhere\r\n").status, 400);
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  EXPECT_EQ(put("x-openstack-image-size: 5\r\n").status, 204);
  // Once is all.
  Answer again = put("");
  EXPECT_EQ(again.status, 409);
  EXPECT_NE(again.body.find("Image status transition from active to saving is not allowed"),
            std::string::npos);
}

TEST(Upload, NeedsTheFormatsSet) {
  Service service;
  Answer made = service.Call("p1", "POST", "/v2/images", R"({"name":"bare bones"})");
  auto json = base::ParseJson(made.body);
  std::string id = base::FindString(*json, "id").value();
  Answer put = service.Upload(id, "hello");
  EXPECT_EQ(put.status, 400);
  EXPECT_NE(put.body.find("Properties disk_format, container_format must be set"),
            std::string::npos);
}

TEST(Upload, OfOthersImagesIsRefused) {
  Service service;
  std::string id = service.CreateImage();
  EXPECT_EQ(service.Upload(id, "hello", "p2").status, 404);
  EXPECT_EQ(service.Upload("5c8d5e4f-0000-4000-8000-000000000000", "hello").status, 404);
  EXPECT_EQ(service.Upload(id, "hello", "admin").status, 204);
}

TEST(Upload, OfBytesThatLieAboutTheirFormatIsRefused) {
  Service service;
  std::string hidden = "QFI\xfb" + RandomBytes(4096);
  for (const char* declared : {"raw", "vmdk", "iso"}) {
    std::string id = service.CreateImage("p1", declared);
    Answer put = service.Upload(id, hidden);
    EXPECT_EQ(put.status, 415) << declared;
    EXPECT_NE(put.body.find("qcow2"), std::string::npos) << put.body;
    EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  }
  std::string id = service.CreateImage("p1", "qcow2");
  EXPECT_EQ(service.Upload(id, "no qcow2").status, 415);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
}

TEST(Upload, ThatBreaksOffLeavesTheImageQueuedAndNothingBehind) {
  Service service;
  std::string bytes = RandomBytes(3 * kChunk);
  for (bool reset : {false, true}) {
    for (bool chunked : {false, true}) {
      std::string id = service.CreateImage();
      RawClient client(service.address());
      std::string length = fmt::format("Content-Length: {}\r\n", bytes.size() + 1);
      client.Send(Service::Head(
          "p1", "PUT", FilePath(id),
          std::string(kOctets) + (chunked ? "Transfer-Encoding: chunked\r\n" : length)));
      if (chunked) {
        SendChunked(&client, bytes, 1 << 20);
      } else {
        client.Send(bytes);
      }
      reset ? client.Reset() : client.Close();
      EXPECT_TRUE(service.Eventually([&] {
        Image image = service.ImageOf(id);
        return image.status == Status::kQueued && !image.upload.has_value();
      }));
      EXPECT_EQ(service.BytesAfterCollect(), 0u);
      // And it can be done again.
      EXPECT_EQ(service.Upload(id, "hello").status, 204);
      EXPECT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
    }
  }
}

TEST(Upload, LongerThanItsHeaderSaysIsRefused) {
  Service service;
  std::string id = service.CreateImage();
  RawClient client(service.address());
  client.Send(Service::Head(
      "p1", "PUT", FilePath(id),
      std::string(kOctets) + "Transfer-Encoding: chunked\r\nx-openstack-image-size: 10\r\n"));
  SendChunked(&client, "0123456789a", 11);
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().status, 400);
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
}

TEST(Upload, LargerThanAllowedIsRefused) {
  Service::Options options = Service::Defaults();
  options.data.max_image_bytes = kChunk;
  Service service(options);
  std::string id = service.CreateImage();
  EXPECT_EQ(service.Upload(id, RandomBytes(kChunk + 1)).status, 413);
  RawClient client(service.address());
  client.Send(Service::Head("p1", "PUT", FilePath(id),
                            std::string(kOctets) + "Transfer-Encoding: chunked\r\n"));
  SendChunked(&client, RandomBytes(kChunk + 1), kChunk);
  client.Send("0\r\n\r\n");
  EXPECT_EQ(client.ReadAnswer().status, 413);
  EXPECT_EQ(service.Upload(id, RandomBytes(kChunk)).status, 204);
}

TEST(Upload, TwoAtOnceOneWins) {
  Service service;
  std::string id = service.CreateImage();
  std::string bytes = RandomBytes(2 * kChunk);
  RawClient first(service.address());
  first.Send(Service::Head("p1", "PUT", FilePath(id),
                           fmt::format("{}Content-Length: {}\r\n", kOctets, bytes.size())));
  first.Send(std::string_view(bytes).substr(0, kChunk));
  ASSERT_TRUE(service.Eventually([&] { return service.ImageOf(id).status == Status::kSaving; }));
  EXPECT_EQ(service.Upload(id, "other").status, 409);
  first.Send(std::string_view(bytes).substr(kChunk));
  EXPECT_EQ(first.ReadAnswer().status, 204);
  EXPECT_TRUE(service.Download(id).body == bytes);
}

TEST(Upload, OfAnImageThatIsDeletedMeanwhileIsGone) {
  Service service;
  std::string id = service.CreateImage();
  std::string bytes = RandomBytes(2 * kChunk);
  RawClient client(service.address());
  client.Send(Service::Head("p1", "PUT", FilePath(id),
                            fmt::format("{}Content-Length: {}\r\n", kOctets, bytes.size())));
  client.Send(std::string_view(bytes).substr(0, kChunk));
  ASSERT_TRUE(service.Eventually([&] { return service.ImageOf(id).status == Status::kSaving; }));
  EXPECT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  client.Send(std::string_view(bytes).substr(kChunk));
  Answer answer = client.ReadAnswer();
  EXPECT_EQ(answer.status, 410) << answer.body;
  EXPECT_EQ(service.Call("p1", "GET", "/v2/images/" + id).status, 404);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
}

// The store may fail at any of its writes: the client is told, and nothing stays.
TEST(Upload, ThatMeetsAFullDiskAtAnyPointIsUndone) {
  Service service;
  std::string bytes = RandomBytes(3 * kChunk + 1);
  for (int64_t nth = 0;; ++nth) {
    ASSERT_LT(nth, 50);
    std::string id = service.CreateImage();
    service.blobs().FailPutsFrom(nth);
    Answer put = service.Upload(id, bytes);
    service.blobs().FailPutsFrom(-1);
    if (put.status == 204) {
      EXPECT_GT(nth, 4);  // four chunks, a page, a manifest
      break;
    }
    EXPECT_EQ(put.status, 507) << put.body;
    Image image = service.ImageOf(id);
    EXPECT_EQ(image.status, Status::kQueued);
    EXPECT_EQ(image.upload, std::nullopt);
    EXPECT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
    EXPECT_EQ(service.BytesAfterCollect(), 0u);
  }
}

TEST(Upload, StaysWithinItsMemoryAndItsShareOfIt) {
  Service::Options options = Service::Defaults();
  options.data.upload_memory_bytes = 3 * kChunk;
  options.data.admission_ms = 60'000;
  Service service(options);
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    clients.emplace_back([&service, i] {
      std::string bytes = RandomBytes(8 * kChunk, 100 + i);
      std::string id = service.CreateImage();
      EXPECT_EQ(service.Upload(id, bytes).status, 204);
      EXPECT_TRUE(service.Download(id).body == bytes);
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_LE(service.path().upload_buffers()->most_in_use(), 3u);
  EXPECT_EQ(service.path().upload_buffers()->in_use(), 0u);
}

// Known chunks, and then a client that stands still until the upload has let go of them.
class StandingStill : public base::http::BodyReader {
 public:
  StandingStill(DataPath& path, std::string known) : path_(path), known_(std::move(known)) {}
  std::optional<uint64_t> content_length() const override { return std::nullopt; }
  base::async::Task<base::Result<size_t>> Read(base::MutableByteView into) override {
    const size_t count = std::min(into.size(), known_.size() - at_);
    std::copy_n(known_.data() + at_, count, into.data());
    at_ += count;
    constexpr int64_t kPauseMs = 10;
    constexpr int kPauses = 1000;
    for (int i = 0; count == 0 && held_ != 1 && i < kPauses; ++i) {
      held_ = path_.upload_buffers()->in_use();
      co_await base::async::SleepMs(kPauseMs);
    }
    co_return base::Result<size_t>(count);
  }
  size_t held() const { return held_; }  // buffers, at last

 private:
  DataPath& path_;
  const std::string known_;
  size_t at_ = 0;
  size_t held_ = 0;
};

TEST(Upload, ThatWaitsForItsClientHoldsOneBuffer) {
  Service service;
  const std::string known = RandomBytes(3 * kChunk);
  ASSERT_EQ(service.Upload(service.CreateImage(), known).status, 204);
  StandingStill body(service.path(), known);
  ReceiveOptions options;
  options.image_id = service.CreateImage();
  options.holder = NewHolder(options.image_id);
  options.sharer = "p1";
  ASSERT_OK_AND_ASSIGN(auto ingest, service.store().NewIngest(options.holder, ""));
  ReceiveOutcome outcome = base::async::RunToEnd(
      ReceiveBody(service.path(), body, std::move(ingest), std::move(options)));
  EXPECT_EQ(body.held(), 1u);
  ASSERT_TRUE(outcome.received.has_value());
  EXPECT_EQ(outcome.received->digests["sha256"], Digest("sha256", known));
}

TEST(BufferPool, LeavesAsManyFreeAsAProjectHolds) {
  auto pool = std::make_shared<BufferPool>(12);
  std::vector<std::shared_ptr<BufferLane>> lanes;
  auto take_all = [&](const std::string& project) {
    size_t count = 0;
    while (auto lane = BufferLane::TryAdmit(pool, project)) {
      lanes.push_back(std::move(lane));
      ++count;
    }
    return count;
  };
  EXPECT_EQ(take_all("a"), 6u);
  Refusal why = Refusal::kLimit;
  EXPECT_EQ(BufferLane::TryAdmit(pool, "a", &why), nullptr);
  EXPECT_EQ(why, Refusal::kShare);
  // One upload has a first buffer in any case, and more of its project's share.
  auto lane = BufferLane::TryAdmit(pool, "b");
  ASSERT_NE(lane, nullptr);
  std::vector<std::shared_ptr<ChunkBuffer>> chunks;
  while (auto chunk = lane->TryTake()) chunks.push_back(std::move(chunk));
  EXPECT_EQ(chunks.size(), 3u);
  chunks.clear();
  EXPECT_EQ(pool->in_use(), 7u) << "it keeps one";
  lane.reset();
  lanes.clear();
  EXPECT_EQ(pool->in_use(), 0u);
}

TEST(Upload, BeyondTheMemoryIsTurnedAway) {
  Service::Options options = Service::Defaults();
  options.data.upload_memory_bytes = kChunk;
  options.data.admission_ms = 0;
  Service service(options);
  std::string slow = service.CreateImage();
  RawClient client(service.address());
  client.Send(
      Service::Head("p1", "PUT", FilePath(slow), fmt::format("{}Content-Length: 10\r\n", kOctets)));
  client.Send("01234");
  ASSERT_TRUE(service.Eventually([&] { return service.path().upload_buffers()->in_use() == 1; }));
  std::string id = service.CreateImage();
  EXPECT_EQ(service.Upload(id, "hello").status, 503);
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  client.Send("56789");
  EXPECT_EQ(client.ReadAnswer().status, 204);
  EXPECT_EQ(service.Upload(id, "hello").status, 204);
}

TEST(Upload, HoldsTheQuotaUnderRaces) {
  Service::Options options = Service::Defaults();
  options.quota.bytes = 4 * base::kMiB;
  Service service(options);
  std::vector<std::thread> clients;
  std::atomic<int> done{0}, refused{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      std::string id = service.CreateImage();
      std::string bytes = RandomBytes(base::kMiB, i);
      int status = 0;
      if (i % 2 == 0) {
        status = service.Upload(id, bytes).status;
      } else {
        RawClient client(service.address());
        client.Send(Service::Head("p1", "PUT", FilePath(id),
                                  std::string(kOctets) + "Transfer-Encoding: chunked\r\n"));
        SendChunked(&client, bytes, 1 << 18);
        client.Send("0\r\n\r\n");
        status = client.ReadAnswer().status;
      }
      if (status == 204) ++done;
      if (status == 413) ++refused;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(done + refused, 8);
  EXPECT_LE(done, 4);
  EXPECT_GE(done, 1);
  ASSERT_OK_AND_ASSIGN(Usage usage, service.catalog().UsageOfProject("p1"));
  EXPECT_EQ(usage.bytes, done * base::kMiB);
  EXPECT_EQ(usage.uploads, 0u);
}

// At the speed of memory: what an upload does beside it (the socket, the digest of the whole image)
// would take a minute here.
TEST(Upload, Of100GiBOfZerosStoresAFewKiB) {
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || !defined(__OPTIMIZE__)
  constexpr uint64_t kSizeBytes = 4 * base::kGiB;
#else
  constexpr uint64_t kSizeBytes = 100 * base::kGiB;
#endif
  constexpr uint64_t kThreads = 2;
  Service service;
  const std::string holder = NewHolder(service.CreateImage());
  ASSERT_OK_AND_ASSIGN(auto ingest, service.store().NewIngest(holder, ""));
  const std::vector<uint8_t> zeros(kChunk);
  std::vector<std::thread> threads;
  for (uint64_t first = 0; first < kThreads; ++first) {
    threads.emplace_back([&, first] {
      for (uint64_t i = first; i < kSizeBytes / kChunk; i += kThreads) {
        auto put = ingest->Put(i, zeros);
        ASSERT_OK(put);
        ASSERT_TRUE(put->hole);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_OK_AND_ASSIGN(const chunkstore::Root root, ingest->Finish(kSizeBytes));
  EXPECT_EQ(root.size_bytes, kSizeBytes);
  uint64_t stored_bytes = 0;
  ASSERT_OK(service.blobs().List([&](std::string_view, uint64_t size) {
    stored_bytes += size;
    return true;
  }));
  EXPECT_LT(stored_bytes, 16 * base::kKiB);
  ASSERT_OK_AND_ASSIGN(const auto content, service.store().Open(root));
  std::vector<uint8_t> end(100, 1);
  ASSERT_OK(content->ReadAt(kSizeBytes - end.size(), end));
  EXPECT_EQ(end, std::vector<uint8_t>(end.size(), 0));
}

TEST(Upload, OfZerosCostsNothing) {
  Service service;
  std::string id = service.CreateImage();
  constexpr uint64_t kPieces = 512;  // of 1 MiB
  RawClient client(service.address());
  client.Send(Service::Head("p1", "PUT", FilePath(id),
                            std::string(kOctets) + "Transfer-Encoding: chunked\r\n"));
  std::string piece = "100000\r\n" + std::string(base::kMiB, '\0') + "\r\n";
  for (uint64_t i = 0; i < kPieces; ++i) ASSERT_TRUE(client.Send(piece));
  client.Send("0\r\n\r\n");
  ASSERT_EQ(client.ReadAnswer().status, 204);
  EXPECT_EQ(service.ImageOf(id).size_bytes, kPieces * base::kMiB);
  EXPECT_LT(service.BytesAfterCollect(), 16 * base::kKiB);
  Answer part = service.Download(id, "Range: bytes=400000000-400000099\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, std::string(100, '\0'));
}

}  // namespace
}  // namespace imaged
