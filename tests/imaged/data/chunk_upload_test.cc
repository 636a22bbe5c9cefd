#include "imaged/chunk_upload.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "chunkstore/map.h"
#include "imaged/holder.h"
#include "imaged/kept_parts.h"
#include "tests/imaged/data/chunk_uploads.h"
#include "tests/support/results.h"

// Uploads that name what is there: what is told to whom, and what a client can't talk us into.

namespace imaged {
namespace {

TEST_F(ChunkUpload, SendsOnlyWhatIsNew) {
  const std::string first = service_.CreateImage();
  EXPECT_EQ(Wanted(first, base_.list), Flags({true, true, true, false, true, true}));
  ASSERT_EQ(Put(first, base_.Stream(Flags(6, true))).status, 204);
  EXPECT_TRUE(service_.Download(first).body == base_.bytes);

  Content changed(base_.bytes);
  changed.bytes[kChunk + 5] ^= 1;
  changed = Content(changed.bytes + "and more");
  const std::string second = service_.CreateImage();
  const Flags wanted = Wanted(second, changed.list);
  EXPECT_EQ(wanted, Flags({false, true, false, false, false, true}));
  const std::string stream = changed.Stream(wanted);
  EXPECT_LT(stream.size(), kChunk + 1000);
  const Answer put = Put(second, stream);
  ASSERT_EQ(put.status, 204) << put.body;
  EXPECT_TRUE(service_.Download(second).body == changed.bytes);
  const Image image = service_.ImageOf(second);
  EXPECT_EQ(image.size_bytes, changed.bytes.size());
  EXPECT_EQ(image.os_hash_value, base::Sha256(base::AsBytes(changed.bytes)).hex());
}

TEST_F(ChunkUpload, OfEverySizeAndManyBatches) {
  // More than one batch of entries; the ids repeat.
  std::string many;
  const std::string chunk = RandomBytes(kChunk, 5);
  for (size_t i = 0; i < kChunksOfBatch + 2; ++i)
    many += i % 3 == 1 ? std::string(kChunk, 0) : chunk;
  for (const std::string& bytes :
       {std::string(), std::string(1, 'x'), std::string(2 * kChunk, '\0'), chunk, many,
        RandomBytes(kChunk + 1, 6)}) {
    const Content content(bytes);
    const std::string id = service_.CreateImage();
    const Answer put = Put(id, content.Stream(Wanted(id, content.list)));
    ASSERT_EQ(put.status, 204) << put.body;
    EXPECT_TRUE(service_.Download(id).body == bytes) << bytes.size();
    const std::string again = service_.CreateImage();
    const Flags none = Wanted(again, content.list);
    EXPECT_EQ(none, Flags(content.list.ids.size(), false));
    ASSERT_EQ(Put(again, content.Stream(none)).status, 204);
    EXPECT_TRUE(service_.Download(again).body == bytes) << bytes.size();
  }
}

TEST_F(ChunkUpload, AListMayBeginAnywhere) {
  Active(base_.bytes);
  ChunkList tail = base_.list;
  tail.first = 2;
  tail.ids.erase(tail.ids.begin(), tail.ids.begin() + 2);
  tail.ids[1] = base::Sha256(base::AsBytes("unknown"));
  const std::string id = service_.CreateImage();
  EXPECT_EQ(Wanted(id, tail), Flags({false, true, false, false}));
  EXPECT_THAT(Ask(id, tail).body, testing::StartsWith(R"({"wanted":[[3,1]],)"));
}

TEST_F(ChunkUpload, ASecondTenantCantProbeNorClaim) {
  const std::string secret = Active(base_.bytes);
  Patch(secret, "/visibility", "private");
  const Flags all = {true, true, true, false, true, true};
  EXPECT_EQ(WantedBy("p2", base_.list), all);
  EXPECT_EQ(WantedBy("p1", base_.list), Flags(6, false));

  const Content absent(RandomBytes(2 * kChunk, 77));
  const std::string id = service_.CreateImage("p2");
  const Answer named = Put(id, base_.Stream(Flags(6, false)), "p2");
  const Answer unknown = Put(id, absent.Stream(Flags(2, false)), "p2");
  EXPECT_EQ(named.status, 409);
  EXPECT_EQ(unknown.status, 409);
  // Nothing tells a chunk that is another's from one that is nobody's.
  EXPECT_EQ(named.body.substr(0, named.body.find("req-")),
            unknown.body.substr(0, unknown.body.find("req-")));
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
  // With the bytes it is his, and stored once.
  const uint64_t before = service_.BytesAfterCollect();
  ASSERT_EQ(Put(id, base_.Stream(all), "p2").status, 204);
  EXPECT_LT(service_.BytesAfterCollect() - before, 64 * base::kKiB);
  EXPECT_EQ(WantedBy("p2", base_.list), Flags(6, false));
}

TEST_F(ChunkUpload, WhatMayBeDownloadedMayBeNamed) {
  const std::string id = Active(base_.bytes);
  const Flags none(6, false);
  const Flags all = {true, true, true, false, true, true};
  EXPECT_EQ(WantedBy("p2", base_.list), all);
  EXPECT_EQ(WantedBy("admin", base_.list), none);
  ASSERT_EQ(
      service_.Call("p1", "POST", "/v2/images/" + id + "/members", R"({"member": "p2"})").status,
      200);
  EXPECT_EQ(WantedBy("p2", base_.list), none);
  EXPECT_EQ(WantedBy("p3", base_.list), all);
  Patch(id, "/visibility", "public");
  EXPECT_EQ(WantedBy("p3", base_.list), none);
  // Nobody can download it now, but for an admin.
  ASSERT_EQ(service_.Call("admin", "POST", "/v2/images/" + id + "/actions/deactivate").status, 204);
  EXPECT_EQ(WantedBy("p3", base_.list), all);
  EXPECT_EQ(WantedBy("p1", base_.list), all);
  EXPECT_EQ(WantedBy("admin", base_.list), none);
}

TEST_F(ChunkUpload, StagedBytesAreNobodysImage) {
  const std::string staged = service_.CreateImage();
  ASSERT_EQ(service_
                .Call("p1", "PUT", "/v2/images/" + staged + "/stage", base_.bytes,
                      "application/octet-stream")
                .status,
            204);
  EXPECT_EQ(WantedBy("p1", base_.list), Flags({true, true, true, false, true, true}));
}

TEST_F(ChunkUpload, MapsAndManifestsAreNoChunks) {
  const std::string id = Active(base_.bytes);
  const base::Digest256 root = service_.ImageOf(id).data->root.id;
  ChunkList list;
  list.size_bytes = kChunk;
  list.ids = {root};
  EXPECT_EQ(WantedBy("p1", list), Flags({true}));
}

TEST_F(ChunkUpload, AWrongGuessOfLengthHurtsNobody) {
  const Content shorter(RandomBytes(1000, 8));
  const std::string owner = Active(shorter.bytes);
  Content longer(RandomBytes(kChunk, 9));
  longer.list.ids[0] = shorter.list.ids[0];
  const std::string id = service_.CreateImage();
  EXPECT_EQ(Put(id, longer.Stream({false})).status, 409);
  EXPECT_TRUE(service_.Download(owner).body == shorter.bytes);
  ASSERT_OK_AND_ASSIGN(const auto scrubbed, service_.store().Scrub(false, nullptr));
  EXPECT_EQ(scrubbed.finding_count, 0u);
  ExpectQueued(id);
}

TEST_F(ChunkUpload, ALyingClientIsToldWhereAndLeavesTheImageQueued) {
  Active(base_.bytes);
  const std::string id = service_.CreateImage();
  const Flags all(6, true);
  const Flags none(6, false);
  struct Case {
    std::string stream;
    std::string says;
  };
  std::string flipped = base_.Stream(all);
  flipped[flipped.size() - 1] ^= 1;
  const std::string good = base_.Stream(all);
  const auto as = [&](size_t which, ChunkHow how) {
    return base_.Stream(none, [=](size_t number, ChunkEntry* entry) {
      if (number == which) entry->how = how;
    });
  };
  std::string two_sizes = base_.Stream(none);
  two_sizes.replace(0, kChunkStreamHeaderBytes,
                    EncodeChunkStreamHeader({.size_bytes = 2 * kChunk}));
  std::string huge = base_.Stream(none);
  huge.replace(0, kChunkStreamHeaderBytes,
               EncodeChunkStreamHeader({.size_bytes = uint64_t{1} << 62}));
  const std::vector<Case> cases = {
      {flipped, "chunk 5"},
      {good + "x", "goes on"},
      {good.substr(0, good.size() - 1), "ends at chunk 5"},
      {good.substr(0, 100), "ends at chunk 0"},
      {good.substr(0, 7), "header"},
      {"", "header"},
      {two_sizes, "goes on"},
      {huge, "at most"},
      {as(3, ChunkHow::kNamed), "chunk 3"},
      {as(2, ChunkHow::kHole), "chunk 2"},
      {as(1, static_cast<ChunkHow>(9)), "chunk 1"},
      {"plain bytes of an image", "does not begin"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.says);
    const Answer answer = Put(id, one.stream);
    EXPECT_EQ(answer.status, 400) << answer.body;
    EXPECT_NE(answer.body.find(one.says), std::string::npos) << answer.body;
    EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
  }
  EXPECT_EQ(Put(id, good).status, 204);
}

TEST_F(ChunkUpload, ABrokenOffBodyLeavesTheImageQueued) {
  Active(base_.bytes);
  const std::string id = service_.CreateImage();
  const std::string stream = base_.Stream({false, false, true, false, true, true});
  RawClient client(service_.address());
  client.Send(Service::Head(
      "p1", "PUT", "/v2/images/" + id + "/file",
      fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", kChunkStreamType, stream.size())));
  client.Send(stream.substr(0, 2 * kChunk));
  EXPECT_TRUE(service_.Eventually([&] { return service_.ImageOf(id).status == Status::kSaving; }));
  client.Reset();
  EXPECT_TRUE(service_.Eventually([&] { return service_.ImageOf(id).status == Status::kQueued; }));
  EXPECT_EQ(Put(id, stream).status, 204);
  EXPECT_TRUE(service_.Download(id).body == base_.bytes);
}

TEST_F(ChunkUpload, TheOwnerMayGoBetweenAskingAndSending) {
  const std::string owner = Active(base_.bytes);
  const std::string id = service_.CreateImage();
  const Flags wanted = Wanted(id, base_.list);
  EXPECT_EQ(wanted, Flags(6, false));
  ASSERT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + owner).status, 204);
  EXPECT_EQ(Put(id, base_.Stream(wanted)).status, 409);
  service_.BytesAfterCollect();
  EXPECT_EQ(Put(id, base_.Stream(wanted)).status, 409);
  const Flags now = Wanted(id, base_.list);
  EXPECT_EQ(now, Flags({true, true, true, false, true, true}));
  ASSERT_EQ(Put(id, base_.Stream(now)).status, 204);
  EXPECT_TRUE(service_.Download(id).body == base_.bytes);
}

// The owner is deleted and collected while the stream stands still between two batches.
TEST_F(ChunkUpload, TheOwnerMayGoInTheMiddle) {
  std::string bytes;
  for (size_t i = 0; i < kChunksOfBatch; ++i) bytes += std::string(kChunk, '\0');
  const Content content(bytes + RandomBytes(kChunk, 3));
  const std::string owner = Active(content.bytes);
  const std::string id = service_.CreateImage();
  const std::string stream = content.Stream(Flags(content.list.ids.size(), false));
  const size_t first = kChunkStreamHeaderBytes + kChunksOfBatch * kChunkEntryBytes;
  RawClient client(service_.address());
  client.Send(Service::Head(
      "p1", "PUT", "/v2/images/" + id + "/file",
      fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", kChunkStreamType, stream.size())));
  client.Send(stream.substr(0, first));
  EXPECT_TRUE(service_.Eventually([&] { return service_.ImageOf(id).status == Status::kSaving; }));
  ASSERT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + owner).status, 204);
  service_.BytesAfterCollect();
  client.Send(stream.substr(first));
  EXPECT_EQ(client.ReadAnswer().status, 409);
  ExpectQueued(id);
}

// What had come when a stream broke off is not wanted again by who sent it, and by nobody else.
TEST_F(ChunkUpload, ABrokenOffStreamIsGoneOnWith) {
  const std::string stream = base_.Stream(Flags(6, true));
  const size_t entries = kChunkStreamHeaderBytes + 6 * kChunkEntryBytes;
  const auto break_off = [&](const std::string& who, size_t bytes) {
    const std::string id = service_.CreateImage(who);
    RawClient client(service_.address());
    client.Send(Service::Head(who, "PUT", "/v2/images/" + id + "/file",
                              fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n",
                                          kChunkStreamType, stream.size())));
    client.Send(stream.substr(0, bytes));
    EXPECT_TRUE(
        service_.Eventually([&] { return service_.ImageOf(id).status == Status::kSaving; }));
    // Two chunks are stored, and the third is not there.
    EXPECT_TRUE(service_.Eventually([&] { return BlobBytes() > 2 * kChunk; }));
    client.Reset();
    EXPECT_TRUE(
        service_.Eventually([&] { return service_.ImageOf(id).status == Status::kQueued; }));
    return id;
  };
  const std::string broken = break_off("p1", entries + 2 * kChunk + 1000);
  const Flags rest({false, false, true, false, true, true});
  EXPECT_EQ(Wanted(broken, base_.list), rest);
  EXPECT_EQ(WantedBy("p1", base_.list), rest) << "for another image as well";
  const Flags all({true, true, true, false, true, true});
  EXPECT_EQ(WantedBy("p2", base_.list), all);
  EXPECT_EQ(WantedBy("admin", base_.list), all);
  EXPECT_EQ(Put(service_.CreateImage("p2"), base_.Stream(rest), "p2").status, 409);

  // A collection leaves it alone, and so does a restart.
  service_.BytesAfterCollect();
  service_.Restart();
  service_.BytesAfterCollect();
  EXPECT_EQ(Wanted(broken, base_.list), rest);
  ASSERT_EQ(Put(broken, base_.Stream(rest)).status, 204);
  EXPECT_TRUE(service_.Download(broken).body == base_.bytes);
  // It shares with the image, and goes when it is old.
  ASSERT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + broken).status, 204);
  EXPECT_GT(service_.BytesAfterCollect(), kChunk);
  ASSERT_OK_AND_ASSIGN(const auto parts, service_.store().Holders(kPartHolderPrefix, "", 10));
  ASSERT_EQ(parts.size(), 1u);
  ASSERT_OK(service_.store().Release(parts[0].holder));
  EXPECT_EQ(service_.BytesAfterCollect(), 0u);
}

TEST_F(ChunkUpload, KeepsTheLastFewThatBrokeOff) {
  std::vector<std::unique_ptr<Content>> contents;
  for (uint64_t i = 0; i < kKeptPartsOfProject + 2; ++i) {
    contents.push_back(std::make_unique<Content>(RandomBytes(2 * kChunk, 100 + i)));
    std::string stream = contents.back()->Stream({true, true});
    stream.back() ^= 1;  // the second chunk is not that of its id
    EXPECT_EQ(Put(service_.CreateImage(), stream).status, 400);
  }
  // Nothing of it can be in memory that fast: what was refused came after what was stored.
  ASSERT_OK_AND_ASSIGN(const auto parts, service_.store().Holders(kPartHolderPrefix, "", 100));
  EXPECT_LE(parts.size(), kKeptPartsOfProject);
}

// A store that fails, bytes of another format: then nothing is kept.
TEST_F(ChunkUpload, KeepsNothingThatIsOfNoUse) {
  const std::string qcow = service_.CreateImage("p1", "qcow2");
  EXPECT_EQ(Put(qcow, base_.Stream(Flags(6, true))).status, 415);
  service_.blobs().FailPutsFrom(1);
  EXPECT_EQ(Put(service_.CreateImage(), base_.Stream(Flags(6, true))).status, 507);
  service_.blobs().FailPutsFrom(-1);
  ASSERT_OK_AND_ASSIGN(const auto parts, service_.store().Holders(kPartHolderPrefix, "", 10));
  EXPECT_EQ(parts.size(), 0u);
  EXPECT_EQ(service_.BytesAfterCollect(), 0u);
}

// A chunk that comes slowly keeps a batch open, and not the right to what is named behind it.
TEST_F(ChunkUpload, ARightThatEndsWithinABatchIsNoRight) {
  const std::string owner = Active(base_.bytes);
  Patch(owner, "/visibility", "public");
  const uint64_t before = service_.BytesAfterCollect();
  const Content content(RandomBytes(2 * kChunk, 31) + base_.bytes);
  Flags sent(content.list.ids.size(), false);
  sent[0] = sent[1] = true;
  const std::string stream = content.Stream(sent);
  const std::string id = service_.CreateImage("p2");
  RawClient client(service_.address());
  client.Send(Service::Head(
      "p2", "PUT", "/v2/images/" + id + "/file",
      fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", kChunkStreamType, stream.size())));
  client.Send(stream.substr(0, stream.size() - 1));
  // The first chunk is stored: the batch has been looked at.
  ASSERT_TRUE(service_.Eventually([&] { return BlobBytes() > before + kChunk / 2; }));
  Patch(owner, "/visibility", "private");
  const base::Clock& clock = base::SystemClock();
  const int64_t ended_ns = clock.MonotonicNs();
  ASSERT_TRUE(service_.Eventually(
      [&] { return clock.MonotonicNs() - ended_ns > kNamedRightMs * 1'000'000; }));
  client.Send(stream.substr(stream.size() - 1));
  EXPECT_EQ(client.ReadAnswer().status, 409);
  EXPECT_EQ(service_.ImageOf(id).status, Status::kQueued);
}

TEST_F(ChunkUpload, WhatIsKnownButDamagedIsAskedForAgain) {
  const std::string owner = Active(base_.bytes);
  ASSERT_OK(service_.path().ReleasePending());
  std::string victim;
  ASSERT_OK(service_.blobs().List([&](std::string_view name, uint64_t size) {
    if (name.starts_with(base_.list.ids[1].hex())) victim = name;
    return true;
  }));
  ASSERT_NE(victim, "");
  ASSERT_OK(service_.blobs().Remove(victim));
  const std::string id = service_.CreateImage();
  EXPECT_EQ(Put(id, base_.Stream(Wanted(id, base_.list))).status, 409);
  const Flags now = Wanted(id, base_.list);
  EXPECT_EQ(now, Flags({false, true, false, false, false, false}));
  ASSERT_EQ(Put(id, base_.Stream(now)).status, 204);
  EXPECT_TRUE(service_.Download(owner).body == base_.bytes) << "it was not healed";
}

TEST_F(ChunkUpload, KeepsTheRulesOfEveryUpload) {
  Active(base_.bytes);
  const Flags none(6, false);
  const std::string stream = base_.Stream(none);
  // Another's image, somebody who may not write, a list that is none, an image that has data.
  const std::string id = service_.CreateImage();
  EXPECT_EQ(Ask(id, base_.list, "p2").status, 404);
  EXPECT_EQ(Put(id, stream, "p2").status, 404);
  EXPECT_EQ(Ask("nosuch", base_.list).status, 404);
  const std::string path = "/v2/quarry/images/" + id + "/wanted";
  EXPECT_EQ(service_.Call("p1", "POST", path, "{}").status, 415);
  EXPECT_EQ(service_.Call("p1", "POST", path, "{}", kChunkListType).status, 400);
  EXPECT_EQ(
      service_.Call("p1", "POST", path, std::string(kMaxChunkListBytes + 1, 'x'), kChunkListType)
          .status,
      413);
  EXPECT_EQ(
      service_.Call("p1", "PUT", "/v2/images/" + id + "/stage", stream, kChunkStreamType).status,
      415);
  ASSERT_EQ(Put(id, stream).status, 204);
  EXPECT_EQ(Ask(id, base_.list).status, 409);
  EXPECT_EQ(Put(id, stream).status, 409);
  // Formats are looked at.
  const std::string qcow = service_.CreateImage("p1", "qcow2");
  EXPECT_EQ(Put(qcow, stream).status, 415);
  EXPECT_EQ(service_.ImageOf(qcow).status, Status::kQueued);
}

TEST(ChunkUploadQuota, CountsTheImageAndNotWhatWasSent) {
  Service::Options options = Service::Defaults();
  options.quota.bytes = 5 * kChunk;
  Service service(options);
  const Content content(RandomBytes(3 * kChunk, 4));
  const std::string first = service.CreateImage();
  ASSERT_EQ(service.Upload(first, content.bytes).status, 204);
  const std::string second = service.CreateImage();
  const Answer over = service.Call("p1", "PUT", "/v2/images/" + second + "/file",
                                   content.Stream(Flags(3, false)), kChunkStreamType);
  EXPECT_EQ(over.status, 413) << over.body;
}

}  // namespace
}  // namespace imaged
