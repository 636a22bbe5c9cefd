#include "blockd/service.h"

#include <utility>

#include "blockd/api/errors.h"
#include "blockd/handlers.h"

namespace blockd {
namespace {

constexpr int kUnauthorized = 401;
constexpr int kServiceUnavailable = 503;
// Of a lane that is full, or a service that stops: long enough for a job or two.
constexpr std::string_view kRetryAfterSeconds = "2";

}  // namespace

BlockService::BlockService(ServiceOptions options, const Context& context,
                           base::auth::TokenVerifier& verifier, Routes more,
                           std::vector<base::http::Route> outside)
    : options_(std::move(options)),
      context_{options_,      context.catalog, context.jobs,   context.types,
               context.store, context.exports, context.images, context.backups},
      verifier_(verifier),
      more_(std::move(more)),
      outside_(std::move(outside)) {}

base::http::Service BlockService::service() const {
  base::http::Service service;
  service.name = "volume";
  service.type = "volumev3";
  service.prefix = options_.prefix;
  service.verifier = &verifier_;
  Routes routes = more_;
  AppendVolumeRoutes(context_, &routes);
  AppendActionRoutes(context_, &routes);
  AppendSnapshotRoutes(context_, &routes);
  AppendAttachmentRoutes(context_, &routes);
  AppendBackupRoutes(context_, &routes);
  AppendProjectQosRoutes(context_, &routes);
  service.routes = outside_;
  api::AppendRoutes(options_.prefix, routes, &service.routes);
  service.render_error = [this](const base::http::Request& request, int status,
                                const base::Error& error) {
    base::http::Response response = api::RenderError(request, status, error);
    if (status == kUnauthorized) {
      const std::string url =
          options_.auth_url.empty() ? request.base_url + "/identity/v3" : options_.auth_url;
      response.headers.Set("WWW-Authenticate", "Keystone uri=\"" + url + "\"");
    }
    if (status == kServiceUnavailable) response.headers.Set("Retry-After", kRetryAfterSeconds);
    return response;
  };
  return service;
}

}  // namespace blockd
