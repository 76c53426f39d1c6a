#include "tiers/placement/hazard_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace terrace {
namespace {

using Rows = std::vector<HazardModel::Row>;

TEST(HazardModel, BucketsAreHalfOctavesFromAQuarterOfASecond) {
  EXPECT_EQ(HazardModel::BucketBegin(0), 0);
  EXPECT_EQ(HazardModel::BucketBegin(1), 0.25);
  EXPECT_EQ(HazardModel::BucketBegin(3), 0.5);
  EXPECT_EQ(HazardModel::BucketBegin(21), 256);
  for (uint32_t b = 0; b < HazardModel::kBuckets; ++b) {
    EXPECT_EQ(HazardModel::BucketOf(HazardModel::BucketBegin(b)), b);
    EXPECT_EQ(HazardModel::BucketOf(HazardModel::BucketBegin(b + 1) * 0.9999), b == 0 ? 0 : b);
  }
  EXPECT_EQ(HazardModel::BucketOf(1e12), HazardModel::kBuckets - 1);
}

TEST(HazardModel, KnowsTenPercentAnOctaveAtFirst) {
  const HazardModel model;
  const Rows rows = {1, 2, 3};
  for (uint32_t b = 0; b < HazardModel::kBuckets; ++b) {
    EXPECT_NEAR(1 - std::pow(1 - model.Hazard(rows, b), 2), 0.1, 1e-3);
  }
}

TEST(HazardModel, AChanceIsThatOfEachOctaveOnTheWay) {
  const HazardModel model;
  const Rows rows = {1, 2, 3};
  EXPECT_NEAR(model.ChanceOfUse(rows, 64, 64), 0.1, 1e-3);
  EXPECT_NEAR(model.ChanceOfUse(rows, 64, 64 * 3), 1 - 0.9 * 0.9, 1e-3);
  EXPECT_NEAR(model.ChanceOfUse(rows, 1024, 1024), 0.1, 1e-3) << "at any age";
  EXPECT_EQ(model.ChanceOfUse(rows, 64, 0), 0);
  double before = 0;
  for (double within_s = 0; within_s < 1e7; within_s = within_s * 1.3 + 0.1) {
    const double chance = model.ChanceOfUse(rows, 3, within_s);
    EXPECT_GE(chance, before);
    before = chance;
  }
  for (const double extreme : {0.0, 1e9, 1e300, std::numeric_limits<double>::infinity()}) {
    const double chance = model.ChanceOfUse(rows, extreme, extreme);
    EXPECT_TRUE(chance >= 0 && chance <= 1) << extreme << ": " << chance;
  }
}

TEST(HazardModel, RanksByRecencyWhenNothingIsKnown) {
  const HazardModel model;
  HazardModel::Worth worth;
  model.Price(Rows{7}, {}, worth);
  // The first bucket is longer than the second, and so worth less at its beginning.
  for (uint32_t b = 1; b + 1 < HazardModel::kBuckets; ++b) {
    EXPECT_GT(worth[b], worth[b + 1]) << b;
  }
}

TEST(HazardModel, LearnsThatAFeatureIsNeverUsedAgain) {
  HazardModel model;
  const Rows dead = {10};
  const Rows other = {11};
  for (int i = 0; i < 2'000; ++i) {
    model.Survived(dead, 0, 20, 1);
  }
  for (uint32_t b = 0; b < 20; ++b) {
    EXPECT_LT(model.Hazard(dead, b), 0.01F);
    EXPECT_NEAR(model.Hazard(other, b), 0.0513F, 1e-3F);
  }
  HazardModel::Worth of_dead;
  HazardModel::Worth of_other;
  model.Price(dead, {}, of_dead);
  model.Price(other, {}, of_other);
  EXPECT_LT(of_dead[0], of_other[0]);
}

TEST(HazardModel, WorthRisesTowardsTheAgeOfUse) {
  HazardModel model;
  const Rows punctual = {5};
  for (int i = 0; i < 3'000; ++i) {
    model.Used(punctual, 0, 20, 1);
  }
  EXPECT_GT(model.Hazard(punctual, 20), 0.7F);
  EXPECT_LT(model.Hazard(punctual, 10), 0.05F);
  HazardModel::Worth worth;
  model.Price(punctual, {}, worth);
  EXPECT_LT(worth[16], worth[18]);
  EXPECT_LT(worth[18], worth[20]);
  EXPECT_GT(worth[20], worth[24]);
}

TEST(HazardModel, WeightMakesLearningFaster) {
  HazardModel heavy;
  HazardModel light;
  const Rows rows = {5};
  heavy.Survived(rows, 4, 5, 4);
  light.Survived(rows, 4, 5, 0.25F);
  EXPECT_LT(heavy.Hazard(rows, 4), light.Hazard(rows, 4));
}

// The index by its definition: over all times to give up at.
TEST(HazardModel, WorthIsTheBestRatioOfUseToTimeHeld) {
  HazardModel model;
  const Rows rows = {5, 6};
  for (int i = 0; i < 400; ++i) {
    model.Used(rows, 0, static_cast<uint32_t>(i * 7 % 40), 1);
    model.Survived(Rows{6}, 0, 30, 1);
  }
  HazardModel::Worth worth;
  model.Price(rows, {}, worth);
  for (uint32_t from = 0; from < HazardModel::kBuckets; ++from) {
    double best = 0;
    double used = 0;
    double held = 0;
    double alive = 1;
    for (uint32_t b = from; b < HazardModel::kBuckets && alive > 1e-3; ++b) {
      const double hazard = model.Hazard(rows, b);
      used += alive * hazard;
      held += alive * (1 - hazard / 2) *
              (HazardModel::BucketBegin(b + 1) - HazardModel::BucketBegin(b));
      alive *= 1 - hazard;
      best = std::max(best, used / held);
    }
    EXPECT_NEAR(worth[from] / best, 1, 1e-3) << from;
  }
}

TEST(HazardModel, WorthIsTheSameWhateverElseIsAskedFor) {
  HazardModel model;
  const Rows rows = {5, 6};
  for (int i = 0; i < 400; ++i) {
    model.Used(rows, 0, static_cast<uint32_t>(i * 7 % 40), 1);
    model.Survived(Rows{6}, 0, 30, 1);
  }
  HazardModel::Worth all;
  model.Price(rows, {}, all);
  for (uint32_t first = 0; first < HazardModel::kBuckets; ++first) {
    const uint32_t rest = std::min(first + first % 5, HazardModel::kBuckets - 1);
    const uint32_t end = std::min(rest + 3, HazardModel::kBuckets);
    HazardModel::Worth some;
    model.Price(rows, {first, rest, end}, some);
    EXPECT_NEAR(some[first] / all[first], 1, 1e-6) << first;
    for (uint32_t b = rest; b < end; ++b) {
      EXPECT_NEAR(some[b] / all[b], 1, 1e-6) << first << ", " << b;
    }
  }
}

TEST(HazardModel, IsNeverWorthLessThanAtLeast) {
  std::mt19937_64 random(3);
  const auto below = [&random](uint32_t end) { return static_cast<uint32_t>(random() % end); };
  HazardModel model;
  double tightest = 0;
  for (int step = 0; step < 2'000; ++step) {
    Rows rows;
    for (uint32_t i = 0; i < 1 + below(4); ++i) {
      rows.push_back(static_cast<HazardModel::Row>(below(20)));
    }
    const uint32_t bucket = below(HazardModel::kBuckets);
    below(3) == 0 ? model.Survived(rows, 0, bucket + 1, 1) : model.Used(rows, 0, bucket, 1);
    const uint32_t first = below(HazardModel::kBuckets);
    const auto rest = std::min(first + below(9), HazardModel::kBuckets - 1);
    const auto end = std::min(rest + 1 + below(9), HazardModel::kBuckets);
    HazardModel::Worth worth;
    HazardModel::Worth least;
    model.Price(rows, {first, rest, end}, worth);
    model.PriceAtLeast(rows, {first, rest, end}, least);
    for (uint32_t b = first; b < end; b = std::max(b + 1, rest)) {
      ASSERT_GT(least[b], 0);
      ASSERT_LE(least[b], worth[b] * (1 + 1e-5)) << step << ": " << first << ", " << b;
      tightest = std::max<double>(tightest, least[b] / worth[b]);
    }
  }
  EXPECT_GT(tightest, 0.999);
}

TEST(HazardModel, IsWorthNoMoreThanAtLeastWhereItIsUsedEverMoreRarely) {
  const HazardModel model;
  HazardModel::Worth worth;
  HazardModel::Worth least;
  model.Price(Rows{7}, {1, 2}, worth);
  model.PriceAtLeast(Rows{7}, {1, 2}, least);
  for (uint32_t b = 1; b < HazardModel::kBuckets; ++b) {
    EXPECT_NEAR(least[b] / worth[b], 1, 1e-5) << b;
  }
}

TEST(HazardModel, StaysFiniteWhatEverItIsTold) {
  HazardModel model;
  const Rows rows = {1, 2, 3, 4, 5, 6, 7, 8};
  for (int i = 0; i < 20'000; ++i) {
    model.Used(rows, 0, HazardModel::kBuckets - 1, 4);
    model.Used(rows, 0, 0, 4);
  }
  HazardModel::Worth worth;
  model.Price(rows, {}, worth);
  for (const float each : worth) {
    EXPECT_TRUE(std::isfinite(each));
    EXPECT_GT(each, 0);
  }
}

TEST(HazardModel, HasSkillWhereFeaturesTellWhenAUseComes) {
  HazardModel model;
  const std::array<HazardModel::Row, 1> soon = {HazardModel::RowOf(1, 1)};
  const std::array<HazardModel::Row, 1> late = {HazardModel::RowOf(1, 2)};
  for (int i = 0; i < 2'000; ++i) {
    model.Used(soon, 0, 8, 1);
    model.Used(late, 0, 20, 1);
  }
  EXPECT_GT(model.skill(), 5);
}

TEST(HazardModel, HasNoSkillWhereNothingTells) {
  HazardModel model;
  uint64_t state = 1;
  const auto random = [&state] {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return state >> 33U;
  };
  for (int i = 0; i < 5'000; ++i) {
    const std::array<HazardModel::Row, 2> rows = {HazardModel::RowOf(1, random() % 8),
                                                  HazardModel::RowOf(2, random() % 8)};
    // A constant rate: each tick of 4 s it is used with a chance of 1 in 16.
    double age_s = 2;
    while (random() % 16 != 0) {
      age_s += 4;
    }
    model.Used(rows, 0, HazardModel::BucketOf(age_s), 1);
  }
  EXPECT_LT(model.skill(), -2);
}

}  // namespace
}  // namespace terrace
