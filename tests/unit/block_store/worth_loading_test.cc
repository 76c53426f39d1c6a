// What a probe says of loading against computing: with a lower tier that is as slow as the test
// wants, on a clock that stands still.
#include "daemon/store/load_costs.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

constexpr uint32_t kBlockTokens = 16;

std::vector<uint64_t> Range(uint64_t begin, uint64_t end) {
  std::vector<uint64_t> keys;
  for (uint64_t key = begin; key < end; ++key) {
    keys.push_back(key);
  }
  return keys;
}

class WorthLoading : public StoreTest {
 protected:
  static constexpr uint64_t kMeasured = 1000;  // a key that is read to see how long reads take

  void SetUp() override { Make(BlockStoreOptions{}, true); }

  void Hold(const std::vector<uint64_t>& keys) {
    for (const uint64_t key : keys) {
      const std::string name = KeyOf(key);
      lower_.Hold({ns_, 1, "", name}, PayloadOf(key, kPayload));
    }
  }
  void Declare(std::optional<RecomputeModel> model) {
    store_->SetNamespaceRules({{"", "test/*", std::nullopt, model}});
  }
  void BeginRead(uint64_t key) {
    PrefetchCall call{{Part({key})}, Priority::kNormal, clock_.Now() + absl::Seconds(10), {}};
    store_->Prefetch(caller_, std::move(call), [](const auto&) {});
    executor_.RunAll();
  }
  // One block is read alone, and takes so long.
  void Measure(absl::Duration read, ReadOutcome outcome = ReadOutcome::kVerified) {
    Hold({kMeasured + measured_});
    BeginRead(kMeasured + measured_++);
    clock_.Advance(read);
    ASSERT_TRUE(lower_.EndOne(outcome));
    executor_.RunAll();
  }
  // An engine that finds nothing of these keys computes them and stores them `pieces` puts later.
  void Compute(const std::vector<uint64_t>& keys, absl::Duration took, size_t pieces = 1) {
    Probe({Part(keys)});
    clock_.Advance(took);
    const size_t step = keys.size() / pieces;
    for (size_t begin = 0; begin < keys.size(); begin += step) {
      PutCall put = InlinePut({keys.begin() + static_cast<ptrdiff_t>(begin),
                               keys.begin() + static_cast<ptrdiff_t>(begin + step)},
                              4096);
      put.part.first_token = begin * kBlockTokens;
      put.parent = begin == 0 ? "" : KeyOf(keys[begin - 1]);
      Put(std::move(put));
    }
  }
  std::string ExplainText(uint64_t key) { return store_->Explain("a", Part({key}))->text; }

  uint64_t measured_ = 0;
};

TEST_F(WorthLoading, WhereComputingIsNotKnownAllIs) {
  Hold(Range(1, 9));
  Measure(absl::Seconds(5));
  const ProbeResult probe = Probe({Part(Range(1, 9))});
  EXPECT_EQ(probe.recompute_time, absl::ZeroDuration());
  EXPECT_EQ(probe.worth_tokens, 128U);
  EXPECT_EQ(probe.load_time, absl::Seconds(40));
}

// 160 ms a block of 16 tokens, against 5 ms a token and 0.1 ms a squared one: 3 blocks are loaded
// in 0.48 s and computed in 0.4704 s, 4 in 0.64 s and 0.7296 s.
TEST_F(WorthLoading, ASlowTierIsNotRecommendedForShortPrefixes) {
  Declare(RecomputeModel{5e-3, 1e-4});
  Hold(Range(1, 9));
  Measure(absl::Milliseconds(160));
  const ProbeResult three = Probe({Part(Range(1, 4))});
  EXPECT_EQ(three.boundary_tokens, 48U);
  EXPECT_EQ(three.load_time, absl::Milliseconds(480));
  EXPECT_NEAR(absl::ToDoubleSeconds(three.recompute_time), 0.4704, 1e-6);
  EXPECT_EQ(three.worth_tokens, 0U);
  const ProbeResult four = Probe({Part(Range(1, 5))});
  EXPECT_NEAR(absl::ToDoubleSeconds(four.recompute_time), 0.7296, 1e-6);
  EXPECT_EQ(four.worth_tokens, 64U);
  const StoreUsage usage = store_->Usage();
  ASSERT_EQ(usage.costs.size(), 1U);
  EXPECT_EQ(usage.costs[0].name, "g3");
}

TEST_F(WorthLoading, AFastTierIsRecommendedFromTheFirstBlockOn) {
  Declare(RecomputeModel{5e-3, 1e-4});
  Hold(Range(1, 9));
  Measure(absl::Milliseconds(1));
  EXPECT_EQ(Probe({Part({1})}).worth_tokens, 16U);
  EXPECT_EQ(Probe({Part(Range(1, 9))}).worth_tokens, 128U);
}

// All of it is loaded in 0.64 s and computed in 0.96 s; but half of that is saved by what lies in
// DRAM alone, and the rest is computed faster than read.
TEST_F(WorthLoading, APrefixIsCutWhereItsRestIsComputedFasterThanRead) {
  Declare(RecomputeModel{7.5e-3, 0});
  PutKeys(Range(1, 5));
  Hold(Range(5, 9));
  Measure(absl::Milliseconds(160));
  const ProbeResult probe = Probe({Part(Range(1, 9))});
  EXPECT_EQ(probe.boundary_tokens, 128U);
  EXPECT_EQ(probe.load_time, absl::Milliseconds(640));
  EXPECT_NEAR(absl::ToDoubleSeconds(probe.recompute_time), 0.96, 1e-6);
  EXPECT_EQ(probe.worth_tokens, 64U);
}

TEST_F(WorthLoading, ASlowBlockInFrontIsWorthItForWhatLiesBehind) {
  Declare(RecomputeModel{7.5e-3, 0});
  PutKeys(Range(2, 9));
  Hold({1});
  Measure(absl::Milliseconds(160));
  EXPECT_EQ(Probe({Part(Range(1, 9))}).worth_tokens, 128U);
}

TEST_F(WorthLoading, WhatTheCallerHasAlreadyIsNotComputedAgain) {
  Declare(RecomputeModel{5e-3, 1e-4});
  Hold(Range(1, 4));
  Measure(absl::Milliseconds(160));
  StorePart part = Part(Range(1, 4));
  part.first_token = 1024;
  const ProbeResult probe = Probe({part});
  EXPECT_NEAR(absl::ToDoubleSeconds(probe.recompute_time), 48 * (5e-3 + 1e-4 * 2096), 1e-6);
  EXPECT_EQ(probe.worth_tokens, 1072U) << "so far behind, computing is dear";
}

// Rank 1 lacks block 3, so that the boundary and with it the advice end before.
TEST_F(WorthLoading, TheAdviceIsLegalForEveryPart) {
  Declare(RecomputeModel{7.5e-3, 0});
  PutKeys(Range(1, 5));
  NamespaceRecord record = RecordOf(1 << 20, 1, 2);
  const Digest128 other = Open(record);
  for (const uint64_t key : {1, 2}) {
    const std::string name = KeyOf(key);
    lower_.Hold({other, 1, "", name}, PayloadOf(key, kPayload));
  }
  Measure(absl::Milliseconds(1));
  StorePart second = Part(Range(1, 5));
  second.namespace_digest = other;
  const ProbeResult probe = Probe({Part(Range(1, 5)), second});
  EXPECT_EQ(probe.boundary_tokens, 32U);
  EXPECT_EQ(probe.worth_tokens, 32U);
  EXPECT_EQ(probe.hit_bytes, 4U * kPayload) << "of both, wherever they lie";
}

TEST_F(WorthLoading, WhatNoBoundaryNeedsDoesNotWeigh) {
  Declare(RecomputeModel{7.5e-3, 0});
  PutKeys(Range(1, 5));
  Hold(Range(50, 52));
  Measure(absl::Seconds(10));
  const ProbeResult probe = Probe({Part(Range(1, 5)), Part(Range(50, 52), Rule::kIndependent)});
  EXPECT_EQ(probe.load_time, absl::Seconds(20));
  EXPECT_EQ(probe.worth_tokens, 64U);
}

TEST_F(WorthLoading, WhatIsBeingReadAlreadyMakesALoadLonger) {
  Hold(Range(1, 5));
  Measure(absl::Milliseconds(10));
  EXPECT_EQ(Probe({Part({1})}).load_time, absl::Milliseconds(10));
  BeginRead(2);
  BeginRead(3);
  EXPECT_EQ(Probe({Part({1})}).load_time, absl::Milliseconds(30));
  EXPECT_EQ(Probe({Part({2})}).load_time, absl::Milliseconds(20)) << "it is on its way";
  while (lower_.EndOne()) {
    executor_.RunAll();
  }
  EXPECT_EQ(Probe({Part({1})}).load_time, absl::Milliseconds(10));
}

TEST_F(WorthLoading, AReadThatBroughtNothingSaysNothing) {
  Hold({1});
  Measure(absl::Seconds(9), ReadOutcome::kFault);
  EXPECT_EQ(Probe({Part({1})}).load_time, lower_.EstimateRead(kPayload))
      << "what the tier says of itself";
}

TEST_F(WorthLoading, WhatComputingTakesIsLearntFromProbesAndPuts) {
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(Probe({Part({1})}).recompute_time, absl::ZeroDuration());
    Compute(Range(100 * i, 100 * i + 16), absl::Milliseconds(256));
  }
  const ProbeResult probe = Probe({Part(Range(0, 8))});
  EXPECT_EQ(probe.recompute_time, absl::Milliseconds(128));
  EXPECT_EQ(store_->Usage().recompute_spans, 4U);
  Declare(RecomputeModel{2e-3, 0});
  EXPECT_EQ(Probe({Part(Range(0, 8))}).recompute_time, absl::Milliseconds(256))
      << "what is declared wins";
  Declare(std::nullopt);
  EXPECT_EQ(Probe({Part(Range(0, 8))}).recompute_time, absl::Milliseconds(128));
}

TEST_F(WorthLoading, WhatTheEngineSaysWinsOverWhatIsLearnt) {
  for (uint64_t i = 0; i < 4; ++i) {
    const std::vector<uint64_t> keys = Range(100 * i, 100 * i + 16);
    Probe({Part(keys)});
    clock_.Advance(absl::Milliseconds(512));
    PutCall put = InlinePut(keys, 4096);
    put.compute_time = absl::Milliseconds(128);
    Put(std::move(put));
  }
  EXPECT_EQ(Probe({Part(Range(0, 8))}).recompute_time, absl::Milliseconds(64));
  EXPECT_NE(ExplainText(2).find("about 8ms (as the engine says)."), std::string::npos)
      << ExplainText(2);
}

TEST_F(WorthLoading, PutsInPiecesEndTheSpanTogether) {
  for (uint64_t i = 0; i < 4; ++i) {
    Compute(Range(100 * i, 100 * i + 32), absl::Milliseconds(512), 8);
  }
  EXPECT_EQ(Probe({Part(Range(0, 16))}).recompute_time, absl::Milliseconds(256));
  EXPECT_EQ(store_->Usage().recompute_spans, 4U);
}

TEST_F(WorthLoading, WhatBeginsBehindAHitIsLearntAtItsPosition) {
  PutKeys(Range(0, 4), 4096);
  for (uint64_t i = 0; i < 4; ++i) {
    std::vector<uint64_t> keys = Range(0, 4);
    const std::vector<uint64_t> rest = Range(100 * i + 100, 100 * i + 116);
    keys.insert(keys.end(), rest.begin(), rest.end());
    Compute(keys, absl::Milliseconds(256));  // the put says all of them again
  }
  EXPECT_EQ(Probe({Part(Range(0, 4))}).recompute_time, absl::Milliseconds(64));
}

TEST_F(WorthLoading, PutsThatHoldMoreThanWasAskedForAreNotSamples) {
  for (uint64_t i = 0; i < 8; ++i) {
    Probe({Part(Range(100 * i, 100 * i + 16))});
    clock_.Advance(absl::Seconds(2));
    PutKeys(Range(100 * i, 100 * i + 20), 4096);  // four blocks of them were decoded
  }
  EXPECT_EQ(Probe({Part({1})}).recompute_time, absl::ZeroDuration());
  EXPECT_EQ(store_->Usage().recompute_spans, 0U);
  EXPECT_EQ(store_->Usage().recompute_spans_refused, 8U);
}

TEST_F(WorthLoading, ARepeatedProbeDoesNotShortenTheSpan) {
  for (uint64_t i = 0; i < 4; ++i) {
    const std::vector<uint64_t> keys = Range(100 * i, 100 * i + 16);
    Probe({Part(keys)});
    clock_.Advance(absl::Milliseconds(200));
    Compute(keys, absl::Milliseconds(56));  // probes once more
  }
  EXPECT_EQ(Probe({Part(Range(0, 8))}).recompute_time, absl::Milliseconds(128));
}

// Half of the time before the put went into reading the four blocks in front.
TEST_F(WorthLoading, TimesThatAreMostlyLoadingAreNotSamples) {
  Hold(Range(1, 5));
  Measure(absl::Milliseconds(32));
  for (uint64_t i = 0; i < 4; ++i) {
    std::vector<uint64_t> keys = Range(1, 5);
    const std::vector<uint64_t> rest = Range(100 * i + 100, 100 * i + 116);
    keys.insert(keys.end(), rest.begin(), rest.end());
    Probe({Part(keys)});
    clock_.Advance(absl::Milliseconds(256));
    PutCall put = InlinePut(rest, 4096);
    put.part.first_token = 64;
    put.parent = KeyOf(4);
    Put(std::move(put));
  }
  EXPECT_EQ(store_->Usage().recompute_spans, 0U);
  EXPECT_EQ(store_->Usage().recompute_spans_refused, 4U);
}

TEST_F(WorthLoading, ExplainSaysFromWhichPrefixOnATierPays) {
  Hold(Range(1, 9));
  Measure(absl::Milliseconds(160));
  EXPECT_NE(ExplainText(1).find("reads it in about 160ms. What it takes to compute is not known"),
            std::string::npos)
      << ExplainText(1);
  EXPECT_EQ(store_->Usage().costs[0].break_even_tokens, std::nullopt);
  Declare(RecomputeModel{5e-3, 1e-4});
  EXPECT_NE(ExplainText(1).find("faster than computing (declared) from 50 tokens of prefix on."),
            std::string::npos)
      << ExplainText(1);
  Declare(RecomputeModel{5e-3, 0});
  EXPECT_NE(ExplainText(1).find("Computing (declared) is always faster than loading from there."),
            std::string::npos)
      << ExplainText(1);
  EXPECT_TRUE(store_->Usage().costs[0].never_pays);
  PutKeys({20});
  EXPECT_NE(ExplainText(20).find("To compute it at token 0 takes about 80ms (declared)."),
            std::string::npos)
      << ExplainText(20);
}

TEST_F(WorthLoading, TheMetricIsTheBreakEvenOfBlocksOfFullSize) {
  Hold({1});
  Measure(absl::Milliseconds(160));
  Declare(RecomputeModel{5e-3, 1e-4});
  const StoreUsage usage = store_->Usage();
  const double scale = static_cast<double>(1 << 20) / kPayload;  // block_bytes of the namespace
  const uint64_t tokens = usage.costs[0].break_even_tokens.value_or(0);
  EXPECT_NEAR(static_cast<double>(tokens), (0.01 * scale - 5e-3) / 1e-4, 1);
  EXPECT_FALSE(usage.costs[0].never_pays);
}

TEST_F(WorthLoading, AProbeFetchesAheadWhatIsWorthItAndNoMore) {
  Hold(Range(1, 9));
  Measure(absl::Milliseconds(160));
  const auto ticket_of = [this] {
    ProbeCall call;
    call.parts = {Part(Range(1, 12))};
    call.prefetch = true;
    uint64_t ticket = 0;
    store_->Probe(caller_, std::move(call),
                  [&ticket](const ProbeResult& probe) { ticket = probe.ticket; });
    executor_.RunAll();
    return ticket;
  };
  Declare(RecomputeModel{1e-6, 0});
  EXPECT_EQ(ticket_of(), 0U) << "computing is faster";
  Declare(RecomputeModel{1, 0});
  const uint64_t ticket = ticket_of();
  ASSERT_NE(ticket, 0U);
  while (lower_.EndOne()) {
    executor_.RunAll();
  }
  std::optional<absl::StatusOr<TicketResult>> result;
  store_->WaitTicket(caller_, ticket, clock_.Now(), [&](auto r) { result = std::move(r); });
  EXPECT_EQ((*result)->keys_arrived, 8U);
}

class LoadCostsTest : public ::testing::Test {
 protected:
  // Four samples of the namespace, each a block that nobody else names.
  void Feed(uint64_t ns) {
    for (uint64_t i = 0; i < RecomputeCurve::kLeastSamples; ++i) {
      const uint64_t block = LoadCosts::NameOf({ns, 1}, "", KeyOf(++blocks_));
      costs_.NoteMiss({{ns, 1}, block, 0, 1024, absl::ZeroDuration()});
      clock_.Advance(absl::Milliseconds(100));
      costs_.NotePut({block, 0, block, 1024, clock_.Now()});
    }
  }
  [[nodiscard]] bool Knows(uint64_t ns) const { return costs_.CostOf({ns, 1}).known(); }

  doubles::ManualClock clock_;
  LoadCosts costs_{clock_, {}};
  uint64_t blocks_ = 0;
};

TEST_F(LoadCostsTest, TheNamespaceThatWasFedLongestAgoIsForgotten) {
  for (uint64_t ns = 1; ns <= LoadCosts::kMaxCurves; ++ns) {
    Feed(ns);
  }
  Feed(1);
  EXPECT_TRUE(Knows(2));
  Feed(5000);
  EXPECT_TRUE(Knows(5000));
  EXPECT_TRUE(Knows(1));
  EXPECT_FALSE(Knows(2));
}

TEST_F(LoadCostsTest, ASpanThatNobodyEndedIsForgotten) {
  const uint64_t block = LoadCosts::NameOf({1, 1}, "", KeyOf(1));
  costs_.NoteMiss({{1, 1}, block, 0, 1024, absl::ZeroDuration()});
  clock_.Advance(LoadCosts::kLongestSpan + absl::Seconds(1));
  costs_.NoteMiss({{1, 1}, block, 0, 1024, absl::ZeroDuration()});
  clock_.Advance(absl::Milliseconds(100));
  costs_.NotePut({block, 0, block, 1024, clock_.Now()});
  EXPECT_EQ(costs_.counts().taken, 1U);
}

TEST_F(LoadCostsTest, APutThatNoProbeMissedSaysNothing) {
  costs_.NotePut({7, 0, 7, 1024, clock_.Now()});
  costs_.NotePut({7, 9, 7, 1024, clock_.Now()});
  EXPECT_EQ(costs_.counts().taken + costs_.counts().refused, 0U);
}

}  // namespace
}  // namespace terrace::testing
