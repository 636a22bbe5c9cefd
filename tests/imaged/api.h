#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/http/router.h"
#include "chunkstore/memory/memory_meta_store.h"
#include "imaged/service.h"

namespace imaged {

std::shared_ptr<const base::auth::Caller> MakeCaller(std::string project,
                                                     std::vector<std::string> roles);
// What a token with that role carries: a higher role implies the lower ones.
std::shared_ptr<const base::auth::Caller> Reader(std::string project);
std::shared_ptr<const base::auth::Caller> MemberOf(std::string project);
std::shared_ptr<const base::auth::Caller> Admin(std::string project = "admin");

// The Image API without sockets: a request goes through the router, the access rules and the error
// renderer as the server would take it. A streaming route meets the body all at once.
class Api {
 public:
  using HeaderList = std::vector<std::pair<std::string, std::string>>;

  // Makes the routes of the data path, which are not here by themselves.
  using MakeRoutes =
      std::function<std::vector<base::http::Route>(chunkstore::MetaStore&, Catalog&)>;
  explicit Api(QuotaLimits limits = {}, const MakeRoutes& make_data_routes = nullptr);

  base::http::Response Call(std::shared_ptr<const base::auth::Caller> caller,
                            std::string_view method, std::string_view target,
                            std::string_view body = {}, const HeaderList& headers = {});
  // PATCH with the v2.1 media type.
  base::http::Response Patch(std::shared_ptr<const base::auth::Caller> caller,
                             std::string_view image_id, std::string_view body);
  // POST /v2/images; the id of what was made, empty if nothing was.
  std::string CreateImage(std::shared_ptr<const base::auth::Caller> caller,
                          std::string_view body = "{}");
  // Fills a queued image, as the data path does.
  void Activate(const std::string& image_id, std::string_view content = "hello-world");

  base::http::Router& router() { return router_; }
  Catalog& catalog() { return catalog_; }
  base::ManualClock& clock() { return clock_; }

 private:
  class NoVerifier : public base::auth::TokenVerifier {
   public:
    base::Result<std::shared_ptr<const base::auth::Caller>> Verify(std::string_view) override {
      return base::Error(base::Code::kUnauthenticated, "no token");
    }
  };

  chunkstore::MemoryMetaStore meta_;
  base::ManualClock clock_;
  Catalog catalog_;
  Metadefs metadefs_;
  NoVerifier verifier_;
  ImageService service_;
  base::http::Router router_;
};

class ApiTest : public testing::Test {
 protected:
  Api api_;
  std::shared_ptr<const base::auth::Caller> me_ = MemberOf("me");
  std::shared_ptr<const base::auth::Caller> you_ = MemberOf("you");
  std::shared_ptr<const base::auth::Caller> admin_ = Admin();
};

inline std::string PathOf(const std::string& id) { return "/v2/images/" + id; }

// The body as JSON; null if it is none.
base::Json BodyOf(const base::http::Response& response);
// A string member of the body.
std::string Field(const base::http::Response& response, std::string_view name);
// The ids in a list's answer, in order.
std::vector<std::string> IdsIn(const base::http::Response& response);

}  // namespace imaged
