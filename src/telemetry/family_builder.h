// Builds metric families from whatever is counted: a family once, then its metrics with their labels. Private
// to telemetry/.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mlxs/page_ages.h"
#include "telemetry/histogram.h"

namespace mlxs {

class FamilyBuilder {
 public:
  using Labels = std::vector<std::pair<const char*, std::string>>;

  FamilyBuilder& gauge(const char* name, const char* help) {
    return begin(name, help, prometheus::MetricType::Gauge);
  }
  FamilyBuilder& counter(const char* name, const char* help) {
    return begin(name, help, prometheus::MetricType::Counter);
  }
  FamilyBuilder& histogram(const char* name, const char* help) {
    return begin(name, help, prometheus::MetricType::Histogram);
  }

  // A metric of the family that was begun last.
  void add(const Labels& labels, double value) {
    prometheus::ClientMetric& metric = labelled(labels);
    (families_.back().type == prometheus::MetricType::Gauge ? metric.gauge.value : metric.counter.value) =
        value;
  }
  void add(const Labels& labels, const AtomicHistogram& source) {
    prometheus::ClientMetric& metric = labelled(labels);
    std::uint64_t cumulative = 0;
    const auto bounds = source.bounds();
    for (std::size_t i = 0; i < bounds.size(); ++i) {
      cumulative += source.count(i);
      metric.histogram.bucket.push_back({cumulative, bounds[i]});
    }
    metric.histogram.sample_count = cumulative + source.count(bounds.size());
    metric.histogram.sample_sum = source.sum();
  }

  void add(const Labels& labels, const PageAges& ages) {
    prometheus::ClientMetric& metric = labelled(labels);
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i < kPageAgeBounds.size(); ++i) {
      cumulative += ages.counts[i];
      metric.histogram.bucket.push_back({cumulative, kPageAgeBounds[i]});
    }
    metric.histogram.sample_count = cumulative + ages.counts.back();
    metric.histogram.sample_sum = ages.seconds;
  }

  std::vector<prometheus::MetricFamily> take() { return std::move(families_); }

 private:
  static constexpr std::string_view kModelName = "model_name";

  FamilyBuilder& begin(const char* name, const char* help, prometheus::MetricType type) {
    families_.push_back({name, help, type, {}});
    return *this;
  }
  prometheus::ClientMetric& labelled(const Labels& labels) {
    prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
    for (const auto& [name, value] : labels) {
      metric.label.push_back({name, value});
      // vLLM's second label: which of a model's engines. One here.
      if (name == kModelName && families_.back().name.starts_with("vllm:")) {
        metric.label.push_back({"engine", "0"});
      }
    }
    return metric;
  }

  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace mlxs
