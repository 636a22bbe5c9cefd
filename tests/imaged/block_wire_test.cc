#include "imaged/block_wire.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::Code;
using base::Result;

constexpr uint64_t kChunk = chunkstore::kChunkBytes;

BlockInfo Block(uint8_t name, uint32_t plain, uint32_t stored) {
  BlockInfo block;
  block.name.bytes.fill(name);
  block.plain_length = plain;
  block.stored_length = stored;
  block.compressed = stored < plain;
  block.hash = {0x0102030405060708, 0x1112131415161718};
  return block;
}

DataName Data(uint8_t byte) {
  DataName name;
  name.bytes.fill(byte);
  return name;
}

std::string With(std::string bytes, size_t at, std::string_view put) {
  return bytes.replace(at, put.size(), put);
}

// The bytes that API.md shows: chunk 2's table, and of chunk 0 the blocks 1 and 4.
const std::vector<BlockItem> kAsked = {{2, {}}, {0, {1, 4}}};

TEST(BlockWire, ARequestByteByByte) {
  const std::string body = EncodeBlockRequest(kAsked);
  EXPECT_EQ(base::ToHex(body),
            "51425251"
            "0100"
            "0000"
            "02000000"
            "00000000"
            "02000000"
            "0000"
            "0000"
            "00000000"
            "0100"
            "0200"
            "0100"
            "0400");
  ASSERT_OK_AND_ASSIGN(const auto items, DecodeBlockRequest(body, 3));
  EXPECT_EQ(items, kAsked);
  EXPECT_ERROR(DecodeBlockRequest(body, 2), Code::kInvalidArgument);  // it has no chunk 2
}

TEST(BlockWire, ARequestThatIsNoneIsRefused) {
  const std::string good = EncodeBlockRequest(kAsked);
  const std::vector<std::string> bad = {
      "",
      good.substr(0, 15),
      good.substr(0, good.size() - 1),
      good + "x",
      With(good, 0, "x"),
      With(good, 4, "\x02"),
      With(good, 6, "\x01"),
      With(good, 8, "\x01"),
      With(good, 8, "\xff\xff\xff\xff"),
      With(good, 12, "\x01"),
      With(good, 20, "\x01"),                       // blocks, but none
      With(good, 20, "\x02"),                       // nothing that can be wanted
      With(good, 22, "\x01"),                       // a table with numbers
      With(good, 30, "\xff\xff"),                   // more numbers than a chunk has
      With(good, 32, std::string_view("\4\0", 2)),  // twice the same
      With(good, 32, std::string_view("\5\0", 2)),  // descending
      With(good, 34, std::string_view("\0\2", 2)),  // beyond what a chunk can have
  };
  for (const std::string& body : bad) {
    EXPECT_ERROR(DecodeBlockRequest(body, 3), Code::kInvalidArgument) << base::ToHex(body);
  }
}

TEST(BlockWire, ARequestIsBounded) {
  std::vector<BlockItem> items(kMaxBlockNumbers / chunkstore::kMaxBlocks);
  for (BlockItem& item : items) {
    for (uint16_t i = 0; i < chunkstore::kMaxBlocks; ++i) item.numbers.push_back(i);
  }
  std::string body = EncodeBlockRequest(items);
  ASSERT_OK(DecodeBlockRequest(body, 1));
  // One number more, of an item more.
  body = With(body, 8, std::string_view("\x21\0", 2));
  body += std::string("\0\0\0\0\1\0\1\0\0\0", 10);
  ASSERT_EQ(items.size(), 0x20u);
  EXPECT_ERROR(DecodeBlockRequest(body, 1), Code::kInvalidArgument);
  const std::string most = EncodeBlockRequest(std::vector<BlockItem>(kMaxBlockItems));
  ASSERT_OK(DecodeBlockRequest(most, 1));
  EXPECT_ERROR(DecodeBlockRequest(With(most, 8, "\x01\x04") + std::string(8, '\0'), 1),
               Code::kInvalidArgument);
}

// An answer to kAsked of an image of 8 MiB and 5 bytes: chunk 2 has 5 bytes, stored raw.
std::string Answer() {
  std::string body = EncodeBlockAnswerHead({2 * kChunk + 5, Data(0xdd)});
  AppendBlockItemHead(&body, 2, BlockHow::kTable, 1);
  AppendBlockEntry(&body, 0, Block(0xab, 5, 5));
  AppendBlockItemHead(&body, 0, BlockHow::kBlocks, 2);
  AppendBlockEntry(&body, 1, Block(0xac, 8192, 3));
  AppendBlockEntry(&body, 4, Block(0xad, 4, 4));
  return body + "zipRAW.";
}
constexpr size_t kTableHead = 32;
constexpr size_t kTableEntry = 40;
constexpr size_t kBlocksHead = 84;
constexpr size_t kFirstEntry = 92;

TEST(BlockWire, AnAnswerByteByByte) {
  EXPECT_EQ(base::ToHex(Answer().substr(0, kBlocksHead)),
            "51424c4b"
            "0100"
            "0000"
            "0500800000000000"
            "dddddddddddddddddddddddddddddddd"
            "02000000"
            "0000"
            "0100"
            "abababababababababababababababab"
            "0807060504030201"
            "1817161514131211"
            "05000000"
            "05000000"
            "0000"
            "0000");
}

struct Received {
  std::vector<std::string> events;
  Result<void> outcome;
};

// The answer in pieces of this size.
Received Receive(std::string_view body, size_t piece, const std::vector<BlockItem>& asked = kAsked,
                 std::optional<uint64_t> size_bytes = std::nullopt) {
  Received received;
  BlockReceiver::Sinks sinks;
  sinks.table = [&](size_t item, std::vector<BlockInfo> table) -> Result<void> {
    std::string event = "table " + std::to_string(item);
    for (const BlockInfo& block : table) event += " " + std::to_string(block.plain_length);
    received.events.push_back(event);
    return {};
  };
  sinks.block = [&](size_t item, size_t number, const BlockInfo& block,
                    base::ByteView stored) -> Result<void> {
    EXPECT_EQ(stored.size(), block.stored_length);
    received.events.push_back("block " + std::to_string(item) + "." + std::to_string(number) + " " +
                              std::string(base::AsText(stored)));
    return {};
  };
  BlockReceiver receiver(asked, size_bytes, sinks);
  while (!body.empty() && received.outcome.has_value()) {
    received.outcome = receiver.Take(base::AsBytes(body.substr(0, piece)));
    body.remove_prefix(std::min(piece, body.size()));
  }
  if (received.outcome.has_value()) received.outcome = receiver.End();
  return received;
}

TEST(BlockWire, AnAnswerIsTakenApartHoweverItComes) {
  for (const size_t piece : {1, 2, 7, 31, 32, 33, 44, 200, 1000}) {
    const Received received = Receive(Answer(), piece);
    EXPECT_OK(received.outcome) << piece;
    EXPECT_EQ(received.events,
              (std::vector<std::string>{"table 0 5", "block 1.1 zip", "block 1.4 RAW."}));
  }
  std::string holes = EncodeBlockAnswerHead({3 * kChunk, Data(1)});
  AppendBlockItemHead(&holes, 2, BlockHow::kTable, 0);
  const Received hole = Receive(holes, 5, {{2, {}}}, 3 * kChunk);
  EXPECT_OK(hole.outcome);
  EXPECT_EQ(hole.events, std::vector<std::string>{"table 0"});
  EXPECT_OK(Receive(EncodeBlockAnswerHead({0, Data(1)}), 9, {}).outcome);
}

TEST(BlockWire, AnAnswerThatLiesIsRefused) {
  const std::string good = Answer();
  const std::string_view huge("\xff\xff\xff\xff", 4);
  const std::vector<std::string> lies = {
      good + "x",
      With(good, 0, "x"),
      With(good, 4, "\x02"),
      With(good, 8, std::string_view("\0", 1)),                        // chunk 2 has no bytes then
      With(good, 8, std::string("\xff\xff\xff\xff\xff\xff\xff\xff")),  // larger than can be
      With(good, kTableHead, "\x01"),                                  // another chunk
      With(good, kTableHead + 4, "\x01"),                              // blocks instead of a table
      With(good, kTableHead + 4, "\x02"),                              // nothing of a table
      With(good, kTableHead + 6, std::string_view("\0", 1)),           // what follows is no head
      With(good, kTableHead + 6, "\x02"),                              // blocks beyond the chunk
      With(good, kTableHead + 6, std::string_view("\1\2", 2)),         // more than can be
      With(good, kTableHead + 6, huge.substr(0, 2)),
      With(good, kTableEntry + 32, "\x04"),  // not the whole chunk
      With(good, kTableEntry + 32, huge),
      With(good, kTableEntry + 36, "\x04"),  // raw, but shorter
      With(good, kTableEntry + 36, huge),
      With(good, kTableEntry + 40, "\x01"),                     // not the first
      With(good, kTableEntry + 42, "\x01"),                     // zstd that saves nothing
      With(good, kTableEntry + 42, "\x02"),                     // of an unknown form
      With(good, kBlocksHead, "\x02"),                          // another chunk
      With(good, kBlocksHead + 4, std::string_view("\0", 1)),   // a table instead
      With(good, kBlocksHead + 6, "\x01"),                      // fewer than asked
      With(good, kBlocksHead + 6, "\x03"),                      // more than asked
      With(good, kFirstEntry + 32, huge),                       // a huge block
      With(good, kFirstEntry + 36, huge),                       // stored in more than it has
      With(good, kFirstEntry + 36, std::string_view("\0", 1)),  // stored in nothing
      With(good, kFirstEntry + 40, "\x02"),                     // another block
  };
  for (const std::string& lie : lies) {
    for (const size_t piece : {1, 50, 1000}) {
      EXPECT_ERROR(Receive(lie, piece).outcome, Code::kCorruption) << base::ToHex(lie);
    }
  }
  EXPECT_ERROR(Receive(good, 1000, kAsked, 2 * kChunk + 6).outcome, Code::kCorruption);
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_ERROR(Receive(good.substr(0, length), 1000).outcome, Code::kCorruption) << length;
  }
}

// The chunk is not stored as it was when its table was read.
TEST(BlockWire, NumbersThatAChunkHasNotAreToldApart) {
  std::string body = EncodeBlockAnswerHead({kChunk, Data(1)});
  AppendBlockItemHead(&body, 0, BlockHow::kOther, 0);
  EXPECT_ERROR(Receive(body, 100, {{0, {500}}}).outcome, Code::kInvalidArgument);
}

TEST(BlockWire, AnErrorOfASinkEndsIt) {
  BlockReceiver::Sinks sinks;
  sinks.table = [](size_t, std::vector<BlockInfo>) -> Result<void> {
    return base::Error(Code::kOutOfSpace, "full");
  };
  BlockReceiver receiver(kAsked, std::nullopt, sinks);
  EXPECT_ERROR(receiver.Take(base::AsBytes(Answer())), Code::kOutOfSpace);
}

TEST(BlockWire, ATraceByteByByte) {
  const BootTrace trace{Data(0xdd), {{2, 0, 1}, {0, 3, 5}}};
  const std::string body = EncodeTrace(trace);
  EXPECT_EQ(base::ToHex(body),
            "51425452"
            "0100"
            "0000"
            "dddddddddddddddddddddddddddddddd"
            "02000000"
            "00000000"
            "02000000"
            "0000"
            "0100"
            "00000000"
            "0300"
            "0500");
  ASSERT_OK_AND_ASSIGN(const BootTrace decoded, DecodeTrace(body, 3));
  EXPECT_EQ(decoded, trace);
}

TEST(BlockWire, ATraceThatIsNoneIsRefused) {
  const std::string good = EncodeTrace({Data(1), {{2, 0, 1}, {0, 3, 5}, {0, 8, 1}}});
  ASSERT_OK(DecodeTrace(good, 3));
  EXPECT_ERROR(DecodeTrace(good, 2), Code::kInvalidArgument);
  const std::vector<std::string> bad = {
      "",
      good.substr(0, 31),
      good.substr(0, good.size() - 1),
      good + "x",
      With(good, 0, "x"),
      With(good, 4, "\x02"),
      With(good, 6, "\x01"),
      With(good, 24, "\x02"),
      With(good, 24, "\xff\xff\xff\xff"),
      With(good, 28, "\x01"),
      With(good, 38, std::string_view("\0", 1)),    // a run of nothing
      With(good, 38, "\xff\xff"),                   // beyond what a chunk can have
      With(good, 36, std::string_view("\0\2", 2)),  // the same
      With(good, 46, "\x06"),                       // block 8 twice
  };
  for (const std::string& body : bad) {
    EXPECT_ERROR(DecodeTrace(body, 3), Code::kInvalidArgument) << base::ToHex(body);
  }
  std::vector<BlockRun> runs(kMaxTraceBlocks / chunkstore::kMaxBlocks);
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i] = {static_cast<uint32_t>(i), 0, chunkstore::kMaxBlocks};
  }
  ASSERT_OK(DecodeTrace(EncodeTrace({Data(1), runs}), runs.size() + 1));
  runs.push_back({static_cast<uint32_t>(runs.size()), 0, 1});
  EXPECT_ERROR(DecodeTrace(EncodeTrace({Data(1), runs}), runs.size()), Code::kInvalidArgument);
}

}  // namespace
}  // namespace imaged
