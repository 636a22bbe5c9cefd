#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// Counters, gauges and histograms, served as Prometheus text at /metrics. prometheus-cpp does the
// work (in metrics.cc). Make an instrument once (a member of the object that counts), then use it:
// the use is lock-free and Thread-safe. Names follow Prometheus' habits:
// quarry_<room>_<what>_<unit>[_total].

namespace base {

using Labels = std::map<std::string, std::string>;

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Add(double amount = 1) = 0;
  virtual double value() const = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double amount) = 0;
  virtual double value() const = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
};

// Seconds, from 100 us to 60 s: what request durations use.
std::vector<double> DurationBuckets();

// Owns the instruments it hands out; they live as long as it does. Asking again for the same name
// and labels gives the same instrument. Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Counter& GetCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge& GetGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram& GetHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets, const Labels& labels = {});

  // The same for what comes and goes, a volume say: the instrument is gone from the text when the
  // last holder lets go. Several may hold one. A holder may outlive the Metrics. Never to be mixed
  // with the calls above for the same name and labels.
  std::shared_ptr<Counter> ShareCounter(const std::string& name, const std::string& help,
                                        const Labels& labels);
  std::shared_ptr<Histogram> ShareHistogram(const std::string& name, const std::string& help,
                                            const std::vector<double>& buckets,
                                            const Labels& labels);

  // The text exposition format.
  std::string Render() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace base
