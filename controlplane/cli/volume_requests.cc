#include "controlplane/cli/volume_requests.h"

#include <utility>

#include <fmt/format.h>

#include "base/http/target.h"
#include "base/uuid.h"

namespace controlplane::cli {

using base::Code;
using base::Error;
using base::Json;
using base::JsonArray;
using base::Result;
using base::http::ClientRequest;

namespace {

// The first with the mode of an attachment.
constexpr char kMicroversion[] = "volume 3.54";

Result<Json> Get(ApiClient& client, const std::string& path) {
  ASSIGN_OR_RETURN(ClientRequest request, VolumeRequest(client, "GET", path));
  return client.CallJson(std::move(request));
}

}  // namespace

Result<ClientRequest> VolumeRequest(const ApiClient& client, std::string method,
                                    const std::string& path, const Json& body) {
  ASSIGN_OR_RETURN(const std::string endpoint, client.Endpoint("block-storage"));
  ClientRequest request = Ask(std::move(method), endpoint + path, body);
  request.headers.Set("OpenStack-API-Version", kMicroversion);
  return request;
}

Result<JsonArray> ListOf(ApiClient& client, const std::string& path, std::string_view name) {
  ASSIGN_OR_RETURN(const Json answer, Get(client, path));
  const Json* list = base::Find(answer, name);
  if (list == nullptr || !list->is_array())
    return Error(Code::kIo, "the volume service answered something that is no list");
  return list->as_array();
}

Result<JsonArray> FindByIdOrName(ApiClient& client, const std::string& kind,
                                 const std::string& text) {
  if (base::IsUuid(text)) {
    const Result<Json> answer = Get(client, fmt::format("/{}s/{}", kind, text));
    if (answer.has_value()) {
      const Json* found = base::Find(*answer, kind);
      if (found != nullptr) return JsonArray{*found};
      return Error(Code::kIo, "the volume service answered something that is no " + kind);
    }
    if (answer.error().code() != Code::kNotFound) return answer.error();
  }
  return ListOf(
      client, fmt::format("/{}s/detail?limit=1000&name={}", kind, base::http::EncodePercent(text)),
      kind + "s");
}

}  // namespace controlplane::cli
