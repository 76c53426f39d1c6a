// When a node tells of what is new, and what it would give up for room.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/pool_fleet.h"

namespace terrace {
namespace {

using doubles::FleetBlock;
using doubles::PoolFleet;

uint64_t HeadsOf(PoolFleet& fleet, size_t i) {
  return fleet.node(i).files->figures().calls[static_cast<size_t>(PoolOp::kReplace)];
}

TEST(Fleet, WhatNobodyWaitsForIsNamedForManyAtATime) {
  PoolFleet fleet(2);
  fleet.StartAll();
  fleet.Pass(absl::Seconds(1));
  const uint64_t before = HeadsOf(fleet, 0);
  std::vector<PoolFleet::Answer> answers;
  for (uint64_t n = 0; n < 60; ++n) {  // six seconds
    answers.push_back(fleet.StartPublish(0, FleetBlock(n), Awaited::kNo));
    fleet.Pass(absl::Milliseconds(100));
  }
  const uint64_t heads = HeadsOf(fleet, 0) - before;
  EXPECT_GE(heads, 4U);
  EXPECT_LE(heads, 9U) << "more than one in 0.75 s";
  fleet.Pass(absl::Seconds(2));
  for (uint64_t n = 0; n < 60; ++n) {
    EXPECT_EQ(*answers[n], WriteOutcome::kWritten) << n;
    EXPECT_EQ(fleet.Read(1, FleetBlock(n)), ReadOutcome::kVerified) << n;
  }
}

TEST(Fleet, WhatSomebodyWaitsForIsNamedAtOnce) {
  PoolFleet fleet(1);
  fleet.StartAll();
  ASSERT_EQ(fleet.Publish(0, FleetBlock(1)), WriteOutcome::kWritten);  // there is a segment now
  fleet.Pass(absl::Seconds(1));
  const PoolFleet::Answer answer = fleet.StartPublish(0, FleetBlock(2));
  fleet.node(0).executor.RunAll();  // no time passes, and nothing ticks
  EXPECT_EQ(*answer, WriteOutcome::kWritten);
}

TEST(Fleet, WhatWouldGoForRoomIsWhatGoes) {
  PoolFleet fleet(1);
  fleet.options.capacity_bytes = 16 * PoolFleet::kSegment;
  fleet.options.grace = absl::Seconds(2);
  fleet.StartAll();
  uint64_t n = 0;
  while (fleet.tier(0).ReclaimOrder().size() < 8) {
    ASSERT_EQ(fleet.Publish(0, FleetBlock(n++)), WriteOutcome::kWritten);
    ASSERT_LT(n, 1000U);
  }
  fleet.Pass(absl::Seconds(30));
  const std::vector<PoolSegmentView> order = fleet.tier(0).ReclaimOrder();
  EXPECT_GT(order.front().records, 0U);
  EXPECT_EQ(order.front().bytes, PoolFleet::kSegment);
  const auto lies = [&fleet](const PoolSegmentView& view) {
    const std::vector<std::string> paths = fleet.mount.Paths();
    return std::find(paths.begin(), paths.end(), view.path) != paths.end();
  };
  ASSERT_TRUE(lies(order.front())) << order.front().path;
  while (fleet.tier(0).figures().reclaimed_segments == 0) {
    fleet.Publish(0, FleetBlock(n++));
    ASSERT_LT(n, 5000U);
  }
  fleet.Pass(absl::Seconds(10));
  EXPECT_FALSE(lies(order.front()));
  EXPECT_TRUE(lies(order.back()));
}

}  // namespace
}  // namespace terrace
