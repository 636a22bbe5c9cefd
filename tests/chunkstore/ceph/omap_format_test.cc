#include "chunkstore/ceph/omap_format.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "base/coding.h"
#include "tests/support/results.h"

namespace chunkstore::ceph {
namespace {

using base::Code;

std::string RandomKey(std::mt19937& random) {
  std::string key(random() % 6, '\0');
  for (char& c : key) {
    c = "\x00\x01\x02"
        "a\xff"[random() % 5];
  }
  return key;
}

TEST(OmapFormatTest, StoredKeysSortAsKeysDo) {
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    const std::string a = RandomKey(random), b = RandomKey(random);
    EXPECT_EQ(a < b, StoredKey(a) < StoredKey(b));
    EXPECT_EQ(KeyOf(StoredKey(a)).value(), a);
    EXPECT_EQ(StoredKey(a).find('\0'), std::string::npos);
    // What comes after BeforeKey(a) is a and what is after a.
    EXPECT_EQ(StoredKey(b) > BeforeKey(a), b >= a);
    EXPECT_LT(StoredKey(a), kAfterKeys);
  }
  for (const char* bad : {"", "k", "x\x01", "ka", "k\x01", "k\x01\x03\x01"}) {
    if (std::string_view(bad) == "k\x01") continue;  // the empty key
    EXPECT_ERROR(KeyOf(bad), Code::kCorruption) << bad;
  }
}

// These bytes are in pools: a change is a new version, not an edit.
TEST(OmapFormatTest, IsWhatItWas) {
  Directory directory;
  directory.shards = {{.range = {.from = "", .to = "m"}, .object = "one"},
                      {.range = {.from = "m", .to = std::nullopt}, .object = "two"}};
  directory.pending = {"three"};
  directory.owner = "me";
  directory.lease_until_ms = 300;
  EXPECT_EQ(base::ToHex(EncodeDirectory(directory)),
            "0102"
            "0001016d"
            "036f6e65"
            "016d00"
            "0374776f"
            "01057468726565"
            "026d65"
            "ac02");
  EXPECT_EQ(base::ToHex(EncodeRange({.from = "a", .to = "b"})), "0161010162");
  EXPECT_EQ(base::ToHex(EncodeNumber(258)), "0000000000000102");
  EXPECT_EQ(base::ToHex(StoredKey(std::string("a\0\1b", 4))),
            "6b6101010102"
            "6201");
  EXPECT_EQ(StoredValue("x"), "vx");
  EXPECT_EQ(HeadName(std::string("i/a b\0", 6)), "meta.head.i/a%20b%00");
}

TEST(OmapFormatTest, DamageIsFound) {
  Directory directory;
  directory.shards = {{.range = {.from = "", .to = "m"}, .object = "one"},
                      {.range = {.from = "m", .to = std::nullopt}, .object = "two"}};
  const std::string good = EncodeDirectory(directory);
  ASSERT_OK(DecodeDirectory(good));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_ERROR(DecodeDirectory(good.substr(0, size)), Code::kCorruption);
  }
  EXPECT_ERROR(DecodeDirectory(good + "x"), Code::kCorruption);
  std::string newer = good;
  newer[0] = 2;
  EXPECT_ERROR(DecodeDirectory(newer), Code::kCorruption);
  directory.shards[1].range.from = "n";  // a gap
  EXPECT_ERROR(DecodeDirectory(EncodeDirectory(directory)), Code::kCorruption);
  EXPECT_ERROR(DecodeRange(std::string("\0\2", 2)), Code::kCorruption);
  EXPECT_ERROR(DecodeNumber("1234567"), Code::kCorruption);
  EXPECT_ERROR(CheckStored("x"), Code::kCorruption);
}

}  // namespace
}  // namespace chunkstore::ceph
