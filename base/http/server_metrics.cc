#include "base/http/server_metrics.h"

namespace base::http {
namespace {

RouteMetrics Make(const std::string& service, const std::string& method, const std::string& pattern,
                  Metrics& metrics) {
  RouteMetrics made;
  const Labels labels = {{"service", service}, {"method", method}, {"route", pattern}};
  for (size_t i = 1; i < made.by_class.size(); ++i) {
    Labels with_class = labels;
    with_class["status"] = std::to_string(i) + "xx";
    made.by_class[i] =
        &metrics.GetCounter("quarry_http_requests_total", "Requests answered", with_class);
  }
  made.duration_seconds = &metrics.GetHistogram(
      "quarry_http_request_duration_seconds",
      "From the end of a request's head to the end of its answer", DurationBuckets(), labels);
  made.in_flight = &metrics.GetGauge("quarry_http_requests_in_flight", "Requests being served",
                                     {{"service", service}});
  return made;
}

}  // namespace

ServerMetrics::ServerMetrics(const Router& router, Metrics& metrics)
    : connections(metrics.GetGauge("quarry_http_connections", "Connections that are open")),
      refused_connections(metrics.GetCounter("quarry_http_refused_connections_total",
                                             "Connections turned away with 503")),
      received_bytes(
          metrics.GetCounter("quarry_http_received_bytes_total", "Bytes of request bodies")),
      sent_bytes(metrics.GetCounter("quarry_http_sent_bytes_total", "Bytes of response bodies")) {
  nowhere_ = Make("none", "other", "other", metrics);
  for (const auto& service : router.services()) {
    unmatched_[service.get()] = Make(service->name, "other", "other", metrics);
    for (const Route& route : service->routes)
      by_route_[&route] = Make(service->name, route.method, route.pattern, metrics);
  }
}

const RouteMetrics& ServerMetrics::Of(const Match& match) const {
  if (match.route != nullptr) return by_route_.at(match.route);
  if (match.service != nullptr) return unmatched_.at(match.service);
  return nowhere_;
}

}  // namespace base::http
