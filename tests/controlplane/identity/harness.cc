#include "tests/controlplane/identity/harness.h"

#include <gtest/gtest.h>

#include "base/http/errors.h"
#include "base/http/target.h"
#include "tests/support/results.h"

namespace controlplane::identity {

using base::http::Access;
using base::http::Match;
using base::http::Request;
using base::http::Response;

size_t Reply::Count(std::string_view collection) const { return Ids(collection).size(); }

std::vector<std::string> Reply::Ids(std::string_view collection) const {
  std::vector<std::string> ids;
  base::Json items = At(collection);
  if (!items.is_array()) return ids;
  for (const base::Json& item : items.get_array())
    ids.push_back(base::FindString(item, "id").value_or(""));
  return ids;
}

Options FastOptions() {
  Options options;
  options.password_passes = 1;
  options.password_memory_bytes = 8192;
  options.lockout_failures = 0;
  return options;
}

Process::Process(chunkstore::MetaStore& meta, const base::Clock& clock, Options options) {
  auto opened = Identity::Open(options, meta, clock);
  EXPECT_OK(opened);
  identity_ = std::move(*opened);
  BootstrapRequest request;
  request.admin_password = kAdminPassword;
  request.services = {{"image", "glance", "$(base_url)s/image"}};
  EXPECT_OK(identity_->Bootstrap(request));
  router_.Mount(identity_->service());
}

Reply Process::Do(std::string_view method, std::string_view target, std::string_view token,
                  std::string_view body,
                  std::vector<std::pair<std::string, std::string>> extra) const {
  Request request;
  request.method = method;
  request.target = "/identity/v3" + std::string(target);
  request.base_url = "http://cloud.example:9696";
  request.body = body;
  request.request_id = "req-test";
  if (!token.empty()) request.headers.Set("X-Auth-Token", token);
  for (const auto& [name, value] : extra) request.headers.Set(name, value);
  auto split = base::http::SplitTarget(request.target);
  EXPECT_OK(split);
  request.query = base::http::ParseQuery(split->query).value();
  Match match = router_.Find(method, split->path);
  const base::http::Service& service = *router_.services().front();
  Response response;
  auto fail = [&](int status, const base::Error& error) {
    response = service.render_error(request, status, error);
  };
  if (match.route == nullptr) {
    fail(match.status, base::Error(base::Code::kNotFound, "no such route"));
  } else {
    request.path = match.path;
    request.params = match.params;
    base::Result<Response> result = Response::Empty(500);
    bool allowed = true;
    if (match.route->access != Access::kPublic) {
      auto caller = service.verifier->Verify(token);
      if (!caller.has_value()) {
        fail(base::http::HttpStatus(caller.error().code()), caller.error());
        allowed = false;
      } else if (match.route->access == Access::kAdmin && !(*caller)->IsAdmin()) {
        fail(403, base::Error(base::Code::kPermissionDenied, "not an admin"));
        allowed = false;
      }
    }
    if (allowed) {
      result = match.route->handler(request);
      if (result.has_value())
        response = *std::move(result);
      else
        fail(base::http::HttpStatus(result.error().code()), result.error());
    }
  }
  Reply reply;
  reply.status = response.status;
  reply.headers = response.headers;
  reply.body = response.body;
  auto parsed = base::ParseJson(reply.body);
  if (parsed.has_value()) reply.json = *std::move(parsed);
  return reply;
}

Reply Process::TryLogin(std::string_view user_id, std::string_view password,
                        std::string_view scope) const {
  base::JsonObject user{{"id", user_id}, {"password", password}};
  base::JsonObject auth{
      {"identity", base::JsonObject{{"methods", base::JsonArray{"password"}},
                                    {"password", base::JsonObject{{"user", user}}}}}};
  if (!scope.empty()) auth["scope"] = base::ParseJson(scope).value();
  return Do("POST", "/auth/tokens", {}, base::ToText(base::JsonObject{{"auth", auth}}));
}

std::string Process::Login(std::string_view user_id, std::string_view password,
                           std::string_view scope) const {
  Reply reply = TryLogin(user_id, password, scope);
  EXPECT_EQ(reply.status, 201) << reply.body;
  return std::string(reply.headers.Get("X-Subject-Token"));
}

std::string Process::AdminToken(std::string_view scope) const {
  std::string body = R"({"auth":{"identity":{"methods":["password"],"password":{"user":{"name":)"
                     R"("admin","domain":{"id":"default"},"password":")" +
                     std::string(kAdminPassword) + R"("}}},"scope":)" + std::string(scope) + "}}";
  Reply reply = Do("POST", "/auth/tokens", {}, body);
  EXPECT_EQ(reply.status, 201) << reply.body;
  return std::string(reply.headers.Get("X-Subject-Token"));
}

std::string Process::Create(std::string_view token, std::string_view collection,
                            std::string_view member, std::string_view fields) const {
  Reply reply = Do("POST", "/" + std::string(collection), token,
                   "{\"" + std::string(member) + "\":" + std::string(fields) + "}");
  EXPECT_EQ(reply.status, 201) << reply.body;
  return reply.Str(member, "id");
}

std::string Process::RoleId(std::string_view token, std::string_view name) const {
  std::vector<std::string> ids = Do("GET", "/roles?name=" + std::string(name), token).Ids("roles");
  EXPECT_EQ(ids.size(), 1u);
  return ids.empty() ? std::string() : ids.front();
}

World::World(Options options) : process(meta, clock, options) {
  Tick();
  admin = process.AdminToken();
}

World::Member World::MakeMember(std::string_view name, std::string_view role) {
  Member member;
  std::string text(name);
  member.project_id =
      process.Create(admin, "projects", "project", "{\"name\":\"" + text + "-project\"}");
  member.user_id =
      process.Create(admin, "users", "user", "{\"name\":\"" + text + "\",\"password\":\"secret\"}");
  Reply granted = process.Do("PUT",
                             "/projects/" + member.project_id + "/users/" + member.user_id +
                                 "/roles/" + process.RoleId(admin, role),
                             admin);
  EXPECT_EQ(granted.status, 204) << granted.body;
  Tick();
  member.token = process.Login(member.user_id, "secret", ProjectScope(member.project_id));
  return member;
}

std::string ProjectScope(std::string_view project_id) {
  return "{\"project\":{\"id\":\"" + std::string(project_id) + "\"}}";
}

}  // namespace controlplane::identity
