#include "base/hash.h"

#include <gtest/gtest.h>

#include "base/coding.h"
#include "tests/support/results.h"

namespace base {
namespace {

TEST(Sha256, MatchesKnownAnswers) {
  EXPECT_EQ(Sha256({}).hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256(AsBytes("abc")).hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest256, GoesThroughHexAndBytes) {
  Digest256 digest = Sha256(AsBytes("abc"));
  EXPECT_EQ(Digest256::FromHex(digest.hex()).value(), digest);
  EXPECT_EQ(Digest256::FromBytes(digest.view()).value(), digest);
  EXPECT_ERROR(Digest256::FromHex("abcd"), Code::kInvalidArgument);
  EXPECT_ERROR(Digest256::FromBytes("short"), Code::kInvalidArgument);
  EXPECT_NE(std::hash<Digest256>()(digest), std::hash<Digest256>()(Sha256({})));
}

TEST(Xxh3, MatchesTheLibrarysKnownAnswer) {
  // XXH3-128 of nothing, seed 0, as the algorithm's own documentation gives it.
  Hash128 empty = Xxh3({});
  EXPECT_EQ(empty.low, 0x6001c324468d497fu);
  EXPECT_EQ(empty.high, 0x99aa06d3014798d8u);
  EXPECT_NE(Xxh3(AsBytes("abc")), Xxh3(AsBytes("abd")));
}

TEST(Digester, MatchesKnownAnswersHoweverTheBytesCome) {
  const std::pair<const char*, const char*> kAbc[] = {
      {"md5", "900150983cd24fb0d6963f7d28e17f72"},
      {"sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"},
      {"sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"sha512",
       "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
       "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
      {"blake2b",
       "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
       "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"}};
  for (auto [algorithm, expected] : kAbc) {
    ASSERT_OK_AND_ASSIGN(auto digester, Digester::Create(algorithm));
    digester->Update(AsBytes("a"));
    digester->Update({});
    digester->Update(AsBytes("bc"));
    EXPECT_EQ(digester->FinishHex(), expected) << algorithm;
  }
}

TEST(Digester, NamesTheChoicesWhenItKnowsNone) {
  auto digester = Digester::Create("crc32");
  ASSERT_ERROR(digester, Code::kInvalidArgument);
  EXPECT_NE(digester.error().message().find("sha512"), std::string::npos);
}

TEST(DigesterDeathTest, FinishesOnce) {
  auto digester = Digester::Create("md5").value();
  digester->FinishHex();
  EXPECT_DEATH(digester->FinishHex(), "finished");
}

TEST(Hmac, MatchesRfc4231Case2) {
  auto mac = HmacSha256("Jefe", "what do ya want for nothing?");
  EXPECT_EQ(ToHex(AsText(mac)), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(SecretsEqual, ComparesContentAndLength) {
  EXPECT_TRUE(SecretsEqual("", ""));
  EXPECT_TRUE(SecretsEqual("abc", "abc"));
  EXPECT_FALSE(SecretsEqual("abc", "abd"));
  EXPECT_FALSE(SecretsEqual("abc", "abcd"));
}

TEST(Random, FillsEverythingAndDiffers) {
  EXPECT_EQ(RandomBytes(0).size(), 0u);
  EXPECT_NE(RandomBytes(32), RandomBytes(32));
  std::string bytes = RandomBytes(100'000);  // more than the kernel gives at once to a signal
  EXPECT_FALSE(IsZero(AsBytes(bytes).subspan(99'000)));
}

}  // namespace
}  // namespace base
