#include "base/auth/access_rules.h"

#include <random>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/results.h"

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

// By every way to split the path: slow, and plainly right.
bool Expected(std::string_view path, std::string_view pattern) {
  if (pattern.empty()) return path.empty();
  const bool anything = pattern.starts_with("**");
  if (!anything && pattern.front() != '*')
    return path.starts_with(pattern.front()) && Expected(path.substr(1), pattern.substr(1));
  for (size_t taken = anything ? 0 : 1; taken <= path.size(); ++taken) {
    if (!anything && path.substr(0, taken).find('/') != std::string_view::npos) return false;
    if (Expected(path.substr(taken), pattern.substr(anything ? 2 : 1))) return true;
  }
  return false;
}

TEST(AccessRules, EveryPatternMatchesWhatItSays) {
  std::mt19937 random(1);
  const auto text = [&random](std::string_view letters, size_t max_bytes) {
    std::string out(random() % (max_bytes + 1), ' ');
    for (char& c : out) c = letters[random() % letters.size()];
    return out;
  };
  for (int i = 0; i < 20'000; ++i) {
    const std::string path = text("ab/", 8);
    const std::string pattern = text("ab/**", 7);
    EXPECT_EQ(PathMatches(path, pattern), Expected(path, pattern)) << path << " " << pattern;
  }
}

// With a matcher that goes back, one of these alone outlives us.
TEST(AccessRules, NoPatternTakesLong) {
  for (const char* part : {"**a", "*a", "*aa*", "{x}a"}) {
    std::string pattern;
    while (pattern.size() + 6 < kMaxPatternBytes) pattern += part;
    EXPECT_FALSE(PathMatches(std::string(kMaxRulePathBytes - 1, 'a') + "b", pattern + "c"));
    EXPECT_TRUE(PathMatches(std::string(kMaxRulePathBytes - 1, 'a') + "b", pattern + "*b"));
  }
}

TEST(AccessRules, WhatIsBeyondTheLimitsFitsNothing) {
  EXPECT_TRUE(PathMatches("/" + std::string(kMaxRulePathBytes - 1, 'a'), "/**"));
  EXPECT_FALSE(PathMatches("/" + std::string(kMaxRulePathBytes, 'a'), "/**"));
  const std::string most(kMaxPatternBytes, 'a');
  EXPECT_TRUE(PathMatches(most, most));
  EXPECT_FALSE(PathMatches(most + "a", most + "a"));
}

TEST(AccessRules, ANewPatternKeepsToTheLimits) {
  std::string pattern;
  for (size_t i = 0; i < kMaxPatternWildcards; ++i) pattern += i % 2 == 0 ? "/**" : "/{a}";
  EXPECT_OK(CheckPattern(pattern));
  EXPECT_ERROR(CheckPattern(pattern + "/*"), Code::kInvalidArgument);
  EXPECT_OK(CheckPattern(pattern + "/{"));
  EXPECT_OK(CheckPattern(std::string(kMaxPatternBytes, 'a')));
  EXPECT_ERROR(CheckPattern(std::string(kMaxPatternBytes + 1, 'a')), Code::kInvalidArgument);
}

TEST(AccessRules, WithoutRulesAllIsAllowedAndWithNoneNothing) {
  Caller caller;
  EXPECT_TRUE(Allows(caller, "image", "/image", "DELETE", "/v2/images/x"));
  EXPECT_TRUE(Allows(caller, "", "/admin", "GET", "/v1/stats"));
  caller.access_rules.emplace();
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/v2/images"));
  EXPECT_FALSE(Allows(caller, "", "/admin", "GET", "/v1/stats"));
}

TEST(AccessRules, ARuleHoldsForItsServiceMethodAndPath) {
  Caller caller;
  caller.access_rules = {{"image", "GET", "/v2/images/*"}};
  EXPECT_TRUE(Allows(caller, "image", "/image", "GET", "/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/v2/images"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "HEAD", "/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "DELETE", "/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "identity", "/identity", "GET", "/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "", "/admin", "GET", "/v2/images/x"));
  caller.access_rules = {{"image", "GET", "/image/v2/images"}};
  EXPECT_TRUE(Allows(caller, "image", "/image", "GET", "/v2/images"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/v2/images/x"));
  EXPECT_FALSE(Allows(caller, "image", "/imag", "GET", "/v2/images")) << "half a prefix";
}

TEST(AccessRules, OnlyTheValidationOfATokenNeedsNoRule) {
  Caller caller;
  caller.access_rules.emplace();
  EXPECT_TRUE(Allows(caller, "identity", "/identity", "GET", "/v3/auth/tokens"));
  EXPECT_FALSE(Allows(caller, "identity", "/identity", "DELETE", "/v3/auth/tokens"));
  EXPECT_FALSE(Allows(caller, "identity", "/identity", "GET", "/v3/users/u/v3/auth/tokens"));
  EXPECT_FALSE(Allows(caller, "image", "/image", "GET", "/v3/auth/tokens"));
}

}  // namespace
}  // namespace base::auth
