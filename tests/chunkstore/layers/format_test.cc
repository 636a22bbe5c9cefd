#include <gtest/gtest.h>

#include "base/coding.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/layers/cache_format.h"
#include "tests/support/results.h"

// The bytes of version 1, as FORMAT.md tells them: they must not change without a new version.

namespace chunkstore::layers {
namespace {

using base::AsBytes;
using base::Code;

std::string Hex(std::string_view bytes) { return base::ToHex(bytes); }

constexpr SegmentHead kHead{.queue = Queue::kMain, .generation = 0x1122334455667788, .order = 42};
constexpr SegmentEntry kEntry{.key = 0x0123456789abcdef, .offset = 8192, .length = 12'345};

TEST(CacheFormatTest, GoldenBytes) {
  const std::string head = EncodeCacheHead(kMinSegmentBytes);
  ASSERT_EQ(head.size(), kCacheHeadBytes);
  EXPECT_EQ(Hex(head.substr(0, 24)), "514443460100000000001000000000001402020b4889107b");
  EXPECT_TRUE(base::IsZero(AsBytes(head).subspan(24)));
  const std::string segment = EncodeSegmentHead(kHead);
  ASSERT_EQ(segment.size(), kSegmentHeadBytes);
  EXPECT_EQ(Hex(segment.substr(0, 32)),
            "514443530200000088776655443322112a000000000000009a01cc07e07ed1cc");
  EXPECT_TRUE(base::IsZero(AsBytes(segment).subspan(32)));
  EXPECT_EQ(Hex(EncodeEntry(kEntry, kHead.generation, 3)),
            "efcdab896745230100200000393000008fbf493276b84914");
  EXPECT_EQ(Hex(EncodePins({.name = "image", .blocks = {{1, 2}, {0x0123456789abcdef, 131072}}})),
            "514443500100000005696d6167650200000000000000010000000000000002000000efcdab89"
            "67452301000002003f08d81c40edbfbb");
  EXPECT_EQ(KeyOf({.bytes = {0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0xff}}),
            0x0123456789abcdef);
}

TEST(CacheFormatTest, WhatWasWrittenReads) {
  for (const uint64_t bytes : {kMinSegmentBytes, kMinSegmentBytes + 4096, kMaxSegmentBytes})
    EXPECT_EQ(DecodeCacheHead(AsBytes(EncodeCacheHead(bytes))), bytes);
  for (const uint64_t bytes : {uint64_t{0}, kMinSegmentBytes - 4096, kMinSegmentBytes + 1,
                               kMaxSegmentBytes + 4096, UINT64_MAX})
    EXPECT_FALSE(DecodeCacheHead(AsBytes(EncodeCacheHead(bytes))));
  const auto head = DecodeSegmentHead(AsBytes(EncodeSegmentHead(kHead)));
  ASSERT_TRUE(head);
  EXPECT_EQ(head->queue, Queue::kMain);
  EXPECT_EQ(head->generation, kHead.generation);
  EXPECT_EQ(head->order, kHead.order);
  ASSERT_OK_AND_ASSIGN(const PinGroup pins,
                       DecodePins(EncodePins({.name = "i\n", .blocks = {{7, 8}}})));
  EXPECT_EQ(pins.name, "i\n");
  ASSERT_EQ(pins.blocks.size(), 1u);
  EXPECT_EQ(pins.blocks[0].key, 7u);
  EXPECT_EQ(pins.blocks[0].stored_length, 8u);
}

TEST(CacheFormatTest, AnEntryBelongsToItsSlotAndGeneration) {
  const std::string bytes = EncodeEntry(kEntry, 5, 3);
  const auto read = [&](uint64_t generation, uint64_t slot) {
    return DecodeEntry(AsBytes(bytes), generation, slot, kMinSegmentBytes);
  };
  ASSERT_TRUE(read(5, 3));
  EXPECT_EQ(read(5, 3)->key, kEntry.key);
  EXPECT_EQ(read(5, 3)->offset, kEntry.offset);
  EXPECT_EQ(read(5, 3)->length, kEntry.length);
  EXPECT_FALSE(read(6, 3));
  EXPECT_FALSE(read(5, 4));
}

TEST(CacheFormatTest, EntriesOutsideTheirSegmentAreNone) {
  const auto reads = [](uint32_t offset, uint32_t length) {
    const std::string bytes = EncodeEntry({.key = 1, .offset = offset, .length = length}, 5, 3);
    return DecodeEntry(AsBytes(bytes), 5, 3, kMinSegmentBytes).has_value();
  };
  const auto table = static_cast<uint32_t>(TableBytes(kMinSegmentBytes));
  EXPECT_TRUE(reads(table, 1));
  EXPECT_FALSE(reads(table - 1, 1)) << "in the table";
  EXPECT_TRUE(reads(kMinSegmentBytes - 1, 1));
  EXPECT_FALSE(reads(kMinSegmentBytes, 1));
  EXPECT_FALSE(reads(UINT32_MAX, kMaxBlockBytes)) << "a sum that wraps";
  EXPECT_TRUE(reads(table, kMaxBlockBytes));
  EXPECT_FALSE(reads(table, kMaxBlockBytes + 1));
  EXPECT_TRUE(reads(0, 0)) << "a dropped block";
}

TEST(CacheFormatTest, EveryFlippedBitAndCutIsSeen) {
  const std::string head = EncodeCacheHead(kMinSegmentBytes).substr(0, 24);
  const std::string segment = EncodeSegmentHead(kHead).substr(0, 32);
  const std::string entry = EncodeEntry(kEntry, 5, 3);
  const std::string pins = EncodePins({.name = "image", .blocks = {{1, 2}, {3, 4}}});
  const auto reads = [&](const std::string& kind, const std::string& bytes) {
    if (&kind == &head) return DecodeCacheHead(AsBytes(bytes)).has_value();
    if (&kind == &segment) return DecodeSegmentHead(AsBytes(bytes)).has_value();
    if (&kind == &entry) return DecodeEntry(AsBytes(bytes), 5, 3, kMinSegmentBytes).has_value();
    return DecodePins(bytes).has_value();
  };
  for (const std::string* bytes : {&head, &segment, &entry, &pins}) {
    ASSERT_TRUE(reads(*bytes, *bytes));
    for (size_t length = 0; length < bytes->size(); ++length)
      EXPECT_FALSE(reads(*bytes, bytes->substr(0, length)));
    for (size_t bit = 0; bit < bytes->size() * 8; ++bit) {
      std::string flipped = *bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      EXPECT_FALSE(reads(*bytes, flipped)) << bit;
    }
  }
}

TEST(CacheFormatTest, PinsThatCountWrong) {
  // Check sums that are right, of what is not.
  const auto with_sum = [](std::string body) {
    base::PutFixed<uint64_t>(&body, base::Xxh3(AsBytes(body)).low);
    return body;
  };
  const std::string good = EncodePins({.name = "i", .blocks = {{1, 2}}});
  const std::string body = good.substr(0, good.size() - 8);
  ASSERT_OK(DecodePins(with_sum(body)));
  EXPECT_ERROR(DecodePins(with_sum(body + "x")), Code::kCorruption);
  EXPECT_ERROR(DecodePins(with_sum(body.substr(0, body.size() - 1))), Code::kCorruption);
  std::string many = body;
  many.replace(10, 8, 8, '\xff');
  EXPECT_ERROR(DecodePins(with_sum(many)), Code::kCorruption) << "no memory is taken for that";
  EXPECT_ERROR(DecodePins(EncodePins({.name = "i", .blocks = {{1, 0}}})), Code::kCorruption);
  EXPECT_ERROR(DecodePins(EncodePins({.name = "i", .blocks = {{1, kMaxBlockBytes + 1}}})),
               Code::kCorruption);
}

}  // namespace
}  // namespace chunkstore::layers
