// What terrace-sim pool prints: a table, a line a number of nodes, or one JSON object.
#pragma once

#include <string>
#include <vector>

#include "tools/sim/pool_simulation.h"

namespace terrace::sim {

std::string PoolTableText(const std::vector<PoolFigures>& results);

// {"pools": [{...}]} with the fields of PoolFigures under their names, "calls" by purpose and by
// kind.
std::string PoolJson(const std::vector<PoolFigures>& results);

}  // namespace terrace::sim
