#include "tiers/placement/write_budget.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kOneASecond = 86'400 * kMiB;  // a day, of blocks of 1 MiB

WriteOffer Block(double chance, uint64_t bytes = kMiB) {
  return {.reuse_chance = chance, .seconds_saved = 1, .bytes = bytes};
}

// Offers `a_second` blocks a second of chances that are spread evenly; returns the bytes let in.
class Stream {
 public:
  explicit Stream(WriteBudget& budget) : budget_(budget), seeded_(3) {}

  void Run(absl::Duration time, double a_second) {
    const absl::Duration end = now_ + time;
    while (now_ < end) {
      now_ += absl::Seconds(1 / a_second);
      Offer(static_cast<double>(seeded_.Below(1000)) / 1000);
    }
  }
  void Offer(double chance) {
    const bool let_in = IsLetIn(budget_.Admit(now_, Block(chance)));
    let_in_ += let_in ? kMiB : 0;
    (let_in ? chance_in_ : chance_out_) += chance;
    ++(let_in ? in_ : out_);
  }
  void Skip(absl::Duration time) { now_ += time; }
  [[nodiscard]] absl::Duration now() const { return now_; }
  // Blocks let in since the last call.
  double Take() {
    const double blocks = static_cast<double>(let_in_) / kMiB;
    let_in_ = 0;
    return blocks;
  }
  [[nodiscard]] double mean_chance_in() const { return chance_in_ / in_; }
  [[nodiscard]] double mean_chance_out() const { return chance_out_ / out_; }

 private:
  WriteBudget& budget_;
  doubles::Seeded seeded_;
  absl::Duration now_ = absl::Seconds(1000);
  uint64_t let_in_ = 0;
  double chance_in_ = 0;
  double chance_out_ = 0;
  double in_ = 0;
  double out_ = 0;
};

TEST(WriteBudgetTest, WithoutALimitAllIsLetIn) {
  WriteBudget budget({});
  EXPECT_FALSE(budget.limited());
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(budget.Admit(absl::ZeroDuration(), Block(0, UINT64_MAX)), Admission::kSlack);
  }
  EXPECT_EQ(budget.price(), 0);
}

TEST(WriteBudgetTest, WhatFitsIsSlackAndHasNoPrice) {
  WriteBudget budget({.bytes_per_day = 2 * kOneASecond});
  Stream stream(budget);
  stream.Run(absl::Minutes(10), 1);
  EXPECT_NEAR(stream.Take(), 600, 1);
  EXPECT_EQ(budget.price(), 0);
  EXPECT_EQ(budget.Admit(stream.now(), Block(0)), Admission::kSlack) << "be it worth nothing";
}

TEST(WriteBudgetTest, OfTwiceAsMuchAsFitsTheBetterHalfIsLetIn) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  Stream stream(budget);
  stream.Run(absl::Hours(2), 2);
  EXPECT_NEAR(stream.Take(), 7200, 7200 * 0.05);
  EXPECT_GT(budget.price() * kMiB, 0.3);
  EXPECT_LT(budget.price() * kMiB, 0.7);
  EXPECT_NEAR(stream.mean_chance_in(), 0.75, 0.05);
  EXPECT_NEAR(stream.mean_chance_out(), 0.25, 0.05);
}

TEST(WriteBudgetTest, EqualsAreThinnedOutByTurns) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  int in = 0;
  int in_a_row = 0;
  int longest = 0;
  for (int i = 0; i < 8 * 3600; ++i) {
    const bool let_in = IsLetIn(budget.Admit(absl::Seconds(i) / 4, Block(0.1)));
    in += let_in ? 1 : 0;
    in_a_row = let_in ? in_a_row + 1 : 0;
    longest = i > 3600 ? std::max(longest, in_a_row) : 0;
  }
  EXPECT_NEAR(in, 7200, 7200 * 0.05);
  EXPECT_LT(longest, 4);
}

TEST(WriteBudgetTest, NoMoreThanTheBudgetAndWhatWasSavedIsEverWritten) {
  for (uint64_t seed = 1; seed < 20; ++seed) {
    doubles::Seeded seeded(seed);
    WriteBudget budget({.bytes_per_day = kOneASecond, .burst = absl::Minutes(30)});
    absl::Duration now = absl::ZeroDuration();
    absl::Duration marked_at = now;
    double may = 0;
    double written = 0;
    for (int i = 0; i < 20'000; ++i) {
      if (seeded.Below(1000) == 0 || i == 0) {  // a window that begins anywhere
        marked_at = now;
        may = std::max(0.0, budget.saved_up());
        written = 0;
      }
      now += seeded.Below(300) == 0 ? absl::Seconds(seeded.Below(4000))
                                    : absl::Milliseconds(seeded.Below(30));
      const uint64_t bytes = 1 + seeded.Below(4 * kMiB);
      const double chance = static_cast<double>(seeded.Below(100)) / 100;
      written += IsLetIn(budget.Admit(now, Block(chance, bytes))) ? static_cast<double>(bytes) : 0;
      ASSERT_LE(written,
                may + budget.bytes_per_second() * absl::ToDoubleSeconds(now - marked_at) + 4 * kMiB)
          << "seed " << seed;
    }
  }
}

TEST(WriteBudgetTest, AFloodAtOnceGetsWhatIsSavedUpAndNoMore) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  Stream stream(budget);
  for (int i = 0; i < 100'000; ++i) {
    stream.Offer(0.5);
  }
  EXPECT_LE(stream.Take(), 61);
  stream.Skip(absl::Hours(1));
  for (int i = 0; i < 100'000; ++i) {
    stream.Offer(0.5);
  }
  const double after = stream.Take();
  EXPECT_LE(after, 3661);
  EXPECT_GT(after, 1000) << "what an idle hour saves up is there for a burst";
}

TEST(WriteBudgetTest, IdleDaysAreSavedUpAsFarAsTheBurstGoesBack) {
  WriteBudget budget({.bytes_per_day = kOneASecond, .burst = absl::Hours(6)});
  budget.Charge(absl::ZeroDuration(), 0);
  budget.Charge(absl::Hours(24 * 365), 0);
  EXPECT_NEAR(budget.saved_up(), 6.0 * 3600 * kMiB, kMiB);
  Stream stream(budget);
  stream.Skip(absl::Hours(24 * 365));
  stream.Run(absl::Hours(1), 5);
  EXPECT_NEAR(stream.Take(), 18'000, 10) << "no price while so much is saved up";
}

TEST(WriteBudgetTest, WhatIsWrittenWithoutAskingIsPaidBack) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  Stream stream(budget);
  budget.Charge(stream.now(), 660.0 * kMiB);
  EXPECT_EQ(budget.Admit(stream.now(), Block(1)), Admission::kSpent);
  stream.Run(absl::Minutes(10) - absl::Seconds(2), 2);
  EXPECT_EQ(stream.Take(), 0);
  stream.Run(absl::Minutes(30), 2);
  EXPECT_GT(stream.Take(), 1500);
  budget.Charge(stream.now(), -1e18);
  EXPECT_LE(budget.saved_up(), budget.bytes_per_second() * 86'400)
      << "and given back within bounds";
}

TEST(WriteBudgetTest, WhatCompletesAChainGoesBeforeThePriceAndALittleIntoDebt) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  Stream stream(budget);
  stream.Run(absl::Minutes(30), 4);
  WriteOffer worthless = Block(0);
  EXPECT_EQ(budget.Admit(stream.now(), worthless), Admission::kPriced);
  worthless.completes = true;
  EXPECT_EQ(budget.Admit(stream.now(), worthless), Admission::kCompletes);
  int let_in = 0;
  while (budget.Admit(stream.now(), worthless) == Admission::kCompletes && let_in < 1000) {
    ++let_in;
  }
  EXPECT_LT(let_in, 200);
  EXPECT_EQ(budget.Admit(stream.now(), worthless), Admission::kSpent);
  EXPECT_NEAR(budget.saved_up(), -60.0 * kMiB, 1.5 * kMiB);
}

TEST(WriteBudgetTest, ABudgetBelowABlockADayLetsOneInAfterTheOther) {
  WriteBudget budget({.bytes_per_day = kMiB / 2});
  int let_in = 0;
  for (int minute = 0; minute < 20 * 24 * 60; ++minute) {
    let_in += IsLetIn(budget.Admit(absl::Minutes(minute), Block(0.5))) ? 1 : 0;
  }
  EXPECT_GE(let_in, 9);
  EXPECT_LE(let_in, 11);
}

TEST(WriteBudgetTest, ExtremesStayWithinBounds) {
  WriteBudget tiny({.bytes_per_day = 1});
  WriteBudget huge({.bytes_per_day = UINT64_MAX});
  for (const absl::Duration now : {absl::ZeroDuration(), absl::Hours(1e9), absl::Seconds(5),
                                   -absl::Hours(1e9), absl::InfiniteDuration(), absl::Seconds(1)}) {
    for (const double chance :
         {0.0, 1.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
          std::numeric_limits<double>::infinity(), std::numeric_limits<double>::denorm_min()}) {
      EXPECT_TRUE(IsLetIn(huge.Admit(now, Block(chance))));
      static_cast<void>(tiny.Admit(now, Block(chance, UINT64_MAX)));
      static_cast<void>(tiny.Admit(now, Block(chance, 0)));
      EXPECT_TRUE(std::isfinite(tiny.saved_up()));
      EXPECT_TRUE(std::isfinite(tiny.price()));
      EXPECT_TRUE(std::isfinite(huge.saved_up()));
    }
  }
}

TEST(WriteBudgetTest, TimeThatGoesBackStandsStill) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  budget.Charge(absl::Hours(1), 0);
  const double saved = budget.saved_up();
  budget.Charge(absl::Minutes(1), 0);
  budget.Charge(absl::Hours(1), 0);
  EXPECT_EQ(budget.saved_up(), saved);
}

TEST(WriteBudgetTest, ThePriceFollowsWhatIsOffered) {
  WriteBudget budget({.bytes_per_day = kOneASecond});
  Stream stream(budget);
  stream.Run(absl::Hours(1), 10);
  const double dear = budget.price();
  stream.Run(absl::Hours(1), 2);
  EXPECT_LT(budget.price(), dear);
  EXPECT_GT(budget.price(), 0);
  stream.Run(absl::Hours(1), 0.5);
  EXPECT_EQ(budget.price(), 0);
}

}  // namespace
}  // namespace terrace
