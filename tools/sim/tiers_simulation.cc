#include "tools/sim/tiers_simulation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"

#include "tiers/placement/local_pool.h"

namespace terrace::sim {
namespace {

// By the values of LocalRule.
constexpr std::array<std::string_view, 5> kRules = {"eviction", "commit", "second-touch", "priced",
                                                    "oracle"};
constexpr std::string_view kThreshold = "threshold:";
constexpr uint32_t kSegments = 64;  // of a log, where there are as many blocks
constexpr uint32_t kKeptFree = 3;
constexpr uint64_t kBlockBytes = uint64_t{1} << 20;  // so that a budget is not rounded
constexpr double kSecondsADay = 86'400;
constexpr double kLeastBudgetPercent = 0.01;
constexpr double kMatchedPercent = 0.1;  // of what commit writes
constexpr int kMatchTries = 6;

absl::StatusOr<std::unique_ptr<LocalContents>> MakeContents(const std::string& policy,
                                                            uint64_t blocks) {
  if (policy != "log") {
    const std::vector<std::string_view> known = EvictionPolicyNames();
    if (std::find(known.begin(), known.end(), policy) == known.end()) {
      return absl::InvalidArgumentError("local policy " + policy + " is unknown");
    }
    return MakeLocalPool(policy, blocks);
  }
  SegmentLog::Options log;
  log.segments = static_cast<uint32_t>(std::min<uint64_t>(kSegments, blocks));
  log.kept_free = kKeptFree;
  if (log.segments <= log.kept_free + 1) {
    return absl::InvalidArgumentError("the local tier has too few blocks for a log of segments");
  }
  log.segment_records = static_cast<uint32_t>(blocks / log.segments);
  return std::make_unique<SegmentLog>(log);
}

double SpanSeconds(const PreparedTrace& trace) {
  return trace.requests.empty()
             ? 0
             : absl::ToDoubleSeconds(trace.requests.back().now - trace.requests.front().now);
}

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

double AllWrites(const TiersResult& result) {
  return static_cast<double>(result.local.appended + result.local.rewritten);
}

void Summarise(TiersResult& result) {
  const uint64_t blocks = result.counts.blocks;
  result.prefix_hit_percent = Percent(result.counts.hits, blocks);
  result.local_hit_percent = Percent(result.counts.local_hits, blocks);
  result.dram_hit_percent = Percent(result.counts.hits - result.counts.local_hits, blocks);
  const uint64_t all = result.local.appended + result.local.rewritten;
  result.writes_per_stored = Percent(result.local.appended, result.counts.stored) / 100;
  result.device_writes_per_stored = Percent(all, result.counts.stored) / 100;
  if (result.budget_blocks > 0) {
    result.budget_spent_percent = 100 * static_cast<double>(all) / result.budget_blocks;
  }
}

// budget_blocks: of kPriced, over the trace, and what kThreshold has its horizon from.
absl::StatusOr<TiersResult> Replay(const TiersCell& cell, WriteRule writes, double budget_blocks) {
  TiersResult result;
  result.cell = cell;
  result.budget_blocks = writes.rule == LocalRule::kPriced ? budget_blocks : 0;
  result.dram_blocks = CapacityBlocks(*cell.trace, cell.dram_percent);
  result.local_blocks = CapacityBlocks(*cell.trace, cell.local_percent);
  absl::StatusOr<std::unique_ptr<LocalContents>> contents =
      MakeContents(cell.local_policy, result.local_blocks);
  if (!contents.ok()) {
    return contents.status();
  }
  LocalReplay local;
  local.contents = *std::move(contents);
  local.rule = writes.rule;
  local.least_chance = writes.least_chance;
  local.blocks = result.local_blocks;
  local.block_bytes = kBlockBytes;
  const double a_second = budget_blocks / std::max(1.0, SpanSeconds(*cell.trace));
  local.budget.bytes_per_day =
      static_cast<uint64_t>(a_second * kSecondsADay * static_cast<double>(kBlockBytes));
  KnownFuture future(*cell.trace);
  absl::StatusOr<std::unique_ptr<PlacementReplay>> replay = PlacementReplay::CreateAnyOver(
      cell.policy, {.capacity_blocks = result.dram_blocks, .future = &future}, std::move(local));
  if (!replay.ok()) {
    return replay.status();
  }
  const bool looks_ahead = writes.rule == LocalRule::kOracle || cell.policy == "min";
  for (const PreparedTrace::Request& request : cell.trace->requests) {
    if (looks_ahead) {
      future.Reach(request);
    }
    (*replay)->Request({request.now, cell.trace->Chain(request), request.hints});
  }
  result.counts = (*replay)->counts();
  result.local = (*replay)->local()->counts();
  if ((*replay)->budget() != nullptr) {
    result.price_at_end = (*replay)->budget()->price() * static_cast<double>(kBlockBytes);
  }
  Summarise(result);
  return result;
}

}  // namespace

std::vector<std::string_view> LocalRuleNames() {
  return {kRules.begin(), kRules.end()};
}

std::optional<WriteRule> WriteRuleNamed(std::string_view name) {
  if (name.substr(0, kThreshold.size()) == kThreshold) {
    name.remove_prefix(kThreshold.size());
    double chance = 0;
    if (!absl::SimpleAtod({name.data(), name.size()}, &chance) || !(chance >= 0 && chance <= 1)) {
      return std::nullopt;
    }
    return WriteRule{LocalRule::kThreshold, chance};
  }
  const auto* found = std::find(kRules.begin(), kRules.end(), name);
  if (found == kRules.end()) {
    return std::nullopt;
  }
  return WriteRule{static_cast<LocalRule>(found - kRules.begin())};
}

absl::StatusOr<TiersResult> TiersSimulator::Simulate(const TiersCell& cell) {
  const std::optional<WriteRule> writes = WriteRuleNamed(cell.rule);
  if (!writes.has_value()) {
    return absl::InvalidArgumentError("there is no rule of writes named " + cell.rule);
  }
  const bool is_judged =
      writes->rule == LocalRule::kPriced || writes->rule == LocalRule::kThreshold;
  if (!is_judged) {
    return writes->rule == LocalRule::kOnCommit ? Commit(cell) : Replay(cell, *writes, 0);
  }
  const absl::StatusOr<TiersResult> commit = Commit(cell);
  if (!commit.ok()) {
    return commit.status();
  }
  const double most = AllWrites(*commit);
  const double share = writes->rule == LocalRule::kPriced ? cell.budget_percent / 100 : 1;
  absl::StatusOr<TiersResult> result = Replay(cell, *writes, share * most);
  if (result.ok() && most > 0) {
    result->of_commit_percent = 100 * AllWrites(*result) / most;
  }
  return result;
}

// A budget is spread over the trace and not all of it is asked for, so that what is written falls
// short of it by a share that changes little with it.
absl::StatusOr<TiersResult> TiersSimulator::SimulateMatched(const TiersCell& cell,
                                                            double of_commit_percent) {
  TiersCell priced = cell;
  priced.rule = "priced";
  priced.budget_percent = std::max(kLeastBudgetPercent, of_commit_percent);
  absl::StatusOr<TiersResult> nearest = Simulate(priced);
  absl::StatusOr<TiersResult> result = nearest;
  const auto off = [&](const TiersResult& one) {
    return std::abs(one.of_commit_percent - of_commit_percent);
  };
  for (int i = 1; i < kMatchTries && result.ok() && result->of_commit_percent > 0 &&
                  off(*nearest) > kMatchedPercent;
       ++i) {
    priced.budget_percent *= std::clamp(of_commit_percent / result->of_commit_percent, 0.5, 2.0);
    result = Simulate(priced);
    if (result.ok() && off(*result) < off(*nearest)) {
      nearest = result;
    }
  }
  return result.ok() ? nearest : result;
}

absl::StatusOr<TiersResult> TiersSimulator::Commit(const TiersCell& cell) {
  const Tiers tiers{cell.trace, cell.policy, cell.local_policy, cell.dram_percent,
                    cell.local_percent};
  const auto known = commits_.find(tiers);
  if (known != commits_.end()) {
    return known->second;
  }
  TiersCell through = cell;
  through.rule = "commit";
  through.budget_percent = 100;
  absl::StatusOr<TiersResult> result = Replay(through, {LocalRule::kOnCommit}, 0);
  if (result.ok()) {
    result->of_commit_percent = 100;
    commits_.emplace(tiers, *result);
  }
  return result;
}

std::string ToTable(const std::vector<TiersResult>& results) {
  std::string text;
  std::string trace;
  for (const TiersResult& result : results) {
    const TiersCell& cell = result.cell;
    if (cell.trace->name != trace) {
      trace = cell.trace->name;
      text += absl::StrFormat(
          "%s%s: prefix hits, %% of all blocks; writes for each block that is computed\n"
          "%-9s%-7s%12s  %-18s%8s%8s%8s%9s%9s%8s\n",
          text.empty() ? "" : "\n", trace, "dram", "local", "capacity, %", "writes", "hits", "dram",
          "local", "written", "on drive", "spent");
    }
    const std::string rule =
        cell.rule == "priced" ? absl::StrFormat("priced, %.4g %%", cell.budget_percent) : cell.rule;
    const std::string spent =
        cell.rule == "priced" ? absl::StrFormat("%.1f %%", result.budget_spent_percent) : "";
    text += absl::StrFormat(
        "%-9s%-7s%12s  %-18s%8.2f%8.2f%8.2f%9.3f%9.3f%8s\n", cell.policy, cell.local_policy,
        absl::StrFormat("%g+%g", cell.dram_percent, cell.local_percent), rule,
        result.prefix_hit_percent, result.dram_hit_percent, result.local_hit_percent,
        result.writes_per_stored, result.device_writes_per_stored, spent);
  }
  return text;
}

std::string ToJson(const std::vector<TiersResult>& results) {
  nlohmann::ordered_json out;
  out["results"] = nlohmann::ordered_json::array();
  for (const TiersResult& result : results) {
    nlohmann::ordered_json cell = {
        {"trace", result.cell.trace->name},
        {"policy", result.cell.policy},
        {"local_policy", result.cell.local_policy},
        {"dram_percent", result.cell.dram_percent},
        {"local_percent", result.cell.local_percent},
        {"writes", result.cell.rule},
        {"blocks", result.counts.blocks},
        {"hit_blocks", result.counts.hits},
        {"prefix_hit_percent", result.prefix_hit_percent},
        {"dram_hit_percent", result.dram_hit_percent},
        {"local_hit_percent", result.local_hit_percent},
        {"stored_blocks", result.counts.stored},
        {"written_blocks", result.local.appended},
        {"rewritten_blocks", result.local.rewritten},
        {"writes_per_stored", result.writes_per_stored},
        {"device_writes_per_stored", result.device_writes_per_stored},
    };
    if (result.of_commit_percent > 0) {
      cell["of_commit_percent"] = result.of_commit_percent;
    }
    if (result.cell.rule == "priced") {
      cell["budget_percent"] = result.cell.budget_percent;
      cell["budget_blocks"] = result.budget_blocks;
      cell["budget_spent_percent"] = result.budget_spent_percent;
    }
    out["results"].push_back(std::move(cell));
  }
  return out.dump() + "\n";
}

}  // namespace terrace::sim
