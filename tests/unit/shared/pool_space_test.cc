// Who may write how much, and what goes.
#include "tiers/shared/pool_space.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace terrace {
namespace {

SegmentName Name(uint32_t number) {
  return {{{1, 1}, 1}, number};
}

SpaceView View(uint32_t segments) {
  SpaceView view;
  view.capacity_bytes = 3200;
  view.segment_bytes = 100;
  view.available_bytes = 100000;
  for (uint32_t n = 0; n < segments; ++n) {
    view.segments.push_back({Name(n), 100, static_cast<double>(n % 5), false});
  }
  view.own_bytes = 100 * segments;
  return view;
}

TEST(PoolSpace, NothingGoesWhileThereIsRoom) {
  const SpacePlan plan = PlanSpace(View(20));
  EXPECT_TRUE(plan.there_is_room);
  EXPECT_TRUE(plan.retire.empty());
}

TEST(PoolSpace, TheColdestGoFirstAndOfThemTheOldest) {
  const SpacePlan plan = PlanSpace(View(32));
  EXPECT_FALSE(plan.there_is_room);
  EXPECT_EQ(plan.retire, (std::vector<SegmentName>{Name(0), Name(5)}));
}

TEST(PoolSpace, AShareIsThatOfTheNodesThatLive) {
  SpaceView view = View(9);
  view.other_nodes = 3;
  EXPECT_EQ(PlanSpace(view).retire.size(), 3U);  // of 8 segments two are kept free
  view.share_bytes = 3200;
  EXPECT_TRUE(PlanSpace(view).retire.empty());
}

TEST(PoolSpace, EmptySegmentsGoInAnyCase) {
  SpaceView view = View(3);
  view.segments[1].empty = true;
  EXPECT_EQ(PlanSpace(view).retire, (std::vector<SegmentName>{Name(1)}));
}

TEST(PoolSpace, OnAFullDiskNothingIsMadeAndOneGoesAtATime) {
  SpaceView view = View(10);
  view.free_reserve_bytes = 500;
  view.available_bytes = 599;
  SpacePlan plan = PlanSpace(view);
  EXPECT_FALSE(plan.there_is_room);
  EXPECT_EQ(plan.retire.size(), 1U);
  view.own_bytes += 300;  // retired ones that are not removed yet
  plan = PlanSpace(view);
  EXPECT_TRUE(plan.retire.empty());
}

TEST(PoolSpace, AllTogetherKeepToTheCapacity) {
  SpaceView view = View(10);
  view.others_bytes = 2150;
  EXPECT_FALSE(PlanSpace(view).there_is_room);
}

}  // namespace
}  // namespace terrace
