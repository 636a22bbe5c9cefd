#include "controlplane/cli/running.h"

#include <utility>

#include <fmt/format.h>

#include "base/files.h"
#include "controlplane/credentials.h"

namespace controlplane::cli {
namespace {

using base::Code;
using base::Error;
using base::Result;

constexpr uint64_t kMaxEndpointBytes = 4096;
// As the service answers them where its identity is its own, and where it has none.
constexpr int kOk = 200;
constexpr int kNotFound = 404;

// The base URL that the endpoint file names; nothing where there is no such file.
Result<std::optional<std::string>> ReadEndpoint(const std::string& data_dir) {
  const Result<std::string> text = base::ReadWholeFile(data_dir + "/endpoint", kMaxEndpointBytes);
  if (text.has_value()) return std::optional<std::string>(text->substr(0, text->find('\n')));
  if (text.error().code() == Code::kNotFound) return std::optional<std::string>();
  return ExplainDenied(text.error(), data_dir);
}

// Who can log in there. `status` is what it answers where an identity of its own would be.
Result<Cloud> CloudOf(int status, const std::string& data_dir, const std::string& base_url) {
  if (status == kNotFound) return FindCloud({});
  if (status != kOk) {
    return Error(Code::kUnavailable,
                 fmt::format("it is busy (HTTP {}); try again in a moment", status));
  }
  ASSIGN_OR_RETURN(Cloud cloud, CloudOfDataDir(data_dir));
  // On this machine without the way round through a proxy.
  cloud.auth_url = base_url + "/identity/v3";
  return cloud;
}

}  // namespace

Result<std::optional<Running>> FindRunning(const std::string& data_dir) {
  ASSIGN_OR_RETURN(const std::optional<std::string> base_url, ReadEndpoint(data_dir));
  if (!base_url.has_value()) return std::optional<Running>();
  base::http::ClientRequest probe;
  probe.url = *base_url + "/identity/v3";
  const Result<base::http::Response> answer = base::http::Client().Do(probe);
  if (!answer.has_value()) return std::optional<Running>();

  const std::string what =
      fmt::format("the service of {} runs on {}, but can't be asked", data_dir, *base_url);
  Result<Cloud> cloud = CloudOf(answer->status, data_dir, *base_url);
  if (!cloud.has_value()) return std::move(cloud).error().Annotate(what);
  Result<std::unique_ptr<ApiClient>> client = ApiClient::Login(*cloud);
  if (!client.has_value()) return std::move(client).error().Annotate(what);
  return std::optional<Running>(Running{*std::move(client), *base_url});
}

}  // namespace controlplane::cli
