#include "tiers/placement/reuse_record.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

TEST(ReuseRecordTest, NothingKnownIsOneInTen) {
  const ReuseRecord record(1000);
  EXPECT_DOUBLE_EQ(record.ChanceOf({.name = 1}), 0.1);
  EXPECT_DOUBLE_EQ(record.ChanceOf({.name = 2, .depth = 500, .used = true}), 0.1);
}

TEST(ReuseRecordTest, WhatCameBackOfItsKindCounts) {
  ReuseRecord record(1000);
  for (uint64_t name = 0; name < 600; ++name) {
    const bool used = name % 2 == 0;
    record.Left({.name = name, .depth = 3, .used = used});
    if (used && name % 4 == 0) {
      record.Entered(name);
    }
  }
  EXPECT_NEAR(record.ChanceOf({.name = 10'000, .depth = 3, .used = true}), 0.5, 0.05);
  EXPECT_LT(record.ChanceOf({.name = 10'000, .depth = 3, .used = false}), 0.02);
  EXPECT_DOUBLE_EQ(record.ChanceOf({.name = 10'000, .depth = 300, .used = true}), 0.1)
      << "another kind";
}

TEST(ReuseRecordTest, ABlockComesBackOnceForEachTimeItLeft) {
  ReuseRecord record(1000);
  record.Entered(7);
  EXPECT_EQ(record.Returns(7), 0U) << "it had never left";
  record.Left({.name = 7});
  record.Entered(7);
  record.Entered(7);
  EXPECT_EQ(record.Returns(7), 1U);
  for (int i = 0; i < 10; ++i) {
    record.Left({.name = 7});
    record.Entered(7);
  }
  EXPECT_EQ(record.Returns(7), 3U) << "counted up to a few";
}

TEST(ReuseRecordTest, WhatStaysAwayForLongHasNotComeBack) {
  ReuseRecord record(1000);
  record.Left({.name = 7});
  record.Entered(7);
  for (uint64_t name = 100; name < 100'000; ++name) {
    record.Left({.name = name});
  }
  EXPECT_EQ(record.Returns(7), 0U);
}

TEST(ReuseRecordTest, NewHabitsShow) {
  ReuseRecord record(100'000);
  const auto live = [&record](uint64_t first, bool back) {
    for (uint64_t name = first; name < first + 20'000; ++name) {
      record.Left({.name = name});
      if (back) {
        record.Entered(name);
      }
    }
  };
  live(0, true);
  EXPECT_GT(record.ChanceOf({.name = UINT64_MAX}), 0.9);
  live(1'000'000, false);
  EXPECT_LT(record.ChanceOf({.name = UINT64_MAX}), 0.05);
}

TEST(ReuseRecordTest, ChancesAreChancesWhateverHappens) {
  ReuseRecord record(0);
  doubles::Seeded seeded(5);
  for (int i = 0; i < 200'000; ++i) {
    const ReuseRecord::Facts facts{.name = seeded.Below(3000),
                                   .depth = static_cast<uint32_t>(seeded.Below(UINT32_MAX)),
                                   .used = seeded.Below(2) == 1};
    seeded.Below(2) == 1 ? record.Left(facts) : record.Entered(facts.name);
    ASSERT_GE(record.ChanceOf(facts), 0);
    ASSERT_LE(record.ChanceOf(facts), 1);
  }
  EXPECT_EQ(record.memory_bytes(), 4096U);
  EXPECT_LE(ReuseRecord(UINT64_MAX).memory_bytes(), uint64_t{16} << 20);
}

}  // namespace
}  // namespace terrace
