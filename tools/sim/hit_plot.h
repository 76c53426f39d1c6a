// The picture: hit ratio over capacity, one line per policy, one panel per trace, as SVG.
#pragma once

#include <string>
#include <vector>

#include "tools/sim/simulation.h"

namespace terrace::sim {

// A complete SVG document. Capacities are on a logarithmic axis.
std::string ToSvg(const std::vector<CellResult>& results);

}  // namespace terrace::sim
