#include "tests/imaged/api.h"

#include <algorithm>
#include <optional>

#include <gtest/gtest.h>

#include "base/async/run.h"
#include "base/http/errors.h"
#include "base/http/target.h"
#include "tests/support/results.h"

namespace imaged {

using base::Code;
using base::Error;
using base::auth::Caller;
using base::http::Access;
using base::http::Request;
using base::http::Response;
using CallerPtr = std::shared_ptr<const Caller>;

namespace {

ServiceOptions Options() {
  ServiceOptions options;
  options.import_methods = {"glance-direct", "web-download"};
  options.stores = {{"s1", "", true}, {"s2", "second", false}};
  return options;
}

class TextReader : public base::http::BodyReader {
 public:
  explicit TextReader(std::string text) : text_(std::move(text)) {}
  std::optional<uint64_t> content_length() const override { return text_.size(); }
  base::async::Task<base::Result<size_t>> Read(base::MutableByteView into) override {
    const size_t count = std::min(into.size(), text_.size() - read_);
    std::copy_n(text_.data() + read_, count, into.data());
    read_ += count;
    co_return count;
  }

 private:
  const std::string text_;
  size_t read_ = 0;
};

base::Result<Response> RunStream(const base::http::Route& route, Request request) {
  TextReader body(std::exchange(request.body, {}));
  auto shared = std::make_shared<const Request>(std::move(request));
  auto task = route.stream(std::move(shared), body);
  return base::async::RunToEnd(std::move(task));
}

}  // namespace

CallerPtr MakeCaller(std::string project, std::vector<std::string> roles) {
  auto caller = std::make_shared<Caller>();
  caller->user_id = "user-of-" + project;
  caller->project_id = std::move(project);
  caller->roles = std::move(roles);
  return caller;
}
CallerPtr Reader(std::string project) { return MakeCaller(std::move(project), {"reader"}); }
CallerPtr MemberOf(std::string project) {
  return MakeCaller(std::move(project), {"member", "reader"});
}
CallerPtr Admin(std::string project) {
  return MakeCaller(std::move(project), {"admin", "member", "reader"});
}

Api::Api(QuotaLimits limits, const MakeRoutes& make_data_routes)
    : catalog_(meta_, clock_, limits),
      metadefs_(meta_, clock_),
      service_(
          Options(), catalog_, metadefs_, verifier_,
          make_data_routes ? make_data_routes(meta_, catalog_) : std::vector<base::http::Route>()) {
  router_.Mount(service_.service());
}

Response Api::Call(CallerPtr caller, std::string_view method, std::string_view target,
                   std::string_view body, const HeaderList& headers) {
  Request request;
  request.method = std::string(method);
  request.target = "/image" + std::string(target);
  request.body = std::string(body);
  request.request_id = "req-1";
  request.base_url = "http://127.0.0.1:9292";
  request.headers.Add("Accept", "application/json");
  for (const auto& [name, value] : headers) request.headers.Set(name, value);

  const auto split = base::http::SplitTarget(request.target);
  EXPECT_OK(split);
  auto query = base::http::ParseQuery(split->query);
  EXPECT_OK(query);
  request.query = *std::move(query);
  base::http::Match match = router_.Find(method, split->path);
  request.path = match.path;
  request.params = match.params;
  const auto& render = router_.services()[0]->render_error;
  if (match.route == nullptr)
    return render(request, match.status,
                  Error(Code::kNotFound, "The resource could not be found."));
  if (match.route->access != Access::kPublic) {
    if (caller == nullptr)
      return render(request, 401, Error(Code::kUnauthenticated, "who are you?"));
    if (match.route->access == Access::kAdmin && !caller->IsAdmin())
      return render(request, 403, Error(Code::kPermissionDenied, "only for administrators"));
    request.caller = std::move(caller);
  }
  auto response =
      match.route->handler ? match.route->handler(request) : RunStream(*match.route, request);
  if (response.has_value()) return *std::move(response);
  return render(request, base::http::HttpStatus(response.error().code()), response.error());
}

Response Api::Patch(CallerPtr caller, std::string_view image_id, std::string_view body) {
  return Call(std::move(caller), "PATCH", "/v2/images/" + std::string(image_id), body,
              {{"Content-Type", "application/openstack-images-v2.1-json-patch"}});
}

std::string Api::CreateImage(CallerPtr caller, std::string_view body) {
  const Response created = Call(std::move(caller), "POST", "/v2/images", body);
  EXPECT_EQ(created.status, 201) << created.body;
  return Field(created, "id");
}

void Api::Activate(const std::string& image_id, std::string_view content) {
  const auto anybody = [](const Image&) -> base::Result<void> { return {}; };
  const std::string holder = "image/" + image_id + "/1";
  ASSERT_OK(catalog_.BeginUpload(image_id, UploadKind::kData, holder, 1000, 0, anybody));
  const DataFacts facts{{base::Sha256(base::AsBytes(content)), content.size()},
                        content.size(),
                        "2095312189753de6ad47dfe20cbe97ec",
                        "sha512",
                        "6aeefc",
                        {"s1"}};
  ASSERT_OK(catalog_.FinishUpload(image_id, holder, holder, facts));
}

base::Json BodyOf(const Response& response) {
  auto json = base::ParseJson(response.body);
  return json.has_value() ? *json : base::Json();
}

std::string Field(const Response& response, std::string_view name) {
  return base::FindString(BodyOf(response), name).value_or("");
}

std::vector<std::string> IdsIn(const Response& response) {
  std::vector<std::string> ids;
  const base::Json body = BodyOf(response);
  const base::Json* images = base::Find(body, "images");
  EXPECT_NE(images, nullptr) << response.body;
  if (images == nullptr) return ids;
  for (const base::Json& image : images->get_array()) ids.push_back(*base::FindString(image, "id"));
  return ids;
}

}  // namespace imaged
