#include "gtest/gtest.h"

#include "tiers/placement/lru_guard.h"

namespace terrace {
namespace {

TEST(LruGuard, LetsPhlRuleWhileItDoesNotTrail) {
  LruGuard guard;
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_FALSE(guard.Count(i, 100, 30, 30));
  }
  EXPECT_FALSE(guard.lru_rules());
}

TEST(LruGuard, LetsLruRuleForAMinuteWhenPhlTrails) {
  LruGuard guard;
  double now_s = 0;
  while (!guard.Count(now_s, 100, 10, 30)) {
    ++now_s;
    ASSERT_LT(now_s, 20);
  }
  EXPECT_TRUE(guard.lru_rules());
  EXPECT_FALSE(guard.Count(now_s + 59, 100, 10, 30));
  EXPECT_TRUE(guard.Count(now_s + 61, 100, 10, 30));
  EXPECT_FALSE(guard.lru_rules());
}

TEST(LruGuard, RelapsesLastLongerEachTime) {
  LruGuard guard;
  double now_s = 0;
  double last_s = 0;
  for (int relapse = 0; relapse < 5; ++relapse) {
    while (!guard.Count(now_s, 1, 0, 1)) {
      now_s += 0.1;
    }
    const double began_s = now_s;
    while (!guard.Count(now_s, 1, 0, 1)) {
      now_s += 0.1;
    }
    EXPECT_GT(now_s - began_s, 1.9 * last_s);
    last_s = now_s - began_s;
  }
}

TEST(LruGuard, WhatPhlGainedCountsForItUpToALimit) {
  LruGuard guard;
  for (int i = 0; i < 1'000; ++i) {
    guard.Count(i, 100, 90, 10);
  }
  int trailing = 0;
  while (!guard.Count(1'000, 100, 0, 10)) {
    ++trailing;
  }
  EXPECT_GT(trailing, 50);
  EXPECT_LT(trailing, 200);
}

}  // namespace
}  // namespace terrace
