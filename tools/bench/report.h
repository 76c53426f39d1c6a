// What a run found: figures beside their limits, wrong bytes, errors; as text and as the JSON that
// DESIGN.md fixes.
//
//   {"scenario", "wrong_bytes", "errors", "figures": {NAME: {"value", "unit", "limit", "ratio":
//   {"median", "min",
//    "max"}}}, "notes": [...]}
//
// "limit" and "ratio" are null where a figure stands for itself. Thread-compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace terrace::bench {

// One alternation: the figure and, right before or after it, what it is measured against. Same
// unit.
struct Pair {
  double figure = 0;
  double limit = 0;
};

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};
// Of at least one value.
Spread SpreadOf(std::vector<double> values);
// The value below which `share` of the values lie; 0 for none. Reorders.
double Percentile(std::vector<double>& values, double share);

struct Figure {
  std::string name;
  std::string text;  // what it is, for people
  double value = 0;
  std::string unit;
  std::optional<double> limit;
  std::optional<Spread> ratio;  // figure / limit
};

class Report {
 public:
  explicit Report(std::string scenario) : scenario_(std::move(scenario)) {}

  // Medians of both sides, and the spread of the pairs' ratios.
  void AddPairs(std::string name, std::string text, std::string unit, absl::Span<const Pair> pairs);
  // Values against one fixed limit.
  void AddAgainst(std::string name,
                  std::string text,
                  std::string unit,
                  double limit,
                  std::vector<double> values);
  void AddValue(std::string name, std::string text, std::string unit, double value);
  // Something that the reader of the figures has to know: what was skipped, what a model assumes.
  void AddNote(std::string note) { notes_.push_back(std::move(note)); }
  // A call that did not do what it should; the first few are kept as notes.
  void AddError(const std::string& what);
  void AddWrongBytes(uint64_t bytes) { wrong_bytes_ += bytes; }

  [[nodiscard]] uint64_t wrong_bytes() const { return wrong_bytes_; }
  [[nodiscard]] uint64_t errors() const { return errors_; }
  [[nodiscard]] const std::vector<Figure>& figures() const { return figures_; }

  // One line, without a newline.
  [[nodiscard]] std::string ToJson() const;
  [[nodiscard]] std::string ToText() const;

 private:
  std::string scenario_;
  std::vector<Figure> figures_;
  std::vector<std::string> notes_;
  uint64_t wrong_bytes_ = 0;
  uint64_t errors_ = 0;
};

}  // namespace terrace::bench
