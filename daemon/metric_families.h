// Families of metrics, built one after the other; metrics.cc turns them into the exporter's. Plain
// values, thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/concat.h"

namespace terrace {

struct MetricLabel {
  std::string name;
  std::string value;
};
using Labels = std::vector<MetricLabel>;

inline MetricLabel Label(std::string_view name, std::string_view value) {
  return {std::string(name), std::string(value)};
}

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };

// One series at one moment.
struct MetricPoint {
  Labels labels;
  double value = 0;  // of counters and gauges
  struct Bucket {
    double upper_bound = 0;
    uint64_t count = 0;  // up to the bound
  };
  std::vector<Bucket> buckets;
  uint64_t count = 0;
  double sum = 0;
};

struct MetricSeries {
  std::string name;  // with the prefix
  std::string help;
  MetricKind kind = MetricKind::kGauge;
  std::vector<MetricPoint> points;
};

// Collects families in the order in which they are added.
class Families {
 public:
  // A family whose series follow by Add.
  Families& Counter(std::string_view name, std::string_view help) {
    return Open(name, help, MetricKind::kCounter);
  }
  Families& Gauge(std::string_view name, std::string_view help) {
    return Open(name, help, MetricKind::kGauge);
  }
  Families& Histogram(std::string_view name, std::string_view help) {
    return Open(name, help, MetricKind::kHistogram);
  }

  template <typename Number>
  Families& Add(Labels labels, Number number) {
    MetricPoint& point = families_.back().points.emplace_back();
    point.labels = std::move(labels);
    point.value = static_cast<double>(number);
    return *this;
  }

  // counts[i]: samples up to bounds[i], not cumulated; the last one is above all bounds.
  Families& AddHistogram(Labels labels,
                         const std::vector<double>& bounds,
                         const std::vector<uint64_t>& counts,
                         double sum) {
    MetricPoint& point = families_.back().points.emplace_back();
    point.labels = std::move(labels);
    for (size_t i = 0; i < counts.size(); ++i) {
      point.count += counts[i];
      if (i < bounds.size()) {
        point.buckets.push_back({bounds[i], point.count});
      }
    }
    point.sum = sum;
    return *this;
  }

  std::vector<MetricSeries> Take() { return std::move(families_); }

 private:
  Families& Open(std::string_view name, std::string_view help, MetricKind kind) {
    MetricSeries& family = families_.emplace_back();
    family.name = Concat("terrace_", name);
    family.help = std::string(help);
    family.kind = kind;
    return *this;
  }

  std::vector<MetricSeries> families_;
};

}  // namespace terrace
