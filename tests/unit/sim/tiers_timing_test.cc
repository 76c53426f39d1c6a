// Three tiers with speeds, over a trace.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tools/sim/tiers_report.h"
#include "tools/sim/tiers_simulation.h"
#include "tools/sim/timing_line.h"

namespace terrace::sim {
namespace {

using testing::HasSubstr;
using testing::Not;

const PreparedTrace& Sample() {
  static const PreparedTrace* trace =
      new PreparedTrace(Prepare(*ReadRequestTrace(TERRACE_SAMPLES "/lmc_agents.jsonl.gz", {}), 64));
  return *trace;
}

TiersCell CellOf(const TimingLine& line, LoadRule load) {
  TiersCell cell;
  cell.trace = &Sample();
  cell.policy = "lru";
  cell.dram_percent = 1;
  cell.local_percent = 5;
  cell.timing = *TimingOf(line, Sample().block_tokens);
  cell.timing->load = load;
  return cell;
}

TiersResult Of(const TiersCell& cell) {
  absl::StatusOr<TiersResult> result = TiersSimulator().Simulate(cell);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : TiersResult{};
}

TEST(TiersTiming, WhatIsHitDoesNotDependOnSpeedsWhereAllIsLoaded) {
  TiersCell cell = CellOf({}, LoadRule::kAlways);
  const TiersResult timed = Of(cell);
  cell.timing.reset();
  const TiersResult plain = Of(cell);
  EXPECT_EQ(timed.counts.hits, plain.counts.hits);
  EXPECT_EQ(timed.local.appended, plain.local.appended);
  EXPECT_DOUBLE_EQ(timed.local_hit_percent, plain.local_hit_percent);
  EXPECT_EQ(timed.timed.first_token_seconds.size(), Sample().requests.size());
  EXPECT_GT(timed.mean_first_token_seconds, 0);
  EXPECT_LE(timed.p50_first_token_seconds, timed.p99_first_token_seconds);
  EXPECT_EQ(timed.timed.hit_blocks[0] + timed.timed.hit_blocks[1], timed.counts.hits);
}

TEST(TiersTiming, APoolHasWhatTheLocalTierDropped) {
  TiersCell cell = CellOf({}, LoadRule::kAlways);
  cell.dram_percent = 3;
  cell.local_percent = 1;
  const TiersResult two = Of(cell);
  cell.shared_percent = 60;
  const TiersResult three = Of(cell);
  EXPECT_GT(three.shared_hit_percent, 1);
  EXPECT_GT(three.prefix_hit_percent, two.prefix_hit_percent + 1);
  EXPECT_DOUBLE_EQ(three.prefix_hit_percent,
                   three.dram_hit_percent + three.local_hit_percent + three.shared_hit_percent);
  EXPECT_GT(three.shared.appended, 0U);
  EXPECT_EQ(three.written_bytes[2],
            (three.shared.appended + three.shared.rewritten) * cell.timing->block_bytes);
  cell.shared_percent = 0.001;
  EXPECT_EQ(TiersSimulator().Simulate(cell).status().code(), absl::StatusCode::kInvalidArgument)
      << "no room for a log";
}

// From a fast tier to one that is slower than computing.
TEST(TiersTiming, AdviceIsAsGoodAsTheBetterOfLoadingAllAndNothing) {
  bool all_was_better = false;
  bool nothing_was_better = false;
  for (const char* bandwidth : {"local=25", "local=5", "local=1", "local=0.2"}) {
    TimingLine line;
    line.bandwidths = {bandwidth};
    const double worth = Of(CellOf(line, LoadRule::kWorth)).mean_first_token_seconds;
    const double always = Of(CellOf(line, LoadRule::kAlways)).mean_first_token_seconds;
    const double never = Of(CellOf(line, LoadRule::kNever)).mean_first_token_seconds;
    EXPECT_LE(worth, 1.02 * std::min(always, never)) << bandwidth;
    all_was_better = all_was_better || always < never;
    nothing_was_better = nothing_was_better || never < always;
  }
  EXPECT_TRUE(all_was_better && nothing_was_better) << "the crossover lies within";
}

TEST(TiersTiming, ReadingAheadAvoidsWaits) {
  TimingLine line;
  line.lead_s = 0.5;
  TiersCell cell = CellOf(line, LoadRule::kAlways);
  const TiersResult without = Of(cell);
  cell.timing->prefetch = PrefetchRule::kProbe;
  const TiersResult with = Of(cell);
  EXPECT_EQ(with.counts.hits, without.counts.hits);
  EXPECT_LT(with.timed.below_waits, without.timed.below_waits / 2);
  EXPECT_LT(with.mean_first_token_seconds, without.mean_first_token_seconds);
  EXPECT_EQ(with.timed.wasted_bytes, 0U);
  EXPECT_EQ(without.timed.ahead_bytes, 0U);
  cell.timing->stray_percent = 20;
  const TiersResult strays = Of(cell);
  EXPECT_GT(strays.timed.wasted_bytes, 0U);
  EXPECT_EQ(strays.counts.hits, without.counts.hits);
  EXPECT_EQ(Of(cell).timed.wasted_bytes, strays.timed.wasted_bytes) << "the seed decides";
  cell.timing->seed = 2;
  EXPECT_NE(Of(cell).timed.wasted_bytes, strays.timed.wasted_bytes);
}

TEST(TiersTiming, ABudgetIsOfWhatIsWrittenWhereLoadsTakeNoTime) {
  TiersCell cell = CellOf({}, LoadRule::kAlways);
  cell.rule = "priced";
  cell.budget_percent = 50;
  const TiersResult timed = Of(cell);
  cell.timing.reset();
  EXPECT_DOUBLE_EQ(timed.budget_blocks, Of(cell).budget_blocks);
}

TEST(TiersTiming, IsShownWhereThereIsAny) {
  TiersResult result;
  result.cell = CellOf({}, LoadRule::kNever);
  result.cell.shared_percent = 50;
  result.cell.timing->prefetch = PrefetchRule::kProbe;
  result.prefix_hit_percent = 8;
  result.mean_first_token_seconds = 1.25;
  result.p99_first_token_seconds = 9.5;
  result.busy_percent = {1, 40.5, 101};
  result.timed.first_token_seconds = {1, 1.5};
  result.timed.below_waits = 1;
  result.timed.ahead_bytes = 8;
  result.timed.wasted_bytes = 2;
  result.timed.prefill_seconds = 10;
  result.timed.saved_seconds = 4;
  const std::string table = ToTable({result});
  EXPECT_THAT(table, HasSubstr("1+5+50  eviction, never"));
  EXPECT_THAT(table, HasSubstr("1+5+50  eviction        never  probe"));
  EXPECT_THAT(table, HasSubstr("40.00   1.25    0.00    9.50"));
  EXPECT_THAT(table, HasSubstr("50.0    0.0    40.5  101.0   25.0\n"));
  const auto json = nlohmann::json::parse(ToJson({result}))["results"][0];
  EXPECT_EQ(json["load"], "never");
  EXPECT_EQ(json["prefetch"], "probe");
  EXPECT_EQ(json["shared_percent"], 50.0);
  EXPECT_EQ(json["first_token_s"]["p99"], 9.5);
  EXPECT_EQ(json["busy_percent"]["local"], 40.5);
  EXPECT_EQ(json["wasted_bytes"], 2);
  EXPECT_EQ(json["waits_below"], 1);
  result.cell.timing.reset();
  EXPECT_THAT(ToTable({result}), Not(HasSubstr("first token")));
  EXPECT_FALSE(nlohmann::json::parse(ToJson({result}))["results"][0].contains("load"));
}

}  // namespace
}  // namespace terrace::sim
