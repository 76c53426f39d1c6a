#include "tiers/placement/replay.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

using Chain = std::vector<uint64_t>;

TEST(PlacementReplay, HitsAreTheLeadingResidentRun) {
  const auto replay = PlacementReplay::Create("lru", 10);
  EXPECT_EQ(replay->Request(Chain{1, 2, 3}), 0U);
  EXPECT_EQ(replay->Request(Chain{1, 2, 4}), 2U);
  EXPECT_EQ(replay->Request(Chain{9, 1, 2}), 0U);
  EXPECT_EQ(replay->counts().requests, 3U);
  EXPECT_EQ(replay->counts().blocks, 9U);
  EXPECT_EQ(replay->counts().hits, 2U);
  EXPECT_EQ(replay->counts().stored, 5U);
  EXPECT_EQ(replay->counts().evicted, 0U);
}

TEST(PlacementReplay, EvictsLeavesFirst) {
  const auto replay = PlacementReplay::Create("lru", 4);
  replay->Request(Chain{1, 2, 3});
  replay->Request(Chain{7, 8});  // 3 goes, not 1
  EXPECT_EQ(replay->counts().evicted, 1U);
  EXPECT_EQ(replay->Request(Chain{1, 2, 3}), 2U);
}

TEST(PlacementReplay, ARequestNeverEvictsItsOwnBlocks) {
  const auto replay = PlacementReplay::Create("lru", 3);
  EXPECT_EQ(replay->Request(Chain{1, 2, 3, 4, 5}), 0U);
  EXPECT_EQ(replay->counts().stored, 3U);
  EXPECT_EQ(replay->counts().declined, 2U);
  EXPECT_EQ(replay->Request(Chain{1, 2, 3, 4, 5}), 3U);
  EXPECT_EQ(replay->counts().stored, 3U);
  EXPECT_EQ(replay->counts().evicted, 0U);
}

TEST(PlacementReplay, ABlockTwiceInARequestIsStoredOnce) {
  const auto replay = PlacementReplay::Create("lru", 3);
  EXPECT_EQ(replay->Request(Chain{1, 2, 1}), 0U);
  EXPECT_EQ(replay->counts().stored, 2U);
  EXPECT_EQ(replay->Request(Chain{1, 2, 1}), 3U);
}

TEST(PlacementReplay, AnEmptyRequestIsCountedAndChangesNothing) {
  const auto replay = PlacementReplay::Create("lru", 1);
  EXPECT_EQ(replay->Request(Chain{}), 0U);
  EXPECT_EQ(replay->counts().requests, 1U);
  EXPECT_EQ(replay->counts().stored, 0U);
}

TEST(PlacementReplayDeathTest, NeedsAKnownPolicyAndRoom) {
  EXPECT_DEATH(PlacementReplay::Create("mru", 3), "invariant");
  EXPECT_DEATH(PlacementReplay::Create("lru", 0), "invariant");
}

}  // namespace
}  // namespace terrace
