// The rule of reclaims on a real tier.
#include "daemon/recency_judge.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"
#include "tiers/placement/reclaim.h"

namespace terrace {
namespace {

// What is alive is a small part of a tier that is written over many times: none of it may go.
TEST(RecencyJudgeTest, NothingThatLivesGoesWhileMostOfTheTierIsDead) {
  for (const uint64_t segments : {8, 24}) {
    RecencyJudge judge;
    TierRoom room;
    room.options().capacity_bytes = segments * kTestSegmentBytes;
    room.options().max_rewritten_share = kMaxRewrittenShare;
    room.SetJudge(&judge);
    room.Open();
    std::vector<TestBlock> living;
    std::vector<TestBlock> dead;
    for (uint64_t i = 0; i < 60 * segments; ++i) {
      const bool lives = living.size() < segments / 4 && i % 6 == 0;  // one of a segment's six
      (lives ? living : dead).emplace_back(i, 30000);
      ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
      if (dead.size() == 12) {
        ASSERT_EQ(room.Delete(dead), WriteOutcome::kWritten);
        dead.clear();
      }
    }
    EXPECT_GT(room.tier().figures().reclaimed_segments, 5 * segments);
    for (const TestBlock& block : living) {
      EXPECT_EQ(room.Read(block), ReadOutcome::kVerified) << segments;
    }
  }
}

TEST(RecencyJudgeTest, OfAFullTierWhatWasOfUseStays) {
  RecencyJudge judge;
  TierRoom room;
  room.options().capacity_bytes = 24 * kTestSegmentBytes;
  room.options().max_rewritten_share = kMaxRewrittenShare;
  room.SetJudge(&judge);
  room.Open();
  const TestBlock used(1, 30000);
  const TestBlock unused(2, 30000);
  ASSERT_EQ(room.Write(used), WriteOutcome::kWritten);
  ASSERT_EQ(room.Write(unused), WriteOutcome::kWritten);
  for (uint64_t i = 100; i < 700; ++i) {
    ASSERT_EQ(room.Write(TestBlock(i, 30000)), WriteOutcome::kWritten);
    room.tier().NoteUse(used.identity());
  }
  EXPECT_EQ(room.Read(used), ReadOutcome::kVerified);
  EXPECT_FALSE(room.Holds(unused));
  EXPECT_EQ(room.Read(TestBlock(699, 30000)), ReadOutcome::kVerified);
}

}  // namespace
}  // namespace terrace
