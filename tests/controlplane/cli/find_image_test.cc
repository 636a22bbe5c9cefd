#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/async/pool.h"
#include "base/http/server.h"
#include "controlplane/cli/cloud.h"
#include "controlplane/cli/image_transfer.h"
#include "tests/support/results.h"

namespace controlplane::cli {
namespace {

using base::Code;
using base::Json;
using base::JsonArray;
using base::JsonObject;
using base::http::Request;
using base::http::Response;

// A cloud with four images, that reads the filters of a list as the Image API does.
class TinyCloud {
 public:
  TinyCloud() : pool_("tiny", 1, 16) {
    base::http::Service service;
    service.name = "tiny";
    const auto handle = [&service](const char* method, const char* pattern,
                                   base::http::Handler handler) {
      service.routes.push_back({.method = method,
                                .pattern = pattern,
                                .access = base::http::Access::kPublic,
                                .handler = std::move(handler)});
    };
    handle("POST", "/v3/auth/tokens", [](const Request& request) -> base::Result<Response> {
      const JsonObject endpoint{{"interface", "public"}, {"url", request.base_url}};
      const JsonObject image{{"type", "image"}, {"endpoints", JsonArray{endpoint}}};
      const JsonObject token{{"catalog", JsonArray{image}}};
      Response response = Response::OfJson(201, JsonObject{{"token", token}});
      response.headers.Set("X-Subject-Token", "t");
      return response;
    });
    handle("GET", "/v2/images", [](const Request& request) -> base::Result<Response> {
      std::string name(request.Query("name").value_or(""));
      for (const char* refused : {"in:", "gt:"})
        if (name.starts_with(refused)) return base::Error(Code::kInvalidArgument, "an operator");
      if (name.starts_with("eq:")) name.erase(0, 3);
      const bool hidden = request.Query("os_hidden") == "true";
      JsonArray found;
      for (const auto& [image, is_hidden] :
           {std::pair("plain", false), {"in:stock", false}, {"secret", true}, {"gt:1", true}})
        if (image == name && is_hidden == hidden) found.push_back(JsonObject{{"name", name}});
      return Response::OfJson(200, JsonObject{{"images", found}});
    });
    router_.Mount(std::move(service));
    server_ = std::move(*base::http::Server::Start({}, router_, pool_, metrics_));
  }

  std::unique_ptr<ApiClient> LogIn() {
    Cloud cloud;
    cloud.auth_url = "http://" + server_->address() + "/v3";
    return std::move(*ApiClient::Login(cloud));
  }

 private:
  base::http::Router router_;
  base::async::Pool pool_;
  base::Metrics metrics_;
  std::unique_ptr<base::http::Server> server_;
};

TEST(FindImage, ByItsExactNameHiddenOrNot) {
  TinyCloud cloud;
  const auto client = cloud.LogIn();
  for (const char* name : {"plain", "in:stock", "secret", "gt:1"}) {
    ASSERT_OK_AND_ASSIGN(const Json found, FindImage(*client, name));
    EXPECT_EQ(base::FindString(found, "name"), name);
  }
  EXPECT_ERROR(FindImage(*client, "other"), Code::kNotFound);
  EXPECT_ERROR(FindImage(*client, "eq:plain"), Code::kNotFound);
}

}  // namespace
}  // namespace controlplane::cli
