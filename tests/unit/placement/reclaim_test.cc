#include "tiers/placement/reclaim.h"

#include <cstdint>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"
#include "tiers/placement/replay.h"
#include "tiers/placement/segment_log.h"

namespace terrace {
namespace {

TEST(ReclaimRuleTest, TheOldestSegmentGoesUnlessOneIsMostlyDead) {
  EXPECT_EQ(SegmentToReclaim({{7, 900, 1000}, {3, 1000, 1000}, {5, 300, 1000}}), 1U);
  EXPECT_EQ(SegmentToReclaim({{7, 200, 1000}, {3, 1000, 1000}, {5, 100, 1000}}), 2U);
  EXPECT_EQ(SegmentToReclaim({{7, 100, 1000}, {3, 1000, 1000}, {5, 100, 1000}}), 2U);
  EXPECT_EQ(SegmentToReclaim({{7, 0, 0}}), 0U);
}

TEST(ReclaimRuleTest, WhatWasOfUseLatelyIsWorthRewriting) {
  EXPECT_TRUE(IsWorthRewriting({0, 1}));
  EXPECT_TRUE(IsWorthRewriting({0.49, 1}));
  EXPECT_FALSE(IsWorthRewriting({0.51, 1}));
  EXPECT_FALSE(IsWorthRewriting({1, 0.3}));
}

TEST(ReclaimRuleTest, AllThatLivesInAMostlyDeadSegmentIsWorthRewriting) {
  EXPECT_TRUE(IsWorthRewriting({5, kMaxRewrittenShare}));
  EXPECT_FALSE(IsWorthRewriting({5, kMaxRewrittenShare + 0.01}));
}

TEST(SegmentLogTest, WhatIsOfUseStaysAndTheRestGoesInOrder) {
  SegmentLog log({.segments = 10, .segment_records = 10, .kept_free = 3});
  for (uint64_t name = 0; name < 1000; ++name) {
    log.Append(name);
    if (name >= 5) {
      EXPECT_TRUE(log.NoteUse(5)) << name;
    }
    EXPECT_TRUE(log.Holds(name));
  }
  EXPECT_FALSE(log.Holds(4));
  EXPECT_FALSE(log.Holds(6));
  uint64_t held = 0;
  for (uint64_t name = 0; name < 1000; ++name) {
    held += log.Holds(name) ? 1 : 0;
  }
  EXPECT_EQ(held, log.counts().appended - log.counts().dropped);
  EXPECT_LE(held, 70U);
  EXPECT_GT(held, 40U);
  EXPECT_LT(log.counts().rewritten, 40U) << "one block, once a turn of the log";
}

TEST(SegmentLogTest, EvenIfAllIsOfUseLittleIsWrittenAgain) {
  SegmentLog log({.segments = 20, .segment_records = 50, .kept_free = 3});
  for (uint64_t name = 0; name < 20000; ++name) {
    log.Append(name);
    for (uint64_t used = name < 900 ? 0 : name - 900; used <= name; used += 3) {
      log.NoteUse(used);
    }
  }
  EXPECT_GT(log.counts().rewritten, log.counts().appended / 10);
  EXPECT_LE(log.counts().rewritten, log.counts().appended / 4);
}

TEST(SegmentLogTest, AfterARestartNothingCountsAsUsed) {
  SegmentLog log({.segments = 10, .segment_records = 10, .kept_free = 3});
  for (uint64_t name = 0; name < 50; ++name) {
    log.Append(name);
  }
  log.NoteUse(0);
  log.ForgetUse();
  for (uint64_t name = 50; name < 90; ++name) {
    log.Append(name);
  }
  EXPECT_FALSE(log.Holds(0));
  EXPECT_EQ(log.counts().rewritten, 0U);
}

std::vector<uint64_t> ChainFrom(uint64_t first, uint64_t count) {
  std::vector<uint64_t> chain;
  for (uint64_t i = 0; i < count; ++i) {
    chain.push_back(first + i);
  }
  return chain;
}

TEST(TwoTierReplayTest, WhatDramEvictsIsHitBelowAndComesUp) {
  const std::unique_ptr<PlacementReplay> replay = PlacementReplay::CreateOverLog(
      "lru", 20, {.segments = 20, .segment_records = 10, .kept_free = 3});
  for (uint64_t chain = 0; chain < 10; ++chain) {
    EXPECT_EQ(replay->Request(ChainFrom(chain * 10, 10)), 0U);
  }
  EXPECT_EQ(replay->local()->counts().appended, 80U);
  EXPECT_EQ(replay->Request(ChainFrom(0, 10)), 10U);
  EXPECT_EQ(replay->counts().local_hits, 10U);
  EXPECT_EQ(replay->Request(ChainFrom(0, 10)), 10U);
  EXPECT_EQ(replay->counts().local_hits, 10U) << "in DRAM by now";
  // The copies below stayed, so what was evicted for them alone was written.
  EXPECT_EQ(replay->local()->counts().appended, 90U);
}

TEST(TwoTierReplayTest, ARestartLosesDramAndNothingBelow) {
  const std::unique_ptr<PlacementReplay> replay = PlacementReplay::CreateOverLog(
      "lru", 20, {.segments = 20, .segment_records = 10, .kept_free = 3});
  for (uint64_t chain = 0; chain < 10; ++chain) {
    replay->Request(ChainFrom(chain * 10, 10));
  }
  replay->Restart(PlacementReplay::Learnt::kKept);
  EXPECT_EQ(replay->Request(ChainFrom(90, 10)), 0U);
  EXPECT_EQ(replay->Request(ChainFrom(70, 10)), 10U);
}

TEST(TwoTierReplayTest, AChainThatDramCannotHoldIsCutWhereRoomEnds) {
  const std::unique_ptr<PlacementReplay> replay = PlacementReplay::CreateOverLog(
      "lru", 8, {.segments = 20, .segment_records = 10, .kept_free = 3});
  replay->Request(ChainFrom(0, 8));
  replay->Request(ChainFrom(100, 8));
  replay->Request(ChainFrom(8, 8));
  replay->Request(ChainFrom(200, 8));
  EXPECT_EQ(replay->Request(ChainFrom(0, 16)), 8U);
  EXPECT_EQ(replay->Request(ChainFrom(0, 8)), 8U) << "they are in DRAM now";
}

TEST(TwoTierReplayTest, RandomChainsNeverHitWhatNeitherTierHolds) {
  doubles::Seeded seeded(7);
  const std::unique_ptr<PlacementReplay> replay = PlacementReplay::CreateOverLog(
      "lru", 50, {.segments = 12, .segment_records = 20, .kept_free = 3});
  for (int i = 0; i < 5000; ++i) {
    const std::vector<uint64_t> chain = ChainFrom(seeded.Below(60) * 100, 1 + seeded.Below(20));
    const uint64_t before = replay->counts().local_hits;
    const uint64_t hits = replay->Request(chain);
    ASSERT_LE(replay->counts().local_hits - before, hits);
    ASSERT_LE(hits, chain.size());
    ASSERT_LE(replay->policy().resident(), 50U);
  }
  EXPECT_GT(replay->counts().local_hits, 1000U);
  EXPECT_GT(replay->local()->counts().dropped, 1000U);
}

}  // namespace
}  // namespace terrace
