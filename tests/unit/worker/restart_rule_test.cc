#include "daemon/worker/restart_rule.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

constexpr absl::Duration kFirst = absl::Milliseconds(100);
constexpr absl::Duration kMost = absl::Seconds(30);
constexpr absl::Duration kNow = absl::Seconds(1000);

TEST(RestartRule, TheFirstStartIsAtOnce) {
  const RestartRule rule(kFirst, kMost);
  EXPECT_LT(rule.next_start(), kNow);
  EXPECT_FALSE(rule.ever_failed());
  EXPECT_FALSE(rule.suspended());
}

TEST(RestartRule, PausesDoubleUpToTheirMostAndBeginAnewWhenSomethingWorks) {
  RestartRule rule(kFirst, kMost);
  for (const int tenths : {1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}) {
    rule.Failed(kNow);
    EXPECT_EQ(rule.next_start(), kNow + absl::Milliseconds(100) * tenths);
  }
  rule.Serves();
  rule.Failed(kNow);
  EXPECT_EQ(rule.next_start(), kNow + kMost);
  rule.Works();
  rule.Failed(kNow);
  EXPECT_EQ(rule.next_start(), kNow + kFirst);
}

TEST(RestartRule, ThreeFailuresInARowSuspendUntilAWorkerServes) {
  RestartRule rule(kFirst, kMost);
  rule.Failed(kNow);
  rule.Failed(kNow);
  EXPECT_FALSE(rule.suspended());
  rule.Failed(kNow);
  EXPECT_TRUE(rule.suspended());
  rule.Serves();
  EXPECT_FALSE(rule.suspended());
  rule.Suspend();
  EXPECT_TRUE(rule.suspended());
}

TEST(RestartRule, AStuckWorkerThatEndsBringsTheNextStartNearer) {
  RestartRule rule(kFirst, kMost);
  for (int i = 0; i < 20; ++i) {
    rule.Failed(kNow);
  }
  rule.Stirs(kNow + absl::Seconds(1));
  EXPECT_EQ(rule.next_start(), kNow + absl::Seconds(1) + kFirst);
  rule.Failed(kNow);
  rule.Stirs(kNow + absl::Seconds(5));
  EXPECT_EQ(rule.next_start(), kNow + kFirst);
}

}  // namespace
}  // namespace terrace
