#include <random>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "base/files.h"
#include "chunkstore/blob_format.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/map.h"
#include "tests/support/results.h"

namespace chunkstore {
namespace {

base::Digest256 IdOf(uint64_t number) {
  return base::Sha256(base::AsBytes(std::to_string(number)));
}

TEST(MapPage, GoesRound) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    MapPage page;
    page.level = round % 3;
    const uint64_t density = 1 + random() % 100;
    for (uint16_t slot = 0; slot < kFanOut; ++slot) {
      if (random() % 100 < density) page.entries.push_back({slot, IdOf(random())});
    }
    if (page.entries.empty()) page.entries.push_back({5, IdOf(5)});
    const std::string encoded = EncodePage(page);
    ASSERT_OK_AND_ASSIGN(const MapPage decoded, DecodePage(base::AsBytes(encoded)));
    EXPECT_EQ(decoded, page);
    for (uint32_t slot = 0; slot < kFanOut; ++slot) {
      const auto entry = std::find_if(page.entries.begin(), page.entries.end(),
                                      [&](const auto& one) { return one.slot == slot; });
      const base::Digest256* found = decoded.Find(slot);
      ASSERT_EQ(found != nullptr, entry != page.entries.end());
      if (found) EXPECT_EQ(*found, entry->id);
    }
  }
}

TEST(MapPage, RefusesEveryCutAndEveryOtherForm) {
  MapPage page{.level = 1, .size_bytes = 5000ull * kChunkBytes, .entries = {}};
  page.entries = {{0, IdOf(0)}, {1, IdOf(1)}, {4, IdOf(4)}};
  const std::string encoded = EncodePage(page);
  for (size_t length = 0; length < encoded.size(); ++length)
    EXPECT_ERROR(DecodePage(base::AsBytes(encoded.substr(0, length))), base::Code::kCorruption);
  EXPECT_ERROR(DecodePage(base::AsBytes(encoded + "x")), base::Code::kCorruption);
  // The header; the ids may be anything.
  for (size_t i = 0; i < encoded.size() - 3 * 32; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string other = encoded;
      other[i] = static_cast<char>(other[i] ^ 1 << bit);
      const base::Result<MapPage> decoded = DecodePage(base::AsBytes(other));
      if (decoded.has_value()) EXPECT_EQ(EncodePage(*decoded), other);
    }
  }
  EXPECT_ERROR(DecodePage(base::AsBytes(EncodePage(MapPage{}))), base::Code::kCorruption);
}

TEST(Map, LevelsAndSizes) {
  EXPECT_EQ(RootLevel(0), 0);
  EXPECT_EQ(RootLevel(1024ull * kChunkBytes), 0);
  EXPECT_EQ(RootLevel(1024ull * kChunkBytes + 1), 1);
  EXPECT_EQ(RootLevel(1024ull * 1024 * kChunkBytes), 1);
  EXPECT_EQ(RootLevel(kMaxContentBytes), 2);
  EXPECT_EQ(ChunkLength(0, 5), 5u);
  EXPECT_EQ(ChunkLength(0, kChunkBytes), kChunkBytes);
  EXPECT_EQ(ChunkLength(1, kChunkBytes + 7), 7u);
}

// FORMAT.md, "Map page": these bytes are what a store on disk has. A change here is a new format
// version.
TEST(MapPage, Golden) {
  MapPage page{.level = 0, .size_bytes = 9ull * kChunkBytes + 100, .entries = {}};
  page.entries = {{0, IdOf(0)}, {1, IdOf(1)}, {9, IdOf(9)}};
  ASSERT_OK_AND_ASSIGN(
      const std::string golden,
      base::ReadWholeFile(QUARRY_SOURCE_DIR "/tests/golden/map_page/v1-root.page", base::kMiB));
  EXPECT_EQ(base::ToHex(golden.substr(0, 16)), "01010064004002000000000200020701");
  EXPECT_EQ(EncodePage(page), golden);
  ASSERT_OK_AND_ASSIGN(const MapPage decoded, DecodePage(base::AsBytes(golden)));
  EXPECT_EQ(decoded, page);
  EXPECT_EQ(base::Sha256(base::AsBytes(golden)).hex(),
            "ded362f172c280dcaf2680a52e00959a9d2d7a85778c0de87a65d78f3a47807f");
}

}  // namespace
}  // namespace chunkstore
