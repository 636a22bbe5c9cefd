#include "base/metrics.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace base {
namespace {

using testing::HasSubstr;

TEST(Metrics, RendersPrometheusText) {
  Metrics metrics;
  metrics.GetCounter("quarry_test_bytes_total", "Bytes seen", {{"way", "in"}}).Add(1024);
  metrics.GetGauge("quarry_test_open", "Open things").Set(3);
  metrics.GetHistogram("quarry_test_seconds", "Durations", {0.1, 1}).Observe(0.5);
  std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr("# TYPE quarry_test_bytes_total counter"));
  EXPECT_THAT(text, HasSubstr("quarry_test_bytes_total{way=\"in\"} 1024\n"));
  EXPECT_THAT(text, HasSubstr("# HELP quarry_test_open Open things"));
  EXPECT_THAT(text, HasSubstr("quarry_test_open 3\n"));
  EXPECT_THAT(text, HasSubstr("quarry_test_seconds_bucket{le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("quarry_test_seconds_bucket{le=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("quarry_test_seconds_bucket{le=\"+Inf\"} 1\n"));
}

TEST(Metrics, AskingAgainGivesTheSameInstrument) {
  Metrics metrics;
  Counter& counter = metrics.GetCounter("quarry_test_total", "help", {{"a", "1"}});
  EXPECT_EQ(&counter, &metrics.GetCounter("quarry_test_total", "help", {{"a", "1"}}));
  EXPECT_NE(&counter, &metrics.GetCounter("quarry_test_total", "help", {{"a", "2"}}));
  Gauge& gauge = metrics.GetGauge("quarry_test_now", "help");
  gauge.Set(5);
  gauge.Add(-2);
  EXPECT_EQ(metrics.GetGauge("quarry_test_now", "help").value(), 3);
}

TEST(Metrics, AnInstrumentThatIsSharedGoesWithItsLastHolder) {
  Metrics metrics;
  auto one = metrics.ShareCounter("quarry_test_total", "help", {{"volume", "a"}});
  auto other = metrics.ShareCounter("quarry_test_total", "help", {{"volume", "a"}});
  auto last = metrics.ShareHistogram("quarry_test_seconds", "help", {1}, {{"volume", "a"}});
  EXPECT_EQ(one, other);
  one->Add(2);
  last->Observe(0.5);
  one.reset();
  EXPECT_THAT(metrics.Render(), HasSubstr("quarry_test_total{volume=\"a\"} 2\n"));
  EXPECT_THAT(metrics.Render(), HasSubstr("quarry_test_seconds_count{volume=\"a\"} 1\n"));
  other.reset();
  last.reset();
  EXPECT_EQ(metrics.Render().find("volume"), std::string::npos) << metrics.Render();
  EXPECT_EQ(metrics.ShareCounter("quarry_test_total", "help", {{"volume", "a"}})->value(), 0);
}

TEST(Metrics, AHolderMayOutliveTheMetrics) {
  auto metrics = std::make_unique<Metrics>();
  const auto held = metrics->ShareCounter("quarry_test_total", "help", {{"volume", "a"}});
  metrics.reset();
  held->Add();
  EXPECT_EQ(held->value(), 1);
}

TEST(Metrics, CountsRightlyFromManyThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int j = 0; j < 1000; ++j) metrics.GetCounter("quarry_test_total", "help").Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.GetCounter("quarry_test_total", "help").value(), 4000);
}

TEST(MetricsDeathTest, OneNameIsOneKindOfInstrument) {
  Metrics metrics;
  metrics.GetCounter("quarry_test_total", "help");
  EXPECT_DEATH(metrics.GetGauge("quarry_test_total", "help"), "CHECK failed");
}

TEST(DurationBuckets, Ascend) {
  std::vector<double> buckets = DurationBuckets();
  EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
  EXPECT_EQ(buckets.front(), 0.0001);
  EXPECT_EQ(buckets.back(), 60);
}

}  // namespace
}  // namespace base
