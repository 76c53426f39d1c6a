#include "daemon/wire/fault_rate.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

void RefuseMany(FaultRate& rate, absl::Duration now, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    rate.Refused(now);
  }
}

TEST(FaultRate, NinetyNineASecondAreAnswered) {
  FaultRate rate;
  for (int second = 0; second < 60; ++second) {
    RefuseMany(rate, absl::Seconds(second), FaultRate::kRefusedPerSecond - 1);
    EXPECT_FALSE(rate.Paused(absl::Seconds(second)));
  }
  EXPECT_FALSE(rate.Exhausted());
}

TEST(FaultRate, AHundredInASecondEarnAPauseOfOne) {
  FaultRate rate;
  RefuseMany(rate, absl::Seconds(5), FaultRate::kRefusedPerSecond);
  EXPECT_TRUE(rate.Paused(absl::Seconds(5)));
  EXPECT_TRUE(rate.Paused(absl::Seconds(5.99)));
  EXPECT_FALSE(rate.Paused(absl::Seconds(6)));
  EXPECT_FALSE(rate.Exhausted());
}

TEST(FaultRate, TenPausesInARowAreEnough) {
  FaultRate rate;
  absl::Duration now = absl::Seconds(5);
  for (uint32_t i = 0; i < FaultRate::kPausesInARow; ++i) {
    RefuseMany(rate, now, FaultRate::kRefusedPerSecond);
    EXPECT_FALSE(rate.Exhausted()) << i;
    now += FaultRate::kPause;
  }
  RefuseMany(rate, now, FaultRate::kRefusedPerSecond);
  EXPECT_TRUE(rate.Exhausted());
}

TEST(FaultRate, AQuietSecondBetweenPausesForgives) {
  FaultRate rate;
  for (int i = 0; i < 100; ++i) {
    RefuseMany(rate, absl::Seconds(3 * i), FaultRate::kRefusedPerSecond);
  }
  EXPECT_FALSE(rate.Exhausted());
}

TEST(FaultRate, TheThirdUndecodableInTenSecondsIsEnough) {
  FaultRate rate;
  rate.Undecodable(absl::Seconds(1));
  rate.Undecodable(absl::Seconds(2));
  EXPECT_FALSE(rate.Exhausted());
  rate.Undecodable(absl::Seconds(12));
  EXPECT_FALSE(rate.Exhausted());
  rate.Undecodable(absl::Seconds(13));
  rate.Undecodable(absl::Seconds(14));
  EXPECT_TRUE(rate.Exhausted());
}

}  // namespace
}  // namespace terrace
