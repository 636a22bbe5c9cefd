#include "base/metrics.h"

#include <exception>
#include <functional>
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

// One that is held by those who use it.
template <typename Wrapper>
struct Shared {
  std::unique_ptr<Wrapper> wrapper;
  std::function<void()> remove;  // from prometheus-cpp
  size_t holders = 0;
};
template <typename Wrapper>
using SharedMap = std::map<Key, Shared<Wrapper>>;

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

  SharedMap<PrometheusCounter> shared_counters GUARDED_BY(mutex);
  SharedMap<PrometheusHistogram> shared_histograms GUARDED_BY(mutex);

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

namespace {

// Another holder. Each keeps the registry, so nothing hangs when one is left over at the end.
template <typename Kind, typename Wrapper, typename Impl, typename Build, typename... More>
std::shared_ptr<Kind> Hold(const std::shared_ptr<Impl>& impl, SharedMap<Wrapper> Impl::* map,
                           const Key& key, const Build& build, const More&... more) {
  MutexLock lock(impl->mutex);
  Shared<Wrapper>& shared = ((*impl).*map)[key];
  if (shared.wrapper == nullptr) {
    try {
      auto& family = build(impl->registry);
      auto& instrument = family.Add(key.second, more...);
      shared.wrapper = std::make_unique<Wrapper>(instrument);
      shared.remove = [&family, &instrument] { family.Remove(&instrument); };
    } catch (const std::exception& error) {
      CheckFailed(__FILE__, __LINE__, error.what());
    }
  }
  ++shared.holders;
  return std::shared_ptr<Kind>(shared.wrapper.get(), [impl, map, key](Kind*) {
    MutexLock release(impl->mutex);
    SharedMap<Wrapper>& all = (*impl).*map;
    const auto found = all.find(key);
    if (--found->second.holders > 0) return;
    found->second.remove();
    all.erase(found);
  });
}

}  // namespace

Metrics::Metrics() : impl_(std::make_shared<Impl>()) {}
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

std::shared_ptr<Counter> Metrics::ShareCounter(const std::string& name, const std::string& help,
                                               const Labels& labels) {
  const auto build =
      [&](prometheus::Registry& registry) -> prometheus::Family<prometheus::Counter>& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  };
  return Hold<Counter>(impl_, &Impl::shared_counters, Key(name, labels), build);
}

std::shared_ptr<Histogram> Metrics::ShareHistogram(const std::string& name, const std::string& help,
                                                   const std::vector<double>& buckets,
                                                   const Labels& labels) {
  const auto build =
      [&](prometheus::Registry& registry) -> prometheus::Family<prometheus::Histogram>& {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  };
  return Hold<Histogram>(impl_, &Impl::shared_histograms, Key(name, labels), build, buckets);
}

std::string Metrics::Render() const {
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace base
