#include "tools/bench/report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

namespace terrace::bench {
namespace {

constexpr uint64_t kErrorsShown = 5;

std::vector<double> Collect(absl::Span<const Pair> pairs, double (*take)(const Pair&)) {
  std::vector<double> out;
  out.reserve(pairs.size());
  for (const Pair& pair : pairs) {
    out.push_back(take(pair));
  }
  return out;
}

// Three or four digits, whatever the size.
std::string Readable(double value) {
  const double size = std::fabs(value);
  const int decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  std::string text = absl::StrFormat("%.*f", decimals, value);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') {
      text.pop_back();
    }
  }
  return text;
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

double Percentile(std::vector<double>& values, double share) {
  if (values.empty()) {
    return 0;
  }
  const auto rank = static_cast<size_t>(share * static_cast<double>(values.size()));
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(std::min(rank, values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

void Report::AddPairs(std::string name,
                      std::string text,
                      std::string unit,
                      absl::Span<const Pair> pairs) {
  Figure figure{std::move(name), std::move(text), 0, std::move(unit), {}, {}};
  figure.value = SpreadOf(Collect(pairs, [](const Pair& pair) { return pair.figure; })).median;
  figure.limit = SpreadOf(Collect(pairs, [](const Pair& pair) { return pair.limit; })).median;
  figure.ratio =
      SpreadOf(Collect(pairs, [](const Pair& pair) { return pair.figure / pair.limit; }));
  figures_.push_back(std::move(figure));
}

void Report::AddAgainst(std::string name,
                        std::string text,
                        std::string unit,
                        double limit,
                        std::vector<double> values) {
  Figure figure{std::move(name), std::move(text), 0, std::move(unit), limit, {}};
  figure.value = SpreadOf(values).median;
  for (double& value : values) {
    value /= limit;
  }
  figure.ratio = SpreadOf(std::move(values));
  figures_.push_back(std::move(figure));
}

void Report::AddValue(std::string name, std::string text, std::string unit, double value) {
  figures_.push_back({std::move(name), std::move(text), value, std::move(unit), {}, {}});
}

void Report::AddError(const std::string& what) {
  ++errors_;
  if (errors_ <= kErrorsShown) {
    notes_.push_back("error: " + what);
  }
}

std::string Report::ToJson() const {
  nlohmann::ordered_json figures = nlohmann::ordered_json::object();
  for (const Figure& figure : figures_) {
    nlohmann::ordered_json& entry = figures[figure.name];
    entry["value"] = figure.value;
    entry["unit"] = figure.unit;
    entry["limit"] = figure.limit.has_value() ? nlohmann::ordered_json(*figure.limit) : nullptr;
    entry["ratio"] = nullptr;
    if (figure.ratio.has_value()) {
      entry["ratio"] = {
          {"median", figure.ratio->median}, {"min", figure.ratio->min}, {"max", figure.ratio->max}};
    }
  }
  nlohmann::ordered_json out;
  out["scenario"] = scenario_;
  out["wrong_bytes"] = wrong_bytes_;
  out["errors"] = errors_;
  out["figures"] = std::move(figures);
  out["notes"] = notes_;
  return out.dump(-1, ' ', /*ensure_ascii=*/false,
                  nlohmann::ordered_json::error_handler_t::replace);
}

std::string Report::ToText() const {
  size_t width = 0;
  for (const Figure& figure : figures_) {
    width = std::max(width, figure.text.size());
  }
  std::string out = scenario_ + "\n";
  for (const Figure& figure : figures_) {
    absl::StrAppendFormat(&out, "  %-*s  %10s %s", static_cast<int>(width), figure.text,
                          Readable(figure.value), figure.unit);
    if (figure.limit.has_value()) {
      absl::StrAppendFormat(&out, "   against %s", Readable(*figure.limit));
    }
    if (figure.ratio.has_value()) {
      absl::StrAppendFormat(&out, ", ratio %.3f (%.3f to %.3f)", figure.ratio->median,
                            figure.ratio->min, figure.ratio->max);
    }
    out += "\n";
  }
  absl::StrAppendFormat(&out, "  %-*s  %10d\n", static_cast<int>(width), "wrong bytes",
                        wrong_bytes_);
  absl::StrAppendFormat(&out, "  %-*s  %10d\n", static_cast<int>(width), "errors", errors_);
  for (const std::string& note : notes_) {
    out += "  " + note + "\n";
  }
  return out;
}

}  // namespace terrace::bench
