#include "tools/sim/hit_plot.h"

#include <algorithm>

#include "tools/sim/line_plot.h"

namespace terrace::sim {

std::string ToSvg(const std::vector<CellResult>& results) {
  std::vector<PlotPanel> panels;
  for (const CellResult& result : results) {
    auto panel = std::find_if(panels.begin(), panels.end(),
                              [&](const PlotPanel& each) { return each.title == result.trace; });
    if (panel == panels.end()) {
      panels.push_back({result.trace, "capacity, % of distinct blocks", "prefix hits, %", {}});
      panel = panels.end() - 1;
    }
    panel->points.push_back({result.policy, result.capacity_percent, result.prefix_hit_percent});
  }
  return DrawPanels(panels);
}

}  // namespace terrace::sim
