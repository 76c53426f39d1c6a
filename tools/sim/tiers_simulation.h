// DRAM over a local tier and perhaps a pool, over a trace: what is hit where, and what is written
// for it; and with speeds of the tiers, what requests wait for.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"

#include "tiers/placement/replay.h"
#include "tools/sim/request_timer.h"
#include "tools/sim/simulation.h"

namespace terrace::sim {

struct WriteRule {
  LocalRule rule = LocalRule::kOnEviction;
  double least_chance = 0;  // of kThreshold
};
// Of "eviction", "commit", "second-touch", "priced", "oracle", or "threshold:CHANCE" with a number
// from 0 to 1. nullopt: there is none of that name.
std::optional<WriteRule> WriteRuleNamed(std::string_view name);

struct TiersCell {
  const PreparedTrace* trace = nullptr;
  std::string policy;                // of DRAM; not min
  std::string local_policy = "log";  // "log": segments, as the daemon's; else one of blocks
  double dram_percent = 2;           // of the trace's distinct blocks
  double local_percent = 20;         // likewise
  double shared_percent = 0;         // likewise; 0: no pool. Only with `timing`
  std::string rule = "eviction";
  // Of "priced": of what "commit" writes, all in all, spread evenly over the trace's time.
  double budget_percent = 100;
  std::optional<TimingOptions> timing;  // nullopt: loads take no time
};

struct TiersResult {
  TiersCell cell;
  uint64_t dram_blocks = 0;
  uint64_t local_blocks = 0;
  ReplayCounts counts;
  LocalContents::Counts local;
  LocalContents::Counts shared;
  double budget_blocks = 0;  // over the trace; 0: none
  double price_at_end = 0;   // of a block: a chance of use, or where loads take time, seconds
  // In % of all blocks asked for.
  double prefix_hit_percent = 0;
  double dram_hit_percent = 0;
  double local_hit_percent = 0;
  double shared_hit_percent = 0;
  // Blocks written for each that was computed and stored: those that came down, and all, those that
  // reclaim wrote again included.
  double writes_per_stored = 0;
  double device_writes_per_stored = 0;
  double budget_spent_percent = 0;  // of all writes
  double of_commit_percent = 0;     // all writes, of what "commit" writes; 0: not known
  // With timing.
  TimedCounts timed;
  double mean_first_token_seconds = 0;
  double p50_first_token_seconds = 0;
  double p99_first_token_seconds = 0;
  std::array<uint64_t, kPlaces> written_bytes{};
  // Of the trace's time, how long each tier's wire had to carry reads and writes; over 100: it
  // could not.
  std::array<double, kPlaces> busy_percent{};
};

// Simulates cells, and remembers of each pair of tiers what "commit" wrote, which budgets are told
// from. Thread-compatible.
class TiersSimulator {
 public:
  // Errors: INVALID_ARGUMENT: an unknown policy or rule, or a local tier that is too small for its
  // log of segments.
  absl::StatusOr<TiersResult> Simulate(const TiersCell& cell);

  // "priced" in place of the cell's rule, with the budget with which it writes `of_commit_percent`:
  // the nearest of a few tries. Errors: as Simulate.
  absl::StatusOr<TiersResult> SimulateMatched(const TiersCell& cell, double of_commit_percent);

 private:
  // All that differs between cells but the rule of writes.
  using Tiers = std::tuple<const PreparedTrace*, std::string, std::string, double, double>;
  absl::StatusOr<TiersResult> Commit(const TiersCell& cell);

  std::map<Tiers, TiersResult> commits_;
};

}  // namespace terrace::sim
