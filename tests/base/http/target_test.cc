#include "base/http/target.h"

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base::http {
namespace {

TEST(EncodePercent, IsReadBackByDecodePercent) {
  EXPECT_EQ(EncodePercent("disk-1.raw_x"), "disk-1.raw_x");
  EXPECT_EQ(EncodePercent("a b&c=d/e?"), "a%20b%26c%3Dd%2Fe%3F");
  const std::string text = "\xc3\xa4\x01+%";
  EXPECT_EQ(DecodePercent(EncodePercent(text)), text);
}

TEST(TargetTest, SplitsPathAndQuery) {
  ASSERT_OK_AND_ASSIGN(Target plain, SplitTarget("/a/b?c=d?e%23f"));
  EXPECT_EQ(plain.path, "/a/b");
  EXPECT_EQ(plain.query, "c=d?e%23f");
  ASSERT_OK_AND_ASSIGN(Target absolute, SplitTarget("HTTP://host:80/x"));
  EXPECT_EQ(absolute.path, "/x");
  ASSERT_OK_AND_ASSIGN(Target bare, SplitTarget("http://host"));
  EXPECT_EQ(bare.path, "/");
  for (const char* bad : {"", "*", "a", "host:443", "#", "http://host?x", "/a#", "/a#/b", "/a?b#c",
                          "http://host/a#/b"})
    EXPECT_ERROR(SplitTarget(bad), Code::kInvalidArgument) << bad;
}

TEST(TargetTest, DecodesPercent) {
  EXPECT_EQ(DecodePercent("a%20b+%2B"), "a b++");
  EXPECT_EQ(DecodePercent("a%20b+%2B", true), "a b +");
  for (const char* bad : {"%", "%4", "%4g", "%00", "%ff", "\xff", "%e2%82"})
    EXPECT_EQ(DecodePercent(bad), std::nullopt) << bad;
  EXPECT_EQ(DecodePercent("%e2%82%ac"), "€");
}

TEST(TargetTest, ParsesQueries) {
  ASSERT_OK_AND_ASSIGN(QueryFields fields, ParseQuery("a=1&&b=%26%3d&c&=d&a=2="));
  const QueryFields expected = {{"a", "1"}, {"b", "&="}, {"c", ""}, {"", "d"}, {"a", "2="}};
  EXPECT_EQ(fields, expected);
  EXPECT_ERROR(ParseQuery("a=%"), Code::kInvalidArgument);
  EXPECT_ERROR(ParseQuery("%00=a"), Code::kInvalidArgument);
}

TEST(TargetTest, KnowsUtf8) {
  for (const char* good : {"", "a", "ö", "€", "😀", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(IsUtf8(good)) << good;
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xc3\x28"})
    EXPECT_FALSE(IsUtf8(bad));
}

TEST(TargetTest, KnowsHostsWithPorts) {
  for (const char* good :
       {"localhost", "127.0.0.1:80", "[::1]:65535", "[fd00::1]", "a-b.c_d.", "h:1"})
    EXPECT_TRUE(IsHostAndPort(good)) << good;
  for (const char* bad : {"",    "h:",  "h:0",     "h:65536",  "h:99999", "h:8x",   "h:+8", "h:1:2",
                          "...", ".h",  "a..b",    "[::1]:x:", "[::1",    "::1",    "[]",   "[",
                          "]",   "[h]", "[::1]80", "%0d%0aX",  "u@h",     "a/../b", "a, b", "a\"b"})
    EXPECT_FALSE(IsHostAndPort(bad)) << bad;
}

TEST(TargetTest, KnowsHosts) {
  for (const char* good : {"localhost", "127.0.0.1:80", "[::1]:80", "a-b.c_d"})
    EXPECT_TRUE(IsHost(good)) << good;
  for (const char* bad : {"", "a b", "a/b", "a\"b", "a@b", "a<b"}) EXPECT_FALSE(IsHost(bad)) << bad;
  EXPECT_FALSE(IsHost(std::string(300, 'a')));
}

}  // namespace
}  // namespace base::http
