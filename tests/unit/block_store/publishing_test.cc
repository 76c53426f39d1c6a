// What goes to a pool and comes from it: policies, levels, the queue.
#include <numeric>

#include "tests/unit/block_store/shared_room.h"

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

TEST(PublishingTest, WhatOneNodePutsAnotherGets) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  a.room.Put(Keys(0, 5));
  a.room.Settle();
  for (uint64_t key = 0; key < 5; ++key) {
    EXPECT_EQ(b.room.StateOf(key), KeyState::kLower) << key;
    EXPECT_EQ(b.room.Get(key), GetOutcome::kOk) << key;
  }
  EXPECT_EQ(b.usage().hits, 5U);
  EXPECT_EQ(b.usage().published, 0U) << "it came from the pool";
  EXPECT_EQ(a.usage().published, 5U);
  EXPECT_EQ(a.usage().queued, 0U);
}

TEST(PublishingTest, WhatThePoolHoldsIsNotWrittenAgain) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  a.room.Put({1});
  a.room.Settle();
  EXPECT_EQ(OutcomeAt(b.room.Put({1}), 0), PutOutcome::kStored);
  b.room.Settle();
  EXPECT_EQ(pool.offered(), 1U);
  EXPECT_EQ(b.usage().already_there, 1U);
  EXPECT_EQ(LevelAt(b.room.Put({1}, Level::kPool), 0), Level::kPool);
  EXPECT_EQ(pool.offered(), 1U);
}

TEST(PublishingTest, APutWaitsForThePool) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnEviction);
  EXPECT_EQ(a.room.store().HighestLevel(), Level::kPool);
  pool.HoldPublishes(true);
  const auto answer = a.room.StartPut(Keys(0, 3), Level::kPool, kSmall);
  a.room.Settle();
  EXPECT_FALSE(answer->has_value());
  EXPECT_EQ(pool.publishes_held(), 3U);
  while (pool.EndOne()) {
  }
  a.room.Settle();
  ASSERT_TRUE(answer->has_value());
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(LevelAt(***answer, i), Level::kPool) << i;
    EXPECT_EQ(ReasonAt(***answer, i), Reason::kNone) << i;
  }
  EXPECT_EQ(a.room.counters().local_writes, 0U) << "the pool outlives the node";
}

TEST(PublishingTest, ADuplicateWaitsForThePublicationThatIsUnderWay) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.HoldPublishes(true);
  a.room.Put({1});
  ASSERT_EQ(pool.publishes_held(), 1U);
  const auto answer = a.room.StartPut({1}, Level::kPool);
  a.room.Settle();
  EXPECT_FALSE(answer->has_value());
  pool.EndOne();
  a.room.Settle();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(OutcomeAt(***answer, 0), PutOutcome::kDuplicate);
  EXPECT_EQ(LevelAt(***answer, 0), Level::kPool);
  EXPECT_EQ(pool.offered(), 1U);
}

TEST(PublishingTest, APutWhoseTimeIsOverSaysHowFarItCame) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.HoldPublishes(true);
  const auto answer = a.room.StartPut({1}, Level::kPool, kSmall, absl::Seconds(1));
  a.room.Settle();
  a.room.Tick(absl::Seconds(2));
  a.room.RunAll();
  ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(LevelAt(***answer, 0), Level::kDram);
  EXPECT_EQ(ReasonAt(***answer, 0), Reason::kDeadline);
  while (pool.EndOne()) {
  }
  a.room.Settle();
  EXPECT_EQ(LevelAt(a.room.Put({1}, Level::kPool), 0), Level::kPool);
}

TEST(PublishingTest, WhatNoPoolTakesGoesDownAsFarAsItCan) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  a.room.store().SetPublishing(a.room.caller().tenant, PublishWhen::kNever);
  const PutResult result = a.room.Put({1}, Level::kPool, kSmall);
  EXPECT_EQ(OutcomeAt(result, 0), PutOutcome::kStored);
  EXPECT_EQ(LevelAt(result, 0), Level::kLocalSynced);
  EXPECT_EQ(ReasonAt(result, 0), Reason::kAdmission);
  EXPECT_TRUE(a.room.Flush(Level::kPool).ok()) << "counts as the highest that takes its blocks";
  EXPECT_EQ(pool.offered(), 0U);
  a.room.store().SetPublishing(a.room.caller().tenant, std::nullopt);
  EXPECT_EQ(LevelAt(a.room.Put({2}, Level::kPool, kSmall), 0), Level::kPool);
}

TEST(PublishingTest, ThePoolLevelIsTheFirstPoolThatTakesTheBlock) {
  SharedPoolDouble near;
  SharedPoolDouble far;
  SharedNode a(near, "g3.5");
  const std::unique_ptr<SharedTier> second = far.Join("g4");
  a.room.shared.push_back(second.get());
  a.room.store_options.shared.resize(2);
  a.room.store_options.shared[0].max_payload_bytes = kSmall;
  a.room.store_options.shared[1].publish = PublishWhen::kOnEviction;
  a.Open(PublishWhen::kOnEviction);
  EXPECT_EQ(LevelAt(a.room.Put({1}, Level::kPool, kSmall), 0), Level::kPool);
  EXPECT_EQ(near.published(), 1U);
  EXPECT_EQ(far.published(), 0U);
  EXPECT_EQ(LevelAt(a.room.Put({2}, Level::kPool, kSmall + 1), 0), Level::kPool);
  EXPECT_EQ(near.published(), 1U);
  EXPECT_EQ(far.published(), 1U);
  a.room.Abandon();
}

TEST(PublishingTest, NeverMeansNever) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kNever);
  a.room.Put(Keys(0, 5));
  a.room.Get(1);
  a.room.Evict(0);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 0U);
}

TEST(PublishingTest, TheFirstRuleThatMatchesANamespaceCountsMoreThanTenantAndTier) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnCommit);
  BlockStore& store = a.room.store();
  store.SetPublishing(a.room.caller().tenant, PublishWhen::kOnCommit);
  store.SetNamespaceRules({{"somebody-else", "*", PublishWhen::kOnCommit},
                           {"", "another/model", PublishWhen::kOnCommit},
                           {"", "test/*", PublishWhen::kNever},
                           {"", "*", PublishWhen::kOnCommit}});
  a.room.Put({1}, Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 0U);
  EXPECT_EQ(ReasonAt(a.room.Put({2}, Level::kPool, kSmall), 0), Reason::kAdmission);
  store.SetNamespaceRules({{"", "*el", PublishWhen::kOnReuse}});
  a.room.Put({3}, Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 0U);
  a.room.Get(1, kSmall);
  a.room.Settle();
  EXPECT_GT(pool.offered(), 0U);
  store.SetNamespaceRules({});
  const uint64_t before = pool.offered();
  a.room.Put({4}, Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), before + 1);
}

TEST(PublishingTest, ANamespaceThatIsOpenedLaterIsRuledToo) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kNever);
  BlockStore& store = a.room.store();
  store.SetNamespaceRules({{"", "later/*", PublishWhen::kOnCommit}});
  NamespaceRecord record = a.room.Record();
  record.model = "later/model";
  const absl::StatusOr<OpenedNamespace> later = store.OpenNamespace(a.room.caller().tenant, record);
  ASSERT_TRUE(later.ok()) << later.status();
  PutCall call;
  call.part = a.room.Part({1});
  call.part.namespace_digest = later->digest;
  call.payload = std::string(kSmall, 'x');
  call.payload_bytes = {kSmall};
  call.deadline = absl::InfiniteDuration();
  std::optional<absl::StatusOr<PutResult>> result;
  store.Put(a.room.caller(), std::move(call), [&](auto r) { result = std::move(r); });
  a.room.Settle();
  ASSERT_TRUE(result.has_value() && result->ok());
  EXPECT_EQ(pool.offered(), 1U);
  a.room.Put({1}, Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 1U) << "of a model that no rule is about";
}

TEST(PublishingTest, OnReuseABlockIsPublishedWhenItIsAskedForAndOnce) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnReuse);
  a.room.Put(Keys(0, 4), Level::kDram, kSmall);
  a.room.Put(Keys(0, 4), Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 0U) << "nobody asked for any";
  EXPECT_EQ(a.room.Get(1, kSmall), GetOutcome::kOk);
  EXPECT_EQ(a.room.StateOf(2), KeyState::kReady);
  a.room.Settle();
  EXPECT_EQ(pool.published(), 2U);
  pool.Forget();
  EXPECT_EQ(a.room.Get(1, kSmall), GetOutcome::kOk);
  a.room.Settle();
  EXPECT_EQ(pool.published(), 2U) << "the pool had it, and let it go";
}

TEST(PublishingTest, OnEvictionABlockIsPublishedBeforeItGoes) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnEviction);
  a.room.Put(Keys(0, 20), Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(pool.offered(), 0U);
  EXPECT_EQ(a.room.Evict(0).used_bytes, 0U);
  a.room.Settle();
  EXPECT_EQ(pool.published(), 20U);
  // In DRAM again, from the nearer tier; the pool has it, so that its next eviction tells it
  // nothing.
  EXPECT_EQ(a.room.Get(3, kSmall), GetOutcome::kOk);
  a.room.Evict(0);
  EXPECT_EQ(pool.offered(), 20U);
}

TEST(PublishingTest, WhatCameFromAPoolIsNotPublishedToItAgain) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open(PublishWhen::kOnEviction);
  a.room.Put({1});
  a.room.Settle();
  ASSERT_EQ(b.room.Get(1), GetOutcome::kOk);
  pool.Forget();
  b.room.Evict(0);
  b.room.Settle();
  EXPECT_EQ(pool.published(), 1U);
  EXPECT_EQ(b.room.Get(1), GetOutcome::kOk) << "it lies on the local tier by now";
}

TEST(PublishingTest, WhatTheLocalTierCannotReadComesFromThePool) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  a.room.Put({1, 2}, Level::kPool);
  ASSERT_TRUE(a.room.Flush(Level::kLocalWritten).ok());
  a.room.Evict(0);
  a.room.faults().Fail(doubles::FileCall::kRead, 1, absl::DataLossError("failed"),
                       uint64_t{1} << 40);
  EXPECT_EQ(a.room.Get(1), GetOutcome::kOk);
  EXPECT_EQ(a.usage().hits, 1U);
  pool.HoldReads(true);
  std::optional<absl::StatusOr<GetResult>> result;
  GetCall call;
  call.parts.push_back(a.room.Part({2}));
  call.wait_pending = true;
  call.deadline = a.room.clock().Now() + absl::Seconds(20);
  a.room.store().Get(a.room.caller(), std::move(call), [&](auto r) { result = std::move(r); });
  a.room.RunUntil([&] { return pool.reads_held() == 1; });
  EXPECT_TRUE(pool.EndOneRead(ReadOutcome::kFault));
  a.room.RunUntil([&] { return result.has_value(); });
  EXPECT_EQ(static_cast<GetOutcome>((*result)->outcomes[0]), GetOutcome::kMiss);
  a.room.faults().Heal();
  a.room.Tick(absl::Seconds(11));
  a.room.Settle();
}

TEST(PublishingTest, FlushWaitsForThePool) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open(PublishWhen::kOnEviction);
  a.room.Put(Keys(0, 200), Level::kDram, kSmall);
  EXPECT_EQ(pool.published(), 0U);
  EXPECT_TRUE(a.room.Flush(Level::kPool).ok());
  EXPECT_EQ(pool.published(), 200U);
  a.room.Put({500}, Level::kDram, kSmall);
  pool.FailPublishes(WriteOutcome::kFault);
  EXPECT_EQ(a.room.Flush(Level::kPool).code(), absl::StatusCode::kUnavailable);
  pool.FailPublishes(std::nullopt);
  pool.HoldPublishes(true);
  a.room.Settle();
  EXPECT_EQ(a.room.Flush(Level::kPool, absl::Seconds(1)).code(),
            absl::StatusCode::kDeadlineExceeded);
  while (pool.EndOne()) {
  }
}

TEST(PublishingTest, TheQueueIsBoundedAndItsDropsAreCounted) {
  SharedPoolDouble pool;
  pool.SetState(PoolState::kOpening);
  SharedNode a(pool);
  a.room.store_options.shared.resize(1);
  a.room.store_options.shared[0].max_queue = 10;
  a.Open();
  a.room.Put(Keys(0, 25), Level::kDram, kSmall);
  EXPECT_EQ(a.usage().queued, 10U);
  EXPECT_EQ(a.drops(PublishDrop::kQueueFull), 15U);
  // What is gone makes room.
  ASSERT_TRUE(a.room.Delete(Keys(0, 8)).status().code() == absl::StatusCode::kUnavailable);
  EXPECT_EQ(a.usage().queued, 2U);
  EXPECT_EQ(a.drops(PublishDrop::kDeleted), 8U);
  a.room.Put(Keys(100, 3), Level::kDram, kSmall);
  EXPECT_EQ(a.usage().queued, 5U);
  pool.SetState(PoolState::kOnline);
  a.room.Settle();
  EXPECT_EQ(a.usage().queued, 0U);
  EXPECT_EQ(pool.published(), 5U);
}

TEST(PublishingTest, WhatIsEvictedOrClearedBeforeItsTurnIsCountedSo) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.Open();
  pool.HoldPublishes(true);
  a.room.Put(Keys(0, 60), Level::kDram, kSmall);
  a.room.Settle();
  const uint64_t held = pool.publishes_held();
  ASSERT_LT(held, 60U);
  a.room.Evict(0);  // what the pool copies meanwhile stays
  EXPECT_EQ(a.drops(PublishDrop::kEvicted), 60 - held);
  while (pool.ReleaseOne()) {
  }
  while (pool.EndOne()) {
  }
  a.room.Settle();
  EXPECT_EQ(a.usage().published, held);
  a.room.Put(Keys(100, 60), Level::kDram, kSmall);
  a.room.Settle();
  ASSERT_TRUE(a.room.Clear().ok());
  while (pool.EndOne()) {
  }
  a.room.Settle();
  EXPECT_GT(a.drops(PublishDrop::kCleared), 0U);
  EXPECT_EQ(a.usage().queued, 0U);
}

TEST(PublishingTest, BlocksTooLargeForThePoolAreNotOfferedToIt) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  a.room.store_options.shared.resize(1);
  a.room.store_options.shared[0].max_payload_bytes = kSmall;
  a.Open();
  a.room.Put({1}, Level::kDram, kSmall + 1);
  a.room.Put({2}, Level::kDram, kSmall);
  a.room.Settle();
  EXPECT_EQ(a.drops(PublishDrop::kTooLarge), 1U);
  EXPECT_EQ(pool.published(), 1U);
  const PutResult result = a.room.Put({3}, Level::kPool, kSmall + 1);
  EXPECT_EQ(LevelAt(result, 0), Level::kLocalSynced);
  EXPECT_EQ(ReasonAt(result, 0), Reason::kAdmission);
  EXPECT_TRUE(a.room.Flush(Level::kPool).ok());
}

TEST(PublishingTest, ExplainSaysWhereABlockIsPublished) {
  SharedPoolDouble pool;
  SharedNode a(pool);
  SharedNode b(pool);
  a.Open();
  b.Open();
  pool.HoldPublishes(true);
  a.room.Put({1});
  const auto text = [&a] { return a.room.store().Explain("a", a.room.Part({1}))->text; };
  EXPECT_NE(text().find("Being published to g4."), std::string::npos) << text();
  pool.EndOne();
  a.room.Settle();
  EXPECT_NE(text().find("Published to g4."), std::string::npos) << text();
  const absl::StatusOr<Explanation> there = b.room.store().Explain("a", b.room.Part({1}));
  ASSERT_TRUE(there.ok());
  EXPECT_EQ(there->state, KeyState::kLower);
  EXPECT_EQ(there->tier, "g4");
}

}  // namespace
}  // namespace terrace
