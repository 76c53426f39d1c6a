// What terrace-sim prints: a table a trace, or one JSON object.
#pragma once

#include <string>
#include <vector>

#include "tools/sim/simulation.h"

namespace terrace::sim {

enum class ShowCost : uint8_t { kNo, kYes };

// Policies down, capacities across, in the order in which they were asked for; and the mean gap
// between lru and min that each closes, where both were simulated.
std::string ToTable(const std::vector<CellResult>& results, ShowCost cost);

// {"results": [{"trace", "policy", "capacity_percent", "capacity_blocks", "requests", "blocks",
// "hit_blocks", "prefix_hit_percent", "stored_blocks", "evicted_blocks", "declined_blocks"}],
// "mean_gap_closed_percent": {POLICY: PERCENT}}; with cost also "cpu_us_per_request" and
// "policy_bytes".
std::string ToJson(const std::vector<CellResult>& results, ShowCost cost);

}  // namespace terrace::sim
