#include "base/auth/access_rules.h"

#include <string>

#include <gtest/gtest.h>

namespace base::auth {
namespace {

TEST(AccessRules, PatternsAreReadAsKeystonemiddlewareReadsThem) {
  EXPECT_TRUE(PathMatches("/v2/images", "/v2/images"));
  EXPECT_FALSE(PathMatches("/v2/images/", "/v2/images"));
  EXPECT_FALSE(PathMatches("/v2/image", "/v2/images"));
  EXPECT_FALSE(PathMatches("", "/v2"));
  for (const char* one : {"/v2/images/*", "/v2/images/{image_id}"}) {
    EXPECT_TRUE(PathMatches("/v2/images/abc", one));
    EXPECT_FALSE(PathMatches("/v2/images/", one)) << "at least one character";
    EXPECT_FALSE(PathMatches("/v2/images/abc/file", one));
  }
  EXPECT_TRUE(PathMatches("/v2/images/abc/file", "/v2/images/{image_id}/file"));
  EXPECT_TRUE(PathMatches("/v2/images/abc.tar", "/v2/images/*.tar"));
  EXPECT_FALSE(PathMatches("/v2/images/.tar", "/v2/images/*.tar"));
  EXPECT_TRUE(PathMatches("/v2/images/a/b/c", "/v2/**"));
  EXPECT_TRUE(PathMatches("/v2/", "/v2/**"));
  EXPECT_TRUE(PathMatches("/v2/images/a/file", "/**/file"));
  EXPECT_TRUE(PathMatches("/a/b/c", "**"));
  EXPECT_TRUE(PathMatches("/a.c", "/a.c"));
  EXPECT_FALSE(PathMatches("/abc", "/a.c")) << "a dot is a dot";
  EXPECT_TRUE(PathMatches("/a{b", "/a{b")) << "a brace that is never closed is a brace";
}

TEST(AccessRules, NoPatternTakesLong) {
  std::string pattern;
  for (int i = 0; i < 100; ++i) pattern += "**a";
  EXPECT_FALSE(PathMatches(std::string(8000, 'a') + "b", pattern));
}

TEST(AccessRules, WithoutRulesAllIsAllowedAndWithNoneNothing) {
  Caller caller;
  EXPECT_TRUE(Allows(caller, "image", "/image", "DELETE", "/image/v2/images/x"));
  EXPECT_TRUE(Allows(caller, "", "/admin", "GET", "/admin/v1/stats"));
  caller.access_rules.emplace();
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/image/v2/images"));
  EXPECT_FALSE(Allows(caller, "", "/admin", "GET", "/admin/v1/stats"));
}

TEST(AccessRules, ARuleHoldsForItsServiceMethodAndPath) {
  Caller caller;
  caller.access_rules = {{"image", "GET", "/v2/images/*"}};
  EXPECT_TRUE(Allows(caller, "image", "/image", "GET", "/image/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/image/v2/images"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "HEAD", "/image/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "DELETE", "/image/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "identity", "/identity", "GET", "/identity/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "", "/admin", "GET", "/admin/v2/images/x"));
  caller.access_rules = {{"image", "GET", "/image/v2/images"}};
  EXPECT_TRUE(Allows(caller, "image", "/image", "GET", "/image/v2/images"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/image/v2/images/x"));
  EXPECT_TRUE(Allows(caller, "identity", "/identity", "GET", "/identity/v3/auth/tokens"));
  EXPECT_FALSE(Allows(caller, "identity", "/identity", "DELETE", "/identity/v3/auth/tokens"));
}

}  // namespace
}  // namespace base::auth
