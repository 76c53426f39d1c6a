// The picture of `terrace-sim tiers`: hits over a tier's capacity, and beside them, where loads
// take time, the time to the first token.
#pragma once

#include <string>
#include <vector>

#include "tools/sim/tiers_simulation.h"

namespace terrace::sim {

// A complete SVG document, a row a trace. The axis is the capacity of which most values were
// simulated; of all else that differs, lines are named.
std::string ToSvg(const std::vector<TiersResult>& results);

}  // namespace terrace::sim
