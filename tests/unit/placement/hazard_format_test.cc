#include "tiers/placement/hazard_format.h"

#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/hazard_lesson.h"
#include "tiers/placement/hazard_model.h"
#include "tiers/placement/phl_features.h"

namespace terrace {
namespace {

HazardState SmallState() {
  HazardState state;
  state.instances = 7;
  state.uses = 2;
  state.lived_s = 300;
  state.gain = -1.5;
  state.gain_squares = 4;
  state.rows.resize(2);
  for (uint16_t i = 0; i < 2; ++i) {
    state.rows[i].number = static_cast<uint16_t>(258 + i);
    state.rows[i].squares.fill(1);
    state.rows[i].weights.fill(0.5F);
  }
  return state;
}

// Puts a number over what is there.
template <typename Word>
std::string With(std::string bytes, size_t at, Word word) {
  for (size_t i = 0; i < sizeof(Word); ++i) {
    bytes[at + i] = static_cast<char>(static_cast<unsigned char>(word >> (8 * i)));
  }
  return bytes;
}
std::string WithFloat(std::string bytes, size_t at, float value) {
  return With(std::move(bytes), at, std::bit_cast<uint32_t>(value));
}

TEST(HazardFormat, KeepsItsBytes) {
  const std::string bytes = EncodeHazardState(SmallState());
  ASSERT_EQ(bytes.size(), 52U + 2 * 194);
  const std::string head(
      "\1\0\0\0\4\0\0\0\7\0\0\0\0\0\0\0"
      "\0\0\0\0\0\0\0\x40\0\0\0\0\0\xc0\x72\x40"
      "\0\0\0\0\0\0\xf8\xbf\0\0\0\0\0\0\x10\x40"
      "\2\0\0\0\2\1\0\0\0\x3f",
      58);
  EXPECT_EQ(kFeatureVersion, 4U) << "the bytes above begin with it";
  EXPECT_EQ(bytes.substr(0, head.size()), head);
  EXPECT_EQ(bytes.substr(52 + 2 + 96, 4), std::string("\0\0\x80\x3f", 4));
}

TEST(HazardFormat, ComesBackAsItWas) {
  const absl::StatusOr<HazardState> state = DecodeHazardState(EncodeHazardState(SmallState()));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->instances, 7U);
  EXPECT_EQ(state->gain, -1.5);
  ASSERT_EQ(state->rows.size(), 2U);
  EXPECT_EQ(state->rows[1].number, 259);
  EXPECT_EQ(state->rows[1].weights[23], 0.5F);
}

TEST(HazardFormat, RefusesEveryOtherLength) {
  const std::string bytes = EncodeHazardState(SmallState());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(DecodeHazardState(bytes.substr(0, length)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
  EXPECT_FALSE(DecodeHazardState(bytes + "x").ok());
}

TEST(HazardFormat, RefusesOtherVersionsAndFeatures) {
  const std::string bytes = EncodeHazardState(SmallState());
  EXPECT_FALSE(DecodeHazardState(With(bytes, 0, uint32_t{2})).ok());
  EXPECT_FALSE(DecodeHazardState(With(bytes, 4, kFeatureVersion + 1)).ok());
}

TEST(HazardFormat, RefusesNumbersThatNoModelLearns) {
  const std::string bytes = EncodeHazardState(SmallState());
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {infinity, -infinity, nan, 1e9F}) {
    EXPECT_FALSE(DecodeHazardState(WithFloat(bytes, 54, bad)).ok()) << bad;
  }
  for (const float bad : {infinity, nan, 0.0F, -1.0F}) {
    EXPECT_FALSE(DecodeHazardState(WithFloat(bytes, 54 + 96, bad)).ok()) << bad;
  }
  for (const size_t figure : {16U, 24U, 32U, 40U}) {
    for (const double bad : {std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN(), 1e300}) {
      EXPECT_FALSE(DecodeHazardState(With(bytes, figure, std::bit_cast<uint64_t>(bad))).ok())
          << figure;
    }
  }
  HazardState boastful = SmallState();
  boastful.gain_squares = 100;
  boastful.gain = 9'000;
  EXPECT_TRUE(DecodeHazardState(EncodeHazardState(boastful)).ok());
  boastful.gain = 11'000;  // would let PHL rule whatever its forecasts are worth
  EXPECT_FALSE(DecodeHazardState(EncodeHazardState(boastful)).ok());
  EXPECT_FALSE(DecodeHazardState(With(bytes, 52, uint16_t{0xFFFF})).ok()) << "no such row";
  EXPECT_FALSE(DecodeHazardState(With(bytes, 52, uint16_t{259})).ok()) << "the same row twice";
}

HazardOutcome OutcomeOf(uint16_t row, bool used) {
  HazardOutcome outcome;
  outcome.rows[0] = row;
  outcome.rows[1] = 3;
  outcome.rows_used = 2;
  outcome.end = 12;
  outcome.used = used;
  return outcome;
}

TEST(HazardLesson, WhatIsLearntCountsWhenTheLessonEnds) {
  HazardModel pricing;
  HazardLesson lesson(pricing);
  const std::vector<HazardModel::Row> rows = {5, 3};
  const float before = pricing.Hazard(rows, 12);
  for (int round = 0; round < 50; ++round) {
    std::vector<HazardOutcome> seen(20, OutcomeOf(5, true));
    lesson.Begin(seen, 1);
    EXPECT_TRUE(seen.empty());
    const float meanwhile = pricing.Hazard(rows, 12);
    lesson.Study();
    EXPECT_EQ(pricing.Hazard(rows, 12), meanwhile);
    lesson.End(pricing);
  }
  EXPECT_GT(pricing.Hazard(rows, 12), 3 * before);
  // Both tables know the same: a lesson about something else takes nothing back.
  const float known = pricing.Hazard(rows, 12);
  std::vector<HazardOutcome> other(1, OutcomeOf(9, false));
  other[0].rows[1] = 8;
  lesson.Begin(other, 1);
  lesson.Study();
  lesson.End(pricing);
  EXPECT_EQ(pricing.Hazard(rows, 12), known);
}

TEST(HazardLesson, GoesOnFromWhatWasSaved) {
  HazardModel pricing;
  HazardLesson lesson(pricing);
  std::vector<HazardOutcome> seen(500, OutcomeOf(5, true));
  lesson.Begin(seen, 123);
  lesson.Study();
  const std::string saved = lesson.Save();
  lesson.End(pricing);

  HazardModel later_pricing;
  HazardLesson later(later_pricing);
  std::vector<HazardOutcome> none;
  later.Begin(none, 0);
  ASSERT_TRUE(later.Load(saved).ok());
  later.Study();
  EXPECT_EQ(later.Save(), saved);
  EXPECT_EQ(later.End(later_pricing), 123U);
  const std::vector<HazardModel::Row> rows = {5, 3};
  EXPECT_EQ(later_pricing.Hazard(rows, 12), pricing.Hazard(rows, 12));
  EXPECT_EQ(later_pricing.skill(), pricing.skill());
}

TEST(HazardLesson, LoadsInALaterLessonToo) {
  HazardModel pricing;
  HazardLesson lesson(pricing);
  std::vector<HazardOutcome> seen(500, OutcomeOf(5, true));
  lesson.Begin(seen, 123);
  lesson.Study();
  const std::string saved = lesson.Save();
  lesson.End(pricing);
  seen.assign(500, OutcomeOf(5, false));
  lesson.Begin(seen, 200);
  lesson.Study();
  lesson.End(pricing);

  lesson.Begin(seen, 300);
  ASSERT_TRUE(lesson.Load(saved).ok());
  lesson.Study();
  lesson.End(pricing);
  lesson.Begin(seen, 300);
  lesson.Study();
  EXPECT_EQ(lesson.Save().substr(16), saved.substr(16)) << "all but the count of instances";
}

TEST(HazardLesson, WhatCannotBeLoadedChangesNothing) {
  HazardModel pricing;
  HazardLesson lesson(pricing);
  const std::string before = lesson.Save();
  EXPECT_EQ(lesson.Load("garbage").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(lesson.Save(), before);
}

TEST(CheckLearnt, KnowsWhatAPolicyCouldLoad) {
  EXPECT_TRUE(CheckLearnt("phl", EncodeHazardState(SmallState())).ok());
  EXPECT_EQ(CheckLearnt("phl", "").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckLearnt("lru", EncodeHazardState(SmallState())).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(PolicyLearns("phl"));
  EXPECT_FALSE(PolicyLearns("lru"));
  EXPECT_FALSE(PolicyLearns("mru"));
}

}  // namespace
}  // namespace terrace
