#pragma once

#include <array>
#include <atomic>
#include <string>
#include <unordered_map>

#include "base/http/router.h"
#include "base/metrics.h"

namespace base::http {

// What is counted for one route, or for all requests that found none. A series is made when it
// first has something to say, so that /metrics names what was used and not all that could be; after
// that, counting takes one load and no lock. Thread-safe.
class RouteMetrics {
 public:
  // `metrics` is borrowed and outlives it.
  RouteMetrics(Metrics& metrics, const std::string& service, const std::string& method,
               const std::string& pattern);

  // One request answered with `status`.
  void Record(int status, double duration_seconds);

  Gauge& in_flight;  // of the service

 private:
  Counter& OfClass(size_t status_class);
  Histogram& Durations();

  Metrics& metrics_;
  const Labels labels_;
  std::array<std::atomic<Counter*>, 6> by_class_{};  // [2] counts 2xx; null: not made yet
  std::atomic<Histogram*> durations_ = nullptr;
};

// A server's instruments. Internal to base/http. Thread-safe.
class ServerMetrics {
 public:
  // Both are borrowed and outlive it.
  ServerMetrics(const Router& router, Metrics& metrics);
  RouteMetrics& Of(const Match& match);

  Gauge& connections;
  Counter& refused_connections;
  Counter& received_bytes;
  Counter& sent_bytes;
  Gauge& body_memory;
  Counter& refused_bodies;
  Counter& slow_senders;
  Counter& slow_readers;

 private:
  std::unordered_map<const Route*, RouteMetrics> by_route_;
  std::unordered_map<const Service*, RouteMetrics> unmatched_;
  RouteMetrics nowhere_;
};

}  // namespace base::http
