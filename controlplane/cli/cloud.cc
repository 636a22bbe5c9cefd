#include "controlplane/cli/cloud.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "base/files.h"
#include "controlplane/credentials.h"
#include "controlplane/service_error.h"

namespace controlplane::cli {
namespace {

constexpr char kDefaultDataDir[] = "quarry-data";
constexpr uint64_t kMaxCloudsFileBytes = 1 * base::kMiB;

using base::Code;
using base::Error;
using base::Result;

std::string Env(const char* name, std::string fallback = {}) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : std::move(fallback);
}

std::string Member(const YAML::Node& node, const char* key, std::string fallback = {}) {
  const YAML::Node member = node[key];
  return member && member.IsScalar() ? member.as<std::string>() : std::move(fallback);
}

Cloud FromYaml(const YAML::Node& entry) {
  const YAML::Node auth = entry["auth"];
  Cloud cloud;
  cloud.auth_url = Member(auth, "auth_url");
  cloud.username = Member(auth, "username");
  cloud.password = Member(auth, "password");
  cloud.user_domain = Member(auth, "user_domain_name", cloud.user_domain);
  cloud.project = Member(auth, "project_name");
  cloud.project_domain = Member(auth, "project_domain_name", cloud.project_domain);
  cloud.region = Member(entry, "region_name");
  return cloud;
}

Result<Cloud> ReadCloudsFile(const std::string& path, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string text, base::ReadWholeFile(path, kMaxCloudsFileBytes));
  try {
    const YAML::Node clouds = YAML::Load(text)["clouds"];
    const YAML::Node entry = clouds ? clouds[name] : YAML::Node();
    if (!entry || !entry["auth"]) {
      return Error(Code::kNotFound, fmt::format("{} has no cloud '{}'", path, name));
    }
    Cloud cloud = FromYaml(entry);
    cloud.source = fmt::format("cloud '{}' in {}", name, path);
    return cloud;
  } catch (const YAML::Exception& exception) {
    return Error(Code::kInvalidArgument, fmt::format("{}: {}", path, exception.what()));
  }
}

std::vector<std::string> CloudsFiles() {
  std::vector<std::string> paths;
  if (const std::string own = Env("OS_CLIENT_CONFIG_FILE"); !own.empty()) paths.push_back(own);
  paths.push_back("clouds.yaml");
  if (const std::string home = Env("HOME"); !home.empty()) {
    paths.push_back(home + "/.config/openstack/clouds.yaml");
  }
  paths.push_back("/etc/openstack/clouds.yaml");
  return paths;
}

Result<Cloud> NamedCloud(const std::string& name) {
  std::string looked_at;
  for (const std::string& path : CloudsFiles()) {
    Result<Cloud> cloud = ReadCloudsFile(path, name);
    if (cloud.has_value() || cloud.error().code() != Code::kNotFound) return cloud;
    looked_at += (looked_at.empty() ? "" : ", ") + path;
  }
  return Error(Code::kNotFound, fmt::format("no cloud '{}' in any of: {}", name, looked_at));
}

std::optional<Cloud> CloudOfEnvironment() {
  Cloud cloud;
  cloud.auth_url = Env("OS_AUTH_URL");
  if (cloud.auth_url.empty()) return std::nullopt;
  cloud.username = Env("OS_USERNAME");
  cloud.password = Env("OS_PASSWORD");
  cloud.user_domain = Env("OS_USER_DOMAIN_NAME", cloud.user_domain);
  cloud.project = Env("OS_PROJECT_NAME");
  cloud.project_domain = Env("OS_PROJECT_DOMAIN_NAME", cloud.project_domain);
  cloud.region = Env("OS_REGION_NAME");
  cloud.source = "OS_AUTH_URL and its family";
  return cloud;
}

base::Json LoginBody(const Cloud& cloud) {
  base::JsonObject user{{"name", cloud.username},
                        {"domain", base::JsonObject{{"name", cloud.user_domain}}},
                        {"password", cloud.password}};
  base::JsonObject identity{{"methods", base::JsonArray{"password"}},
                            {"password", base::JsonObject{{"user", std::move(user)}}}};
  base::JsonObject auth{{"identity", std::move(identity)}};
  if (!cloud.project.empty()) {
    base::JsonObject project{{"name", cloud.project},
                             {"domain", base::JsonObject{{"name", cloud.project_domain}}}};
    auth["scope"] = base::JsonObject{{"project", std::move(project)}};
  }
  return base::JsonObject{{"auth", std::move(auth)}};
}

Error Unreachable(const Cloud& cloud, const Error& error) {
  return Error(error.code(),
               fmt::format("nobody to log in at: {}\n"
                           "  tried {} (from {})\n"
                           "  `quarry serve --data-dir DIR` starts a service on this machine; {}",
                           error.message(), cloud.auth_url, cloud.source, cloud.otherwise));
}

// What Keystone says of a wrong password is that a login is needed.
Error LoginRefused(const Cloud& cloud, const base::http::Response& response) {
  const std::string why =
      response.status == 401
          ? "that user, password or project is not known there, or not any more"
          : fmt::format("{} (HTTP {})", ServiceSentence(response), response.status);
  return Error(CodeOfStatus(response.status),
               fmt::format("logging in at {} as '{}' (from {}): {}", cloud.auth_url, cloud.username,
                           cloud.source, why));
}

std::string WithoutSlash(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  return url;
}

}  // namespace

Result<Cloud> CloudOfDataDir(const std::string& data_dir) {
  const std::string path = data_dir + "/clouds.yaml";
  Result<Cloud> cloud = ReadCloudsFile(path, "quarry");
  if (cloud.has_value()) return cloud;
  if (cloud.error().code() == Code::kNotFound && !base::SystemFiles().Stat(path).has_value()) {
    return Error(
        Code::kNotFound,
        fmt::format("there is no {}: `quarry serve --data-dir {}` makes it at its first start",
                    path, data_dir));
  }
  return ExplainDenied(std::move(cloud).error(), data_dir);
}

Result<Cloud> FindCloud(const CloudChoice& choice) {
  if (choice.cloud.empty() && !choice.data_dir.empty()) return CloudOfDataDir(choice.data_dir);
  const std::string name = choice.cloud.empty() ? Env("OS_CLOUD") : choice.cloud;
  if (!name.empty()) return NamedCloud(name);
  if (std::optional<Cloud> cloud = CloudOfEnvironment()) return *std::move(cloud);
  if (!choice.usual_data_dir.empty()) return CloudOfDataDir(choice.usual_data_dir);
  Result<Cloud> local = CloudOfDataDir(kDefaultDataDir);
  if (local.has_value() || local.error().code() != Code::kNotFound) return local;
  return Error(Code::kNotFound,
               fmt::format("no cloud to talk to: name one with --cloud (or OS_CLOUD), set "
                           "OS_AUTH_URL and its family, or point --data-dir at the directory of a "
                           "service on this machine (there is no {}/clouds.yaml)",
                           kDefaultDataDir));
}

base::http::ClientRequest Ask(std::string method, std::string url, const base::Json& body) {
  base::http::ClientRequest request;
  request.method = std::move(method);
  request.url = std::move(url);
  if (!body.is_null()) {
    request.headers.Set("Content-Type", "application/json");
    request.body = base::ToText(body);
  }
  return request;
}

ApiClient::ApiClient(Cloud cloud) : cloud_(std::move(cloud)) {}

Result<std::unique_ptr<ApiClient>> ApiClient::Login(const Cloud& cloud) {
  std::unique_ptr<ApiClient> client(new ApiClient(cloud));
  RETURN_IF_ERROR(client->LogIn());
  return client;
}

Result<void> ApiClient::LogIn() {
  const Result<base::http::Response> answer =
      client_.Do(Ask("POST", WithoutSlash(cloud_.auth_url) + "/auth/tokens", LoginBody(cloud_)));
  if (!answer.has_value()) return Unreachable(cloud_, answer.error());
  const base::http::Response& response = *answer;
  if (response.status != 201) return LoginRefused(cloud_, response);
  token_ = response.headers.Get("X-Subject-Token");
  ASSIGN_OR_RETURN(const base::Json body, base::ParseJson(response.body));
  endpoints_.clear();
  const base::Json* token = base::Find(body, "token");
  const base::Json* catalog = token != nullptr ? base::Find(*token, "catalog") : nullptr;
  if (catalog == nullptr || !catalog->is_array()) return {};
  for (const base::Json& service : catalog->as_array()) {
    const base::Json* endpoints = base::Find(service, "endpoints");
    if (endpoints == nullptr || !endpoints->is_array()) continue;
    for (const base::Json& endpoint : endpoints->as_array()) {
      if (base::FindString(endpoint, "interface") != "public") continue;
      if (!cloud_.region.empty() && base::FindString(endpoint, "region_id") != cloud_.region)
        continue;
      endpoints_.emplace(base::FindString(service, "type").value_or(""),
                         WithoutSlash(base::FindString(endpoint, "url").value_or("")));
    }
  }
  return {};
}

Result<std::string> ApiClient::Endpoint(std::string_view service_type) const {
  const auto found = endpoints_.find(service_type);
  if (found != endpoints_.end()) return found->second;
  return Error(Code::kNotFound, fmt::format("the cloud at {} offers no '{}' service to {}",
                                            cloud_.auth_url, service_type, cloud_.username));
}

Result<base::http::Response> ApiClient::Call(base::http::ClientRequest request) {
  request.headers.Set("X-Auth-Token", token_);
  if (!request.headers.Has("Accept")) request.headers.Set("Accept", "application/json");
  ASSIGN_OR_RETURN(base::http::Response response, client_.Do(request));
  if (response.status == 401 && !request.body_source) {
    RETURN_IF_ERROR(LogIn());
    request.headers.Set("X-Auth-Token", token_);
    ASSIGN_OR_RETURN(response, client_.Do(request));
  }
  if (response.status < 400) return response;
  return ServiceError(response);
}

Result<base::Json> ApiClient::CallJson(base::http::ClientRequest request) {
  ASSIGN_OR_RETURN(const base::http::Response response, Call(std::move(request)));
  return base::ParseJson(response.body);
}

}  // namespace controlplane::cli
