#include "tiers/vocab/clock.h"

#include <ctime>

#include "absl/time/time.h"
#include <gtest/gtest.h>

namespace terrace {
namespace {

absl::Duration BootTime() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return absl::DurationFromTimespec(now);
}

TEST(BootClock, ReadsTheTimeSinceBootAndNeverGoesBack) {
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration before = BootTime();
    const absl::Duration now = BootClock().Now();
    const absl::Duration after = BootTime();
    ASSERT_LE(before, now);
    ASSERT_LE(now, after);
  }
}

TEST(BootClock, IsOneObject) {
  EXPECT_EQ(&BootClock(), &BootClock());
}

}  // namespace
}  // namespace terrace
