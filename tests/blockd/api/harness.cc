#include "tests/blockd/api/harness.h"

#include <gtest/gtest.h>

#include "base/http/errors.h"
#include "base/http/target.h"
#include "base/uuid.h"
#include "blockd/api/errors.h"
#include "tests/support/results.h"

namespace blockd {
namespace {

using base::Error;
using base::Json;
using base::http::Access;
using base::http::Request;
using base::http::Response;

CallerPtr MakeCaller(std::string_view project, std::vector<std::string> roles) {
  auto caller = std::make_shared<base::auth::Caller>();
  caller->user_id = "user-of-" + std::string(project);
  caller->project_id = std::string(project);
  caller->roles = std::move(roles);
  return caller;
}

const Json kNull;

}  // namespace

CallerPtr Reader(std::string_view project) { return MakeCaller(project, {"reader"}); }
CallerPtr MemberOf(std::string_view project) { return MakeCaller(project, {"member", "reader"}); }
CallerPtr Admin(std::string_view project) {
  return MakeCaller(project, {"admin", "member", "reader"});
}

Harness::Harness()
    : journal(meta, clock, std::string(kPartition), "test"), catalog(meta, clock, journal) {}

void Harness::Mount(std::vector<base::http::Route> routes) {
  base::http::Service service;
  service.name = "volume";
  service.prefix = "/volume";
  service.verifier = &verifier_;
  service.render_error = api::RenderError;
  service.routes = std::move(routes);
  router_->Mount(std::move(service));
}

void Harness::Mount(const std::vector<api::Route>& routes) {
  std::vector<base::http::Route> bound;
  api::AppendRoutes("/volume", routes, &bound);
  Mount(std::move(bound));
}

Response Harness::Call(const CallerPtr& caller, std::string_view method, std::string_view target,
                       std::string_view body, int minor) {
  HeaderList headers;
  if (minor >= 0)
    headers.emplace_back("OpenStack-API-Version", "volume 3." + std::to_string(minor));
  const std::string project = caller == nullptr ? std::string(kMyProject) : caller->project_id;
  return CallAt(caller, method, "/v3/" + project + std::string(target), body, headers);
}

Response Harness::CallAt(const CallerPtr& caller, std::string_view method, std::string_view target,
                         std::string_view body, const HeaderList& headers) {
  Request request;
  request.method = std::string(method);
  request.target = "/volume" + std::string(target);
  request.body = std::string(body);
  request.request_id = "req-1";
  request.base_url = "http://127.0.0.1:9696";
  for (const auto& [name, value] : headers) request.headers.Set(name, value);
  const auto split = base::http::SplitTarget(request.target);
  EXPECT_OK(split);
  auto query = base::http::ParseQuery(split->query);
  EXPECT_OK(query);
  request.query = *std::move(query);
  base::http::Match match = router_->Find(method, split->path);
  request.path = match.path;
  request.params = match.params;
  if (match.route == nullptr)
    return api::RenderError(request, match.status,
                            Error(base::Code::kNotFound, "The resource could not be found."));
  if (match.route->access != Access::kPublic) {
    if (caller == nullptr)
      return api::RenderError(request, 401, Error(base::Code::kUnauthenticated, "who are you?"));
    if (match.route->access == Access::kAdmin && !caller->IsAdmin())
      return api::RenderError(request, 403,
                              Error(base::Code::kPermissionDenied, "only for administrators"));
    request.caller = caller;
  }
  auto response = match.route->handler(request);
  if (response.has_value()) return *std::move(response);
  return api::RenderError(request, base::http::HttpStatus(response.error().code()),
                          response.error());
}

VolumeRecord Harness::AddVolume(std::string_view project, uint64_t size_gb,
                                std::string_view type_id) {
  VolumeRecord volume;
  volume.id = base::NewUuid();
  volume.project_id = std::string(project);
  volume.user_id = "user-of-" + volume.project_id;
  volume.size_gb = size_gb;
  volume.status = VolumeStatus::kAvailable;
  volume.type_id = std::string(type_id);
  volume.availability_zone = "nova";
  EXPECT_OK(catalog.Transact(
      [&](Transaction& transaction) -> base::Result<void> { return transaction.Put(volume); }));
  return *catalog.GetVolume(volume.id);
}

Json BodyOf(const Response& response) {
  auto json = base::ParseJson(response.body);
  return json.has_value() ? *json : Json();
}

std::set<std::string> NamesOf(const Json& value) {
  std::set<std::string> names;
  if (value.is_object())
    for (const auto& [name, member] : value.get_object()) names.emplace(name);
  return names;
}

const Json& MemberOrNull(const Json& value, std::string_view name) {
  const Json* member = base::Find(value, name);
  return member == nullptr ? kNull : *member;
}

const Json& ElementOrNull(const Json& value, int index) {
  if (!value.is_array() || static_cast<size_t>(index) >= value.get_array().size()) return kNull;
  return value.get_array()[static_cast<size_t>(index)];
}

std::string Message(const Response& response, std::string_view name) {
  return TextAt(response, name, "message");
}

}  // namespace blockd
