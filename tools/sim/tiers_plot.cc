#include "tools/sim/tiers_plot.h"

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <string_view>

#include "absl/strings/str_format.h"

#include "tools/sim/line_plot.h"
#include "tools/sim/tiers_report.h"

namespace terrace::sim {
namespace {

constexpr const char* kHits = "prefix hits, %";
constexpr double kWide = 8;  // from this ratio on times are drawn on a logarithmic axis
constexpr std::array<const char*, kPlaces> kCapacities = {"DRAM", "local tier", "pool"};

double CapacityOf(const TiersCell& cell, size_t place) {
  const std::array<double, kPlaces> percents = {cell.dram_percent, cell.local_percent,
                                                cell.shared_percent};
  return percents[place];
}

// Of which most values are above 0; DRAM where that is all the same.
size_t AxisOf(const std::vector<TiersResult>& results) {
  std::array<std::set<double>, kPlaces> values;
  for (const TiersResult& result : results) {
    for (size_t place = 0; place < kPlaces; ++place) {
      values[place].insert(CapacityOf(result.cell, place));
    }
  }
  size_t axis = 0;
  for (size_t place = 1; place < kPlaces; ++place) {
    const bool is_drawn = *values[place].begin() > 0;
    axis = is_drawn && values[place].size() > values[axis].size() ? place : axis;
  }
  return axis;
}

using Naming = std::function<std::string(const TiersCell&)>;

std::vector<Naming> Namings(size_t axis) {
  std::vector<Naming> namings = {
      [](const TiersCell& cell) { return cell.policy; },
      [](const TiersCell& cell) { return cell.local_policy; },
      WritesOf,
      [](const TiersCell& cell) {
        return cell.timing.has_value()
                   ? std::string(kLoadRuleNames[static_cast<size_t>(cell.timing->load)])
                   : std::string();
      },
      [](const TiersCell& cell) {
        const bool is_ahead =
            cell.timing.has_value() && cell.timing->prefetch == PrefetchRule::kProbe;
        return std::string(is_ahead ? "ahead" : "");
      },
  };
  for (size_t place = 0; place < kPlaces; ++place) {
    if (place != axis) {
      namings.push_back([place](const TiersCell& cell) {
        return absl::StrFormat("%s %g %%", kCapacities[place], CapacityOf(cell, place));
      });
    }
  }
  return namings;
}

// Those by which any two of them differ.
std::vector<Naming> Telling(const std::vector<TiersResult>& results, size_t axis) {
  std::vector<Naming> telling;
  for (const Naming& naming : Namings(axis)) {
    std::set<std::string> names;
    for (const TiersResult& result : results) {
      names.insert(naming(result.cell));
    }
    if (names.size() > 1) {
      telling.push_back(naming);
    }
  }
  return telling.empty() ? std::vector<Naming>{Namings(axis).front()} : telling;
}

std::string NameOf(const TiersCell& cell, const std::vector<Naming>& telling) {
  std::string text;
  for (const Naming& naming : telling) {
    const std::string name = naming(cell);
    text += (text.empty() || name.empty() ? "" : ", ") + name;
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::string ToSvg(const std::vector<TiersResult>& results) {
  const size_t axis = results.empty() ? 0 : AxisOf(results);
  const std::vector<Naming> telling = Telling(results, axis);
  const std::string x_label = std::string("capacity of ") + (axis == 0 ? "" : "the ") +
                              kCapacities[axis] + ", % of distinct blocks";
  std::vector<PlotPanel> panels;
  const PreparedTrace* trace = nullptr;
  size_t hits = 0;
  for (const TiersResult& result : results) {
    if (result.cell.trace != trace) {
      trace = result.cell.trace;
      hits = panels.size();
      panels.push_back({trace->name, x_label, kHits, {}});
      if (result.cell.timing.has_value()) {
        panels.push_back({trace->name, x_label, "mean time to the first token, s", {}});
      }
    }
    const std::string name = NameOf(result.cell, telling);
    const double capacity = CapacityOf(result.cell, axis);
    panels[hits].points.push_back({name, capacity, result.prefix_hit_percent});
    if (result.cell.timing.has_value()) {
      panels[hits + 1].points.push_back({name, capacity, result.mean_first_token_seconds});
    }
  }
  for (PlotPanel& panel : panels) {
    const auto [least, most] =
        std::minmax_element(panel.points.begin(), panel.points.end(),
                            [](const PlotPoint& a, const PlotPoint& b) { return a.y < b.y; });
    const bool is_wide = panel.y_label != kHits && least->y > 0 && most->y > kWide * least->y;
    panel.y_scale = is_wide ? PlotScale::kLogarithmic : PlotScale::kLinear;
  }
  return DrawPanels(panels);
}

}  // namespace terrace::sim
