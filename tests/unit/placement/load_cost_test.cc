// How long a tier takes, and from where on that is worth it.
#include <deque>

#include <gtest/gtest.h>

#include "tiers/placement/load_advice.h"
#include "tiers/placement/tier_load.h"

namespace terrace {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// Reads of a medium that takes `latency` and then moves one block after the other.
class Medium {
 public:
  void ReadTogether(TierLoad& load, int reads, uint64_t bytes, absl::Duration each) {
    std::vector<TierLoad::Mark> marks;
    for (int i = 0; i < reads; ++i) {
      marks.push_back(load.Began(now));
    }
    for (const TierLoad::Mark& mark : marks) {
      now += each;
      load.Ended(mark, bytes, now);
    }
  }
  absl::Duration now = absl::Seconds(1000);
};

double SecondsOf(const TierLoad& load, const LoadDemand& demand, absl::Duration now) {
  return load.Seconds(demand, now).value_or(-1);
}

TEST(TierLoadTest, IsUnknownUntilSomethingWasRead) {
  TierLoad load;
  Medium medium;
  EXPECT_EQ(load.Seconds({1, kMiB, 0}, medium.now), std::nullopt);
  const TierLoad::Mark mark = load.Began(medium.now);
  medium.now += absl::Seconds(1);
  load.Ended(mark, 0, medium.now);
  EXPECT_EQ(load.Seconds({1, kMiB, 0}, medium.now), std::nullopt) << "it brought nothing";
}

TEST(TierLoadTest, ABlockTakesAsLongAsAReadAlone) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(4));
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.004, 1e-9);
  EXPECT_NEAR(SecondsOf(load, {10, 10 * kMiB, 0}, medium.now), 0.040, 1e-9)
      << "nothing says that they would go side by side";
}

// 16 reads that all take 8 ms move a block every half a millisecond.
TEST(TierLoadTest, FurtherBlocksTakeAShareOfReadsSideBySide) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(4));
  for (int i = 0; i < 40; ++i) {
    std::vector<TierLoad::Mark> marks(16);
    for (TierLoad::Mark& mark : marks) {
      mark = load.Began(medium.now);
    }
    medium.now += absl::Milliseconds(8);
    for (const TierLoad::Mark& mark : marks) {
      load.Ended(mark, kMiB, medium.now);
    }
  }
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.004, 1e-9);
  EXPECT_NEAR(SecondsOf(load, {101, 101 * kMiB, 0}, medium.now), 0.004 + 100 * 0.0005, 1e-9);
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 200 * kMiB}, medium.now), 0.104, 1e-9)
      << "what is queued comes first";
  EXPECT_NEAR(SecondsOf(load, {0, 0, 200 * kMiB}, medium.now), 0.100, 1e-9);
}

// All reads take 8 ms, however many there are.
TEST(TierLoadTest, FewReadsAtATimeDoNotHideWhatManyShowed) {
  TierLoad load;
  Medium medium;
  const auto read = [&](size_t reads) {
    std::vector<TierLoad::Mark> marks(reads);
    for (TierLoad::Mark& mark : marks) {
      mark = load.Began(medium.now);
    }
    medium.now += absl::Milliseconds(8);
    for (const TierLoad::Mark& mark : marks) {
      load.Ended(mark, kMiB, medium.now);
    }
  };
  const auto further = [&] {
    return SecondsOf(load, {2, 2 * kMiB, 0}, medium.now) -
           SecondsOf(load, {1, kMiB, 0}, medium.now);
  };
  read(1);
  read(2);
  EXPECT_NEAR(further(), 0.004, 1e-9) << "all that is known";
  for (int i = 0; i < 10; ++i) {
    read(16);
  }
  EXPECT_NEAR(further(), 0.0005, 1e-6);
  read(2);
  EXPECT_NEAR(further(), 0.0005, 1e-6);
  medium.now += absl::Minutes(20);
  read(1);
  read(2);
  EXPECT_NEAR(further(), 0.004, 1e-5) << "nothing better is known of late";
}

TEST(TierLoadTest, OtherSizesAreToldFromTheNearestSmallerOne) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, 64 << 10, absl::Milliseconds(1));
  medium.ReadTogether(load, 1, 4 * kMiB, absl::Milliseconds(5));
  EXPECT_NEAR(SecondsOf(load, {1, 64 << 10, 0}, medium.now), 0.001, 1e-9);
  EXPECT_NEAR(SecondsOf(load, {1, 8 * kMiB, 0}, medium.now), 0.010, 1e-9) << "by their bytes";
  EXPECT_NEAR(SecondsOf(load, {1, 128 << 10, 0}, medium.now), 0.002, 1e-9);
  EXPECT_NEAR(SecondsOf(load, {1, 4096, 0}, medium.now), 0.001, 1e-9) << "never faster";
}

TEST(TierLoadTest, ATierThatIsThrottledReadsSlowerSoon) {
  TierLoad load;
  Medium medium;
  for (int i = 0; i < 50; ++i) {
    medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(1));
  }
  for (int i = 0; i < 20; ++i) {
    medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(100));
  }
  EXPECT_GT(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.090);
}

// Whoever is busy has no read that is alone.
TEST(TierLoadTest, ATierThatIsBusyForLongIsNotTakenForFast) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(80));
  std::deque<TierLoad::Mark> marks;
  for (int i = 0; i < 32; ++i) {
    marks.push_back(load.Began(medium.now));
  }
  const auto keep_busy = [&](int reads) {
    for (int i = 0; i < reads; ++i) {
      medium.now += absl::Milliseconds(80);
      load.Ended(marks.front(), kMiB, medium.now);
      marks.pop_front();
      marks.push_back(load.Began(medium.now));
    }
  };
  keep_busy(100);
  EXPECT_NEAR(SecondsOf(load, {0, 0, 100 * kMiB}, medium.now), 8, 0.5);
  keep_busy(10'000);
  EXPECT_NEAR(SecondsOf(load, {0, 0, 100 * kMiB}, medium.now), 8, 0.1) << "a quarter of an hour on";
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.08, 0.001);
}

TEST(TierLoadTest, WhereBlocksWereReadOneByOneForLongManyStillTakeLonger) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(80));
  for (int i = 0; i < 10; ++i) {
    medium.ReadTogether(load, 32, kMiB, absl::Milliseconds(80));
  }
  const double many = SecondsOf(load, {100, 100 * kMiB, 0}, medium.now);
  for (int i = 0; i < 10'000; ++i) {
    medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(80));
  }
  EXPECT_NEAR(SecondsOf(load, {100, 100 * kMiB, 0}, medium.now), many, 0.01);
}

TEST(TierLoadTest, WhatWasMeasuredLongAgoIsBelievedLess) {
  TierLoad load;
  Medium medium;
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(800));
  medium.now += absl::Minutes(1);
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.8, 1e-9);
  medium.now += absl::Minutes(3);
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.1, 1e-9);
  medium.now += absl::Hours(1000);
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0, 1e-9);
  medium.ReadTogether(load, 1, kMiB, absl::Milliseconds(800));
  EXPECT_NEAR(SecondsOf(load, {1, kMiB, 0}, medium.now), 0.8, 1e-6) << "tried again, and as slow";
}

TEST(LoadAdviceTest, TheBoundaryThatSavesMostIsTheOneWorthLoading) {
  EXPECT_EQ(LongestWorthLoading({}), std::nullopt);
  EXPECT_EQ(LongestWorthLoading({{{100, 2.0, 1.0}}}), std::nullopt) << "slower than computing";
  EXPECT_EQ(LongestWorthLoading({{{100, 1.0, 1.0}}}), 0U) << "of equals the longer";
  EXPECT_EQ(LongestWorthLoading({{{100, 1.0, 2.0}, {200, 2.0, 3.0}}}), 1U);
  // All of it is loaded faster than computed, and still its end is not worth it.
  EXPECT_EQ(LongestWorthLoading({{{100, 0.1, 2.0}, {200, 3.0, 4.0}}}), 0U);
  // A slow middle is worth it for what lies behind.
  EXPECT_EQ(LongestWorthLoading({{{100, 0.1, 1.0}, {200, 2.1, 2.0}, {900, 2.2, 20.0}}}), 2U);
}

TEST(LoadAdviceTest, TheBreakEvenIsExact) {
  EXPECT_EQ(BreakEvenTokens({1e-3, 0}, {0, 0}), 1U);
  EXPECT_EQ(BreakEvenTokens({1e-3, 0}, {0.5, 0}), 500U);
  EXPECT_EQ(BreakEvenTokens({2e-3, 0}, {0.5, 1e-3}), 500U);
  EXPECT_EQ(BreakEvenTokens({1e-3, 0}, {0, 2e-3}), std::nullopt) << "never";
  EXPECT_EQ(BreakEvenTokens({0, 0}, {1, 0}), std::nullopt);
  // Attention pays for a load that costs more a token than computing the first ones.
  EXPECT_EQ(BreakEvenTokens({1e-3, 1e-6}, {0, 2e-3}), 1000U);
  EXPECT_EQ(BreakEvenTokens({0, 1e-6}, {1, 0}), 1000U);
  EXPECT_EQ(BreakEvenTokens({1, 0}, {1e9, 0}), 1000000000U);
  EXPECT_EQ(BreakEvenTokens({1, 0}, {1e10, 0}), std::nullopt);
  const RecomputeModel model{6.54e-5, 6.07e-10};
  const LoadLine load{0.25, 1e-4};
  const uint64_t tokens = BreakEvenTokens(model, load).value_or(0);
  const auto saved = [&](uint64_t n) {
    return model.Seconds(0, n) - load.seconds_at_all -
           load.seconds_per_token * static_cast<double>(n);
  };
  EXPECT_GE(saved(tokens), 0);
  EXPECT_LT(saved(tokens - 1), 0);
}

}  // namespace
}  // namespace terrace
