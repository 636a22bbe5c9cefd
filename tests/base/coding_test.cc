#include "base/coding.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base {
namespace {

TEST(Coding, WritesTheBytesOfTheFormats) {
  std::string out;
  PutFixed(&out, uint16_t{0x1234});
  PutFixed(&out, uint32_t{1});
  PutVarint(&out, 300);
  PutString(&out, "ab");
  PutOrdered64(&out, 0x0102);
  EXPECT_EQ(ToHex(out),
            "3412"
            "01000000"
            "ac02"
            "026162"
            "0000000000000102");
}

TEST(Coding, VarintsGoRoundAtEveryLength) {
  for (int bits = 0; bits <= 64; ++bits) {
    uint64_t value = bits == 64 ? UINT64_MAX : (uint64_t{1} << bits) - 1;
    std::string out;
    PutVarint(&out, value);
    EXPECT_EQ(out.size(), static_cast<size_t>(std::max(1, (bits + 6) / 7)));
    Decoder decoder(out);
    EXPECT_EQ(decoder.Varint().value(), value);
    EXPECT_OK(decoder.ExpectEnd());
  }
}

TEST(Coding, OrderOfKeysIsOrderOfNumbers) {
  std::string low;
  std::string high;
  PutOrdered64(&low, 255);
  PutOrdered64(&high, 256);
  EXPECT_LT(low, high);
}

TEST(Decoder, ReadsInTurn) {
  std::string out;
  PutFixed(&out, uint32_t{7});
  PutString(&out, "name");
  out += "xyz";
  Decoder decoder(out);
  EXPECT_EQ(decoder.Fixed<uint32_t>().value(), 7u);
  EXPECT_EQ(decoder.String().value(), "name");
  EXPECT_EQ(decoder.remaining(), 3u);
  EXPECT_ERROR(decoder.ExpectEnd(), Code::kCorruption);
  EXPECT_EQ(decoder.Bytes(3).value(), "xyz");
  EXPECT_OK(decoder.ExpectEnd());
}

TEST(Decoder, RefusesWhatIsCutShortAndConsumesNothingMore) {
  std::string out;
  PutFixed(&out, uint64_t{1});
  PutString(&out, "some text");
  for (size_t size = 0; size < out.size(); ++size) {
    Decoder decoder(std::string_view(out).substr(0, size));
    bool whole = decoder.Fixed<uint64_t>().has_value() && decoder.String().has_value();
    EXPECT_FALSE(whole) << size;
  }
}

TEST(Decoder, RefusesLengthsBeyondTheInput) {
  std::string out;
  PutVarint(&out, UINT64_MAX);
  out += "abc";
  EXPECT_ERROR(Decoder(out).String(), Code::kCorruption);
  EXPECT_ERROR(Decoder("abc").Bytes(SIZE_MAX), Code::kCorruption);
}

TEST(Decoder, RefusesVarintsBeyond64Bits) {
  std::string eleven(10, '\x80');
  eleven += '\x01';
  EXPECT_ERROR(Decoder(eleven).Varint(), Code::kCorruption);
  std::string too_large(9, '\xff');
  too_large += '\x02';
  EXPECT_ERROR(Decoder(too_large).Varint(), Code::kCorruption);
  EXPECT_ERROR(Decoder("\x80").Varint(), Code::kCorruption);
}

TEST(Hex, GoesRoundAndRefusesTheRest) {
  EXPECT_EQ(ToHex(std::string("\x00\xff\x1a", 3)), "00ff1a");
  EXPECT_EQ(FromHex("00fF1A").value(), std::string("\x00\xff\x1a", 3));
  EXPECT_EQ(FromHex("").value(), "");
  EXPECT_ERROR(FromHex("0"), Code::kInvalidArgument);
  EXPECT_ERROR(FromHex("0g"), Code::kInvalidArgument);
  EXPECT_ERROR(FromHex("\xff\xff"), Code::kInvalidArgument);
}

TEST(Base64Url, MatchesRfc4648) {
  const std::pair<const char*, const char*> kVectors[] = {
      {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},          {"foo", "Zm9v"},
      {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}, {"\xfb\xff", "-_8"}};
  for (auto [bytes, text] : kVectors) {
    EXPECT_EQ(ToBase64Url(bytes), text);
    EXPECT_EQ(FromBase64Url(text).value(), bytes);
  }
}

TEST(Base64Url, HasOneTextForEachString) {
  EXPECT_ERROR(FromBase64Url("Z"), Code::kInvalidArgument);
  EXPECT_ERROR(FromBase64Url("Zh"), Code::kInvalidArgument) << "stray bits";
  EXPECT_ERROR(FromBase64Url("Zg=="), Code::kInvalidArgument) << "padding";
  EXPECT_ERROR(FromBase64Url("+/8"), Code::kInvalidArgument) << "the other alphabet";
}

TEST(Base64Url, GoesRoundForRandomBytes) {
  std::mt19937 random(1);
  for (size_t size = 0; size < 200; ++size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_EQ(FromBase64Url(ToBase64Url(bytes)).value(), bytes);
    EXPECT_EQ(FromHex(ToHex(bytes)).value(), bytes);
  }
}

}  // namespace
}  // namespace base
