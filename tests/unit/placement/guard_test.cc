#include "gtest/gtest.h"

#include "tiers/placement/lru_guard.h"

namespace terrace {
namespace {

constexpr double kSkilled = 5;

void Gain(LruGuard& guard, int requests, uint64_t gained) {
  for (int i = 0; i < requests; ++i) {
    guard.Count({.blocks = 100, .own = 30 + gained, .lru = 30}, kSkilled);
  }
}
int RequestsUntilLruRules(LruGuard& guard, uint64_t lost) {
  int requests = 0;
  while (!guard.lru_rules() && requests < 100'000) {
    guard.Count({.blocks = 100, .own = 30, .lru = 30 + lost}, kSkilled);
    ++requests;
  }
  return requests;
}
int RequestsUntilPhlRules(LruGuard& guard, uint64_t won) {
  int requests = 0;
  while (guard.lru_rules() && requests < 100'000) {
    guard.Count({.blocks = 100, .own = 30, .lru = 30, .phl = 30 + won}, kSkilled);
    ++requests;
  }
  return requests;
}

TEST(LruGuard, LetsPhlRuleWhileItDoesNotTrail) {
  LruGuard guard;
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_FALSE(guard.Count({.blocks = 100, .own = 30, .lru = 30}, kSkilled));
  }
  EXPECT_FALSE(guard.lru_rules());
}

TEST(LruGuard, LetsLruRuleWhenPhlTrailsByTheAllowance) {
  LruGuard guard;
  EXPECT_LE(RequestsUntilLruRules(guard, 10), 4);
}

TEST(LruGuard, LetsLruRuleWhileForecastsAreOfNoUse) {
  LruGuard guard;
  EXPECT_FALSE(guard.Count({.blocks = 1, .own = 0, .lru = 0}, -1.9));
  EXPECT_TRUE(guard.Count({.blocks = 1, .own = 0, .lru = 0}, -2.1));
  EXPECT_FALSE(guard.Count({.blocks = 1, .own = 0, .lru = 0}, -1));
  EXPECT_TRUE(guard.lru_rules());
  EXPECT_TRUE(guard.Count({.blocks = 1, .own = 0, .lru = 0}, 0.1));
  EXPECT_FALSE(guard.lru_rules());
}

TEST(LruGuard, WaitsForPhlsShadowToWinAndLongerAfterEachRelapse) {
  LruGuard guard;
  int last = 0;
  for (int relapse = 0; relapse < 5; ++relapse) {
    RequestsUntilLruRules(guard, 10);
    for (int i = 0; i < 1'000; ++i) {  // as long as it does not win, nothing happens
      ASSERT_FALSE(guard.Count({.blocks = 1, .own = 0, .lru = 1, .phl = 0}, kSkilled));
    }
    const int requests = RequestsUntilPhlRules(guard, 1);
    EXPECT_GT(requests, 1.9 * last);
    last = requests;
  }
}

TEST(LruGuard, OneLongPromptThatMissesMayBeChance) {
  LruGuard guard;
  guard.Count({.blocks = 200, .own = 30, .lru = 130}, kSkilled);
  EXPECT_FALSE(guard.lru_rules());
  guard.Count({.blocks = 200, .own = 30, .lru = 130}, kSkilled);
  EXPECT_TRUE(guard.lru_rules());  // more than is let pass even then
}

// Blocks lost until LRU rules, where large losses and small gains alternate.
int64_t LostUntilLruRules(LruGuard& guard) {
  int64_t lost = 0;
  while (!guard.lru_rules() && lost < 1'000'000) {
    guard.Count({.blocks = 100, .own = 30, .lru = 50}, kSkilled);
    guard.Count({.blocks = 100, .own = 31, .lru = 30}, kSkilled);
    lost += 19;
  }
  return lost;
}

TEST(LruGuard, WhatPhlGainedCountsForItByHalf) {
  LruGuard guard;
  Gain(guard, 1'000, 1);
  EXPECT_NEAR(static_cast<double>(LostUntilLruRules(guard)), 500 + 32, 25);
}

TEST(LruGuard, WhatPhlGainedCountsForItUpToALimit) {
  LruGuard guard;
  Gain(guard, 1'000, 60);  // 60 % of all blocks, of which 1 % may be lost, and the allowance
  const int64_t lost = LostUntilLruRules(guard);
  EXPECT_GT(lost, 1'000);
  EXPECT_LT(lost, 1'250);
}

TEST(LruGuard, ARowOfLossesEndsASmallLead) {
  LruGuard guard;
  Gain(guard, 1'000, 1);
  EXPECT_LE(RequestsUntilLruRules(guard, 40), 15);
}

// As many blocks are won as lost, or a few more, in turns.
void Differ(LruGuard& guard, int times, uint64_t won, uint64_t lost) {
  for (int i = 0; i < times; ++i) {
    guard.Count({.blocks = 10'000, .own = 30 + won, .lru = 30}, kSkilled);
    guard.Count({.blocks = 10'000, .own = 30, .lru = 30 + lost}, kSkilled);
  }
}

TEST(LruGuard, WhatPhlGainsByChanceIsNotEnough) {
  LruGuard guard;
  Differ(guard, 11, 8, 8);
  EXPECT_FALSE(guard.lru_rules());  // too few to tell
  Differ(guard, 1, 8, 8);
  EXPECT_TRUE(guard.lru_rules());
}

TEST(LruGuard, AFewLongPromptsAmongManyShortOnesAreNoTrial) {
  LruGuard guard;
  Differ(guard, 1, 100, 100);
  Differ(guard, 20, 1, 1);
  EXPECT_FALSE(guard.lru_rules());
  Differ(guard, 300, 1, 1);
  EXPECT_TRUE(guard.lru_rules());
}

TEST(LruGuard, TheTrialIsShortWhereLruMissesLittle) {
  LruGuard guard;
  for (int i = 0; i < 2; ++i) {
    guard.Count({.blocks = 100, .own = 98, .lru = 90}, kSkilled);
    guard.Count({.blocks = 100, .own = 90, .lru = 98}, kSkilled);
  }
  EXPECT_FALSE(guard.lru_rules());
  guard.Count({.blocks = 100, .own = 98, .lru = 90}, kSkilled);
  guard.Count({.blocks = 100, .own = 90, .lru = 98}, kSkilled);
  EXPECT_TRUE(guard.lru_rules());
}

// PHL begins again where it stood: it may lose no more than at first, and one long prompt that it
// loses is chance.
TEST(LruGuard, WhatWasLostBeforeIsNoPartOfTheNextFall) {
  LruGuard guard;
  RequestsUntilLruRules(guard, 50);
  RequestsUntilPhlRules(guard, 50);
  ASSERT_FALSE(guard.lru_rules());
  guard.Count({.blocks = 100, .own = 0, .lru = 90}, kSkilled);
  EXPECT_FALSE(guard.lru_rules());
  EXPECT_LE(RequestsUntilLruRules(guard, 50), 3);
}

TEST(LruGuard, WhatPhlGainsByMoreThanChanceIsEnough) {
  LruGuard guard;
  Differ(guard, 100, 8, 3);
  EXPECT_FALSE(guard.lru_rules());
}

TEST(LruGuard, AShadowThatWinsByChanceDoesNotBringPhlBack) {
  LruGuard guard;
  RequestsUntilLruRules(guard, 10);
  guard.Count({.blocks = 100, .own = 30, .lru = 30, .phl = 10'030}, kSkilled);
  EXPECT_TRUE(guard.lru_rules());  // one lucky request
  RequestsUntilPhlRules(guard, 10'000);
  EXPECT_FALSE(guard.lru_rules());
}

}  // namespace
}  // namespace terrace
