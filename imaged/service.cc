#include "imaged/service.h"

#include "base/http/json_body.h"
#include "imaged/errors.h"
#include "imaged/handlers.h"

namespace imaged {
namespace {

using base::http::Request;
using base::http::Response;

constexpr int kUnauthorized = 401;

}  // namespace

base::Result<base::JsonObject> ParseObject(const Request& request) {
  if (request.body.empty())
    return base::Error(base::Code::kInvalidArgument, "Body expected in request.");
  base::Result<base::Json> json = base::ParseJson(request.body);
  if (!json.has_value())
    return base::Error(base::Code::kInvalidArgument, "Malformed JSON in request body.");
  if (!json->is_object())
    return base::Error(base::Code::kInvalidArgument, "The request's body must be a JSON object.");
  RETURN_IF_ERROR(base::http::CheckNoNul(*json));
  return std::move(json->get_object());
}

ImageService::ImageService(ServiceOptions options, Catalog& catalog, Metadefs& metadefs,
                           base::auth::TokenVerifier& verifier,
                           std::vector<base::http::Route> data_routes)
    : options_(std::move(options)),
      context_{options_, catalog, metadefs},
      verifier_(verifier),
      data_routes_(std::move(data_routes)) {}

base::http::Service ImageService::service() const {
  base::http::Service service;
  service.name = "image";
  service.type = "image";
  service.prefix = options_.prefix;
  service.verifier = &verifier_;
  AppendDiscoveryRoutes(context_, &service.routes);
  AppendImageRoutes(context_, &service.routes);
  AppendMemberRoutes(context_, &service.routes);
  AppendMetadefRoutes(context_, &service.routes);
  service.routes.insert(service.routes.end(), data_routes_.begin(), data_routes_.end());
  service.render_error = [this](const Request& request, int status, const base::Error& error) {
    Response response = RenderError(request, status, error);
    if (status == kUnauthorized) {
      const std::string url =
          options_.auth_url.empty() ? request.base_url + "/identity/v3" : options_.auth_url;
      response.headers.Set("WWW-Authenticate", "Keystone uri=\"" + url + "\"");
    }
    return response;
  };
  return service;
}

}  // namespace imaged
