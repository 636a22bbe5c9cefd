#include "base/http/server_metrics.h"

#include <algorithm>
#include <string>

namespace base::http {
namespace {

Counter& SlowClients(Metrics& metrics, const char* direction) {
  return metrics.GetCounter("quarry_http_slow_clients_total",
                            "Clients cut off for sending or reading a body too slowly",
                            {{"direction", direction}});
}

}  // namespace

RouteMetrics::RouteMetrics(Metrics& metrics, const std::string& service, const std::string& method,
                           const std::string& pattern)
    : in_flight(metrics.GetGauge("quarry_http_requests_in_flight", "Requests being served",
                                 {{"service", service}})),
      metrics_(metrics),
      labels_({{"service", service}, {"method", method}, {"route", pattern}}) {}

// Two threads that make the same series get the same one: Metrics sees to that.
Counter& RouteMetrics::OfClass(size_t status_class) {
  std::atomic<Counter*>& slot = by_class_[status_class];
  Counter* counter = slot.load(std::memory_order_acquire);
  if (counter == nullptr) {
    Labels labels = labels_;
    labels["status"] = std::to_string(status_class) + "xx";
    counter = &metrics_.GetCounter("quarry_http_requests_total", "Requests answered", labels);
    slot.store(counter, std::memory_order_release);
  }
  return *counter;
}

Histogram& RouteMetrics::Durations() {
  Histogram* histogram = durations_.load(std::memory_order_acquire);
  if (histogram == nullptr) {
    histogram = &metrics_.GetHistogram("quarry_http_request_duration_seconds",
                                       "From the end of a request's head to the end of its answer",
                                       DurationBuckets(), labels_);
    durations_.store(histogram, std::memory_order_release);
  }
  return *histogram;
}

void RouteMetrics::Record(int status, double duration_seconds) {
  OfClass(static_cast<size_t>(std::clamp(status / 100, 1, 5))).Add();
  Durations().Observe(duration_seconds);
}

ServerMetrics::ServerMetrics(const Router& router, Metrics& metrics)
    : connections(metrics.GetGauge("quarry_http_connections", "Connections that are open")),
      refused_connections(metrics.GetCounter("quarry_http_refused_connections_total",
                                             "Connections turned away with 503")),
      received_bytes(
          metrics.GetCounter("quarry_http_received_bytes_total", "Bytes of request bodies")),
      sent_bytes(metrics.GetCounter("quarry_http_sent_bytes_total", "Bytes of response bodies")),
      body_memory(metrics.GetGauge("quarry_http_body_memory_bytes",
                                   "Memory of the request bodies that are read whole")),
      refused_bodies(metrics.GetCounter("quarry_http_refused_bodies_total",
                                        "Request bodies that found no memory: 503")),
      slow_senders(SlowClients(metrics, "in")),
      slow_readers(SlowClients(metrics, "out")),
      nowhere_(metrics, "none", "other", "other") {
  for (const auto& service : router.services()) {
    unmatched_.try_emplace(service.get(), metrics, service->name, "other", "other");
    for (const Route& route : service->routes)
      by_route_.try_emplace(&route, metrics, service->name, route.method, route.pattern);
  }
}

RouteMetrics& ServerMetrics::Of(const Match& match) {
  if (match.route != nullptr) return by_route_.at(match.route);
  if (match.service != nullptr) return unmatched_.at(match.service);
  return nowhere_;
}

}  // namespace base::http
