#include "tiers/placement/replay.h"

#include <cstdint>
#include <numeric>
#include <random>
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

// Hits of the second round behind a restart, when nothing has been seen to come back yet: sessions
// that are used in every round, beside chains that say that they are over and never come back.
uint64_t HitsAfterRestart(PlacementReplay::Learnt learnt) {
  const auto replay = PlacementReplay::Create("phl", 22);
  RequestHints over;
  over.session_end = true;
  uint64_t hits = 0;
  for (uint64_t round = 0; round < 602; ++round) {
    if (round == 600) {
      replay->Restart(learnt);
    }
    const absl::Duration now = absl::Seconds(10) * static_cast<double>(round % 600);
    for (uint64_t k = 0; k < 4; ++k) {
      const Chain session = {k * 10 + 1, k * 10 + 2, k * 10 + 3, k * 10 + 4, k * 10 + 5};
      const uint64_t of_request = replay->Request({now, session, {}});
      hits += round == 601 ? of_request : 0;
    }
    for (uint64_t k = 0; k < 5; ++k) {
      const uint64_t once = round * 100 + k * 10 + 1'000;
      replay->Request({now, Chain{once, once + 1, once + 2}, over});
    }
  }
  return hits;
}

TEST(PlacementReplay, WhatWasLearntCountsAfterARestart) {
  EXPECT_EQ(HitsAfterRestart(PlacementReplay::Learnt::kKept), 20U);
  EXPECT_LT(HitsAfterRestart(PlacementReplay::Learnt::kForgotten), 10U);
}

// Sessions that grow beyond what fits, and say with every block how the request ended.
enum class Told : uint8_t { kAtOnce, kWhenStored };
std::vector<uint64_t> HitsOfEachRequest(Told told) {
  const auto replay = PlacementReplay::Create("phl", 40);
  std::vector<Chain> sessions(16);
  std::vector<uint64_t> hits;
  std::mt19937_64 random(1);
  for (uint64_t i = 0; i < 4'000; ++i) {
    Chain& session = sessions[std::min(random() % 16, random() % 16)];
    session.resize(session.size() % 60);
    session.push_back(i + 1);
    RequestHints hints;
    hints.output_tokens = static_cast<uint32_t>(session.front() % 7 * 100);
    const absl::Duration now = absl::Seconds(3) * static_cast<double>(i);
    hits.push_back(told == Told::kAtOnce ? replay->Request({now, session, hints})
                                         : replay->Request({now, session, {}, hints}));
  }
  return hits;
}

TEST(PlacementReplay, WhenHintsAreToldBeforeTheEndMakesNoDifference) {
  const std::vector<uint64_t> hits = HitsOfEachRequest(Told::kAtOnce);
  EXPECT_GT(std::accumulate(hits.begin(), hits.end(), uint64_t{0}), 10'000U);
  EXPECT_EQ(HitsOfEachRequest(Told::kWhenStored), hits);
}

// Sessions below a block that all of them share come back for as long as there is something else;
// those that share nothing never do.
uint64_t HitsBelow(uint64_t shared) {
  const auto replay = PlacementReplay::Create("phl", 120);
  std::mt19937_64 random(2);
  uint64_t hits = 0;
  for (uint64_t i = 1; i < 4'000; ++i) {
    const absl::Duration now = absl::Seconds(2) * static_cast<double>(i);
    const uint64_t name = i * 100 + 1'000;
    replay->Request({now, Chain{name, name + 1, name + 2}, {}});
    const uint64_t session = 10'000'000 + (i - random() % std::min<uint64_t>(i, 48)) * 10;
    hits += replay->Request({now, Chain{shared, session, session + 1, session + 2}, {}});
  }
  return hits;
}

TEST(PlacementReplay, WhatASharedBlockIsCalledMakesNoDifference) {
  const uint64_t hits = HitsBelow(7);
  EXPECT_EQ(HitsBelow(8), hits);
  EXPECT_EQ(HitsBelow(0), hits) << "its print is 0, too";
}

TEST(PlacementReplayDeathTest, NeedsAKnownPolicyAndRoom) {
  EXPECT_DEATH(PlacementReplay::Create("mru", 3), "invariant");
  EXPECT_DEATH(PlacementReplay::Create("lru", 0), "invariant");
}

}  // namespace
}  // namespace terrace
