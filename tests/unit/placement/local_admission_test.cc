#include "tiers/placement/local_admission.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/seeded.h"
#include "tiers/placement/local_pool.h"
#include "tiers/placement/replay.h"

namespace terrace {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kOneASecond = 86'400 * kMiB;

LocalAdmission::Candidate CandidateOf(uint64_t name, bool used) {
  LocalAdmission::Candidate candidate;
  candidate.facts = {.name = name, .depth = 0, .used = used};
  candidate.seconds_saved = 1;
  candidate.bytes = kMiB;
  return candidate;
}

TEST(LocalAdmissionTest, WithoutALimitNothingIsJudged) {
  LocalAdmission admission({});
  EXPECT_FALSE(admission.limited());
  EXPECT_EQ(admission.horizon(), absl::InfiniteDuration());
  EXPECT_EQ(admission.Judge(absl::ZeroDuration(), CandidateOf(1, false)), Admission::kSlack);
}

TEST(LocalAdmissionTest, AForecastLooksAheadForAsLongAsTheTierKeepsWhatIsWritten) {
  const LocalAdmission admission(
      {.budget = {.bytes_per_day = 10 * kMiB}, .local_blocks = 20, .local_bytes = 20 * kMiB});
  EXPECT_NEAR(absl::ToDoubleHours(admission.horizon()), 48, 0.01);
}

TEST(LocalAdmissionTest, WhatHasComeBackOfItsKindGoesBeforeWhatHasNot) {
  LocalAdmission admission(
      {.budget = {.bytes_per_day = kOneASecond}, .local_blocks = 1000, .local_bytes = 1000 * kMiB});
  uint64_t let_in[2] = {0, 0};
  for (uint64_t i = 0; i < 8000; ++i) {
    const bool used = i % 2 == 0;
    const LocalAdmission::Candidate candidate = CandidateOf(i, used);
    let_in[used ? 1 : 0] +=
        IsLetIn(admission.Judge(absl::Milliseconds(500 * i), candidate)) ? 1 : 0;
    admission.Left(candidate.facts);
    if (used) {
      admission.Entered(i);
    }
  }
  EXPECT_GT(let_in[1], 3500U) << "all of the better half, but for the beginning";
  EXPECT_LT(let_in[0], 500U);
}

TEST(LocalAdmissionTest, TheForecastOfAPolicyStandsBeforeWhatWasCounted) {
  LocalAdmission admission(
      {.budget = {.bytes_per_day = kOneASecond}, .local_blocks = 1000, .local_bytes = 1000 * kMiB});
  uint64_t let_in = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    LocalAdmission::Candidate candidate = CandidateOf(i, false);
    candidate.forecast = i % 4 == 0 ? 0.9 : 0.01;
    const bool is_let_in = IsLetIn(admission.Judge(absl::Milliseconds(250 * i), candidate));
    let_in += is_let_in && i % 4 == 0 ? 1 : 0;
  }
  EXPECT_GT(let_in, 950U);
}

std::vector<uint64_t> ChainFrom(uint64_t first, uint64_t blocks) {
  std::vector<uint64_t> chain;
  for (uint64_t i = 0; i < blocks; ++i) {
    chain.push_back(first + i);
  }
  return chain;
}

// Chains of 20 blocks that come once, and a budget for half of them.
TEST(LocalAdmissionTest, WhatIsWrittenOfAChainHasNoHole) {
  LocalReplay local;
  local.contents = MakeLocalPool("lru", 100'000);
  local.rule = LocalRule::kPriced;
  local.blocks = 100'000;
  local.block_bytes = kMiB;
  local.budget = {.bytes_per_day = 10 * kOneASecond};
  const std::unique_ptr<PlacementReplay> replay =
      *PlacementReplay::CreateAnyOver("lru", {.capacity_blocks = 200}, std::move(local));
  constexpr uint64_t kChains = 2000;
  for (uint64_t chain = 0; chain < kChains; ++chain) {
    const std::vector<uint64_t> blocks = ChainFrom(chain * 100, 20);
    replay->Request({absl::Seconds(chain), blocks, {}});
  }
  uint64_t held = 0;
  uint64_t holes = 0;
  for (uint64_t chain = 0; chain + 20 < kChains; ++chain) {
    bool ended = false;
    for (const uint64_t block : ChainFrom(chain * 100, 20)) {
      const bool lies_there = replay->local()->Holds(block);
      held += lies_there ? 1 : 0;
      holes += ended && lies_there ? 1 : 0;
      ended = ended || !lies_there;
    }
  }
  EXPECT_NEAR(static_cast<double>(held), 10.0 * kChains, 0.07 * 10 * kChains);
  EXPECT_LT(holes, held / 100);
}

// Chains of one block and of ten by turns, none of which comes back, and a budget for half of them.
TEST(TwoTierReplayTest, WhatAUseSparesIsOfItsPlaceInTheChain) {
  const auto written = [](std::function<double(uint32_t)> seconds_saved) {
    LocalReplay local;
    local.contents = MakeLocalPool("lru", 100'000);
    local.rule = LocalRule::kPriced;
    local.blocks = 100'000;
    local.block_bytes = kMiB;
    local.budget = {.bytes_per_day = 3 * kOneASecond};
    local.seconds_saved = std::move(seconds_saved);
    const std::unique_ptr<PlacementReplay> replay =
        *PlacementReplay::CreateAnyOver("lru", {.capacity_blocks = 100}, std::move(local));
    uint64_t short_ones = 0;
    for (uint64_t at = 0; at < 2000; ++at) {
      replay->Request({absl::Seconds(at), ChainFrom(at * 100, at % 2 == 0 ? 1 : 10), {}});
    }
    for (uint64_t at = 0; at < 1900; at += 2) {
      short_ones += replay->local()->Holds(ChainFrom(at * 100, 1).front()) ? 1 : 0;
    }
    return short_ones;
  };
  EXPECT_GT(written([](uint32_t depth) { return depth > 0 ? 1e-6 : 1.0; }), 900U);
  EXPECT_LT(written([](uint32_t depth) { return depth > 0 ? 1.0 : 1e-6; }), 50U);
}

TEST(TwoTierReplayTest, TheOracleNeedsAFuture) {
  LocalReplay local;
  local.contents = MakeLocalPool("lru", 10);
  local.rule = LocalRule::kOracle;
  EXPECT_EQ(PlacementReplay::CreateAnyOver("lru", {.capacity_blocks = 5}, std::move(local))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PlacementReplay::CreateAnyOver("mru", {.capacity_blocks = 5}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(LocalPoolTest, GivesUpWhatWasUnusedLongest) {
  const std::unique_ptr<LocalContents> pool = MakeLocalPool("lru", 3);
  for (uint64_t name = 1; name <= 3; ++name) {
    pool->Append(name);
  }
  EXPECT_TRUE(pool->NoteUse(1));
  EXPECT_FALSE(pool->NoteUse(9));
  pool->Append(4);
  EXPECT_FALSE(pool->Holds(2));
  EXPECT_TRUE(pool->Holds(1));
  pool->NoteReads(std::vector<uint64_t>{1, 3});
  pool->Append(5);
  EXPECT_FALSE(pool->Holds(4));
  EXPECT_EQ(pool->counts().appended, 5U);
  EXPECT_EQ(pool->counts().dropped, 2U);
}

}  // namespace
}  // namespace terrace
