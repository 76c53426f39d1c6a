// A fleet of 64, as the plan for a real one is made.
#include "gtest/gtest.h"

#include "tools/sim/pool_simulation.h"

namespace terrace::sim {
namespace {

TEST(PoolFleetSlow, SixtyFourNodesFindEachOthersBlocks) {
  PoolPlan plan;
  plan.nodes = 64;
  const absl::StatusOr<PoolFigures> figures = SimulatePool(plan, [](double) { return true; });
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_GT(figures->samples, 10000U);
  EXPECT_EQ(figures->unseen, 0U);
  EXPECT_LE(figures->visible_seconds.p99, 30);
  EXPECT_EQ(figures->reads_failed, 0U);
  EXPECT_EQ(figures->lost_blocks, 0U);
  EXPECT_GT(figures->adopted_seconds, 0);
  EXPECT_EQ(figures->living_adopted, 0U);
  EXPECT_LT(figures->highest_fill, 1.1);
}

}  // namespace
}  // namespace terrace::sim
