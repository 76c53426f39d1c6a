// What `terrace-sim tiers` prints: tables, or one JSON object.
#pragma once

#include <string>
#include <vector>

#include "tools/sim/tiers_simulation.h"

namespace terrace::sim {

// "priced, 50 %", or the rule as it is named.
std::string WritesOf(const TiersCell& cell);

// A row a cell, a table a trace; where loads take time a second one, of what requests waited for.
std::string ToTable(const std::vector<TiersResult>& results);

// {"results": [{"trace", "policy", "local_policy", "dram_percent", "local_percent", "writes",
// "budget_percent", "requests", "blocks", "hit_blocks", "prefix_hit_percent", "dram_hit_percent",
// "local_hit_percent", "stored_blocks", "written_blocks", "rewritten_blocks", "writes_per_stored",
// "device_writes_per_stored", "of_commit_percent", "budget_spent_percent"}]}; what concerns the
// budget only with "priced". Where loads take time also "shared_percent", "load", "prefetch",
// "lead_s", "shared_hit_percent", "shared_written_blocks", "shared_rewritten_blocks",
// "prefill_s", "saved_prefill_s", "first_token_s": {"mean", "p50", "p99"}, "waited_s",
// "waits_below", "slower_than_computing", "ahead_bytes", "wasted_bytes", and of each tier
// "read_bytes", "written_bytes" and "busy_percent": {"dram", "local", "shared"}.
std::string ToJson(const std::vector<TiersResult>& results);

}  // namespace terrace::sim
