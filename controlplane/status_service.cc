#include "controlplane/status_service.h"

#include <string>
#include <utility>

#include "base/http/errors.h"
#include "base/json.h"

namespace controlplane {

using base::Error;
using base::Result;
using base::http::Request;
using base::http::Response;

base::http::Service StatusService(base::Metrics& metrics, bool own_identity) {
  const auto get = [](std::string pattern, base::http::Handler handler) {
    base::http::Route route;
    route.method = "GET";
    route.pattern = std::move(pattern);
    route.access = base::http::Access::kPublic;
    route.handler = std::move(handler);
    return route;
  };
  base::http::Service service;
  service.name = "status";
  service.prefix = "";
  service.routes.push_back(get("/", [own_identity](const Request&) -> Result<Response> {
    base::JsonArray services = {"/image/v2", "/admin/v1", "/metrics", "/healthz"};
    if (own_identity) services.emplace_back("/identity/v3");
    return Response::OfJson(200, base::JsonObject{{"services", std::move(services)}});
  }));
  service.routes.push_back(get("/healthz", [](const Request&) -> Result<Response> {
    return Response::Text(200, "ok\n", "text/plain; charset=utf-8");
  }));
  service.routes.push_back(get("/metrics", [&metrics](const Request&) -> Result<Response> {
    return Response::Text(200, metrics.Render(), "text/plain; version=0.0.4; charset=utf-8");
  }));
  service.render_error = [](const Request&, int status, const Error& error) {
    return Response::Text(status, error.message() + "\n", "text/plain; charset=utf-8");
  };
  return service;
}

}  // namespace controlplane
