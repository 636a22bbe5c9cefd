#include "chunkstore/blob_format.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/support/results.h"

namespace chunkstore {
namespace {

using base::Code;

std::string RandomText(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// Words in random order: compresses to less than half, and no two pages are equal.
std::string WordyText(size_t size, uint64_t seed) {
  static const char* const kWords[] = {"chunk ", "block ", "image ", "volume ", "root ", "holder "};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < size) text += kWords[random() % 6];
  text.resize(size);
  return text;
}

std::string Encode(std::string_view plain, int level = 1, BlobKind kind = BlobKind::kChunk) {
  BlobEncoder encoder(EncodeOptions{.compression_level = level});
  EncodedBlob blob = encoder.Encode(kind, base::Sha256(base::AsBytes(plain)), base::AsBytes(plain));
  std::string stored;
  for (base::ByteView piece : blob.pieces()) stored.append(base::AsText(piece));
  EXPECT_EQ(stored.size(), blob.stored_bytes());
  return stored;
}

base::Result<std::string> Decode(std::string_view stored) {
  base::ByteView bytes = base::AsBytes(stored);
  ASSIGN_OR_RETURN(BlobTable table,
                   DecodeTable(bytes.last(TailReadBytes(bytes.size())), bytes.size()));
  std::string plain(table.plain_length, '\0');
  base::MutableByteView out(reinterpret_cast<uint8_t*>(plain.data()), plain.size());
  for (const Block& block : table.blocks) {
    if (!block.is_here()) continue;
    RETURN_IF_ERROR(DecodeBlock(block, bytes.subspan(block.stored_offset, block.stored_length),
                                out.subspan(block.plain_offset, block.plain_length)));
  }
  return plain;
}

BlobTable TableOf(std::string_view stored) {
  base::ByteView bytes = base::AsBytes(stored);
  return DecodeTable(bytes.last(TailReadBytes(bytes.size())), bytes.size()).value();
}

// Small, with at least three blocks, of both forms.
std::string MixedPlain() {
  for (uint64_t seed = 0;; ++seed) {
    std::string plain = WordyText(16'384, seed) + RandomText(17'000, seed);
    BlobTable table = TableOf(Encode(plain));
    auto raw = [](const Block& block) { return block.form == Block::Form::kRaw; };
    bool mixed = std::any_of(table.blocks.begin(), table.blocks.end(), raw) && !table.all_raw;
    if (mixed && table.blocks.size() >= 3) return plain;
  }
}

TEST(BlobFormatTest, ComesBack) {
  for (size_t size : {1, 100, 4096, 8191, 8192, 8193, 100'000, 1 << 20, (4 << 20) - 1, 4 << 20}) {
    for (int level : {0, 1, 3}) {
      for (const std::string& plain :
           {RandomText(size, size), WordyText(size, size), std::string(size, '\0')}) {
        std::string stored = Encode(plain, level);
        ASSERT_TRUE(Decode(stored).value() == plain) << size << " at level " << level;
        EXPECT_EQ(TableOf(stored).id, base::Sha256(base::AsBytes(plain)));
      }
    }
  }
}

TEST(BlobFormatTest, CompressesWhatCompresses) {
  std::string words = WordyText(1 << 20, 1);
  std::string stored = Encode(words);
  EXPECT_LT(stored.size(), words.size() / 2);
  EXPECT_FALSE(TableOf(stored).all_raw);
  EXPECT_GT(Encode(words, /*level=*/0).size(), words.size());
}

TEST(BlobFormatTest, RawBytesLieTogetherAndAreNotCopied) {
  std::string plain = RandomText(4 << 20, 1);
  BlobEncoder encoder(EncodeOptions{});
  EncodedBlob blob = encoder.Encode(BlobKind::kChunk, base::Digest256(), base::AsBytes(plain));
  ASSERT_EQ(blob.pieces().size(), 2u);
  EXPECT_EQ(blob.pieces()[0].data(), base::AsBytes(plain).data());
  EXPECT_EQ(blob.pieces()[0].size(), plain.size());
  EXPECT_TRUE(blob.table().all_raw);
  std::string stored = Encode(plain);
  EXPECT_EQ(stored.substr(0, plain.size()), plain);
  EXPECT_TRUE(TableOf(stored).all_raw);
}

TEST(BlobFormatTest, ABlockIsStoredAsItsBytesSay) {
  std::string plain = RandomText(4 << 20, 1);
  plain.replace(1 << 20, 100'000, WordyText(100'000, 2));
  EXPECT_FALSE(TableOf(Encode(plain)).all_raw);
  plain.replace(1 << 20, 600'000, WordyText(600'000, 2));
  BlobTable table = TableOf(Encode(plain));
  EXPECT_FALSE(table.all_raw);
  std::map<Block::Form, uint64_t> bytes;
  for (const Block& block : table.blocks) bytes[block.form] += block.plain_length;
  EXPECT_GT(bytes[Block::Form::kRaw], 3'400'000u);
  EXPECT_GT(bytes[Block::Form::kZstd], 500'000u);
}

TEST(BlobFormatTest, FindsTheBlockOfAByte) {
  BlobTable table = TableOf(Encode(RandomText(300'000, 1)));
  ASSERT_GT(table.blocks.size(), 3u);
  for (size_t i = 0; i < table.blocks.size(); ++i) {
    const Block& block = table.blocks[i];
    EXPECT_EQ(table.BlockAt(block.plain_offset), i);
    EXPECT_EQ(table.BlockAt(block.plain_offset + block.plain_length - 1), i);
  }
}

TEST(BlobFormatTest, OneTailHoldsTheLongestTable) {
  // Pages that each would cut give the most blocks there can be.
  std::string page;
  std::string plain;
  for (uint64_t seed = 0; plain.size() < kChunkBytes; ++seed) {
    page = RandomText(kBlockGridBytes, seed);
    std::string three = RandomText(kBlockGridBytes, 1'000'000) + page + page;
    if (CutBlocks(base::AsBytes(three)).front() == 2 * kBlockGridBytes) plain += page;
  }
  std::string stored = Encode(plain);
  EXPECT_EQ(TableOf(stored).blocks.size(), kMaxBlocks);
  EXPECT_TRUE(Decode(stored).value() == plain);
}

TEST(BlobFormatTest, ATailThatIsTooShortSaysWhatItNeeds) {
  std::string stored = Encode(RandomText(1 << 20, 1));
  auto table = DecodeTable(base::AsBytes(stored).last(kTrailerBytes), stored.size());
  EXPECT_ERROR(table, Code::kTooLarge);
}

class BlobDamageTest : public testing::Test {
 protected:
  const std::string plain_ = MixedPlain();
  const std::string stored_ = Encode(plain_);
};

TEST_F(BlobDamageTest, EveryFlippedByteIsNoticed) {
  for (size_t at = 0; at < stored_.size(); ++at) {
    for (uint8_t mask : {0x01, 0x10, 0x80, 0xff}) {
      std::string damaged = stored_;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      ASSERT_ERROR(Decode(damaged), Code::kCorruption) << "byte " << at << " mask " << +mask;
    }
  }
}

TEST_F(BlobDamageTest, EveryTruncationIsNoticed) {
  for (size_t size = 0; size < stored_.size(); ++size) {
    ASSERT_ERROR(Decode(stored_.substr(0, size)), Code::kCorruption) << size;
    ASSERT_ERROR(Decode(stored_.substr(stored_.size() - size)), Code::kCorruption) << size;
  }
  EXPECT_ERROR(Decode(stored_ + "x"), Code::kCorruption);
  EXPECT_ERROR(Decode("x" + stored_), Code::kCorruption);
}

TEST_F(BlobDamageTest, ARawBlockIsVerified) {
  std::string plain = RandomText(9000, 1);
  const Block block = TableOf(Encode(plain)).blocks[0];
  EXPECT_OK(VerifyRawBlock(block, base::AsBytes(plain).first(block.stored_length)));
  EXPECT_ERROR(VerifyRawBlock(block, base::AsBytes(plain).first(10)), Code::kCorruption);
  plain[5000] ^= 1;
  EXPECT_ERROR(VerifyRawBlock(block, base::AsBytes(plain).first(block.stored_length)),
               Code::kCorruption);
}

// A table that says something impossible, with a right check sum: from a bug or an enemy.
class HostileTableTest : public testing::Test {
 protected:
  // Writes `value` at an offset from the start of the trailer, or of the table's entry `entry`;
  // signs again.
  template <typename T>
  std::string WithTrailer(size_t offset, T value) {
    return With(stored_.size() - kTrailerBytes + offset, value);
  }
  template <typename T>
  std::string WithEntry(size_t entry, size_t offset, T value) {
    size_t table = stored_.size() - kTrailerBytes - blocks_ * kTableEntryBytes;
    return With(table + entry * kTableEntryBytes + offset, value);
  }
  template <typename T>
  std::string With(size_t at, T value) {
    std::string changed = stored_;
    std::memcpy(changed.data() + at, &value, sizeof(value));
    return Signed(changed);
  }
  std::string Signed(std::string blob) {
    size_t summed = blocks_ * kTableEntryBytes + kTrailerBytes;
    std::string_view bytes = std::string_view(blob).substr(blob.size() - summed, summed - 8);
    uint64_t sum = base::Xxh3(base::AsBytes(bytes)).low;
    std::memcpy(blob.data() + blob.size() - 8, &sum, 8);
    return blob;
  }

  const std::string plain_ = MixedPlain();
  const std::string stored_ = Encode(plain_);
  const size_t blocks_ = TableOf(stored_).blocks.size();
};

TEST_F(HostileTableTest, SigningAloneChangesNothing) {
  EXPECT_EQ(Signed(stored_), stored_);
  ASSERT_GT(blocks_, 2u);
}

TEST_F(HostileTableTest, ImpossibleTrailersAreRefused) {
  const std::pair<size_t, uint32_t> kFields[] = {{0, 0},
                                                 {8, 0},
                                                 {8, kChunkBytes + 1},
                                                 {8, UINT32_MAX},
                                                 {8, 33'000},
                                                 {12, 0},
                                                 {12, UINT32_MAX},
                                                 {12, 40},
                                                 {16, 0},
                                                 {16, UINT32_MAX},
                                                 {16, kMaxBlocks + 1},
                                                 {16, 1},
                                                 {16, 107'374'183},  // times 40 is 24 in 32 bits
                                                 {20, 1},
                                                 {20, UINT32_MAX}};
  for (auto [offset, value] : kFields) {
    EXPECT_ERROR(Decode(WithTrailer(offset, value)), Code::kCorruption) << offset << " " << value;
  }
  for (uint8_t version : {0, 2, 255}) {
    EXPECT_ERROR(Decode(WithTrailer(4, version)), Code::kCorruption);
  }
  for (uint8_t kind : {0, 4, 255}) EXPECT_ERROR(Decode(WithTrailer(5, kind)), Code::kCorruption);
  for (uint16_t flags : {1, 2, 0x8000}) {
    EXPECT_ERROR(Decode(WithTrailer(6, flags)), Code::kCorruption);
  }
}

TEST_F(HostileTableTest, ImpossibleEntriesAreRefused) {
  const uint32_t kValues[] = {0, 1, 4095, 4096, kMaxBlockBytes + 1, 0x80000000, UINT32_MAX};
  for (size_t entry = 0; entry < blocks_; ++entry) {
    for (size_t offset : {0, 4, 8}) {
      for (uint32_t value : kValues) {
        std::string changed = WithEntry(entry, offset, value);
        if (changed == stored_) continue;
        EXPECT_ERROR(Decode(changed), Code::kCorruption) << entry << " " << offset << " " << value;
      }
    }
    for (uint8_t form : {2, 3, 255}) {
      EXPECT_ERROR(Decode(WithEntry(entry, 12, form)), Code::kCorruption);
    }
    EXPECT_ERROR(Decode(WithEntry(entry, 13, uint8_t{1})), Code::kCorruption);
    EXPECT_ERROR(Decode(WithEntry(entry, 14, uint16_t{1})), Code::kCorruption);
  }
}

TEST_F(HostileTableTest, AFrameOfAnotherLengthIsRefused) {
  // A frame that holds more, then less, than its entry says, under right check sums.
  std::string words = WordyText(8000, 3);
  std::string blob = Encode(words);
  Block block = TableOf(blob).blocks.at(0);
  ASSERT_EQ(block.form, Block::Form::kZstd);
  base::ByteView frame = base::AsBytes(blob).first(block.stored_length);
  for (uint32_t length : {7999u, 8001u, 1u}) {
    block.plain_length = length;
    std::vector<uint8_t> out(length);
    EXPECT_ERROR(DecodeBlock(block, frame, out), Code::kCorruption);
  }
}

TEST(CutBlocksTest, KeepToGridAndLimits) {
  for (size_t size : {1u, 5000u, 8192u, 1'000'001u, kChunkBytes}) {
    std::string plain = RandomText(size, size);
    uint32_t start = 0;
    std::vector<uint32_t> ends = CutBlocks(base::AsBytes(plain));
    for (uint32_t end : ends) {
      ASSERT_GT(end, start);
      EXPECT_LE(end - start, kMaxBlockBytes);
      if (end != size) {
        EXPECT_GE(end - start, kMinBlockBytes);
        EXPECT_EQ(end % kBlockGridBytes, 0u);
      }
      start = end;
    }
    EXPECT_EQ(start, size);
  }
}

TEST(CutBlocksTest, AreOfTheAverageSize) {
  std::string plain = RandomText(kChunkBytes, 1);
  size_t count = CutBlocks(base::AsBytes(plain)).size();
  EXPECT_NEAR(static_cast<double>(kChunkBytes) / static_cast<double>(count), kAverageBlockBytes,
              kAverageBlockBytes * 0.2);
}

TEST(CutBlocksTest, FallInTheSamePlacesAfterAnInsertion) {
  std::string plain = RandomText(2 << 20, 1);
  std::string moved = RandomText(3 * kBlockGridBytes, 2) + plain;
  std::vector<uint32_t> before = CutBlocks(base::AsBytes(plain));
  std::vector<uint32_t> after = CutBlocks(base::AsBytes(moved));
  size_t common = 0;
  for (uint32_t end : before) {
    common += std::count(after.begin(), after.end(), end + 3 * kBlockGridBytes);
  }
  EXPECT_GE(common, before.size() - 8);
}

TEST(CutBlocksTest, RunsOfOnePageAreNotChopped) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::string page = RandomText(kBlockGridBytes, seed);
    std::string plain;
    while (plain.size() < (1 << 20)) plain += page;
    EXPECT_LE(CutBlocks(base::AsBytes(plain)).size(), 9u);
  }
}

// Changing the rule costs sharing with what is stored already: not by accident.
TEST(CutBlocksTest, AreTheSameForEver) {
  std::string plain = RandomText(1 << 20, 42);
  std::vector<uint32_t> ends = CutBlocks(base::AsBytes(plain));
  ends.resize(6);
  EXPECT_THAT(ends, testing::ElementsAre(20480, 86016, 139264, 200704, 208896, 233472));
}

std::string ReadFile(const std::string& path) {
  return base::ReadWholeFile(path, 64 << 20).value();
}

const char kExamplePlain[] = "Quarry keeps this manifest.";

std::string HexDump(std::string_view bytes) {
  std::string dump;
  for (size_t line = 0; line < bytes.size(); line += 16) {
    dump += fmt::format("{:04x} ", line);
    std::string text;
    for (size_t i = line; i < line + 16 && i < bytes.size(); ++i) {
      uint8_t byte = static_cast<uint8_t>(bytes[i]);
      dump += fmt::format(" {:02x}", byte);
      text += byte >= 0x20 && byte < 0x7f ? bytes[i] : '.';
    }
    dump += std::string(3 * (16 - text.size()), ' ') + "  " + text + "\n";
  }
  return dump;
}

TEST(BlobGoldenTest, TheExampleInFormatMdIsTrue) {
  std::string stored = Encode(kExamplePlain, 1, BlobKind::kManifest);
  std::string document = ReadFile(QUARRY_SOURCE_DIR "/chunkstore/FORMAT.md");
  EXPECT_NE(document.find(HexDump(stored)), std::string::npos) << "FORMAT.md should have:\n"
                                                               << HexDump(stored);
}

// Blobs written by the first version stay readable for ever, and raw ones are still written so.
TEST(BlobGoldenTest, VersionOneIsReadable) {
  const std::string kDir = QUARRY_SOURCE_DIR "/tests/golden/blob/";
  std::string raw = RandomText(20'000, 7);
  std::string mixed = WordyText(48'000, 7) + RandomText(10'000, 8);
  EXPECT_TRUE(Decode(ReadFile(kDir + "v1-raw.blob")).value() == raw);
  EXPECT_TRUE(Encode(raw) == ReadFile(kDir + "v1-raw.blob"));
  std::string golden = ReadFile(kDir + "v1-zstd.blob");
  EXPECT_TRUE(Decode(golden).value() == mixed);
  EXPECT_FALSE(TableOf(golden).all_raw);
  EXPECT_EQ(TableOf(golden).kind, BlobKind::kChunk);
}

// A chunk whose second and third block lie elsewhere.
std::string EncodeBorrowing(std::string_view plain) {
  std::vector<Block> blocks = HashBlocks(base::AsBytes(plain));
  for (size_t i = 1; i < 3; ++i) {
    blocks[i].form = Block::Form::kElsewhere;
    blocks[i].owner = static_cast<uint16_t>(2 - i);
    blocks[i].owner_offset = static_cast<uint32_t>(i) * 1024 * 1024;
  }
  BlobEncoder encoder(EncodeOptions{.compression_level = 0});
  const EncodedBlob blob = encoder.Encode(
      base::Sha256(base::AsBytes(plain)), base::AsBytes(plain), blocks,
      {base::Sha256(base::AsBytes("first owner")), base::Sha256(base::AsBytes("second owner"))});
  std::string stored;
  for (base::ByteView piece : blob.pieces()) stored.append(base::AsText(piece));
  return stored;
}

TEST(BlobSharingTest, SaysWhereBlocksLie) {
  const std::string plain = RandomText(300'000, 5);
  const std::string stored = EncodeBorrowing(plain);
  const BlobTable table = TableOf(stored);
  ASSERT_GT(table.blocks.size(), 3u);
  EXPECT_LT(stored.size(), plain.size());
  EXPECT_FALSE(table.all_raw);
  EXPECT_FALSE(table.partial);
  EXPECT_EQ(table.owners.size(), 2u);
  EXPECT_EQ(table.borrowed_bytes(), table.blocks[1].plain_length + table.blocks[2].plain_length);
  EXPECT_EQ(table.blocks[1].owner, 1);
  EXPECT_EQ(table.blocks[1].owner_offset, 1024u * 1024);
  EXPECT_EQ(table.blocks[2].owner, 0);
  EXPECT_TRUE(table.blocks[3].is_here());
}

TEST(BlobSharingTest, KeepsSomeBlocks) {
  const std::string plain = WordyText(300'000, 5);
  const std::string stored = Encode(plain);
  const BlobTable whole = TableOf(stored);
  std::vector<bool> keep(whole.blocks.size());
  keep[1] = true;
  const std::string left = EncodePartial(whole, base::AsBytes(stored), keep);
  EXPECT_LT(left.size(), stored.size() / 2);
  const BlobTable table = TableOf(left);
  EXPECT_TRUE(table.partial);
  EXPECT_EQ(table.id, whole.id);
  for (size_t i = 0; i < table.blocks.size(); ++i) {
    EXPECT_EQ(table.blocks[i].is_here(), i == 1);
    EXPECT_EQ(table.blocks[i].hash, whole.blocks[i].hash);
  }
  const std::string decoded = Decode(left).value();
  EXPECT_EQ(decoded.substr(table.blocks[1].plain_offset, table.blocks[1].plain_length),
            plain.substr(table.blocks[1].plain_offset, table.blocks[1].plain_length));
}

// Every byte of what is borrowed is covered.
TEST(BlobSharingTest, RefusesEveryFlippedBitOfTheTable) {
  const std::string stored = EncodeBorrowing(RandomText(300'000, 5));
  const BlobTable table = TableOf(stored);
  const Block& last = table.blocks.back();
  for (size_t at = last.stored_offset + last.stored_length; at < stored.size(); ++at) {
    std::string bad = stored;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    EXPECT_ERROR(DecodeTable(base::AsBytes(bad).last(TailReadBytes(bad.size())), bad.size()),
                 Code::kCorruption)
        << at;
  }
}

TEST(BlobGoldenTest, VersionTwoIsReadable) {
  const std::string kDir = QUARRY_SOURCE_DIR "/tests/golden/blob/";
  const std::string plain = RandomText(100'000, 5);
  EXPECT_TRUE(EncodeBorrowing(plain) == ReadFile(kDir + "v2-borrowing.blob"));
  const std::string raw = Encode(plain, 0);
  const BlobTable whole = TableOf(raw);
  std::vector<bool> keep(whole.blocks.size());
  keep.back() = true;
  EXPECT_TRUE(EncodePartial(whole, base::AsBytes(raw), keep) == ReadFile(kDir + "v2-partial.blob"));
}

}  // namespace
}  // namespace chunkstore
