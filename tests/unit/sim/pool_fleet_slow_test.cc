// Fleets of 64 and of 160, as the plan for a real one is made.
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

// More than everybody looks at: a few tell of the others.
TEST(PoolFleetSlow, AHundredAndSixtyNodesFollowEachOtherByBulletins) {
  PoolPlan plan;
  plan.nodes = 160;
  plan.seconds = 160;
  ASSERT_GT(plan.nodes, FilledIn(plan).bulletins_from);
  const absl::StatusOr<PoolFigures> figures = SimulatePool(plan, [](double) { return true; });
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_GT(figures->samples, 10000U);
  EXPECT_EQ(figures->unseen, 0U);
  EXPECT_LE(figures->visible_seconds.p99, 30);
  EXPECT_LE(figures->calls_max, 100);
  // Looks at every node would take all that they may, which is 48.
  EXPECT_LE(figures->calls_by_purpose[static_cast<size_t>(CallPurpose::kFollowing)], 40);
  EXPECT_EQ(figures->reads_failed, 0U);
  EXPECT_EQ(figures->lost_blocks, 0U);
  EXPECT_GT(figures->adopted_seconds, 0);
  EXPECT_EQ(figures->living_adopted, 0U);
  EXPECT_LT(figures->highest_fill, 1.1);
}

}  // namespace
}  // namespace terrace::sim
