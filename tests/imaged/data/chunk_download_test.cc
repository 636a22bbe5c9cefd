#include "imaged/chunk_download.h"

#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "chunkstore/map.h"
#include "chunkstore/zstd_frames.h"
#include "imaged/chunk_wire.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

// Downloads by chunks and as zstd streams: who is told what, and that it is the image's bytes.

namespace imaged {
namespace {

constexpr size_t kChunk = chunkstore::kChunkBytes;

std::string Text(size_t size, size_t from) {
  std::string text;
  while (text.size() < size) text += fmt::format("line {} of text\n", from + text.size());
  text.resize(size);
  return text;
}

// A chunk that is raw, one that is not, a hole, one of both kinds, and a short end.
std::string Disk() {
  return RandomBytes(kChunk, 5) + Text(kChunk, 0) + std::string(kChunk, '\0') +
         RandomBytes(kChunk / 2, 6) + Text(kChunk / 2, 7) + Text(100'000, 8);
}

std::string Unchunked(std::string_view body) {
  std::string bytes;
  while (!body.empty()) {
    const size_t end = body.find("\r\n");
    if (end == std::string_view::npos) return "not chunked";
    const size_t length = std::stoul(std::string(body.substr(0, end)), nullptr, 16);
    if (length == 0) return bytes;
    bytes += body.substr(end + 2, length);
    body.remove_prefix(end + 2 + length + 2);
  }
  return "broken off";
}

std::string Inflated(std::string_view stream) {
  chunkstore::ZstdReader reader;
  base::ByteView left = base::AsBytes(stream);
  std::string plain;
  std::vector<uint8_t> out(1 << 20);
  while (true) {
    const auto count = reader.Read(&left, out);
    EXPECT_OK(count);
    if (!count.has_value()) return "no zstd";
    plain.append(reinterpret_cast<const char*>(out.data()), *count);
    if (*count < out.size()) return plain;
  }
}

class ChunkDownload : public testing::Test {
 protected:
  ChunkDownload() : bytes_(Disk()), id_(service_.CreateImage()) {
    EXPECT_EQ(service_.Upload(id_, bytes_).status, 204);
  }
  static std::string Path(const std::string& id) { return "/v2/quarry/images/" + id + "/chunks"; }
  Answer Fetch(const std::string& wanted, const std::string& who = "p1",
               const std::string& fields = "") {
    return service_.Call(who, "POST", Path(id_), wanted, "application/json", fields);
  }
  // The fixture's head accepts JSON alone: this comes on top of it.
  static constexpr const char* kAny = "Accept: */*\r\n";

  Service service_;
  const std::string bytes_;
  const std::string id_;
};

TEST_F(ChunkDownload, TheListNamesEveryChunk) {
  const Answer answer =
      service_.Call("p1", "GET", Path(id_), {}, {}, fmt::format("Accept: {}\r\n", kChunkListType));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.Field("Content-Type"), kChunkListType);
  ASSERT_OK_AND_ASSIGN(const ChunkList list, DecodeChunkList(answer.body));
  EXPECT_EQ(list.size_bytes, bytes_.size());
  EXPECT_EQ(list.first, 0u);
  ASSERT_EQ(list.ids.size(), 5u);
  for (size_t i = 0; i < list.ids.size(); ++i) {
    const base::ByteView chunk = base::AsBytes(std::string_view(bytes_).substr(i * kChunk, kChunk));
    EXPECT_EQ(list.ids[i], i == 2 ? base::Digest256{} : base::Sha256(chunk)) << i;
  }
}

TEST_F(ChunkDownload, TheListBeginsWhereItIsAsked) {
  for (uint64_t from = 0; from <= 5; ++from) {
    const Answer answer =
        service_.Call("p1", "GET", fmt::format("{}?from={}", Path(id_), from), {}, {}, kAny);
    ASSERT_OK_AND_ASSIGN(const ChunkList list, DecodeChunkList(answer.body));
    EXPECT_EQ(list.first, from);
    EXPECT_EQ(list.ids.size(), 5 - from);
  }
  for (const char* bad : {"6", "-1", "x", "1x", "18446744073709551616", "%20"}) {
    EXPECT_EQ(service_.Call("p1", "GET", Path(id_) + "?from=" + bad, {}, {}, kAny).status, 400)
        << bad;
  }
}

TEST_F(ChunkDownload, ChunksAreTheBytesInOrder) {
  const auto chunk = [&](size_t number) { return bytes_.substr(number * kChunk, kChunk); };
  struct Case {
    std::string wanted, expected;
  };
  for (const Case& part : {Case{"[[0,5]]", bytes_}, Case{"[[1,1]]", chunk(1)},
                           Case{"[[0,1],[2,1],[4,1]]", chunk(0) + chunk(2) + chunk(4)},
                           Case{"[[3,1],[4,1]]", chunk(3) + chunk(4)}, Case{"[]", ""}}) {
    const std::string body = fmt::format(R"({{"wanted": {}}})", part.wanted);
    const Answer plain = Fetch(body, "p1", kAny);
    ASSERT_EQ(plain.status, 200) << plain.body;
    EXPECT_EQ(plain.Field("Content-Type"), kChunkBytesType);
    EXPECT_EQ(plain.Field("Content-Encoding"), "");
    EXPECT_EQ(plain.Field("Content-Length"), std::to_string(part.expected.size()));
    EXPECT_TRUE(plain.body == part.expected) << part.wanted;
    const Answer frames = Fetch(body, "p1", std::string(kAny) + "Accept-Encoding: zstd\r\n");
    ASSERT_EQ(frames.status, 200) << frames.body;
    EXPECT_EQ(frames.Field("Vary"), "Accept-Encoding");
    if (part.expected.empty()) {
      EXPECT_EQ(frames.body, "");
      continue;
    }
    EXPECT_EQ(frames.Field("Content-Encoding"), "zstd");
    EXPECT_TRUE(Inflated(Unchunked(frames.body)) == part.expected) << part.wanted;
  }
}

TEST_F(ChunkDownload, WhatIsAskedForBadlyIsRefused) {
  for (const char* bad :
       {"", "x", "[]", "{}", R"({"wanted": 1})", R"({"wanted": [1]})", R"({"wanted": [[0]]})",
        R"({"wanted": [[0, 0]]})", R"({"wanted": [[-1, 1]]})", R"({"wanted": [[0, 6]]})",
        R"({"wanted": [[5, 1]]})", R"({"wanted": [[1, 1], [0, 1]]})",
        R"({"wanted": [[0, 2], [1, 1]]})", R"({"wanted": [[0, 18446744073709551615]]})"}) {
    EXPECT_EQ(Fetch(bad, "p1", kAny).status, 400) << bad;
  }
  const Answer large = Fetch(std::string(kMaxFetchBytes + 1, ' '), "p1", kAny);
  EXPECT_EQ(large.status, 413) << large.body;
}

TEST_F(ChunkDownload, AnotherVersionIsNotAcceptable) {
  const char* other = "Accept: application/vnd.quarry.chunk-bytes.v9\r\n";
  RawClient client(service_.address());
  const std::string body = R"({"wanted": [[0, 1]]})";
  client.Send(
      fmt::format("POST /image{} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                  "X-Auth-Token: p1\r\nContent-Length: {}\r\n{}\r\n{}",
                  Path(id_), body.size(), other, body));
  EXPECT_EQ(client.ReadAnswer().status, 406);
  RawClient lister(service_.address());
  lister.Send(
      fmt::format("GET /image{} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                  "X-Auth-Token: p1\r\n{}\r\n",
                  Path(id_), other));
  EXPECT_EQ(lister.ReadAnswer().status, 406);
}

// The rights of GET .../file, call by call.
TEST_F(ChunkDownload, IsForThoseWhoMayDownload) {
  const std::string wanted = R"({"wanted": [[0, 1]]})";
  const auto statuses = [&](const std::string& who) {
    const int list = service_.Call(who, "GET", Path(id_), {}, {}, kAny).status;
    EXPECT_EQ(Fetch(wanted, who, kAny).status, list);
    EXPECT_EQ(service_.Download(id_, "", who).status, list);
    return list;
  };
  EXPECT_EQ(statuses("p1"), 200);
  EXPECT_EQ(statuses("admin"), 200);
  EXPECT_EQ(statuses("p2"), 404);
  const auto patch = [&](const std::string& visibility) {
    const std::string change =
        fmt::format(R"([{{"op": "replace", "path": "/visibility", "value": "{}"}}])", visibility);
    EXPECT_EQ(service_
                  .Call("admin", "PATCH", "/v2/images/" + id_, change,
                        "application/openstack-images-v2.1-json-patch")
                  .status,
              200);
  };
  patch("public");
  EXPECT_EQ(statuses("p2"), 200);
  patch("private");
  EXPECT_EQ(statuses("p2"), 404);
  ASSERT_EQ(service_.Call("admin", "POST", "/v2/images/" + id_ + "/actions/deactivate").status,
            204);
  EXPECT_EQ(statuses("p1"), 403);
  EXPECT_EQ(statuses("admin"), 200);
}

TEST_F(ChunkDownload, AnImageWithoutBytesHasNoChunks) {
  const std::string queued = service_.CreateImage();
  EXPECT_EQ(service_.Call("p1", "GET", Path(queued), {}, {}, kAny).status, 204);
  EXPECT_EQ(service_.Call("p1", "POST", Path(queued), R"({"wanted": []})", "application/json", kAny)
                .status,
            204);
  EXPECT_EQ(service_.Call("p1", "GET", Path("nosuch"), {}, {}, kAny).status, 404);
  const std::string empty = service_.CreateImage();
  ASSERT_EQ(service_.Upload(empty, "").status, 204);
  const Answer list = service_.Call("p1", "GET", Path(empty), {}, {}, kAny);
  ASSERT_OK_AND_ASSIGN(const ChunkList none, DecodeChunkList(list.body));
  EXPECT_EQ(none, ChunkList());
  EXPECT_EQ(service_.Download(empty, "Accept-Encoding: zstd\r\n").body, "");
}

TEST_F(ChunkDownload, GivesItsMemoryBack) {
  for (int i = 0; i < 5; ++i) {
    RawClient client(service_.address());
    const std::string body = R"({"wanted": [[0, 5]]})";
    client.Send(Service::Head(
        "p1", "POST", Path(id_),
        fmt::format("{}Accept-Encoding: zstd\r\nContent-Length: {}\r\n", kAny, body.size())));
    client.Send(body);
    client.Reset();
  }
  EXPECT_TRUE(
      service_.Eventually([&] { return service_.path().download_memory().used_bytes() == 0; }));
}

TEST_F(ChunkDownload, AWholeImageAsAZstdStream) {
  const Answer plain = service_.Download(id_);
  const Answer frames = service_.Download(id_, "Accept-Encoding: gzip, zstd\r\n");
  ASSERT_EQ(frames.status, 200);
  EXPECT_EQ(frames.Field("Content-Encoding"), "zstd");
  EXPECT_EQ(frames.Field("Content-Type"), "application/octet-stream");
  EXPECT_EQ(frames.Field("Content-Length"), "");
  EXPECT_EQ(plain.Field("Vary"), "Accept-Encoding");
  EXPECT_EQ(frames.Field("Vary"), "Accept-Encoding");
  const std::string stream = Unchunked(frames.body);
  EXPECT_LT(stream.size(), bytes_.size() / 2);
  EXPECT_TRUE(Inflated(stream) == bytes_);

  for (const char* none : {"Accept-Encoding: zstd;q=0\r\n", "Accept-Encoding: gzip, *\r\n"}) {
    const Answer identity = service_.Download(id_, none);
    EXPECT_EQ(identity.Field("Content-Encoding"), "") << none;
    EXPECT_TRUE(identity.body == bytes_) << none;
  }
  const Answer part = service_.Download(id_, "Accept-Encoding: zstd\r\nRange: bytes=1-9\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.Field("Content-Encoding"), "");
  EXPECT_EQ(part.body, bytes_.substr(1, 9));
}

TEST(ChunkDownloadMemory, AZstdStreamStaysWithinIt) {
  Service::Options options = Service::Defaults();
  options.data.download_memory_bytes = 2 * base::kMiB;
  options.data.admission_ms = 60'000;
  Service service(options);
  const std::string bytes = Disk();
  const std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  for (int i = 0; i < 3; ++i) {
    const Answer frames = service.Download(id, "Accept-Encoding: zstd\r\n");
    EXPECT_TRUE(Inflated(Unchunked(frames.body)) == bytes);
  }
  EXPECT_TRUE(
      service.Eventually([&] { return service.path().download_memory().used_bytes() == 0; }));
}

// Inline checksums are those of the image, however it travels.
TEST(ChunkDownloadChecksum, IsOfTheImage) {
  Service::Options options = Service::Defaults();
  options.data.checksum = ChecksumPolicy::kInline;
  Service service(options);
  const std::string id = service.CreateImage();
  ASSERT_EQ(service.Upload(id, Text(1000, 0)).status, 204);
  const std::string checksum = service.Download(id).Field("Content-MD5");
  EXPECT_EQ(checksum.size(), 32u);
  EXPECT_EQ(service.Download(id, "Accept-Encoding: zstd\r\n").Field("Content-MD5"), checksum);
}

}  // namespace
}  // namespace imaged
