// A pool that is slow, sick or away; and what is deleted or cleared on one of several nodes.
#include <numeric>

#include "tests/unit/block_store/shared_room.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace {
namespace {

using doubles::LevelAt;
using doubles::LocalRoom;
using doubles::OutcomeAt;
using doubles::ReasonAt;
using doubles::SharedPoolDouble;
using testing::SharedNode;

constexpr uint32_t kSmall = 10000;

std::vector<uint64_t> Keys(uint64_t first, uint64_t count) {
  std::vector<uint64_t> keys(count);
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

// Full of blocks that lie on the local tier as well, so that only the pool can hold an eviction up.
void Fill(SharedNode& node) {
  for (uint64_t key = 10000; node.room.counters().evictions == 0; ++key) {
    ASSERT_EQ(OutcomeAt(node.room.Put({key}, Level::kLocalWritten), 0), PutOutcome::kStored);
  }
}

// ---------------------------------------------------------------- slow and sick

TEST(SharedFaultsTest, ASlowPoolDelaysAPutByTheConfiguredTimeAndNoMore) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnEviction);
  Fill(a);
  pool.HoldPublishes(true);
  uint64_t waits = 0;
  for (uint64_t key = 0; waits == 0 && key < 100; ++key) {
    const auto answer = a.room.StartPut({key});
    a.room.RunAll();
    if (!answer->has_value()) {
      ++waits;
      a.room.Tick(absl::Milliseconds(50));
      a.room.RunAll();
      EXPECT_FALSE(answer->has_value());
      a.room.Tick(absl::Milliseconds(60));
      a.room.RunAll();
      ASSERT_TRUE(answer->has_value());
      EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kStored);
    }
  }
  EXPECT_EQ(waits, 1U);
  while (pool.EndOne()) {
  }
  a.room.Settle();
  EXPECT_GT(a.drops(PublishDrop::kEvicted), 0U);
}

TEST(SharedFaultsTest, APoolThatDoesNotCopyKeepsAnEighthOfDramAtMost) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.HoldPublishes(true);
  for (uint64_t key = 0; key < 30; ++key) {
    a.room.Put({key});
  }
  a.room.Settle();
  EXPECT_GT(pool.publishes_held(), 4U);
  EXPECT_LE(pool.publishes_held(), LocalRoom::kDram / 8 / LocalRoom::kPayload + 1);
  EXPECT_LE(a.room.Evict(0).used_bytes, LocalRoom::kDram / 8 + (uint64_t{2} << 20))
      << "only what is being copied stays";
  while (pool.EndOne()) {
  }
}

TEST(SharedFaultsTest, APoolThatStallsIsNotWaitedForAnyMore) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnEviction);
  Fill(a);
  pool.HoldPublishes(true);
  std::vector<LocalRoom::PutAnswer> answers;
  for (uint64_t key = 1000; pool.publishes_held() == 0 && key < 1100; ++key) {
    answers.push_back(a.room.StartPut({key}));
    a.room.RunAll();
  }
  ASSERT_GT(pool.publishes_held(), 0U);
  a.room.Tick(absl::Milliseconds(1100));
  a.room.RunAll();
  for (uint64_t key = 1; key < 60; ++key) {
    const auto answer = a.room.StartPut({key});
    a.room.RunAll();
    ASSERT_TRUE(answer->has_value()) << key;
    EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kStored);
  }
  EXPECT_GT(a.drops(PublishDrop::kBusy), 0U)
      << a.usage().queued << " wait, " << pool.publishes_held() << " held, evicted "
      << a.drops(PublishDrop::kEvicted) << ", all " << a.room.counters().evictions;
}

TEST(SharedFaultsTest, APoolThatIsAwayDelaysNothing) {
  for (const PoolState state :
       {PoolState::kOpening, PoolState::kSuspended, PoolState::kForeign, PoolState::kClosed}) {
    SharedPoolDouble pool;
    SharedNode a(pool);
    a.Open(PublishWhen::kOnEviction);
    Fill(a);
    pool.SetState(state);
    a.room.Tick(absl::Milliseconds(60));
    for (uint64_t key = 0; key < 60; ++key) {
      const auto answer = a.room.StartPut({key});
      a.room.RunAll();
      ASSERT_TRUE(answer->has_value());
    }
    EXPECT_GT(a.drops(PublishDrop::kSuspended), 0U);
  }
}

TEST(SharedFaultsTest, APutThatWaitsForAPoolThatIsAwayIsToldSoAndWrittenLocally) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.SetState(PoolState::kSuspended);
  a.room.Tick(absl::Milliseconds(60));
  const PutResult result = a.room.Put({1}, Level::kPool);
  EXPECT_EQ(OutcomeAt(result, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(result, 0), Level::kLocalSynced);
  EXPECT_EQ(ReasonAt(result, 0), Reason::kTierFault);
  EXPECT_GT(a.drops(PublishDrop::kSuspended), 0U);
  EXPECT_EQ(a.room.Get(1), GetOutcome::kOk);
  pool.SetState(PoolState::kOnline);
  a.room.Tick(absl::Milliseconds(60));
  EXPECT_EQ(LevelAt(a.room.Put({1}, Level::kPool), 0), Level::kPool);
}

TEST(SharedFaultsTest, APutMayWaitForAPoolThatIsStillOpening) {
  SharedPoolDouble pool;
  pool.SetState(PoolState::kOpening);
  SharedNode a(pool);
  a.Open();
  const auto answer = a.room.StartPut({1}, Level::kPool);
  a.room.Settle();
  EXPECT_FALSE(answer->has_value());
  pool.SetState(PoolState::kCatchingUp);
  a.room.Settle();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(LevelAt(***answer, 0), Level::kPool);
}

TEST(SharedFaultsTest, EveryRefusalIsCountedAndSaidToWhoWaits) {
  struct Case {
    WriteOutcome outcome;
    PublishDrop drop;
    Reason reason;
  };
  for (const Case& c : {Case{WriteOutcome::kFault, PublishDrop::kFault, Reason::kTierFault},
                        Case{WriteOutcome::kReadOnly, PublishDrop::kFault, Reason::kTierFault},
                        Case{WriteOutcome::kNoSpace, PublishDrop::kNoSpace, Reason::kNoSpace},
                        Case{WriteOutcome::kDeadline, PublishDrop::kDeadline, Reason::kDeadline},
                        Case{WriteOutcome::kDeleted, PublishDrop::kDeleted, Reason::kCancelled},
                        Case{WriteOutcome::kClosed, PublishDrop::kClosed, Reason::kDraining},
                        Case{WriteOutcome::kBusy, PublishDrop::kBusy, Reason::kBusy}}) {
    SharedPoolDouble pool;
    SharedNode a(pool);
    a.Open();
    pool.FailPublishes(c.outcome);
    const PutResult result = a.room.Put({1}, Level::kPool);
    EXPECT_EQ(LevelAt(result, 0), Level::kLocalSynced) << static_cast<int>(c.outcome);
    EXPECT_EQ(ReasonAt(result, 0), c.reason) << static_cast<int>(c.outcome);
    EXPECT_EQ(a.drops(c.drop), 1U) << static_cast<int>(c.outcome);
    pool.FailPublishes(std::nullopt);
    a.room.Tick(absl::Seconds(2));
    EXPECT_EQ(LevelAt(a.room.Put({1}, Level::kPool), 0), Level::kPool);
  }
}

TEST(SharedFaultsTest, ABusyPoolIsOfferedABlockAgainAFewTimes) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.FailPublishes(WriteOutcome::kBusy);
  a.room.Put({1});
  a.room.Settle();
  EXPECT_GE(pool.offered(), 2U);
  pool.FailPublishes(std::nullopt);
  a.room.Settle();
  EXPECT_EQ(pool.published(), 1U);
  pool.FailPublishes(WriteOutcome::kBusy);
  a.room.Put({2});
  for (int i = 0; i < 30; ++i) {
    a.room.Tick(absl::Milliseconds(110));
    a.room.RunAll();
  }
  EXPECT_EQ(a.drops(PublishDrop::kBusy), 1U);
}

TEST(SharedFaultsTest, ReadsThatHangInThePoolKeepNoReadOfTheLocalTierWaiting) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open(PublishWhen::kNever);
  b.room.Put({1000}, Level::kLocalWritten, kSmall);
  b.room.Evict(0);
  a.room.Put(Keys(0, 50), Level::kPool, kSmall);
  pool.HoldReads(true);
  std::optional<absl::StatusOr<GetResult>> hung;
  GetCall call;
  call.parts.push_back(b.room.Part(Keys(0, 50)));
  call.wait_pending = true;
  call.deadline = b.room.clock().Now() + absl::Seconds(20);
  b.room.store().Get(b.room.caller(), std::move(call), [&](auto r) { hung = std::move(r); });
  b.room.RunAll();
  EXPECT_EQ(pool.reads_held(), 32U);
  EXPECT_EQ(b.room.Get(1000, kSmall), GetOutcome::kOk);
  EXPECT_FALSE(hung.has_value());
  b.room.Tick(absl::Seconds(21));
  b.room.RunAll();
  ASSERT_TRUE(hung.has_value());
  EXPECT_EQ(static_cast<GetOutcome>((*hung)->outcomes[0]), GetOutcome::kDeadline);
  b.room.Settle();
  EXPECT_EQ(pool.reads_held(), 0U) << "nobody waits for them any more";
}

TEST(SharedFaultsTest, ReadsThatFailInThePoolAreMisses) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  a.room.Put({1, 2, 3}, Level::kPool);
  pool.HoldReads(true);
  const auto get = [&](uint64_t key, ReadOutcome outcome) {
    std::optional<absl::StatusOr<GetResult>> result;
    GetCall call;
    call.parts.push_back(b.room.Part({key}));
    call.wait_pending = true;
    call.deadline = b.room.clock().Now() + absl::Seconds(20);
    b.room.store().Get(b.room.caller(), std::move(call), [&](auto r) { result = std::move(r); });
    b.room.RunAll();
    EXPECT_TRUE(pool.EndOneRead(outcome));
    b.room.RunAll();
    return static_cast<GetOutcome>((*result)->outcomes[0]);
  };
  EXPECT_EQ(get(1, ReadOutcome::kFault), GetOutcome::kMiss);
  EXPECT_EQ(get(2, ReadOutcome::kGone), GetOutcome::kMiss);
  EXPECT_EQ(get(3, ReadOutcome::kCorrupt), GetOutcome::kCorrupt);
  EXPECT_EQ(b.room.counters().corrupt, 1U);
  EXPECT_EQ(get(1, ReadOutcome::kVerified), GetOutcome::kOk);
}

// ---------------------------------------------------------------- deletions

TEST(SharedFaultsTest, WhatIsDeletedOnOneNodeIsAMissOnAllOnceTheyKnow) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  a.room.Put({1, 2}, Level::kPool);
  const absl::StatusOr<BlockStore::DeleteResult> deleted = b.room.Delete({1, 9});
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted, 1U);
  EXPECT_EQ(deleted->not_found, 1U);
  a.room.Evict(0);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kMiss);
  EXPECT_EQ(b.room.StateOf(2), KeyState::kLower);
}

TEST(SharedFaultsTest, ADeletionWaitsForThePublicationThatIsUnderWay) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.HoldPublishes(true);
  a.room.Put({1}, Level::kDram, kSmall);
  std::optional<absl::StatusOr<BlockStore::DeleteResult>> deleted;
  a.room.store().Delete(a.room.caller(), a.room.Part({1}), [&](auto r) { deleted = std::move(r); });
  a.room.Settle();
  EXPECT_EQ(a.room.StateOf(1), KeyState::kMiss);
  EXPECT_FALSE(deleted.has_value());
  pool.EndOne();
  EXPECT_EQ(a.room.StateOf(1), KeyState::kMiss) << "it lies in the pool now, and is not found";
  a.room.Settle();
  ASSERT_TRUE(deleted.has_value());
  EXPECT_TRUE(deleted->ok());
  EXPECT_EQ(a.room.StateOf(1), KeyState::kMiss);
  EXPECT_EQ(SharedNode(pool).tier->figures().records, 0U);
}

TEST(SharedFaultsTest, WhatIsDeletedBeforeItsTurnIsNotPublished) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.SetState(PoolState::kOpening);
  a.room.Tick(absl::Milliseconds(60));
  const auto answer = a.room.StartPut({1}, Level::kPool, kSmall);
  a.room.Settle();
  EXPECT_FALSE(a.room.Delete({1}).ok());
  pool.SetState(PoolState::kOnline);
  a.room.Settle();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kCancelled);
  EXPECT_EQ(pool.offered(), 0U);
  EXPECT_EQ(a.drops(PublishDrop::kDeleted), 1U);
}

TEST(SharedFaultsTest, ADeletionThatThePoolCannotRecordSaysSo) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  a.room.Put({1}, Level::kPool);
  pool.FailRecords(true);
  const absl::Status refused = a.room.Delete({1}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(refused.message().find("g4"), std::string::npos) << refused;
  EXPECT_EQ(a.room.StateOf(1), KeyState::kMiss);
  pool.FailRecords(false);
  EXPECT_TRUE(a.room.Delete({1}).ok());
  EXPECT_EQ(SharedNode(pool).tier->figures().records, 0U);
}

// ---------------------------------------------------------------- clears

TEST(SharedFaultsTest, WhatIsClearedOnOneNodeIsAMissOnAllOrPending) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  a.room.Put({1}, Level::kPool);
  b.room.Put({2});
  ASSERT_EQ(b.room.Get(1), GetOutcome::kOk);
  pool.SetNews(SharedPoolDouble::News::kWhenSpread);
  const absl::StatusOr<ClearedNamespace> cleared = a.room.ClearFully();
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_GT(cleared->generation, 1U);
  EXPECT_TRUE(cleared->pending);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kReady);
  EXPECT_TRUE(a.room.OpenAgain().pending);
  pool.Spread();
  EXPECT_FALSE(a.room.OpenAgain().pending);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kMiss);
  EXPECT_EQ(b.room.StateOf(2), KeyState::kMiss);
  EXPECT_EQ(b.room.OpenAgain().generation, cleared->generation);
  b.room.Settle();
  EXPECT_EQ(b.room.store().Usage().blocks, 0U) << "their room comes back";
  pool.SetNews(SharedPoolDouble::News::kAtOnce);
  const absl::StatusOr<ClearedNamespace> again = b.room.ClearFully();
  EXPECT_FALSE(again->pending);
  EXPECT_GT(again->generation, cleared->generation);
  EXPECT_EQ(a.room.OpenAgain().generation, again->generation);
}

TEST(SharedFaultsTest, WhatTwoNodesStoreBetweenClearsThatDoNotKnowOfEachOtherIsAMissOnBoth) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  pool.SetNews(SharedPoolDouble::News::kWhenSpread);
  ASSERT_TRUE(a.room.ClearFully()->pending);
  a.room.Put({1}, Level::kPool);
  b.room.Put({2}, Level::kPool);
  ASSERT_TRUE(b.room.ClearFully()->pending) << "meant for block 1, too, which it cannot know of";
  b.room.Put({3}, Level::kPool);
  for (int i = 0; i < 3; ++i) {
    pool.Spread();
    a.room.Settle();
    b.room.Settle();
  }
  EXPECT_FALSE(b.room.OpenAgain().pending);
  EXPECT_EQ(a.room.OpenAgain().generation, b.room.OpenAgain().generation);
  for (const uint64_t key : {1, 2, 3}) {
    EXPECT_EQ(a.room.StateOf(key), KeyState::kMiss) << key;
    EXPECT_EQ(b.room.StateOf(key), KeyState::kMiss) << key;
  }
  a.room.Put({1}, Level::kPool);
  pool.Spread();
  EXPECT_EQ(b.room.Get(1), GetOutcome::kOk) << "what comes after both is found";
}

TEST(SharedFaultsTest, AGenerationLearnedFromThePoolOutlivesTheNodeAndThePool) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  b.room.Put({1}, Level::kLocalSynced);
  const uint64_t cleared = *a.room.Clear();
  b.room.Settle();
  b.room.LosePower(3);
  b.room.shared.clear();
  b.room.store_options.shared.clear();
  b.room.Open();
  b.room.RunAll();
  EXPECT_EQ(b.room.OpenAgain().generation, cleared);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kMiss);
}

TEST(SharedFaultsTest, AClearThatThePoolCannotRecordIsPendingAndToldLater) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  const Digest128 digest = a.room.Part({}).namespace_digest;
  b.room.Put({1}, Level::kPool);
  pool.FailRecords(true);
  const absl::StatusOr<ClearedNamespace> cleared = a.room.ClearFully();
  ASSERT_TRUE(cleared.ok()) << "the local tier has noted it";
  EXPECT_TRUE(cleared->pending);
  EXPECT_EQ(a.usage().unraised_generations, 1U);
  EXPECT_EQ(a.room.StateOf(1), KeyState::kMiss);
  // The node dies before the pool can be written again.
  a.room.Kill();
  pool.FailRecords(false);
  EXPECT_EQ(pool.GenerationOf(digest), 1U);
  a.room.Open();
  a.room.Settle();
  EXPECT_EQ(pool.GenerationOf(digest), cleared->generation);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kMiss);
  EXPECT_FALSE(a.room.OpenAgain().pending);
}

TEST(SharedFaultsTest, ANamespaceIsOpenedUnderTheGenerationThatThePoolKnows) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  ASSERT_TRUE(a.room.Clear().ok());
  const uint64_t cleared = *a.room.Clear();
  a.room.Put({1}, Level::kPool);
  SharedNode b(pool);
  b.Open();
  EXPECT_EQ(b.room.OpenAgain().generation, cleared);
  EXPECT_EQ(b.room.Get(1), GetOutcome::kOk);
}

TEST(SharedFaultsTest, AClearBeforeThePoolIsKnownIsMeantForWhatLiesThere) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(a.room.Clear().ok());
  }
  a.room.Put({1}, Level::kPool);
  pool.SetState(PoolState::kOpening);
  SharedNode b(pool);
  b.Open();
  const absl::StatusOr<ClearedNamespace> cleared = b.room.ClearFully();
  ASSERT_TRUE(cleared.ok());
  EXPECT_TRUE(cleared->pending);
  EXPECT_EQ(b.room.OpenAgain().generation, cleared->generation);
  pool.SetState(PoolState::kOnline);
  b.room.Settle();
  const uint64_t both = b.room.OpenAgain().generation;
  EXPECT_GT(both, cleared->generation);
  EXPECT_EQ(b.room.StateOf(1), KeyState::kMiss);
  EXPECT_EQ(a.room.OpenAgain().generation, both);
  EXPECT_FALSE(b.room.OpenAgain().pending);
  ASSERT_GT(*b.room.Clear(), both);
}

TEST(SharedFaultsTest, WhatOnePoolSaysOfClearsTheOtherIsTold) {
  SharedPoolDouble near;
  SharedPoolDouble far;
  SharedNode a(far);
  SharedNode b(near, "g3.5");
  const std::unique_ptr<SharedTier> second = far.Join();
  b.room.shared.push_back(second.get());
  a.Open();
  b.Open();
  const Digest128 digest = a.room.Part({}).namespace_digest;
  const uint64_t cleared = *a.room.Clear();
  b.room.Settle();
  EXPECT_EQ(near.GenerationOf(digest), cleared);
  b.room.Abandon();
}

// ---------------------------------------------------------------- without a local tier

class SharedOnlyTest : public testing::StoreTest {
 protected:
  void SetUp() override {
    tier_ = pool_.Join();
    shared_ = {tier_.get()};
    Make(BlockStoreOptions{});
    store_->Tick();
  }
  ~SharedOnlyTest() override { store_.reset(); }  // before the tier goes

  SharedPoolDouble pool_;
  std::unique_ptr<SharedTier> tier_;
};

TEST_F(SharedOnlyTest, ThePoolStandsForTheLocalLevels) {
  EXPECT_EQ(store_->HighestLevel(), Level::kPool);
  PutCall call = InlinePut({1, 2});
  call.wait_for = Level::kLocalSynced;
  EXPECT_EQ(LevelAt(Put(std::move(call)), 0), Level::kPool);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(static_cast<uint8_t>(Probe({Part({1})}).states[0]),
            static_cast<uint8_t>(KeyState::kLower) | 1U << 4U);
}

TEST_F(SharedOnlyTest, AClearThatNobodyCouldRecordSaysSo) {
  pool_.FailRecords(true);
  std::optional<absl::StatusOr<ClearedNamespace>> cleared;
  store_->ClearNamespace(tenant_, ns_, [&](auto r) { cleared = std::move(r); });
  executor_.RunAll();
  ASSERT_TRUE(cleared.has_value());
  EXPECT_EQ(cleared->status().code(), absl::StatusCode::kUnavailable);
  pool_.FailRecords(false);
  EXPECT_TRUE(Clear().ok());
}

TEST_F(SharedOnlyTest, AClearDoesNotWaitForAPoolThatIsAwayForLong) {
  pool_.SetState(PoolState::kSuspended);
  std::optional<absl::StatusOr<ClearedNamespace>> cleared;
  store_->ClearNamespace(tenant_, ns_, [&](auto r) { cleared = std::move(r); });
  executor_.RunAll();
  for (int i = 0; i < 30 && !cleared.has_value(); ++i) {
    clock_.Advance(absl::Milliseconds(100));
    store_->Tick();
    executor_.RunAll();
  }
  ASSERT_TRUE(cleared.has_value());
  EXPECT_EQ(cleared->status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace terrace
