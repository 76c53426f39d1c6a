// Families of Prometheus metrics, built one after the other. Included by the files that hide
// prometheus-cpp, and by no other.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>

#include "daemon/concat.h"

namespace terrace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

inline ClientMetric::Label Label(std::string_view name, std::string_view value) {
  return {std::string(name), std::string(value)};
}
// Collects families in the order in which they are added.
class Families {
 public:
  // A family whose series follow by Add.
  Families& Counter(std::string_view name, std::string_view help) {
    return Open(name, help, MetricType::Counter);
  }
  Families& Gauge(std::string_view name, std::string_view help) {
    return Open(name, help, MetricType::Gauge);
  }
  Families& Histogram(std::string_view name, std::string_view help) {
    return Open(name, help, MetricType::Histogram);
  }

  template <typename Number>
  Families& Add(Labels labels, Number number) {
    MetricFamily& family = families_.back();
    ClientMetric& metric = family.metric.emplace_back();
    metric.label = std::move(labels);
    const auto value = static_cast<double>(number);
    (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    return *this;
  }

  // counts[i]: samples up to bounds[i], not cumulated; the last one is above all bounds.
  Families& AddHistogram(Labels labels,
                         const std::vector<double>& bounds,
                         const std::vector<uint64_t>& counts,
                         double sum) {
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    uint64_t total = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      total += counts[i];
      if (i < bounds.size())
        metric.histogram.bucket.push_back({total, bounds[i]});
    }
    metric.histogram.bucket.push_back({total, std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = total;
    metric.histogram.sample_sum = sum;
    return *this;
  }

  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  Families& Open(std::string_view name, std::string_view help, MetricType type) {
    MetricFamily& family = families_.emplace_back();
    family.name = Concat("terrace_", name);
    family.help = std::string(help);
    family.type = type;
    return *this;
  }

  std::vector<MetricFamily> families_;
};

}  // namespace terrace
