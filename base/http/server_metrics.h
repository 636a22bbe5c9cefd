#pragma once

#include <array>
#include <string>
#include <unordered_map>

#include "base/http/router.h"
#include "base/metrics.h"

namespace base::http {

// What is counted for one route, or for all requests that found none. Thread-safe.
struct RouteMetrics {
  std::array<Counter*, 6> by_class{};  // [2] counts 2xx
  Histogram* duration_seconds = nullptr;
  Gauge* in_flight = nullptr;  // of the service
};

// A server's instruments, all made at its start. Internal to base/http. Thread-safe.
class ServerMetrics {
 public:
  ServerMetrics(const Router& router, Metrics& metrics);
  const RouteMetrics& Of(const Match& match) const;

  Gauge& connections;
  Counter& refused_connections;
  Counter& received_bytes;
  Counter& sent_bytes;

 private:
  std::unordered_map<const Route*, RouteMetrics> by_route_;
  std::unordered_map<const Service*, RouteMetrics> unmatched_;
  RouteMetrics nowhere_;
};

}  // namespace base::http
