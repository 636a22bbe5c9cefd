#include "base/http/json_body.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/results.h"

namespace base::http {
namespace {

TEST(JsonBody, TellsTypesThatMayBeJson) {
  const auto may = [](std::string_view type) {
    Headers headers;
    headers.Set("Content-Type", type);
    return MayBeJson(headers);
  };
  EXPECT_TRUE(MayBeJson(Headers()));
  for (const char* type : {"", "application/json", "Application/JSON; charset=utf-8",
                           "application/json ;x", "application/vnd.openstack.volume+json"})
    EXPECT_TRUE(may(type)) << type;
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "application/jsonx",
                           "text/json", "application/+json", "json", "text/x+json"})
    EXPECT_FALSE(may(type)) << type;
}

TEST(JsonBody, RefusesNulWhereverItStands) {
  for (const char* text : {R"("\u0000")", R"({"a": [{"b": "x\u0000y"}]})", R"({"a\u0000": 1})",
                           R"([1, "a", "b\u0000"])"})
    EXPECT_ERROR(CheckNoNul(ParseJson(text).value()), Code::kInvalidArgument) << text;
  for (const char* text : {R"({"a": ["b\u0001", null, 0, true, "\\u0000"]})", "null", "[]", "{}"})
    EXPECT_OK(CheckNoNul(ParseJson(text).value())) << text;
}

}  // namespace
}  // namespace base::http
