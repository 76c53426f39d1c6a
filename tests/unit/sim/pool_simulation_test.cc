// Fleets that are small enough for every build.
#include "tools/sim/pool_simulation.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "tools/sim/pool_report.h"

namespace terrace::sim {
namespace {

bool GoOn(double) {
  return true;
}

PoolFigures Simulated(const PoolPlan& plan) {
  absl::StatusOr<PoolFigures> figures = SimulatePool(plan, GoOn);
  EXPECT_TRUE(figures.ok()) << figures.status();
  return figures.value_or(PoolFigures());
}

TEST(PoolSimulation, AFleetPublishesReclaimsAndAdopts) {
  PoolPlan plan;
  plan.nodes = 6;
  const PoolFigures figures = Simulated(plan);
  EXPECT_EQ(figures.plan.seconds, 240);
  EXPECT_GT(figures.published, 4000U);
  EXPECT_LT(figures.refused, figures.published / 50);  // while others make room for the dead
  EXPECT_GT(figures.samples, 1000U);
  EXPECT_EQ(figures.unseen, 0U);
  EXPECT_GT(figures.visible_seconds.p50, 0.05);
  EXPECT_LE(figures.visible_seconds.p50, figures.visible_seconds.p99);
  EXPECT_LE(figures.visible_seconds.p99, figures.visible_seconds.max);
  EXPECT_LE(figures.visible_seconds.p99, 2);
  EXPECT_GT(figures.calls_median, 20);
  EXPECT_LE(figures.calls_median, figures.calls_max);
  double by_purpose = 0;
  for (const double calls : figures.calls_by_purpose) {
    EXPECT_GT(calls, 0);
    by_purpose += calls;
  }
  EXPECT_NEAR(by_purpose, figures.calls_median, 0.2 * figures.calls_median);
  EXPECT_GT(figures.report_bytes_per_second, 1000);
  EXPECT_GT(figures.reads, 500U);
  EXPECT_LT(figures.reads_gone, figures.reads / 20);
  EXPECT_EQ(figures.reads_failed, 0U);
  EXPECT_GT(figures.records, 1000U);
  EXPECT_GT(figures.catalogue_bytes_per_record, 40);
  EXPECT_GT(figures.reclaimed_segments, 20U);
  EXPECT_GT(figures.highest_fill, 0.7);
  EXPECT_LT(figures.highest_fill, 1.2);
  EXPECT_GT(figures.adopted_seconds, 50);
  EXPECT_LT(figures.adopted_seconds, 80);
  EXPECT_GT(figures.killed_blocks, 100U);
  EXPECT_EQ(figures.lost_blocks, 0U);
  EXPECT_EQ(figures.living_adopted, 0U);
}

TEST(PoolSimulation, EightNodesFindEachOthersBlocksInTimeAndInFewCalls) {
  PoolPlan plan;
  plan.nodes = 8;
  plan.seconds = 60;
  const absl::StatusOr<PoolFigures> figures = SimulatePool(plan, [](double) { return true; });
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_EQ(figures->unseen, 0U);
  EXPECT_LE(figures->visible_seconds.p99, 2);
  EXPECT_LE(figures->calls_max, 100);
}

TEST(PoolSimulation, TheSameSeedGivesTheSameFigures) {
  PoolPlan plan;
  plan.nodes = 3;
  plan.seconds = 40;
  plan.seed = 7;
  PoolFigures first = Simulated(plan);
  PoolFigures second = Simulated(plan);
  first.wall_seconds = second.wall_seconds = 0;
  EXPECT_EQ(PoolJson({first}), PoolJson({second}));
  plan.seed = 8;
  PoolFigures third = Simulated(plan);
  third.plan.seed = 7;
  third.wall_seconds = 0;
  EXPECT_NE(PoolJson({first}), PoolJson({third}));
}

TEST(PoolSimulation, OneNodeAloneIsNotAdopted) {
  PoolPlan plan;
  plan.nodes = 1;
  plan.seconds = 40;
  const PoolFigures figures = Simulated(plan);
  EXPECT_EQ(figures.samples, 0U);
  EXPECT_EQ(figures.adopted_seconds, 0);
  EXPECT_GT(figures.published, 10U);
}

TEST(PoolSimulation, SaysWhatCannotBeSimulated) {
  const auto refusal = [](const PoolPlan& plan) { return SimulatePool(plan, GoOn).status(); };
  PoolPlan plan;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(plan)));
  plan.nodes = 5000;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(plan)));
  plan.nodes = 2;
  plan.seconds = 0.5;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(plan)));
  plan.seconds = 10;
  plan.block_bytes = uint64_t{1} << 40;
  EXPECT_TRUE(absl::IsInvalidArgument(refusal(plan)));
  plan.block_bytes = 0;
  plan.capacity_bytes = 4096;  // what the tier itself says
  EXPECT_THAT(std::string(refusal(plan).message()), testing::HasSubstr("capacity_bytes"));
}

TEST(PoolSimulation, EndsWhenItIsToldTo) {
  PoolPlan plan;
  plan.nodes = 2;
  double reached = 0;
  const absl::Status status = SimulatePool(plan, [&reached](double part) {
                                reached = part;
                                return part < 0.1;
                              }).status();
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_NEAR(reached, 0.1, 0.001);
}

TEST(PoolReport, TableHasALineANumberOfNodes) {
  PoolFigures row;
  row.plan.nodes = 128;
  row.calls_max = 99.5;
  row.lost_blocks = 3;
  const std::string table = PoolTableText({row, row, row});
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5);
  EXPECT_THAT(table, testing::HasSubstr("  128 "));
  EXPECT_THAT(table, testing::HasSubstr(" 99.5 "));
}

TEST(PoolReport, JsonHasEveryFigure) {
  PoolFigures row;
  row.plan.nodes = 2;
  row.calls_by_kind[static_cast<size_t>(FileCall::kRename)] = 1.5;
  row.calls_by_purpose[static_cast<size_t>(CallPurpose::kUpkeep)] = 2.5;
  const auto json = nlohmann::json::parse(PoolJson({row}));
  ASSERT_EQ(json["pools"].size(), 1U);
  EXPECT_EQ(json["pools"][0]["nodes"], 2);
  EXPECT_EQ(json["pools"][0]["calls_by_kind"]["rename"], 1.5);
  EXPECT_EQ(json["pools"][0]["calls_by_purpose"]["upkeep"], 2.5);
  EXPECT_EQ(json["pools"][0]["lost_blocks"], 0);
}

}  // namespace
}  // namespace terrace::sim
