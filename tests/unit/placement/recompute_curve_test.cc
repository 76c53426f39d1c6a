// What is learnt of an engine's prefill, and what is not.
#include "tiers/placement/recompute_curve.h"

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

constexpr RecomputeModel kLlama{6.54e-5, 6.07e-10};
constexpr uint64_t kMax = UINT64_MAX;

absl::Duration TimeOf(const RecomputeModel& model, uint64_t from, uint64_t to) {
  return absl::Seconds(model.Seconds(from, to));
}

TEST(RecomputeModelTest, ASpanCostsWhatItsEndsDifferBy) {
  EXPECT_DOUBLE_EQ(kLlama.Seconds(0, 8192) + kLlama.Seconds(8192, 32768), kLlama.Seconds(0, 32768));
  EXPECT_DOUBLE_EQ(kLlama.Seconds(0, 1000), 6.54e-5 * 1000 + 6.07e-10 * 1e6);
  EXPECT_EQ(kLlama.Seconds(5, 5), 0);
  EXPECT_EQ(kLlama.Seconds(6, 5), 0);
  EXPECT_GT(kLlama.Seconds(0, kMax), 0) << "no overflow";
}

TEST(RecomputeModelTest, OnePointIsALineAndTwoAreAttentionAsWell) {
  const auto line = ModelThrough({{1000, absl::Milliseconds(250)}});
  ASSERT_TRUE(line.ok());
  EXPECT_DOUBLE_EQ(line->seconds_per_token, 250e-6);
  EXPECT_EQ(line->seconds_per_square, 0);
  const auto curve =
      ModelThrough({{131072, TimeOf(kLlama, 0, 131072)}, {8192, TimeOf(kLlama, 0, 8192)}});
  ASSERT_TRUE(curve.ok()) << curve.status();
  EXPECT_NEAR(curve->seconds_per_token, kLlama.seconds_per_token, 1e-10);
  EXPECT_NEAR(curve->seconds_per_square, kLlama.seconds_per_square, 1e-15);
  const auto straight =
      ModelThrough({{1000, absl::Milliseconds(100)}, {3000, absl::Milliseconds(300)}});
  ASSERT_TRUE(straight.ok()) << "a rounding must not refuse it: " << straight.status();
  EXPECT_NEAR(straight->Seconds(0, 2000), 0.2, 1e-9);
}

TEST(RecomputeModelTest, PointsThatNoModelPassesThroughAreRefused) {
  const auto refused = [](std::vector<PrefillTime> points) {
    return ModelThrough(points).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused(std::vector<PrefillTime>(3, {1000, absl::Seconds(1)})));
  EXPECT_TRUE(refused({{0, absl::Seconds(1)}}));
  EXPECT_TRUE(refused({{kMostPromptTokens + 1, absl::Seconds(1)}}));
  EXPECT_TRUE(refused({{1000, absl::ZeroDuration()}}));
  EXPECT_TRUE(refused({{1000, absl::Seconds(3601)}}));
  EXPECT_TRUE(refused({{1000, absl::Seconds(1)}, {1000, absl::Seconds(1)}}));
  EXPECT_TRUE(refused({{1000, absl::Seconds(1)}, {2000, absl::Seconds(1.5)}})) << "falls a token";
  EXPECT_TRUE(refused({{1000, absl::Seconds(1)}, {2000, absl::Seconds(5)}})) << "rises too fast";
}

TEST(RecomputeCurveTest, IsUnknownUntilFourSamplesOfLikePosition) {
  RecomputeCurve curve;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(curve.Learn(0, 1024, absl::Milliseconds(100)));
    EXPECT_TRUE(curve.Learn(0, 8192, absl::Milliseconds(800)));
    EXPECT_FALSE(curve.Model().has_value());
  }
  EXPECT_TRUE(curve.Learn(0, 1024, absl::Milliseconds(100)));
  ASSERT_TRUE(curve.Model().has_value());
  EXPECT_NEAR(curve.Model()->Seconds(0, 2048), 0.2, 1e-9);
  EXPECT_EQ(curve.samples(), 7U);
}

TEST(RecomputeCurveTest, FindsBothTermsOfAnEngineThatIsNeverDisturbed) {
  RecomputeCurve curve;
  for (uint64_t tokens = 512; tokens <= 65536; tokens *= 2) {
    for (uint64_t first = 0; first < 4; ++first) {
      ASSERT_TRUE(curve.Learn(first * tokens / 16, tokens,
                              TimeOf(kLlama, first * tokens / 16, first * tokens / 16 + tokens)));
    }
  }
  ASSERT_TRUE(curve.Model().has_value());
  EXPECT_NEAR(curve.Model()->seconds_per_token, kLlama.seconds_per_token, 1e-9);
  EXPECT_NEAR(curve.Model()->seconds_per_square, kLlama.seconds_per_square, 1e-14);
}

// Two of three requests wait for up to as long again as they take thrice.
TEST(RecomputeCurveTest, QueuesAndDecodingDoNotMakeTheEngineSlower) {
  doubles::Seeded random(11);
  RecomputeCurve curve;
  for (int i = 0; i < 400; ++i) {
    const uint64_t tokens = uint64_t{512} << random.Below(8);
    const double wait = random.Below(3) == 0 ? 0.0 : static_cast<double>(random.Below(300)) / 100;
    ASSERT_TRUE(curve.Learn(0, tokens, TimeOf(kLlama, 0, tokens) * (1 + wait)));
  }
  ASSERT_TRUE(curve.Model().has_value());
  for (const uint64_t tokens : {4096, 32768, 65536}) {
    const double truth = kLlama.Seconds(0, tokens);
    EXPECT_GT(curve.Model()->Seconds(0, tokens), 0.6 * truth) << tokens;
    EXPECT_LT(curve.Model()->Seconds(0, tokens), 2.0 * truth) << tokens;
  }
}

TEST(RecomputeCurveTest, AbsurdSamplesAreRefused) {
  RecomputeCurve curve;
  EXPECT_FALSE(curve.Learn(0, RecomputeCurve::kLeastTokens - 1, absl::Seconds(1)));
  EXPECT_FALSE(curve.Learn(0, 1024, absl::ZeroDuration()));
  EXPECT_FALSE(curve.Learn(0, 1024, absl::Seconds(-1)));
  EXPECT_FALSE(curve.Learn(0, 1024, absl::Nanoseconds(1000))) << "below a nanosecond a token";
  EXPECT_FALSE(curve.Learn(0, 256, absl::Seconds(257))) << "above a second a token";
  EXPECT_FALSE(curve.Learn(0, 1024, absl::Seconds(601)));
  EXPECT_FALSE(curve.Learn(0, 1024, absl::InfiniteDuration()));
  EXPECT_FALSE(curve.Learn(kMax, 1024, absl::Seconds(1)));
  EXPECT_FALSE(curve.Learn(0, kMax, absl::Seconds(1)));
  EXPECT_EQ(curve.samples(), 0U);
  EXPECT_TRUE(curve.Learn(kMostPromptTokens, 1024, absl::Seconds(1)));
}

TEST(RecomputeCurveTest, AnEngineThatBecameSlowerIsLearntAnew) {
  RecomputeCurve curve;
  for (int i = 0; i < 100; ++i) {
    curve.Learn(0, 1024, absl::Milliseconds(100));
  }
  for (size_t i = 0; i < RecomputeCurve::kKeptSamples; ++i) {
    curve.Learn(0, 1024, absl::Milliseconds(300));
  }
  EXPECT_NEAR(curve.Model()->Seconds(0, 1024), 0.3, 1e-9);
}

// A line that falls, or begins below 0, is what noise makes of a model that has one term.
TEST(RecomputeCurveTest, NeitherTermIsEverNegative) {
  RecomputeCurve falling;
  RecomputeCurve steep;
  for (int i = 0; i < 4; ++i) {
    falling.Learn(0, 1024, absl::Milliseconds(1024));
    falling.Learn(0, 8192, absl::Milliseconds(4096));
    steep.Learn(0, 1024, absl::Milliseconds(100));
    steep.Learn(0, 8192, absl::Milliseconds(8192));
  }
  EXPECT_EQ(falling.Model()->seconds_per_square, 0);
  EXPECT_NEAR(falling.Model()->seconds_per_token, 0.75e-3, 1e-9) << "the mean of both";
  EXPECT_EQ(steep.Model()->seconds_per_token, 0);
  EXPECT_GT(steep.Model()->seconds_per_square, 0);
}

}  // namespace
}  // namespace terrace
