#include "base/json.h"

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base {
namespace {

TEST(ParseJson, ReadsEveryKindOfValue) {
  ASSERT_OK_AND_ASSIGN(Json value,
                       ParseJson(R"( {"a": [1, -2, 3.5, true, null, "x\u00e9"], "b": {}} )"));
  EXPECT_EQ(ToText(value), R"({"a":[1,-2,3.5E0,true,null,"xé"],"b":{}})");
  EXPECT_OK(ParseJson("12"));
  EXPECT_OK(ParseJson("\"text\""));
}

TEST(ParseJson, SaysWhereItStopped) {
  auto result = ParseJson(R"({"a": 1, b})");
  ASSERT_ERROR(result, Code::kInvalidArgument);
  EXPECT_NE(result.error().message().find("at byte 9"), std::string::npos)
      << result.error().message();
}

TEST(ParseJson, IsStrict) {
  const char* const kBad[] = {
      "",      " ",   "{",      "[1,]",        "{\"a\":}",   "nul",      "01",
      "'a'",   "1 2", "{} x",   "[1] // no",   "{\"a\":1,}", "\"\x01\"", "\"\xff\"",
      "NaN",   "+1",  "[\"a\"", "\"\\ud800\"", "1.",         "1e400",    "[{\"a\":[-1e999]}]",
      "{1: 2}"};
  for (const char* text : kBad) EXPECT_ERROR(ParseJson(text), Code::kInvalidArgument) << text;
}

TEST(ParseJson, LimitsDepth) {
  auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_OK(ParseJson(nested(kMaxJsonDepth)));
  EXPECT_ERROR(ParseJson(nested(kMaxJsonDepth + 1)), Code::kInvalidArgument);
  EXPECT_ERROR(ParseJson(std::string(1'000'000, '[')), Code::kInvalidArgument);
}

TEST(ParseJson, KeepsTheLastOfARepeatedKey) {
  EXPECT_EQ(ToText(ParseJson(R"({"a":1,"a":2})").value()), R"({"a":2})");
}

TEST(Find, LooksIntoObjectsOnly) {
  Json value = ParseJson(R"({"name": "x", "size": 3})").value();
  ASSERT_NE(Find(value, "size"), nullptr);
  EXPECT_EQ(Find(value, "size")->as_int64(), 3);
  EXPECT_EQ(Find(value, "other"), nullptr);
  EXPECT_EQ(Find(ParseJson("[1]").value(), "size"), nullptr);
  EXPECT_EQ(FindString(value, "name"), "x");
  EXPECT_EQ(FindString(value, "size"), std::nullopt);
  EXPECT_EQ(FindString(value, "other"), std::nullopt);
}

}  // namespace
}  // namespace base
