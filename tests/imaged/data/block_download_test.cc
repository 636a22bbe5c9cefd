#include "imaged/block_download.h"

#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "chunkstore/map.h"
#include "tests/chunkstore/stored_blocks.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

// Images as the blocks that are stored, and boot traces: who is told what, and that the blocks are
// the image's bytes.

namespace imaged {
namespace {

using base::Code;
using base::Result;
using chunkstore::testing::DecodeStored;

constexpr size_t kChunk = chunkstore::kChunkBytes;

std::string Text(size_t size) {
  std::string text;
  while (text.size() < size) text += fmt::format("line {} of text\n", text.size());
  text.resize(size);
  return text;
}

// A raw chunk, a hole, one that is not raw, and a short end.
std::string Disk() {
  return RandomBytes(kChunk, 5) + std::string(kChunk, '\0') + Text(kChunk) + RandomBytes(99, 6);
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

std::string BodyOf(const Answer& answer) {
  return answer.Field("Content-Length").empty() ? Unchunked(answer.body) : answer.body;
}

class BlockDownload : public testing::Test {
 protected:
  using Tables = std::vector<std::vector<BlockInfo>>;
  // The fixture's head accepts JSON alone: this comes on top of it.
  static constexpr const char* kAny = "Accept: */*\r\n";

  BlockDownload() : bytes_(Disk()), id_(NewImage(bytes_)) {}
  std::string NewImage(const std::string& bytes, const std::string& who = "p1") {
    const std::string id = service_.CreateImage(who);
    EXPECT_EQ(service_.Upload(id, bytes, who).status, 204);
    return id;
  }
  static std::string Path(const std::string& id, const std::string& last) {
    return "/v2/quarry/images/" + id + "/" + last;
  }
  Answer Post(const std::string& id, const std::string& body, const std::string& who = "p1",
              const std::string& fields = kAny) {
    return service_.Call(who, "POST", Path(id, "blocks"), body, kBlocksType, fields);
  }

  // Asks, and takes the answer apart; `head` becomes the answer's.
  Result<void> Ask(const std::string& id, const std::vector<BlockItem>& items,
                   const BlockReceiver::Sinks& sinks, const std::string& who = "p1") {
    const Answer answer = Post(id, EncodeBlockRequest(items), who);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.Field("Content-Type"), kBlocksType);
    BlockReceiver receiver(items, std::nullopt, sinks);
    RETURN_IF_ERROR(receiver.Take(base::AsBytes(BodyOf(answer))));
    RETURN_IF_ERROR(receiver.End());
    head_ = receiver.head();
    return {};
  }

  Tables TablesOf(const std::string& id, size_t chunks, const std::string& who = "p1") {
    std::vector<BlockItem> items;
    for (uint32_t i = 0; i < chunks; ++i) items.push_back({i, {}});
    Tables tables(chunks);
    BlockReceiver::Sinks sinks;
    sinks.table = [&](size_t item, std::vector<BlockInfo> table) -> Result<void> {
      tables[item] = std::move(table);
      return {};
    };
    EXPECT_OK(Ask(id, items, sinks, who));
    return tables;
  }

  Service service_;
  const std::string bytes_;
  const std::string id_;
  BlockAnswerHead head_;
};

TEST_F(BlockDownload, TheBlocksAreTheImage) {
  const Tables tables = TablesOf(id_, 4);
  EXPECT_EQ(head_.size_bytes, bytes_.size());
  EXPECT_TRUE(tables[1].empty());
  // All chunks at once, in another order; they take more than one part.
  std::vector<BlockItem> items;
  for (const uint32_t chunk : {3u, 0u, 2u}) {
    items.push_back({chunk, {}});
    for (size_t i = 0; i < tables[chunk].size(); ++i) {
      items.back().numbers.push_back(static_cast<uint16_t>(i));
    }
  }
  std::map<uint32_t, std::string> chunks;
  BlockReceiver::Sinks sinks;
  sinks.block = [&](size_t item, size_t number, const BlockInfo& block,
                    base::ByteView stored) -> Result<void> {
    const uint32_t chunk = items[item].chunk;
    EXPECT_EQ(block.name, tables[chunk][number].name);
    EXPECT_EQ(block.stored_length, tables[chunk][number].stored_length);
    ASSIGN_OR_RETURN(const std::string plain, DecodeStored(block, stored));
    chunks[chunk] += plain;
    return {};
  };
  ASSERT_OK(Ask(id_, items, sinks));
  for (const uint32_t chunk : {0u, 2u, 3u}) {
    EXPECT_TRUE(chunks[chunk] == bytes_.substr(chunk * kChunk, kChunk)) << chunk;
  }
}

TEST_F(BlockDownload, SomeBlocksComeAlone) {
  const Tables tables = TablesOf(id_, 4);
  ASSERT_GT(tables[2].size(), 6u);
  std::vector<size_t> came;
  BlockReceiver::Sinks sinks;
  sinks.block = [&](size_t, size_t number, const BlockInfo& block,
                    base::ByteView stored) -> Result<void> {
    size_t offset = 2 * kChunk;
    for (size_t i = 0; i < number; ++i) offset += tables[2][i].plain_length;
    ASSIGN_OR_RETURN(const std::string plain, DecodeStored(block, stored));
    EXPECT_TRUE(plain == bytes_.substr(offset, block.plain_length));
    came.push_back(number);
    return {};
  };
  ASSERT_OK(Ask(id_, {{2, {1, 2, 5}}}, sinks));
  EXPECT_EQ(came, (std::vector<size_t>{1, 2, 5}));
  EXPECT_ERROR(Ask(id_, {{2, {1, 500}}}, sinks), Code::kInvalidArgument);
  EXPECT_ERROR(Ask(id_, {{1, {0}}}, sinks), Code::kInvalidArgument);  // a hole
}

TEST_F(BlockDownload, WhatIsNoRequestIsAnsweredWithAStatus) {
  EXPECT_EQ(Post(id_, "QBRQ").status, 400);
  EXPECT_EQ(Post(id_, EncodeBlockRequest({{4, {}}})).status, 400);
  EXPECT_EQ(Post(id_, std::string(kMaxBlockRequestBytes + 1, 'x')).status, 413);
  EXPECT_EQ(Post(id_, EncodeBlockRequest({}), "p1", "").status, 406);
  EXPECT_EQ(service_.Call("p1", "POST", Path(id_, "blocks"), "{}").status, 415);
  EXPECT_EQ(Post(service_.CreateImage(), EncodeBlockRequest({})).status, 204);
}

TEST_F(BlockDownload, OnlyWhoMayReadTheImageIsAnswered) {
  const std::string body = EncodeBlockRequest({{0, {}}});
  EXPECT_EQ(Post(id_, body, "p2").status, 404);
  EXPECT_EQ(Post(id_, body, "admin").status, 200);
  EXPECT_EQ(service_.Call("p1", "POST", "/v2/images/" + id_ + "/actions/deactivate").status, 204);
  EXPECT_EQ(Post(id_, body).status, 403);
  EXPECT_EQ(service_.Call("p1", "POST", "/v2/images/" + id_ + "/actions/reactivate").status, 204);
  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id_).status, 204);
  EXPECT_EQ(Post(id_, body).status, 404);
}

TEST_F(BlockDownload, NamesAreEqualWhereChunksAre) {
  const Tables tables = TablesOf(id_, 4);
  const BlockAnswerHead head = head_;
  // The same bytes in another project's image; and the same chunk elsewhere.
  const std::string other = NewImage(bytes_, "p2");
  EXPECT_EQ(TablesOf(other, 4, "p2")[2][3].name, tables[2][3].name);
  EXPECT_EQ(head_, head);
  const std::string moved = NewImage(bytes_.substr(2 * kChunk), "p2");
  EXPECT_EQ(TablesOf(moved, 2, "p2")[0][3].name, tables[2][3].name);
  EXPECT_NE(head_.data, head.data);
  EXPECT_NE(tables[2][3].name, tables[2][4].name);
  // Kept over a restart.
  service_.Restart();
  EXPECT_EQ(TablesOf(id_, 4)[2][3].name, tables[2][3].name);
  // Another service says it otherwise.
  Service elsewhere;
  const BlockName there = elsewhere.path().block_names().OfBlock({}, 0, 1);
  EXPECT_NE(there, service_.path().block_names().OfBlock({}, 0, 1));
}

// Others' downloads have taken what there is.
TEST_F(BlockDownload, WithoutMemoryItIsUnavailable) {
  const DownloadMemory& memory = service_.path().download_memory();
  std::vector<FairBudget::Share> taken;
  for (const auto& budget : {memory.images, memory.short_reads}) {
    for (uint64_t bytes = budget->limit_bytes(); bytes >= 4096; bytes /= 2) {
      for (int project = 0; project < 40; ++project) {
        taken.push_back(budget->TryTake("other" + std::to_string(project), bytes));
      }
    }
  }
  EXPECT_EQ(Post(id_, EncodeBlockRequest({{0, {}}})).status, 503);
  EXPECT_EQ(Post(id_, EncodeBlockRequest({{0, {0, 1, 2}}})).status, 503);
  taken.clear();
  EXPECT_EQ(Post(id_, EncodeBlockRequest({{0, {}}})).status, 200);
}

// What a name is made of: all of it counts.
TEST_F(BlockDownload, NamesAreOfThePlaceAndTheLength) {
  const BlockNames& names = service_.path().block_names();
  base::Digest256 chunk;
  const BlockName name = names.OfBlock(chunk, 4096, 8192);
  EXPECT_EQ(name, names.OfBlock(chunk, 4096, 8192));
  EXPECT_NE(name, names.OfBlock(chunk, 8192, 4096));
  EXPECT_NE(name, names.OfBlock(chunk, 4096, 4096));
  chunk.bytes[31] = 1;
  EXPECT_NE(name, names.OfBlock(chunk, 4096, 8192));
}

class Traces : public BlockDownload {
 protected:
  Traces() { TablesOf(id_, 4); }
  Answer Put(const std::string& id, const std::string& body, const std::string& who = "p1") {
    return service_.Call(who, "PUT", Path(id, "trace"), body, kTraceType);
  }
  Answer Get(const std::string& id, const std::string& who = "p1") {
    return service_.Call(who, "GET", Path(id, "trace"), "", "", kAny);
  }
  std::string TraceOf(const DataName& data) { return EncodeTrace({data, {{2, 1, 3}, {0, 0, 1}}}); }
};

TEST_F(Traces, AreKeptWithTheImage) {
  EXPECT_EQ(Get(id_).status, 404);
  const std::string trace = TraceOf(head_.data);
  EXPECT_EQ(Put(id_, trace).status, 204);
  service_.Restart();
  const Answer kept = Get(id_);
  EXPECT_EQ(kept.status, 200);
  EXPECT_EQ(kept.Field("Content-Type"), kTraceType);
  EXPECT_TRUE(kept.body == trace);
  const std::string shorter = EncodeTrace({head_.data, {}});
  EXPECT_EQ(Put(id_, shorter).status, 204);
  EXPECT_TRUE(Get(id_).body == shorter);
  EXPECT_EQ(service_.Call("p1", "DELETE", Path(id_, "trace")).status, 204);
  EXPECT_EQ(Get(id_).status, 404);
  EXPECT_EQ(service_.Call("p1", "DELETE", Path(id_, "trace")).status, 204);
}

TEST_F(Traces, GoWithTheImage) {
  EXPECT_EQ(Put(id_, TraceOf(head_.data)).status, 204);
  EXPECT_EQ(service_.Call("p1", "DELETE", "/v2/images/" + id_).status, 204);
  ASSERT_OK_AND_ASSIGN(const auto trace, service_.catalog().GetTrace(id_));
  EXPECT_FALSE(trace.has_value());
  EXPECT_EQ(Put(id_, TraceOf(head_.data)).status, 404);
}

TEST_F(Traces, OfOtherDataAreRefused) {
  const std::string other = NewImage(bytes_.substr(1), "p1");
  EXPECT_EQ(Put(other, TraceOf(head_.data)).status, 409);
  EXPECT_EQ(Put(other, TraceOf({})).status, 409);
  EXPECT_EQ(Get(other).status, 404);
  EXPECT_EQ(Put(service_.CreateImage(), TraceOf(head_.data)).status, 409);  // it has no data
  // One that came there all the same is not handed out.
  ASSERT_OK(service_.catalog().PutTrace(other, TraceOf(head_.data),
                                        [](const Image&) { return Result<void>(); }));
  EXPECT_EQ(Get(other).status, 404);
}

TEST_F(Traces, ThatAreNoneAreRefused) {
  EXPECT_EQ(Put(id_, "").status, 400);
  EXPECT_EQ(Put(id_, EncodeTrace({head_.data, {{4, 0, 1}}})).status, 400);
  EXPECT_EQ(Put(id_, EncodeTrace({head_.data, {{0, 0, 2}, {0, 1, 1}}})).status, 400);
  EXPECT_EQ(Put(id_, std::string(kMaxTraceBytes + 1, 'x')).status, 413);
  EXPECT_EQ(service_.Call("p1", "PUT", Path(id_, "trace"), TraceOf(head_.data)).status, 415);
}

TEST_F(Traces, AreWrittenByWhoMayChangeTheImageOrAService) {
  const std::string trace = TraceOf(head_.data);
  EXPECT_EQ(Put(id_, trace, "p2").status, 404);
  EXPECT_EQ(Get(id_, "p2").status, 404);
  EXPECT_EQ(service_.Call("p2", "DELETE", Path(id_, "trace")).status, 404);
  EXPECT_EQ(service_
                .Call("p1", "PATCH", "/v2/images/" + id_,
                      R"([{"op": "replace", "path": "/visibility", "value": "community"}])",
                      "application/openstack-images-v2.1-json-patch")
                .status,
            200);
  EXPECT_EQ(Put(id_, trace, "p2").status, 403);
  EXPECT_EQ(service_.Call("p2", "DELETE", Path(id_, "trace")).status, 403);
  EXPECT_EQ(Put(id_, trace, "service").status, 204);
  EXPECT_EQ(Get(id_, "p2").status, 200);
  EXPECT_EQ(service_.Call("admin", "DELETE", Path(id_, "trace")).status, 204);
}

}  // namespace
}  // namespace imaged
