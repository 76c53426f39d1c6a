#include "tools/sim/tiers_simulation.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tools/sim/synthetic_traces.h"
#include "tools/sim/tiers_report.h"

namespace terrace::sim {
namespace {

using testing::HasSubstr;
using testing::Not;

const PreparedTrace& Sample() {
  static const PreparedTrace* trace =
      new PreparedTrace(Prepare(*ReadRequestTrace(TERRACE_SAMPLES "/lmc_agents.jsonl.gz", {}), 0));
  return *trace;
}

TiersResult Of(const TiersCell& cell) {
  absl::StatusOr<TiersResult> result = TiersSimulator().Simulate(cell);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : TiersResult{};
}

TiersCell CellOf(const std::string& policy, const std::string& rule) {
  TiersCell cell;
  cell.trace = &Sample();
  cell.policy = policy;
  cell.rule = rule;
  cell.dram_percent = 0.5;
  cell.local_percent = 2;
  return cell;
}

TEST(TiersSimulation, WhatDramEvictsIsHitBelow) {
  TiersCell cell = CellOf("lru", "eviction");
  cell.local_policy = "lru";
  cell.dram_percent = 5;
  const TiersResult both = Of(cell);
  EXPECT_NEAR(both.dram_hit_percent, Simulate({&Sample(), "lru", 5})->prefix_hit_percent, 0.01);
  EXPECT_GT(both.local_hit_percent, 0.5);
  EXPECT_DOUBLE_EQ(both.dram_hit_percent + both.local_hit_percent, both.prefix_hit_percent);
  EXPECT_LE(both.writes_per_stored, 1.05);
}

TEST(TiersSimulation, APolicyThatDeclinesKeepsWhatItDeclinedBelow) {
  const TiersResult lru = Of(CellOf("lru", "eviction"));
  const TiersResult phl = Of(CellOf("phl", "eviction"));
  EXPECT_GT(phl.prefix_hit_percent, lru.prefix_hit_percent - 1);
  EXPECT_EQ(phl.counts.declined, lru.counts.declined);
}

TEST(TiersSimulation, ABudgetIsKeptAndABetterChoiceCostsFewHits) {
  for (const char* policy : {"lru", "phl"}) {
    TiersCell cell = CellOf(policy, "priced");
    cell.budget_percent = 50;
    const TiersResult priced = Of(cell);
    EXPECT_GT(priced.budget_spent_percent, 80) << policy;
    EXPECT_LE(priced.budget_spent_percent, 105) << policy;
    EXPECT_LT(priced.local.appended, Of(CellOf(policy, "commit")).local.appended);
  }
}

TEST(TiersSimulation, WhatCommitWroteIsRememberedByThePairOfTiers) {
  TiersSimulator simulator;
  TiersCell cell = CellOf("lru", "commit");
  const absl::StatusOr<TiersResult> commit = simulator.Simulate(cell);
  cell.local_percent = 4;
  const absl::StatusOr<TiersResult> larger = simulator.Simulate(cell);
  ASSERT_TRUE(commit.ok() && larger.ok());
  for (const double budget : {50.0, 25.0}) {
    cell = CellOf("lru", "priced");
    cell.budget_percent = budget;
    const absl::StatusOr<TiersResult> priced = simulator.Simulate(cell);
    ASSERT_TRUE(priced.ok());
    EXPECT_DOUBLE_EQ(
        priced->budget_blocks,
        budget / 100 * static_cast<double>(commit->local.appended + commit->local.rewritten));
    EXPECT_EQ(priced->local.appended, Of(cell).local.appended) << "as if simulated alone";
  }
  cell = CellOf("lru", "commit");
  EXPECT_EQ(simulator.Simulate(cell)->local.appended, commit->local.appended);
  EXPECT_NE(larger->counts.hits, commit->counts.hits);
}

TEST(TiersSimulation, ASlackBudgetWritesAllThatIsEvicted) {
  TiersCell cell = CellOf("phl", "priced");
  cell.budget_percent = 1000;
  const TiersResult slack = Of(cell);
  const TiersResult all = Of(CellOf("phl", "eviction"));
  EXPECT_NEAR(slack.prefix_hit_percent, all.prefix_hit_percent, 1);
  EXPECT_EQ(slack.price_at_end, 0);
}

TEST(TiersSimulation, WhoKnowsTheFutureWritesLeast) {
  const TiersResult oracle = Of(CellOf("lru", "oracle"));
  const TiersResult all = Of(CellOf("lru", "eviction"));
  EXPECT_GE(oracle.prefix_hit_percent, all.prefix_hit_percent - 0.1);
  EXPECT_LT(oracle.local.appended, all.local.appended);
}

TEST(TiersSimulation, SecondTouchesAreWrittenOnly) {
  const PreparedTrace trace = Prepare(*MakeSyntheticTrace("cyclic", 1), 0);
  TiersCell cell;
  cell.trace = &trace;
  cell.policy = "lru";
  cell.rule = "second-touch";
  cell.dram_percent = 10;
  cell.local_percent = 95;
  const TiersResult twice = Of(cell);
  EXPECT_GT(twice.local.appended, 0U);
  EXPECT_LT(twice.local.appended, twice.counts.evicted);
}

TEST(TiersSimulation, AThresholdOfNothingWritesAllAndAHigherOneLess) {
  for (const char* policy : {"lru", "phl"}) {
    const TiersResult all = Of(CellOf(policy, "eviction"));
    const TiersResult none_refused = Of(CellOf(policy, "threshold:0"));
    EXPECT_EQ(none_refused.local.appended, all.local.appended) << policy;
    EXPECT_EQ(none_refused.counts.hits, all.counts.hits) << policy;
    const TiersResult low = Of(CellOf(policy, "threshold:0.2"));
    const TiersResult high = Of(CellOf(policy, "threshold:0.9"));
    EXPECT_LT(high.local.appended, low.local.appended) << policy;
    EXPECT_LE(low.local.appended, all.local.appended) << policy;
    EXPECT_EQ(low.budget_blocks, 0) << policy;
  }
}

TEST(TiersSimulation, PricedWritesAreMatchedToThoseOfAThreshold) {
  TiersSimulator simulator;
  const TiersCell cell = CellOf("lru", "threshold:0.5");
  const absl::StatusOr<TiersResult> fixed = simulator.Simulate(cell);
  ASSERT_TRUE(fixed.ok());
  const absl::StatusOr<TiersResult> priced =
      simulator.SimulateMatched(cell, fixed->of_commit_percent);
  ASSERT_TRUE(priced.ok());
  EXPECT_EQ(priced->cell.rule, "priced");
  EXPECT_NEAR(priced->of_commit_percent, fixed->of_commit_percent, 2);
  EXPECT_EQ(simulator.SimulateMatched(CellOf("mru", "threshold:0.5"), 50).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TiersSimulation, RefusesWhatItCannotSimulate) {
  const auto code = [](const TiersCell& cell) {
    return TiersSimulator().Simulate(cell).status().code();
  };
  EXPECT_EQ(code(CellOf("mru", "eviction")), absl::StatusCode::kInvalidArgument);
  for (const char* rule :
       {"never", "threshold", "threshold:", "threshold:1.1", "threshold:-1", "threshold:nan"}) {
    EXPECT_EQ(code(CellOf("lru", rule)), absl::StatusCode::kInvalidArgument) << rule;
  }
  EXPECT_EQ(code(CellOf("mru", "threshold:0.5")), absl::StatusCode::kInvalidArgument);
  TiersCell cell = CellOf("lru", "priced");
  cell.local_percent = 1e-6;
  EXPECT_EQ(code(cell), absl::StatusCode::kInvalidArgument) << "no room for a log";
  cell.local_policy = "sieve";
  EXPECT_EQ(code(cell), absl::StatusCode::kInvalidArgument);
}

TEST(TiersReport, ShowsHitsByTierAndWhatIsWritten) {
  TiersResult result;
  result.cell = CellOf("phl", "priced");
  result.cell.budget_percent = 50;
  result.prefix_hit_percent = 40;
  result.dram_hit_percent = 8;
  result.local_hit_percent = 32;
  result.writes_per_stored = 0.5;
  result.device_writes_per_stored = 0.55;
  result.budget_spent_percent = 98.5;
  TiersResult other = result;
  other.cell.rule = "eviction";
  const std::string table = ToTable({result, other});
  EXPECT_THAT(table, HasSubstr("lmc_agents: prefix hits"));
  EXPECT_THAT(table, HasSubstr("0.5+2  priced, 50 %"));
  EXPECT_THAT(table, HasSubstr("40.00    8.00   32.00    0.500    0.550  98.5 %"));
  const auto json = nlohmann::json::parse(ToJson({result, other}));
  EXPECT_EQ(json["results"][0]["writes"], "priced");
  EXPECT_EQ(json["results"][0]["budget_spent_percent"], 98.5);
  EXPECT_EQ(json["results"][0]["local_hit_percent"], 32.0);
  EXPECT_FALSE(json["results"][1].contains("budget_percent"));
}

}  // namespace
}  // namespace terrace::sim
