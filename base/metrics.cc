#include "base/metrics.h"

#include <exception>
#include <tuple>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "base/check.h"
#include "base/thread_annotations.h"

namespace base {
namespace {

class PrometheusCounter : public Counter {
 public:
  explicit PrometheusCounter(prometheus::Counter& counter) : counter_(counter) {}
  void Add(double amount) override { counter_.Increment(amount); }
  double value() const override { return counter_.Value(); }

 private:
  prometheus::Counter& counter_;
};

class PrometheusGauge : public Gauge {
 public:
  explicit PrometheusGauge(prometheus::Gauge& gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_.Set(value); }
  void Add(double amount) override { gauge_.Increment(amount); }
  double value() const override { return gauge_.Value(); }

 private:
  prometheus::Gauge& gauge_;
};

class PrometheusHistogram : public Histogram {
 public:
  explicit PrometheusHistogram(prometheus::Histogram& histogram) : histogram_(histogram) {}
  void Observe(double value) override { histogram_.Observe(value); }

 private:
  prometheus::Histogram& histogram_;
};

using Key = std::pair<std::string, Labels>;

}  // namespace

std::vector<double> DurationBuckets() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
          0.1,    0.25,    0.5,    1,     2.5,    5,     10,   30,    60};
}

struct Metrics::Impl {
  mutable Mutex mutex;
  prometheus::Registry registry;
  std::map<Key, std::unique_ptr<PrometheusCounter>> counters GUARDED_BY(mutex);
  std::map<Key, std::unique_ptr<PrometheusGauge>> gauges GUARDED_BY(mutex);
  std::map<Key, std::unique_ptr<PrometheusHistogram>> histograms GUARDED_BY(mutex);

  // `make` registers with prometheus-cpp, which throws when a name is malformed or already used for
  // another kind of instrument: names are written in our code, so that is a broken promise.
  template <typename Wrapper, typename Make>
  static Wrapper& GetOrMake(std::map<Key, std::unique_ptr<Wrapper>>& known, const Key& key,
                            Make make) {
    auto found = known.find(key);
    if (found != known.end()) return *found->second;
    try {
      auto wrapper = std::make_unique<Wrapper>(make());
      return *known.emplace(key, std::move(wrapper)).first->second;
    } catch (const std::exception& error) {
      CheckFailed(__FILE__, __LINE__, error.what());
    }
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::GetCounter(const std::string& name, const std::string& help,
                             const Labels& labels) {
  MutexLock lock(impl_->mutex);
  auto make = [&]() -> prometheus::Counter& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry).Add(labels);
  };
  return Impl::GetOrMake(impl_->counters, Key(name, labels), make);
}

Gauge& Metrics::GetGauge(const std::string& name, const std::string& help, const Labels& labels) {
  MutexLock lock(impl_->mutex);
  auto make = [&]() -> prometheus::Gauge& {
    return prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry).Add(labels);
  };
  return Impl::GetOrMake(impl_->gauges, Key(name, labels), make);
}

Histogram& Metrics::GetHistogram(const std::string& name, const std::string& help,
                                 const std::vector<double>& buckets, const Labels& labels) {
  MutexLock lock(impl_->mutex);
  auto make = [&]() -> prometheus::Histogram& {
    return prometheus::BuildHistogram()
        .Name(name)
        .Help(help)
        .Register(impl_->registry)
        .Add(labels, buckets);
  };
  return Impl::GetOrMake(impl_->histograms, Key(name, labels), make);
}

std::string Metrics::Render() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace base
