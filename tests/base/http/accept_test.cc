#include "base/http/accept.h"

#include <gtest/gtest.h>

namespace base::http {
namespace {

bool Zstd(std::string_view value) {
  Headers headers;
  headers.Add("accept-encoding", value);
  return AcceptsCoding(headers, "zstd");
}

TEST(Accept, ACodingIsNamedWithAWeight) {
  for (const char* yes : {"zstd", "ZSTD", "gzip, deflate, br, zstd", " gzip ;q=0.5 , zstd ; q=0.1 ",
                          "zstd;q=1", "zstd;q=1.000", "zstd;q=0.001", "zstd;x=y;Q=0.5"}) {
    EXPECT_TRUE(Zstd(yes)) << yes;
  }
  for (const char* no : {"", "gzip", "*", "zstd;q=0", "zstd; q=0.0", "zstd;q=0.000", "zstd;q=", "q",
                         "zstd;q=-1", "zstd;q=2", "zstd;q=0.0001", "zstdx", "x-zstd", ",,;,"}) {
    EXPECT_FALSE(Zstd(no)) << no;
  }
  EXPECT_FALSE(AcceptsCoding({}, "zstd"));
  Headers two;
  two.Add("Accept-Encoding", "gzip");
  two.Add("Accept-Encoding", "zstd");
  EXPECT_TRUE(AcceptsCoding(two, "zstd"));
}

TEST(Accept, ATypeIsNamedOrLeftOpen) {
  const auto accepts = [](std::string_view value) {
    Headers headers;
    headers.Add("Accept", value);
    return AcceptsType(headers, "application/json");
  };
  EXPECT_TRUE(AcceptsType({}, "application/json"));
  for (const char* yes : {"", "*/*", "application/json", "Application/JSON;v=1", "application/*",
                          "text/html, */*;q=0.1"}) {
    EXPECT_TRUE(accepts(yes)) << yes;
  }
  for (const char* no : {"text/html", "text/*", "application/json;q=0", "json", "*/*;q=0"}) {
    EXPECT_FALSE(accepts(no)) << no;
  }
}

}  // namespace
}  // namespace base::http
