#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "blockd/api/body.h"
#include "blockd/api/errors.h"
#include "blockd/api/list_request.h"
#include "blockd/api/views.h"
#include "tests/blockd/api/harness.h"
#include "tests/support/results.h"

namespace blockd::api {
namespace {

using base::Code;
using base::JsonArray;
using base::JsonObject;
using base::Result;
using base::http::Response;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

base::http::Request Asking(std::string_view version) {
  base::http::Request request;
  if (!version.empty()) request.headers.Set(kVersionHeader, version);
  return request;
}

TEST(MicroversionTest, AgreesOnWhatTheHeaderSays) {
  using Outcome = Negotiation::Outcome;
  const struct {
    const char* header;
    Outcome outcome;
    int minor;
  } kCases[] = {
      {"", Outcome::kAgreed, 0},
      {"volume 3.0", Outcome::kAgreed, 0},
      {"volume 3.70", Outcome::kAgreed, 70},
      {"volume  3.7 ", Outcome::kAgreed, 7},
      {"volume latest", Outcome::kAgreed, kNewestMinor},
      {"compute 2.1, volume 3.27", Outcome::kAgreed, 27},
      {"compute 2.1", Outcome::kAgreed, 0},
      {"volumes 3.99", Outcome::kAgreed, 0},
      {"volume 3.72", Outcome::kUnsupported, 0},
      {"volume 2.0", Outcome::kUnsupported, 0},
      {"volume 3.99999999999", Outcome::kMalformed, 0},
      {"volume x", Outcome::kMalformed, 0},
      {"volume", Outcome::kMalformed, 0},
      {"volume 3", Outcome::kMalformed, 0},
      {"volume 3.07", Outcome::kMalformed, 0},
      {"volume 3.-1", Outcome::kMalformed, 0},
      {"volume 3.-0", Outcome::kMalformed, 0},
      {"volume 0.1", Outcome::kMalformed, 0},
      {"volume 3.1 3.2", Outcome::kMalformed, 0},
  };
  for (const auto& expected : kCases) {
    SCOPED_TRACE(expected.header);
    const Negotiation negotiation = Negotiate(Asking(expected.header));
    EXPECT_EQ(negotiation.outcome, expected.outcome);
    EXPECT_EQ(negotiation.version.minor, expected.minor);
  }
}

Result<Response> EchoCall(const Call& call) {
  return Response::OfJson(200, JsonObject{{"version", call.version.ToString()},
                                          {"links", LinksOf(call, "things", "x")}});
}

class RouteTest : public testing::Test {
 protected:
  RouteTest() {
    std::vector<Route> routes(2);
    routes[0] = {"GET", "/things", base::http::Access::kToken, 0, EchoCall};
    routes[1] = {"GET", "/newer", base::http::Access::kToken, 40, EchoCall};
    harness_.Mount(routes);
  }
  Response Ask(std::string_view target, const char* version) {
    return harness_.CallAt(MemberOf(), "GET", target, "", {{"OpenStack-API-Version", version}});
  }
  const std::string project_ = "/v3/" + std::string(kMyProject);
  Harness harness_;
};

TEST_F(RouteTest, AnswersSayVersionAndRequest) {
  const Response response = Ask(project_ + "/things", "volume 3.70");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.Get("OpenStack-API-Version"), "volume 3.70");
  EXPECT_EQ(response.headers.Get("Vary"), "OpenStack-API-Version");
  EXPECT_EQ(response.headers.Get("x-compute-request-id"), "req-1");
  EXPECT_EQ(TextAt(response, "version"), "3.70");
  EXPECT_EQ(TextAt(response, "links", 0, "href"),
            "http://127.0.0.1:9696/volume/v3/" + std::string(kMyProject) + "/things/x");
  EXPECT_EQ(TextAt(response, "links", 1, "href"),
            "http://127.0.0.1:9696/volume/" + std::string(kMyProject) + "/things/x");
}

TEST_F(RouteTest, TheProjectMayBeLeftOut) {
  const Response response = Ask("/v3/things", "volume 3.67");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(TextAt(response, "links", 0, "href"), "http://127.0.0.1:9696/volume/v3/things/x");
}

TEST_F(RouteTest, RefusesVersionsThatItDoesNotSpeak) {
  const Response unknown = Ask(project_ + "/things", "volume 3.99");
  EXPECT_EQ(unknown.status, 406);
  EXPECT_EQ(unknown.headers.Get("OpenStack-API-Version"), "volume 3.99");
  EXPECT_EQ(Message(unknown, "computeFault"),
            "Version 3.99 is not supported by the API. Minimum is 3.0 and maximum is 3.71.");
  const Response malformed = Ask(project_ + "/things", "volume x");
  EXPECT_EQ(malformed.status, 400);
  EXPECT_FALSE(malformed.headers.Has("OpenStack-API-Version"));
  EXPECT_EQ(Message(malformed, "badRequest"),
            "API Version String x is of invalid format. Must be of format MajorNum.MinorNum.");
}

TEST_F(RouteTest, ACallIsNotThereBeforeItsVersion) {
  EXPECT_EQ(Ask(project_ + "/newer", "volume 3.39").status, 404);
  EXPECT_EQ(Ask(project_ + "/newer", "volume 3.40").status, 200);
}

TEST_F(RouteTest, AnotherProjectInThePathIsRefused) {
  const Response response = Ask("/v3/" + std::string(kYourProject) + "/things", "volume 3.0");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(Message(response, "badRequest"), "Malformed request url");
}

TEST(ErrorsTest, HaveTheNamesThatClientsLookFor) {
  const base::http::Request request = Asking("");
  const struct {
    int status;
    const char* name;
  } kNames[] = {{400, "badRequest"},         {403, "forbidden"}, {404, "itemNotFound"},
                {409, "conflictingRequest"}, {413, "overLimit"}, {503, "serviceUnavailable"}};
  for (const auto& [status, name] : kNames)
    EXPECT_EQ(Message(RenderError(request, status, Bad("why")), name), "why");
  EXPECT_EQ(TextAt(RenderError(request, 413, base::Error(Code::kQuotaExceeded, "x")), "overLimit",
                   "retryAfter"),
            "0");
  EXPECT_THAT(RenderError(request, 500, base::Error(Code::kIo, "disk sda")).body,
              testing::Not(HasSubstr("sda")));
  EXPECT_EQ(TextAt(RenderError(request, 401, Bad("who")), "error", "title"), "Unauthorized");
}

class BodyTest : public testing::Test {
 protected:
  Call Of(std::string body) {
    request_.body = std::move(body);
    return Call{request_, caller_, {}, "/volume"};
  }
  static JsonObject Object(std::string_view text) { return base::ParseJson(text)->get_object(); }

  base::http::Request request_;
  base::auth::Caller caller_;
};

TEST_F(BodyTest, IsAnObjectUnderItsName) {
  EXPECT_OK(ParseBody(Of(R"({"volume": {}})"), "volume"));
  for (const char* bad : {"", "{", "[]", "null", "{}", R"({"volume": 1})", R"({"volume": null})"})
    EXPECT_ERROR(ParseBody(Of(bad), "volume"), Code::kInvalidArgument) << bad;
  EXPECT_EQ(ParseBody(Of("{"), "volume").error().message(), "Malformed request body");
}

TEST_F(BodyTest, HasNoNulAndIsSaidToBeJson) {
  const auto nul = ParseBody(Of(R"({"volume": {"metadata": {"k": "a\u0000"}}})"), "volume");
  ASSERT_ERROR(nul, Code::kInvalidArgument);
  EXPECT_THAT(nul.error().message(), HasSubstr("NUL"));
  request_.headers.Set("Content-Type", "application/json");
  EXPECT_OK(ParseBody(Of(R"({"volume": {}})"), "volume"));
  request_.headers.Set("Content-Type", "application/x-www-form-urlencoded");
  const auto form = ParseBody(Of(R"({"volume": {}})"), "volume");
  ASSERT_ERROR(form, Code::kInvalidArgument);
  EXPECT_THAT(form.error().message(), HasSubstr("'application/x-www-form-urlencoded' is not"));
}

TEST_F(BodyTest, SaysWhatIsWrongWithAField) {
  EXPECT_EQ(OptionalInt(Object(R"({"size": 0})"), "size", 1, 10).error().message(),
            "Invalid input for field/attribute size. Value: 0. 0 is less than the minimum of 1");
  EXPECT_EQ(OptionalInt(Object(R"({"n": "abc"})"), "n", 1, 10).error().message(),
            "Invalid input for field/attribute n. Value: abc. 'abc' does not match '^[0-9]+$'");
  EXPECT_EQ(**OptionalInt(Object(R"({"n": "7"})"), "n", 1, 10), 7);
  EXPECT_EQ(*OptionalInt(Object(R"({"n": null})"), "n", 1, 10), std::nullopt);
  EXPECT_ERROR(OptionalInt(Object(R"({"n": 1.5})"), "n", 1, 10), Code::kInvalidArgument);
  EXPECT_ERROR(OptionalInt(Object(R"({"n": 18446744073709551615})"), "n", 1, 10),
               Code::kInvalidArgument);
}

TEST_F(BodyTest, TakesNamesAndTruthsAsCinderDoes) {
  EXPECT_EQ(*RequiredName(Object(R"({"name": " a "})"), "name"), "a");
  EXPECT_ERROR(RequiredName(Object(R"({"name": ""})"), "name"), Code::kInvalidArgument);
  EXPECT_ERROR(RequiredName(Object("{}"), "name"), Code::kInvalidArgument);
  // Characters count, not bytes.
  std::string umlauts;
  for (size_t i = 0; i < kMaxNameCharacters; ++i) umlauts += "ä";
  EXPECT_OK(RequiredName(JsonObject{{"name", umlauts}}, "name"));
  EXPECT_ERROR(RequiredName(JsonObject{{"name", umlauts + "b"}}, "name"), Code::kInvalidArgument);
  EXPECT_EQ(**OptionalBool(Object(R"({"b": "True"})"), "b"), true);
  EXPECT_EQ(**OptionalBool(Object(R"({"b": 0})"), "b"), false);
  EXPECT_ERROR(OptionalBool(Object(R"({"b": "maybe"})"), "b"), Code::kInvalidArgument);
}

TEST_F(BodyTest, MapsHaveShortTexts) {
  EXPECT_THAT(*ParseTextMap(*base::ParseJson(R"({"a": "b", "n": 5, "t": true})"), "m"),
              ElementsAre(Pair("a", "b"), Pair("n", "5"), Pair("t", "True")));
  for (const char* bad : {R"(["invalid"])", "null", R"({"": "x"})", R"({"a": null})",
                          R"({"a": {}})", R"({"a&b": "x"})"})
    EXPECT_ERROR(ParseTextMap(*base::ParseJson(bad), "m"), Code::kInvalidArgument) << bad;
  EXPECT_ERROR(ParseTextMap(JsonObject{{"k", std::string(256, 'x')}}, "m"), Code::kInvalidArgument);
  JsonObject many;
  for (size_t i = 0; i <= kMaxPairs; ++i) many.emplace("k" + std::to_string(i), "v");
  EXPECT_ERROR(ParseTextMap(many, "m"), Code::kInvalidArgument);
}

class ListTest : public testing::Test {
 protected:
  Result<ListRequest> Parse(std::vector<std::pair<std::string, std::string>> query) {
    request_.query = std::move(query);
    constexpr std::string_view kKeys[] = {"created_at", "name", "size"};
    return ParseList(Call{request_, caller_, {}, "/volume"}, kKeys);
  }

  base::http::Request request_;
  base::auth::Caller caller_;
};

TEST_F(ListTest, ReadsSortAndPage) {
  const auto plain = Parse({});
  ASSERT_OK(plain);
  EXPECT_EQ(plain->limit, kMaxPage);
  EXPECT_THAT(plain->sort, ElementsAre(SortTerm{"created_at", true}));
  const auto list = Parse({{"limit", "5"},
                           {"offset", "2"},
                           {"marker", "m"},
                           {"sort", "name:asc,size"},
                           {"all_tenants", "1"},
                           {"with_count", "True"},
                           {"status", "error"}});
  ASSERT_OK(list);
  EXPECT_EQ(list->limit, 5u);
  EXPECT_EQ(list->offset, 2u);
  EXPECT_EQ(list->marker, "m");
  EXPECT_THAT(list->sort, ElementsAre(SortTerm{"name", false}, SortTerm{"size", true}));
  EXPECT_TRUE(list->all_tenants);
  EXPECT_TRUE(list->with_count);
  EXPECT_THAT(list->filters, ElementsAre(Pair("status", "error")));
  EXPECT_EQ(Parse({{"limit", "5000"}})->limit, kMaxPage);
}

TEST_F(ListTest, RefusesWhatMeansNothing) {
  EXPECT_ERROR(Parse({{"limit", "-1"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"limit", "abc"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"offset", "99999999999999999999"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"sort", "color"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"sort", "name:up"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"sort", "name"}, {"sort_key", "name"}}), Code::kInvalidArgument);
  EXPECT_ERROR(Parse({{"all_tenants", "maybe"}}), Code::kInvalidArgument);
}

TEST_F(ListTest, PagesWithoutGapsAndLinksToTheNext) {
  std::vector<std::string> all;
  for (int i = 0; i < 10; ++i) all.push_back(std::to_string(i));
  const auto id = [](const std::string& item) { return item; };
  ListRequest list;
  list.limit = 3;
  EXPECT_THAT(*PageOf(list, all, id), ElementsAre("0", "1", "2"));
  list.marker = "8";
  EXPECT_THAT(*PageOf(list, all, id), ElementsAre("9"));
  list.marker = "9";
  EXPECT_THAT(*PageOf(list, all, id), ElementsAre());
  list.marker = "x";
  EXPECT_ERROR(PageOf(list, all, id), Code::kNotFound);
  list.marker = "1";
  list.offset = 2;
  EXPECT_THAT(*PageOf(list, all, id), ElementsAre("4", "5", "6"));
  list.offset = SIZE_MAX;
  EXPECT_THAT(*PageOf(list, all, id), ElementsAre());

  request_.target = "/volume/v3/p/volumes?limit=3&marker=1&status=a%20b";
  request_.base_url = "http://h";
  const Call call{request_, caller_, {}, "/volume"};
  JsonObject body;
  AppendNextLink(call, list, "volumes", 2, "x", &body);
  EXPECT_TRUE(body.empty());
  AppendNextLink(call, list, "volumes", 3, "x", &body);
  EXPECT_EQ(body["volumes_links"].get_array()[0].get_object()["href"],
            "http://h/volume/v3/p/volumes?limit=3&status=a%20b&marker=x");
}

}  // namespace
}  // namespace blockd::api
