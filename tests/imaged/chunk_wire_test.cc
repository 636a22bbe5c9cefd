#include "imaged/chunk_wire.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;
using base::Digest256;

constexpr uint64_t kChunk = chunkstore::kChunkBytes;

Digest256 Id(uint8_t byte) {
  Digest256 id;
  id.bytes.fill(byte);
  return id;
}

// The bytes that API.md shows.
TEST(ChunkWireTest, AListByteByByte) {
  const ChunkList list{.size_bytes = 2 * kChunk + 5, .first = 1, .ids = {Digest256{}, Id(0xab)}};
  const std::string body = EncodeChunkList(list);
  EXPECT_EQ(base::ToHex(body),
            "5143484c"
            "0100"
            "0000"
            "0500800000000000"
            "0100000000000000"
            "02000000"
            "00000000" +
                std::string(64, '0') + Id(0xab).hex());
  ASSERT_OK_AND_ASSIGN(const ChunkList decoded, DecodeChunkList(body));
  EXPECT_EQ(decoded, list);
}

TEST(ChunkWireTest, AListThatIsNoneIsRefused) {
  const std::string good = EncodeChunkList({.size_bytes = 2 * kChunk, .ids = {Id(1), Id(2)}});
  ASSERT_OK(DecodeChunkList(good));
  const auto with = [&](size_t at, char byte) {
    std::string bad = good;
    bad[at] = byte;
    return bad;
  };
  for (const std::string& bad :
       {std::string(), good.substr(0, 31), good.substr(0, good.size() - 1), good + "x",
        with(0, 'x'), with(4, 2), with(6, 1), with(15, 1), with(16, 1), with(23, '\x7f'),
        with(24, 3), with(27, '\x7f'), with(28, 1)}) {
    const auto list = DecodeChunkList(bad);
    ASSERT_FALSE(list.has_value()) << base::ToHex(bad.substr(0, 32));
    EXPECT_EQ(list.error().code(), Code::kInvalidArgument);
  }
}

TEST(ChunkWireTest, AListHasItsLimit) {
  ChunkList list;
  list.size_bytes = (kMaxListedChunks + 1) * kChunk;
  list.ids.assign(kMaxListedChunks, Id(7));
  std::string body = EncodeChunkList(list);
  EXPECT_EQ(body.size(), kMaxChunkListBytes);
  ASSERT_OK(DecodeChunkList(body));
  const uint32_t more = kMaxListedChunks + 1;
  body.replace(24, 4, reinterpret_cast<const char*>(&more), 4);
  body += Id(7).view();
  EXPECT_FALSE(DecodeChunkList(body).has_value());
}

TEST(ChunkWireTest, WantedRuns) {
  const ChunkList list{.size_bytes = 9 * kChunk, .first = 3, .ids = {5, Id(1)}};
  const std::string body = EncodeWanted({{3, 1}, {6, 2}});
  EXPECT_EQ(body, R"({"wanted":[[3,1],[6,2]]})");
  ASSERT_OK_AND_ASSIGN(const auto flags, DecodeWanted(body, list));
  EXPECT_EQ(flags, std::vector<bool>({true, false, false, true, true}));
  for (const char* bad :
       {"", "[]", "{}", R"({"wanted":3})", R"({"wanted":[[2,1]]})", R"({"wanted":[[3,6]]})",
        R"({"wanted":[[8,1]]})", R"({"wanted":[[3]]})", R"({"wanted":[[3,-1]]})",
        R"({"wanted":[["3",1]]})", R"({"wanted":[[18446744073709551615,1]]})",
        R"({"wanted":[[4,18446744073709551615]]})"}) {
    EXPECT_FALSE(DecodeWanted(bad, list).has_value()) << bad;
  }
}

TEST(ChunkWireTest, WhatToFetch) {
  const uint64_t size = 9 * kChunk + 1;
  ASSERT_OK_AND_ASSIGN(const auto runs, DecodeFetch(EncodeWanted({{0, 2}, {2, 1}, {9, 1}}), size));
  EXPECT_EQ(runs, (std::vector<ChunkRun>{{0, 2}, {2, 1}, {9, 1}}));
  for (const char* bad :
       {"", "[]", "{}", R"({"wanted":3})", R"({"wanted":[3]})", R"({"wanted":[[0,0]]})",
        R"({"wanted":[[0,11]]})", R"({"wanted":[[10,1]]})", R"({"wanted":[[1,2],[2,1]]})",
        R"({"wanted":[[2,1],[1,1]]})", R"({"wanted":[[0,1,2]]})", R"({"wanted":[[0.5,1]]})",
        R"({"wanted":[[18446744073709551615,1]]})", R"({"wanted":[[1,18446744073709551615]]})"}) {
    EXPECT_ERROR(DecodeFetch(bad, size), Code::kInvalidArgument) << bad;
  }
  const uint64_t large = (kMaxListedChunks + 1) * kChunk;
  ASSERT_OK(DecodeFetch(EncodeWanted({{1, kMaxListedChunks}}), large));
  EXPECT_ERROR(DecodeFetch(EncodeWanted({{0, kMaxListedChunks}, {kMaxListedChunks, 1}}), large),
               Code::kInvalidArgument);
  // As many runs as can be asked for fit into the body.
  std::vector<ChunkRun> single;
  for (uint64_t i = 0; i < kMaxListedChunks; ++i) single.push_back({4'000'000 + 2 * i, 1});
  EXPECT_LT(EncodeWanted(single).size(), kMaxFetchBytes);
}

TEST(ChunkWireTest, AStreamsHeaderAndEntries) {
  const std::string header = EncodeChunkStreamHeader({.size_bytes = 12345});
  EXPECT_EQ(base::ToHex(header),
            "5143485301000000"
            "3930000000000000");
  ASSERT_OK_AND_ASSIGN(const ChunkStreamHead head, DecodeChunkStreamHeader(base::AsBytes(header)));
  EXPECT_EQ(head, ChunkStreamHead{.size_bytes = 12345});
  for (const size_t at : {0, 4, 6, 15}) {
    std::string bad = header;
    bad[at] = 0x7e;
    EXPECT_FALSE(DecodeChunkStreamHeader(base::AsBytes(bad)).has_value()) << at;
  }

  const std::vector<ChunkEntry> entries = {
      {ChunkHow::kNamed, Id(1)}, {ChunkHow::kHole, Digest256{}}, {ChunkHow::kSent, Id(2)}};
  std::string bytes;
  for (const ChunkEntry& entry : entries) AppendChunkEntry(&bytes, entry);
  EXPECT_EQ(bytes.size(), 3 * kChunkEntryBytes);
  ASSERT_OK_AND_ASSIGN(const auto decoded, DecodeChunkEntries(base::AsBytes(bytes), 0));
  EXPECT_EQ(decoded, entries);
  // A hole that has an id, a chunk that has none, a way that is none.
  for (const auto& [at, byte] : std::vector<std::pair<size_t, char>>{
           {0, 0}, {kChunkEntryBytes, 1}, {kChunkEntryBytes, 2}, {2 * kChunkEntryBytes, 3}}) {
    std::string bad = bytes;
    bad[at] = byte;
    const auto refused = DecodeChunkEntries(base::AsBytes(bad), 100);
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().message().find("chunk 10"), std::string::npos);
  }
}

TEST(ChunkWireTest, ImagesThatAreAlike) {
  const std::string id = "6d6e1b0c-0d49-4c8c-9f5d-0f3c3a1d1f2e";
  const std::string body = EncodeWanted({{3, 1}}, {id});
  EXPECT_EQ(body, R"({"wanted":[[3,1]],"alike":[")" + id + R"("],"encodings":["zstd"]})");
  EXPECT_TRUE(DecodeTakesFrames(body));
  for (const std::string_view none : {R"({"wanted":[]})", R"({"encodings":"zstd"})", "nonsense",
                                      R"({"encodings":[7,"gzip",["zstd"]]})"})
    EXPECT_FALSE(DecodeTakesFrames(none)) << none;
  EXPECT_EQ(DecodeAlike(body), std::vector<std::string>{id});
  ASSERT_OK(DecodeWanted(body, {.size_bytes = 9 * kChunk, .first = 3, .ids = {Id(1)}}));
  EXPECT_EQ(DecodeAlike(EncodeWanted({}, {})), std::vector<std::string>());
  // A service of version 1; what is no answer; ids that would lead elsewhere; too many.
  EXPECT_EQ(DecodeAlike(EncodeWanted({{3, 1}})), std::nullopt);
  EXPECT_EQ(DecodeAlike("nonsense"), std::nullopt);
  EXPECT_EQ(DecodeAlike(R"({"alike":["../x",7]})"), std::vector<std::string>());
  const auto many = DecodeAlike(EncodeWanted({}, std::vector<std::string>(100, id)));
  EXPECT_EQ(many->size(), kMaxAlike);
}

TEST(ChunkWireTest, AStreamOfVersion2) {
  const std::string header = EncodeChunkStreamHeader({.size_bytes = 12345}, kRecipeStreamVersion);
  EXPECT_EQ(base::ToHex(header),
            "5143485302000000"
            "3930000000000000");
  ASSERT_OK(DecodeChunkStreamHeader(base::AsBytes(header), kRecipeStreamVersion));
  EXPECT_ERROR(DecodeChunkStreamHeader(base::AsBytes(header)), Code::kInvalidArgument);
  const std::string framed =
      EncodeChunkStreamHeader({.size_bytes = 12345, .frames = true}, kRecipeStreamVersion);
  EXPECT_EQ(base::ToHex(framed),
            "5143485302000100"
            "3930000000000000");
  ASSERT_OK_AND_ASSIGN(const ChunkStreamHead head,
                       DecodeChunkStreamHeader(base::AsBytes(framed), kRecipeStreamVersion));
  EXPECT_TRUE(head.frames);
  // Another flag, and this one in version 1.
  std::string other = framed;
  other[6] = 3;
  EXPECT_ERROR(DecodeChunkStreamHeader(base::AsBytes(other), kRecipeStreamVersion),
               Code::kInvalidArgument);
  other = EncodeChunkStreamHeader({.size_bytes = 12345});
  other[6] = 1;
  EXPECT_ERROR(DecodeChunkStreamHeader(base::AsBytes(other)), Code::kInvalidArgument);
  std::string entry;
  AppendChunkEntry(&entry, {ChunkHow::kAssembled, Id(1)});
  ASSERT_OK(DecodeChunkEntries(base::AsBytes(entry), 0, kRecipeStreamVersion));
  EXPECT_ERROR(DecodeChunkEntries(base::AsBytes(entry), 0), Code::kInvalidArgument);
  entry[0] = 4;
  EXPECT_ERROR(DecodeChunkEntries(base::AsBytes(entry), 0, kRecipeStreamVersion),
               Code::kInvalidArgument);
}

}  // namespace
}  // namespace imaged
