// Conversations that come back: what left DRAM of a chain is read again shortly before the time
// that its engine told, with a lower tier whose reads end when the test says so.
#include "daemon/store/expected_returns.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

using Keys = std::vector<uint64_t>;

class Returns : public StoreTest {
 protected:
  static constexpr absl::Duration kAway = absl::Seconds(20);

  void SetUp() override { Make(BlockStoreOptions{}, true); }

  // Stores the keys behind `parent` (0: they begin the chain), on the lower tier too, and tells
  // that somebody comes back for them.
  void Turn(uint64_t parent, const Keys& keys, absl::Duration away) {
    for (const uint64_t key : keys) {
      const std::string name = KeyOf(key);
      lower_.Hold({ns_, 1, "", name}, PayloadOf(key, kPayload));
    }
    Put(TurnOf(parent, keys, away));
  }
  PutCall TurnOf(uint64_t parent, const Keys& keys, absl::Duration away) const {
    PutCall put = InlinePut(keys);
    put.parent = parent == 0 ? "" : KeyOf(parent);
    put.part.first_token = parent * 16;  // keys are numbered from 1 on
    put.hints.expected_return = away;
    return put;
  }
  void EvictAll() { ASSERT_TRUE(Evict("a", 0).ok()); }
  void Pass(absl::Duration time) {
    clock_.Advance(time);
    store_->Tick();
    executor_.RunAll();
  }
  void EndReads() {
    while (lower_.EndOne()) {
      executor_.RunAll();
    }
  }
  uint64_t Ended(ReturnEnd end) {
    return store_->Usage().counters.returns[static_cast<size_t>(end)];
  }
  StoreCounters Counters() { return store_->Usage().counters; }
};

TEST_F(Returns, WhatLeftDramIsReadAgainShortlyBefore) {
  Turn(0, {1, 2, 3}, kAway);
  EvictAll();
  Pass(kAway - absl::Seconds(6));
  EXPECT_EQ(lower_.begun(), 0U) << "a quarter of the time is the lead";
  Pass(absl::Seconds(1));
  EXPECT_EQ(lower_.begun(), 3U);
  EndReads();
  EXPECT_EQ(Ended(ReturnEnd::kFetched), 1U);
  EXPECT_EQ(Counters().return_bytes, 3U * kPayload);
  EXPECT_EQ(Counters().return_bytes_used, 0U);
  const GetResult got = Get(GetOf({1, 2, 3}, Delivery::kInline));
  EXPECT_EQ(got.payload, PayloadOf(1, kPayload) + PayloadOf(2, kPayload) + PayloadOf(3, kPayload));
  EXPECT_EQ(Counters().return_bytes_used, 3U * kPayload);
  EXPECT_EQ(lower_.begun(), 3U);
}

TEST_F(Returns, WhatIsStillInDramIsNotRead) {
  Turn(0, {1, 2, 3}, kAway);
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
  EXPECT_EQ(Ended(ReturnEnd::kResident), 1U);
}

TEST_F(Returns, WhatNobodyUsesIsCountedAsWasted) {
  Turn(0, {1, 2}, kAway);
  EvictAll();
  Pass(kAway);
  EndReads();
  EvictAll();
  EXPECT_EQ(Counters().return_bytes, 2U * kPayload);
  EXPECT_EQ(Counters().return_bytes_used, 0U);
  EXPECT_EQ(Counters().return_bytes_wasted, 2U * kPayload);
}

TEST_F(Returns, AGetThatComesMeanwhileJoinsTheReads) {
  Turn(0, {1, 2}, kAway);
  EvictAll();
  Pass(kAway);
  GetCall call = GetOf({1, 2}, Delivery::kInline);
  call.wait_pending = true;
  std::optional<absl::StatusOr<GetResult>> got;
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> r) { got = std::move(r); });
  executor_.RunAll();
  EndReads();
  ASSERT_TRUE(got.has_value() && got->ok());
  EXPECT_EQ((*got)->payload, PayloadOf(1, kPayload) + PayloadOf(2, kPayload));
  EXPECT_EQ(lower_.begun(), 2U);
  EXPECT_EQ(Counters().return_bytes_used, 2U * kPayload);
  EXPECT_EQ(Counters().return_bytes_wasted, 0U);
}

TEST_F(Returns, AChainThatGrowsIsExpectedAsAWhole) {
  Turn(0, {1, 2}, kAway);
  Pass(absl::Seconds(1));
  Turn(2, {3}, kAway);
  EXPECT_EQ(Ended(ReturnEnd::kOvertaken), 1U);
  EvictAll();
  Pass(kAway - absl::Seconds(1));
  EXPECT_EQ(lower_.begun(), 3U);
  EndReads();
  EXPECT_EQ(Ended(ReturnEnd::kFetched), 1U);
}

TEST_F(Returns, AConversationThatEndsIsNotExpected) {
  Turn(0, {1, 2}, kAway);
  PutCall last = TurnOf(2, {3}, kAway);
  last.hints.session_end = true;
  Put(std::move(last));
  EXPECT_EQ(Ended(ReturnEnd::kOvertaken), 1U);
  EvictAll();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
}

TEST_F(Returns, AChainWhoseBeginningHasGoneIsNotExpected) {
  Turn(0, {1, 2}, absl::ZeroDuration());
  EvictAll();
  Turn(2, {3}, kAway);
  EvictAll();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
}

// Without them nothing could be told from the reads of those who wait.
TEST_F(Returns, ABusyTierIsLeftAloneAndLateReturnsAreDropped) {
  Turn(0, {1, 2}, kAway);
  Keys others;
  for (uint64_t key = 100; key < 140; ++key) {
    others.push_back(key);
    const std::string name = KeyOf(key);
    lower_.Hold({ns_, 1, "", name}, PayloadOf(key, kPayload));
  }
  EvictAll();
  store_->Prefetch(caller_, {{Part(others)}, Priority::kNormal, clock_.Now() + kAway * 10, {}},
                   [](const auto&) {});
  executor_.RunAll();
  const size_t before = lower_.begun();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), before);
  EXPECT_EQ(Ended(ReturnEnd::kLate), 0U);
  Pass(absl::Seconds(6));
  EXPECT_EQ(Ended(ReturnEnd::kLate), 1U);
  EndReads();
  Pass(absl::Seconds(1));
  EXPECT_EQ(lower_.begun(), others.size());
}

TEST_F(Returns, AReturnThatNeedsMuchOfDramIsLeftToTheGet) {
  BlockStoreOptions options;
  options.dram_bytes = uint64_t{64} << 20;
  Make(options, true);
  Keys keys;
  for (uint64_t key = 1; key <= 300; ++key) {
    keys.push_back(key);
  }
  Turn(0, keys, kAway);
  EvictAll();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
  EXPECT_EQ(Ended(ReturnEnd::kRefused), 1U);
}

TEST_F(Returns, WhatIsComputedFasterIsNotRead) {
  store_->SetNamespaceRules({{"", "test/*", std::nullopt, RecomputeModel{1e-9, 0}}});
  Turn(0, {1, 2}, kAway);
  EvictAll();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
  EXPECT_EQ(Ended(ReturnEnd::kResident), 1U);
}

TEST_F(Returns, WhatWasClearedMeanwhileIsNotRead) {
  Turn(0, {1, 2}, kAway);
  ASSERT_TRUE(Clear().ok());
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
}

TEST_F(Returns, AReturnIsNoUseOfItsOwn) {
  Turn(0, {1, 2}, kAway);
  EvictAll();
  const StoreCounters before = Counters();
  Pass(kAway);
  EndReads();
  EXPECT_EQ(Counters().probe_keys, before.probe_keys);
  EXPECT_EQ(Counters().probe_hits, before.probe_hits);
}

TEST_F(Returns, NothingIsReadWhereThatIsSwitchedOff) {
  BlockStoreOptions options;
  options.fetch_returns = false;
  Make(options, true);
  Turn(0, {1, 2}, kAway);
  EvictAll();
  Pass(kAway);
  EXPECT_EQ(lower_.begun(), 0U);
}

// ---------------------------------------------------------------- the table

StorePart ChainOf(size_t keys) {
  StorePart part;
  part.keys.assign(keys * part.key_bytes, 'k');
  return part;
}

TEST(ExpectedReturns, AreTakenInTheOrderInWhichTheyAreDue) {
  ExpectedReturns returns;
  const TenantId tenant{1};
  ASSERT_TRUE(returns.Expect(1, tenant, ChainOf(1), absl::ZeroDuration(), absl::Seconds(40)));
  ASSERT_TRUE(returns.Expect(2, tenant, ChainOf(2), absl::ZeroDuration(), absl::Seconds(4)));
  EXPECT_FALSE(returns.TakeDue(absl::Milliseconds(2999)).has_value());
  const auto first = returns.TakeDue(absl::Seconds(50));
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->chain.key_count(), 2U);
  EXPECT_EQ(first->at, absl::Seconds(4));
  EXPECT_EQ(first->lead, absl::Seconds(1));
  const auto second = returns.TakeDue(absl::Seconds(50));
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->chain.key_count(), 1U);
  EXPECT_EQ(second->lead, absl::Seconds(10));
  EXPECT_FALSE(returns.TakeDue(absl::Seconds(50)).has_value());
  EXPECT_EQ(returns.bytes(), 0U);
}

TEST(ExpectedReturns, AreForgottenReplacedAndDroppedWhenLate) {
  ExpectedReturns returns;
  const TenantId tenant{1};
  ASSERT_TRUE(returns.Expect(1, tenant, ChainOf(1), absl::ZeroDuration(), absl::Seconds(4)));
  ASSERT_TRUE(returns.Expect(1, tenant, ChainOf(3), absl::ZeroDuration(), absl::Seconds(8)));
  EXPECT_EQ(returns.size(), 1U);
  EXPECT_EQ(returns.DropLate(absl::Seconds(10)), 0U);
  EXPECT_EQ(returns.DropLate(absl::Milliseconds(10'001)), 1U);
  ASSERT_TRUE(returns.Expect(2, tenant, ChainOf(1), absl::ZeroDuration(), absl::Seconds(4)));
  EXPECT_FALSE(returns.Forget(1));
  EXPECT_TRUE(returns.Forget(2));
  EXPECT_TRUE(returns.empty());
  EXPECT_EQ(returns.bytes(), 0U);
}

// However many are expected, a look costs little; the nearest are never passed over for long.
TEST(ExpectedReturns, ManyThatAreNotDueYetKeepNoneFromItsTime) {
  ExpectedReturns returns;
  const TenantId tenant{1};
  // Due a second before their time, and behind them one that would be due ten before.
  for (uint64_t name = 1; name <= 1000; ++name) {
    ASSERT_TRUE(returns.Expect(name, tenant, ChainOf(1), absl::Seconds(91), absl::Seconds(4)));
  }
  ASSERT_TRUE(returns.Expect(2000, tenant, ChainOf(2), absl::ZeroDuration(), absl::Seconds(100)));
  EXPECT_FALSE(returns.TakeDue(absl::Seconds(93)).has_value());
  size_t taken = 0;
  while (const auto due = returns.TakeDue(absl::Seconds(94))) {
    taken += due->chain.key_count();
  }
  EXPECT_EQ(taken, 1002U);
  EXPECT_TRUE(returns.empty());
}

TEST(ExpectedReturns, AreNotDueSoEarlyThatTheyWouldBeEvictedAgain) {
  ExpectedReturns returns;
  const TenantId tenant{1};
  ASSERT_TRUE(returns.Expect(1, tenant, ChainOf(1), absl::ZeroDuration(), absl::Seconds(40)));
  returns.NoteEvicted(absl::Seconds(8));
  EXPECT_FALSE(returns.TakeDue(absl::Milliseconds(37'999)).has_value());
  EXPECT_TRUE(returns.TakeDue(absl::Seconds(38)).has_value());
  // The average follows, and there is a least.
  ASSERT_TRUE(returns.Expect(1, tenant, ChainOf(1), absl::ZeroDuration(), absl::Seconds(40)));
  for (int i = 0; i < 2000; ++i) {
    returns.NoteEvicted(absl::ZeroDuration());
  }
  EXPECT_FALSE(returns.TakeDue(absl::Milliseconds(39'799)).has_value());
  EXPECT_TRUE(returns.TakeDue(absl::Milliseconds(39'800)).has_value());
}

TEST(ExpectedReturns, OneTenantDoesNotTakeTheRoomOfOthers) {
  ExpectedReturns returns;
  const size_t keys = (uint64_t{1} << 20) / 32;
  uint64_t name = 0;
  for (uint32_t tenant = 0; tenant < 3; ++tenant) {
    uint32_t taken = 0;
    while (returns.Expect(++name, TenantId{tenant}, ChainOf(keys), absl::ZeroDuration(),
                          absl::Seconds(4))) {
      ++taken;
    }
    EXPECT_EQ(taken, 3U);  // of 4 MiB, and each takes a little more than 1
  }
}

TEST(ExpectedReturns, AllTogetherAreBounded) {
  ExpectedReturns returns;
  uint64_t name = 0;
  for (uint32_t tenant = 0; tenant < 100; ++tenant) {
    for (int i = 0; i < 4; ++i) {
      returns.Expect(++name, TenantId{tenant}, ChainOf(30'000), absl::ZeroDuration(),
                     absl::Seconds(4));
    }
  }
  EXPECT_LE(returns.bytes(), ExpectedReturns::kAllBytes);
  EXPECT_GT(returns.bytes(), ExpectedReturns::kAllBytes / 2);
}

}  // namespace
}  // namespace terrace::testing
