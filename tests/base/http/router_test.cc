#include "base/http/router.h"

#include <gtest/gtest.h>

#include "base/http/errors.h"

namespace base::http {
namespace {

Route Of(std::string method, std::string pattern) {
  return {.method = std::move(method),
          .pattern = std::move(pattern),
          .access = Access::kPublic,
          .handler = [](const Request&) -> Result<Response> { return Response::Empty(200); }};
}

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    Service image;
    image.name = "image";
    image.prefix = "/image";
    image.routes.push_back(Of("GET", "/"));
    image.routes.push_back(Of("GET", "/v2/images"));
    image.routes.push_back(Of("POST", "/v2/images"));
    image.routes.push_back(Of("GET", "/v2/images/{image_id}"));
    image.routes.push_back(Of("DELETE", "/v2/images/{id}"));
    image.routes.push_back(Of("GET", "/v2/images/detail"));
    image.routes.push_back(Of("PUT", "/v2/images/{image_id}/tags/{tag}"));
    image.routes.push_back(Of("GET", "/v2/{kind}/{id}/tags/all"));
    router_.Mount(std::move(image));
    Service root;
    root.name = "root";
    root.routes.push_back(Of("GET", "/healthz"));
    router_.Mount(std::move(root));
    Service deeper;
    deeper.name = "deeper";
    deeper.prefix = "/image/special";
    deeper.routes.push_back(Of("GET", "/"));
    router_.Mount(std::move(deeper));
  }

  // "pattern status" of what is found.
  std::string Found(std::string_view method, std::string_view path) {
    const Match match = router_.Find(method, path);
    std::string text = match.route != nullptr ? match.route->pattern : std::string("-");
    return text + " " + std::to_string(match.status);
  }

  Router router_;
};

TEST_F(RouterTest, FindsByMethodAndPattern) {
  EXPECT_EQ(Found("GET", "/image/v2/images"), "/v2/images 200");
  EXPECT_EQ(router_.Find("POST", "/image/v2/images").route->method, "POST");
  const Match match = router_.Find("PUT", "/image/v2/images/a%2Fb/tags/x%20y");
  EXPECT_EQ(match.params.at("image_id"), "a/b");
  EXPECT_EQ(match.params.at("tag"), "x y");
  EXPECT_EQ(match.path, "/v2/images/a%2Fb/tags/x y");
  EXPECT_EQ(match.service->name, "image");
}

TEST_F(RouterTest, LiteralsWinOverParametersUnlessTheyLackTheMethod) {
  EXPECT_EQ(Found("GET", "/image/v2/images/detail"), "/v2/images/detail 200");
  EXPECT_EQ(Found("DELETE", "/image/v2/images/detail"), "/v2/images/{id} 200");
  EXPECT_EQ(router_.Find("DELETE", "/image/v2/images/7").params.at("id"), "7");
  EXPECT_EQ(router_.Find("GET", "/image/v2/images/7").params.at("image_id"), "7");
  EXPECT_EQ(Found("GET", "/image/v2/images/7/tags/all"), "/v2/{kind}/{id}/tags/all 200");
}

TEST_F(RouterTest, HeadFallsBackToGet) {
  EXPECT_EQ(Found("HEAD", "/image/v2/images"), "/v2/images 200");
  EXPECT_EQ(Found("HEAD", "/image/v2/images/7/tags/new"), "- 405");
}

TEST_F(RouterTest, SaysWhatIsAllowed) {
  const Match match = router_.Find("PATCH", "/image/v2/images");
  EXPECT_EQ(match.status, 405);
  EXPECT_EQ(match.allow, "GET, HEAD, POST");
  EXPECT_EQ(router_.Find("PATCH", "/image/v2/images/detail").allow, "DELETE, GET, HEAD");
  EXPECT_EQ(router_.Find("get", "/image/v2/images").status, 405);
}

TEST_F(RouterTest, OnlyAPatternThatEndsInASlashTakesEither) {
  EXPECT_EQ(Found("GET", "/image"), "/ 200");
  EXPECT_EQ(Found("GET", "/image/"), "/ 200");
  EXPECT_EQ(Found("GET", "/image//"), "- 404");
  EXPECT_EQ(Found("GET", "/image/v2/images/"), "- 404");
  EXPECT_EQ(Found("GET", "/healthz/"), "- 404");
}

TEST_F(RouterTest, TheLongestPrefixWins) {
  EXPECT_EQ(router_.Find("GET", "/image/special").service->name, "deeper");
  EXPECT_EQ(router_.Find("GET", "/image/specials").service->name, "image");
  EXPECT_EQ(router_.Find("GET", "/images").service->name, "root");
  EXPECT_EQ(Found("GET", "/healthz"), "/healthz 200");
}

TEST_F(RouterTest, TricksMatchNothing) {
  for (const char* path : {"/image/v2/images/..", "/image/v2/images/%2e%2E", "/image/v2/images/.",
                           "/image/v2//images", "/image/v2/images//tags/x",
                           "/image/v2/../v2/images", "/image%2fv2/images", "//image", ""}) {
    EXPECT_EQ(Found("GET", path), "- 404") << path;
  }
  for (const char* path : {"/image/v2/images/%00", "/image/v2/images/%ff", "/image/%", "/image/%g0",
                           "/image/%ed%a0%80", "/image/%f5%80%80%80", "/image/%c0%80"}) {
    EXPECT_EQ(Found("GET", path), "- 400") << path;
  }
}

TEST_F(RouterTest, ARouterWithoutServicesFindsNothing) {
  Router empty;
  const Match match = empty.Find("GET", "/");
  EXPECT_EQ(match.service, nullptr);
  EXPECT_EQ(match.status, 404);
}

TEST(RouterDeathTest, TwoRoutesForOneThingAreOurOwnFault) {
  const auto mount = [] {
    Router router;
    Service service;
    service.routes.push_back(Of("GET", "/a/{x}"));
    service.routes.push_back(Of("GET", "/a/{y}"));
    router.Mount(std::move(service));
  };
  EXPECT_DEATH(mount(), "CHECK failed");
}

TEST(ErrorsTest, EveryCodeHasAStatus) {
  EXPECT_EQ(HttpStatus(Code::kNotFound), 404);
  EXPECT_EQ(HttpStatus(Code::kAlreadyExists), 409);
  EXPECT_EQ(HttpStatus(Code::kInvalidArgument), 400);
  EXPECT_EQ(HttpStatus(Code::kUnauthenticated), 401);
  EXPECT_EQ(HttpStatus(Code::kPermissionDenied), 403);
  EXPECT_EQ(HttpStatus(Code::kQuotaExceeded), 413);
  EXPECT_EQ(HttpStatus(Code::kUnavailable), 503);
  EXPECT_EQ(HttpStatus(Code::kOutOfSpace), 507);
  EXPECT_EQ(HttpStatus(Code::kIo), 500);
  EXPECT_EQ(ReasonPhrase(404), "Not Found");
}

}  // namespace
}  // namespace base::http
