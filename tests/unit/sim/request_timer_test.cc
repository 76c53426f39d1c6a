#include "tools/sim/request_timer.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

#include "tiers/placement/local_pool.h"

namespace terrace::sim {
namespace {

constexpr uint64_t kTokens = 512;

// Blocks of a tenth of a second from the local tier, and of a hundredth from DRAM; a token takes a
// millisecond to compute.
TimingOptions Options() {
  TimingOptions options;
  options.speeds = {TierSpeed{10e9, {}}, TierSpeed{1e9, {}}, TierSpeed{1e8, {}}};
  options.recompute = {1e-3, 0};
  options.block_tokens = kTokens;
  options.block_bytes = 100'000'000;
  return options;
}

enum class Chains { kOne, kManyUnlike };

// Requests at so many seconds, of four blocks each: the first, or all, of 0 to 3.
PreparedTrace TraceAt(const std::vector<double>& seconds, Chains chains = Chains::kOne) {
  RequestTrace trace;
  for (const double at : seconds) {
    TraceRequest request;
    request.timestamp_ms = at * 1000;
    request.input_tokens = 4 * kTokens;
    const uint64_t first = chains == Chains::kOne ? 0 : 4 * trace.requests.size();
    request.block_ids = {first, first + 1, first + 2, first + 3};
    trace.requests.push_back(request);
  }
  return Prepare(trace, kTokens);
}

// Blocks 0 and 1 lie in the local tier, and block 2 in the pool alone.
class RequestTimerTest : public testing::Test {
 protected:
  RequestTimerTest()
      : tiers_(MakeLocalPool("lru", 2), MakeLocalPool("lru", 4), [](uint64_t /*name*/) {}) {
    for (const uint64_t name : {2, 0, 1}) {
      tiers_.NoteUse(name);
      tiers_.Append(name);
    }
  }

  // A request for all four blocks, of which so many of the first lie in DRAM and three somewhere.
  // Returns its hits.
  static uint64_t Ask(RequestTimer& timer,
                      const PreparedTrace& trace,
                      size_t request,
                      uint64_t in_dram) {
    const PreparedTrace::Request& asked = trace.requests[request];
    timer.Begin(asked.now);
    std::vector<BlockId> resident(3, kNoBlock);
    std::fill_n(resident.begin(), in_dram, BlockId{7});
    const uint64_t hits = timer.Reach(trace.Chain(asked).first(3), resident);
    timer.Finish(asked, hits, 4);
    return hits;
  }

  TimedCounts AskOnce(const TimingOptions& options, uint64_t in_dram) {
    const PreparedTrace trace = TraceAt({1});
    RequestTimer timer(options, trace);
    timer.PutOver(&tiers_);
    hits_ = Ask(timer, trace, 0, in_dram);
    return timer.End();
  }

  LowerTiers tiers_;
  uint64_t hits_ = 0;
};

TEST_F(RequestTimerTest, ARequestWaitsForItsLoadsAndComputesTheRest) {
  TimingOptions options = Options();
  options.load = LoadRule::kAlways;
  const TimedCounts counts = AskOnce(options, 1);
  EXPECT_EQ(hits_, 3U);
  EXPECT_EQ(counts.hit_blocks, (std::array<uint64_t, kPlaces>{1, 1, 1}));
  ASSERT_EQ(counts.first_token_seconds.size(), 1U);
  EXPECT_NEAR(counts.waited_seconds, 1.01, 1e-9) << "the pool, and once more from DRAM";
  EXPECT_NEAR(counts.first_token_seconds[0], 1.01 + 0.512, 1e-9);
  EXPECT_NEAR(counts.prefill_seconds, 2.048, 1e-9);
  EXPECT_NEAR(counts.saved_seconds, 1.536, 1e-9);
  EXPECT_EQ(counts.below_waits, 1U);
  EXPECT_EQ(counts.slower, 0U);
  EXPECT_EQ(counts.read_bytes[0], 300'000'000U);
  EXPECT_EQ(counts.read_bytes[1], 100'000'000U);
  EXPECT_EQ(counts.read_bytes[2], 100'000'000U);
}

TEST_F(RequestTimerTest, WhatIsComputedFasterIsNotLoaded) {
  const TimedCounts counts = AskOnce(Options(), 0);
  EXPECT_EQ(hits_, 2U) << "of the pool a block takes a second, and half of one to compute";
  EXPECT_NEAR(counts.waited_seconds, 0.21, 1e-9);
  EXPECT_NEAR(counts.first_token_seconds[0], 0.21 + 1.024, 1e-9);
  TimingOptions slow = Options();
  slow.speeds[1].bytes_per_second = 1e8;
  AskOnce(slow, 1);
  EXPECT_EQ(hits_, 1U);
  AskOnce(slow, 0);
  EXPECT_EQ(hits_, 0U);
}

TEST_F(RequestTimerTest, NothingIsLoadedFromBelowWhereThatIsTheRule) {
  TimingOptions options = Options();
  options.load = LoadRule::kNever;
  const TimedCounts counts = AskOnce(options, 1);
  EXPECT_EQ(hits_, 1U);
  EXPECT_EQ(counts.below_waits, 0U);
  EXPECT_EQ(counts.read_bytes[1], 0U);
  AskOnce(options, 0);
  EXPECT_EQ(hits_, 0U);
}

TEST_F(RequestTimerTest, LoadsThatTakeLongerThanComputingAreCounted) {
  TimingOptions options = Options();
  options.load = LoadRule::kAlways;
  options.speeds[2].bytes_per_second = 1e7;
  EXPECT_EQ(AskOnce(options, 0).slower, 1U);
}

TEST_F(RequestTimerTest, WhatIsReadAheadIsNotWaitedFor) {
  TimingOptions options = Options();
  options.load = LoadRule::kAlways;
  options.lead = absl::Seconds(2);
  EXPECT_EQ(AskOnce(options, 0).below_waits, 1U) << "nothing is read before it is needed";
  options.prefetch = PrefetchRule::kProbe;
  const TimedCounts counts = AskOnce(options, 0);
  EXPECT_EQ(counts.below_waits, 0U);
  EXPECT_NEAR(counts.waited_seconds, 0.03, 1e-9) << "all from DRAM";
  EXPECT_EQ(counts.ahead_bytes, 300'000'000U);
  EXPECT_EQ(counts.wasted_bytes, 0U);
  options.lead = absl::Milliseconds(500);
  const TimedCounts late = AskOnce(options, 0);
  EXPECT_EQ(late.below_waits, 1U);
  EXPECT_NEAR(late.waited_seconds, 0.51, 1e-9) << "the rest of what was begun";
}

TEST_F(RequestTimerTest, TwoRequestsShareARead) {
  TimingOptions options = Options();
  options.load = LoadRule::kAlways;
  const PreparedTrace trace = TraceAt({1, 1.5});
  RequestTimer timer(options, trace);
  timer.PutOver(&tiers_);
  Ask(timer, trace, 0, 0);
  EXPECT_EQ(Ask(timer, trace, 1, 3), 3U) << "in DRAM, or on its way there";
  const TimedCounts counts = timer.End();
  EXPECT_EQ(counts.read_bytes[2], 100'000'000U);
  EXPECT_EQ(counts.below_waits, 2U);
  EXPECT_GT(counts.waited_seconds, 1.01 + 0.5);
}

TEST_F(RequestTimerTest, WhatIsOnItsWayIsWaitedForOnlyWhereThatIsFaster) {
  const PreparedTrace trace = TraceAt({1, 1.001});
  TimingOptions options = Options();
  options.recompute = {1e-2, 0};
  RequestTimer timer(options, trace);
  timer.PutOver(&tiers_);
  EXPECT_EQ(Ask(timer, trace, 0, 0), 3U);
  EXPECT_EQ(Ask(timer, trace, 1, 3), 3U);
  TimingOptions quick = Options();
  quick.recompute = {1e-4, 0};
  quick.load = LoadRule::kWorth;
  RequestTimer other(quick, trace);
  other.PutOver(&tiers_);
  EXPECT_EQ(Ask(other, trace, 0, 0), 0U);
  EXPECT_EQ(Ask(other, trace, 1, 3), 3U) << "nothing is on its way";
}

TEST_F(RequestTimerTest, ProbesThatNothingFollowsReadInVain) {
  TimingOptions options = Options();
  options.load = LoadRule::kAlways;
  options.prefetch = PrefetchRule::kProbe;
  options.stray_percent = 100;
  const PreparedTrace trace = TraceAt({1, 100, 200, 300, 400, 500}, Chains::kManyUnlike);
  const auto run = [&](uint64_t seed) {
    options.seed = seed;
    RequestTimer timer(options, trace);
    timer.PutOver(&tiers_);
    for (size_t i = 0; i < trace.requests.size(); ++i) {
      Ask(timer, trace, i, i == 0 ? 0 : 3);
      for (const uint64_t name : trace.Chain(trace.requests[i])) {
        timer.Left(name);
      }
    }
    return timer.End();
  };
  const TimedCounts counts = run(1);
  EXPECT_GT(counts.wasted_bytes, 0U);
  EXPECT_LT(counts.wasted_bytes, counts.ahead_bytes);
  EXPECT_EQ(counts.first_token_seconds.size(), 6U);
  EXPECT_EQ(run(1).wasted_bytes, counts.wasted_bytes);
}

}  // namespace
}  // namespace terrace::sim
