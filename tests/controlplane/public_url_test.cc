#include "controlplane/public_url.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace controlplane {
namespace {

using base::Code;

TEST(PublicUrl, KeepsWhatIsWellFormed) {
  for (const char* good :
       {"", "https://cloud.example", "http://10.0.0.1:9696", "https://[fd00::1]:443",
        "https://cloud.example/q", "https://cloud.example/a%20b/c~d"}) {
    ASSERT_OK_AND_ASSIGN(const std::string url, ParsePublicUrl(good));
    EXPECT_EQ(url, good);
  }
  ASSERT_OK_AND_ASSIGN(const std::string url, ParsePublicUrl("https://cloud.example/q//"));
  EXPECT_EQ(url, "https://cloud.example/q");
}

TEST(PublicUrl, RefusesWhatCanNotStandInALink) {
  for (const char* bad :
       {"cloud.example",   "javascript:alert(1)", "ftp://h",          "HTTPS://h",
        "https://",        "https:///",           "http://x\"y",      "https://h/\r\nX: y",
        "https://h/?q=",   "https://h?q=",        "https://h#f",      "https://h/#f",
        "https://u:p@h",   "https://u@h",         "https://h/a/../b", "https://h/%2e%2e/b",
        "https://h/a//b",  "https://h//a",        "https://h/a b",    "https://h/a\"",
        "https://h/%zz",   " https://h",          "https://h:",       "https://h:0",
        "https://h:99999", "https://h:8x",        "https://[::1",     "https://::1",
        "https://..",      "https://https://h"})
    EXPECT_ERROR(ParsePublicUrl(bad), Code::kInvalidArgument) << bad;
}

TEST(PublicUrl, DoesNotTellAPassword) {
  const auto refused = ParsePublicUrl("https://u:s3cret@h");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), testing::Not(testing::HasSubstr("s3cret")));
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("public_url"));
}

}  // namespace
}  // namespace controlplane
