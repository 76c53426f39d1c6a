// Blocks on lower tiers: prefetch tickets, single flight, cancel, deadlines, faults of the tier.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

class PrefetchTest : public StoreTest {
 protected:
  void SetUp() override {
    Make(BlockStoreOptions{}, true);
    for (uint64_t key = 1; key <= 3; ++key) {
      const std::string name = KeyOf(key);
      lower_.Hold({ns_, 1, "", name}, PayloadOf(key, kPayload));
    }
  }
  PrefetchResult Start(const std::vector<uint64_t>& keys,
                       absl::Duration hold = absl::ZeroDuration()) {
    PrefetchCall call{{Part(keys)}, Priority::kNormal, clock_.Now() + absl::Seconds(10), hold};
    std::optional<absl::StatusOr<PrefetchResult>> result;
    store_->Prefetch(caller_, std::move(call),
                     [&](absl::StatusOr<PrefetchResult> r) { result = std::move(r); });
    executor_.RunAll();
    return **result;
  }
  TicketResult Look(uint64_t ticket) {
    std::optional<absl::StatusOr<TicketResult>> result;
    store_->WaitTicket(caller_, ticket, clock_.Now(),
                       [&](absl::StatusOr<TicketResult> r) { result = std::move(r); });
    return **result;
  }
  void EndAll(ReadOutcome outcome = ReadOutcome::kVerified) {
    while (lower_.EndOne(outcome)) {
      executor_.RunAll();
    }
  }
};

TEST_F(PrefetchTest, AProbeSaysWhatLowerTiersHold) {
  const ProbeResult probe = Probe({Part({1, 2, 9})});
  EXPECT_EQ(static_cast<uint8_t>(probe.states[0]),
            static_cast<uint8_t>(KeyState::kLower) | (1U << 4U));
  EXPECT_EQ(probe.boundary_tokens, 32U);
  EXPECT_GT(probe.load_time, absl::ZeroDuration());
}

TEST_F(PrefetchTest, ATicketTellsProgressAndResult) {
  const PrefetchResult started = Start({1, 2, 3});
  EXPECT_EQ(started.keys_moving, 3U);
  EXPECT_EQ(Look(started.ticket).state, TicketState::kRunning);
  ASSERT_TRUE(lower_.EndOne());
  executor_.RunAll();
  EXPECT_EQ(Look(started.ticket).keys_arrived, 1U);
  EXPECT_EQ(Look(started.ticket).bytes_arrived, kPayload);
  EndAll();
  EXPECT_EQ(Look(started.ticket).state, TicketState::kDone);
  EXPECT_EQ(Look(started.ticket).keys_arrived, 3U);
  EXPECT_EQ(Get(GetOf({1, 2, 3}, Delivery::kInline)).payload.size(), 3U * kPayload);
}

TEST_F(PrefetchTest, TwoTicketsForOneBlockAreOneRead) {
  const PrefetchResult first = Start({1});
  const PrefetchResult second = Start({1});
  EXPECT_EQ(lower_.begun(), 1U);
  EndAll();
  EXPECT_EQ(Look(first.ticket).state, TicketState::kDone);
  EXPECT_EQ(Look(second.ticket).state, TicketState::kDone);
}

TEST_F(PrefetchTest, AGetThatWaitsReadsItsMissingBlocksUp) {
  PutKeys({7});
  GetCall call = GetOf({7, 1, 2}, Delivery::kInline);
  call.wait_pending = true;
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
  executor_.RunAll();
  EXPECT_FALSE(get.has_value());
  EndAll();
  ASSERT_TRUE(get.has_value());
  EXPECT_TRUE((*get)->payload ==
              PayloadOf(7, kPayload) + PayloadOf(1, kPayload) + PayloadOf(2, kPayload));
}

TEST_F(PrefetchTest, WhatAGetWaitsForIsReadBeforeTheRestOfAPrefetch) {
  std::vector<uint64_t> keys;
  for (uint64_t key = 1; key <= 100; ++key) {
    lower_.Hold({ns_, 1, "", KeyOf(key)}, PayloadOf(key, kPayload));
    keys.push_back(key);
  }
  EXPECT_EQ(Start(keys).keys_moving, 100U);
  GetCall call = GetOf({100}, Delivery::kInline);
  call.wait_pending = true;
  std::optional<absl::StatusOr<GetResult>> result;
  store_->Get(caller_, std::move(call), [&](auto r) { result = std::move(r); });
  executor_.RunAll();
  constexpr int kReadsAtATime = 32;
  for (int i = 0; i < kReadsAtATime; ++i) {  // those that had begun
    ASSERT_TRUE(lower_.EndOne());
    executor_.RunAll();
  }
  EXPECT_FALSE(result.has_value());
  ASSERT_TRUE(lower_.EndOne());
  executor_.RunAll();
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE((*result)->payload == PayloadOf(100, kPayload));
  EndAll();
}

TEST_F(PrefetchTest, AFaultOfTheTierIsAMissAndLeavesNothingBehind) {
  for (const ReadOutcome outcome :
       {ReadOutcome::kCorrupt, ReadOutcome::kFault, ReadOutcome::kGone}) {
    const PrefetchResult started = Start({1});
    EndAll(outcome);
    EXPECT_EQ(Look(started.ticket).state, TicketState::kDone);
    EXPECT_EQ(Look(started.ticket).keys_failed, 1U);
    EXPECT_FALSE(Holds(1));
    EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
  }
  EXPECT_EQ(store_->Usage().counters.corrupt, 1U);
}

TEST_F(PrefetchTest, ACancelledTicketCancelsReadsThatNobodyElseWaitsFor) {
  const PrefetchResult mine = Start({1, 2});
  const PrefetchResult other = Start({2});
  bool found = false;
  store_->CancelTicket(caller_, mine.ticket, [&](bool f) { found = f; });
  executor_.RunAll();
  EXPECT_TRUE(found);
  EXPECT_EQ(Look(mine.ticket).state, TicketState::kCancelled);
  EXPECT_TRUE(lower_.OldestIsCancelled());
  EndAll();
  EXPECT_EQ(Look(other.ticket).keys_arrived, 1U);
  EXPECT_TRUE(Holds(2));
}

TEST_F(PrefetchTest, ATicketExpiresAtItsDeadlineAndKeepsWhatArrived) {
  const PrefetchResult started = Start({1, 2});
  ASSERT_TRUE(lower_.EndOne());
  executor_.RunAll();
  clock_.Advance(absl::Seconds(11));
  store_->Tick();
  EXPECT_EQ(Look(started.ticket).state, TicketState::kExpired);
  EXPECT_EQ(Look(started.ticket).keys_arrived, 1U);
  executor_.RunAll();
  EndAll();
  EXPECT_TRUE(Holds(1));
}

TEST_F(PrefetchTest, AWaiterIsAnsweredWhenTheTicketEnds) {
  const PrefetchResult started = Start({1});
  std::optional<TicketResult> result;
  store_->WaitTicket(caller_, started.ticket, clock_.Now() + absl::Seconds(5),
                     [&](const absl::StatusOr<TicketResult>& r) { result = *r; });
  EXPECT_FALSE(result.has_value());
  EndAll();
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->state, TicketState::kDone);
}

TEST_F(PrefetchTest, WhatArrivesUnderAHoldStays) {
  Start({1, 2}, absl::Seconds(30));
  EndAll();
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().blocks, 2U);
  EXPECT_EQ(store_->Usage().holds, 1U);
}

TEST_F(PrefetchTest, NothingToMoveIsNoTicket) {
  PutKeys({7});
  const PrefetchResult result = Start({7, 8, 9});
  EXPECT_EQ(result.ticket, 0U);
  EXPECT_EQ(result.keys_ready, 1U);
  EXPECT_EQ(result.keys_missing, 2U);
}

TEST_F(PrefetchTest, NothingToHoldIsNoHold) {
  const PrefetchResult result = Start({8, 9}, absl::Seconds(30));
  EXPECT_EQ(result.keys_missing, 2U);
  EXPECT_TRUE(result.hold_id.IsZero());
  EXPECT_EQ(store_->Usage().holds, 0U);
}

TEST_F(PrefetchTest, TicketsDoNotTellHowManyThereWere) {
  const uint64_t first = Start({1}).ticket;
  const uint64_t second = Start({2}).ticket;
  EXPECT_NE(second, first);
  EXPECT_NE(second, first + 1);
  EXPECT_LT(std::max(first, second), uint64_t{1} << 53);
  EndAll();
}

TEST_F(PrefetchTest, ATenantHasALimitedNumberOfTickets) {
  BlockStoreOptions options;
  options.max_tickets_per_tenant = 2;
  Make(options, true);
  for (uint64_t key = 1; key <= 3; ++key) {
    lower_.Hold({ns_, 1, "", KeyOf(key)}, PayloadOf(key, kPayload));
  }
  Start({1});
  Start({2});
  PrefetchCall third{{Part({3})}, Priority::kNormal, clock_.Now() + absl::Seconds(10), {}};
  std::optional<absl::StatusOr<PrefetchResult>> result;
  store_->Prefetch(caller_, third,
                   [&](absl::StatusOr<PrefetchResult> r) { result = std::move(r); });
  EXPECT_EQ(result->status().code(), absl::StatusCode::kResourceExhausted);
  EndAll();
  EXPECT_EQ(Start({3}).keys_moving, 1U) << "those that have ended do not count";
  EndAll();
}

TEST_F(PrefetchTest, TicketsAreTheTenantsOwn) {
  const PrefetchResult started = Start({1});
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  std::optional<absl::StatusOr<TicketResult>> result;
  store_->WaitTicket(other, started.ticket, clock_.Now(),
                     [&](absl::StatusOr<TicketResult> r) { result = std::move(r); });
  EXPECT_EQ(result->status().code(), absl::StatusCode::kNotFound);
  bool found = true;
  store_->CancelTicket(other, started.ticket, [&](bool f) { found = f; });
  EXPECT_FALSE(found);
  EndAll();
}

TEST_F(PrefetchTest, AGenerationRaisedDuringAReadMakesItAMiss) {
  const PrefetchResult started = Start({1});
  ASSERT_TRUE(Clear().ok());
  EndAll();
  EXPECT_EQ(Look(started.ticket).keys_failed, 1U);
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

}  // namespace
}  // namespace terrace::testing
