#include "client/src/patience.h"

#include <vector>

#include <gtest/gtest.h>

namespace terrace::client {
namespace {

constexpr int64_t kNow = 1'000'000;

// How many waits sleep at once behind each of `count` that polled in vain.
std::vector<uint32_t> SkippedBehindWastedOnes(Patience* patience, int count) {
  std::vector<uint32_t> skipped;
  for (int i = 0; i < count; ++i) {
    patience->Ended(Patience::End::kWasted, kNow);
    skipped.push_back(0);
    while (!patience->PollsNow(kNow)) {
      ++skipped.back();
    }
  }
  return skipped;
}

TEST(Patience, AWaitPollsWhileThatPays) {
  Patience patience;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(patience.PollsNow(kNow));
    patience.Ended(Patience::End::kPaid, kNow);
  }
}

TEST(Patience, WasteDoublesTheWaitsThatSleepAtOnceUpToABound) {
  Patience patience;
  ASSERT_TRUE(patience.PollsNow(kNow));
  EXPECT_EQ(SkippedBehindWastedOnes(&patience, 9),
            (std::vector<uint32_t>{1, 2, 4, 8, 16, 32, 64, 64, 64}));
}

TEST(Patience, OneThatPaysSetsTheCountBack) {
  Patience patience;
  ASSERT_TRUE(patience.PollsNow(kNow));
  SkippedBehindWastedOnes(&patience, 5);
  patience.Ended(Patience::End::kPaid, kNow);
  ASSERT_TRUE(patience.PollsNow(kNow));
  EXPECT_EQ(SkippedBehindWastedOnes(&patience, 1), std::vector<uint32_t>{1});
}

TEST(Patience, NobodyPollsForAWhileWhereAnotherThreadWantsTheCore) {
  Patience patience;
  ASSERT_TRUE(patience.PollsNow(kNow));
  patience.Ended(Patience::End::kContended, kNow);
  EXPECT_FALSE(patience.PollsNow(kNow));
  EXPECT_FALSE(patience.PollsNow(kNow + Patience::kContendedNs - 1));
  EXPECT_TRUE(patience.PollsNow(kNow + Patience::kContendedNs)) << "no wait in vain is counted";
}

}  // namespace
}  // namespace terrace::client
