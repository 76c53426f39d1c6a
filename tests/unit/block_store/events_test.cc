// What watchers are told of DRAM: each way in and out, resume, snapshots, gaps, limits.
#include <algorithm>
#include <numeric>

#include "tests/doubles/event_mirror.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

using doubles::EventMirror;

class EventsTest : public StoreTest {
 protected:
  void Begin(bool snapshot = false) { mirror_.Watch(*store_, tenant_, snapshot); }
  std::vector<StoreEvent> News() {
    mirror_.Drain();
    return mirror_.Told();
  }
  [[nodiscard]] std::string TierOf(uint64_t key) const {
    return mirror_.TierOf(EventMirror::NameOf(ns_, KeyOf(key)));
  }
  static std::vector<uint64_t> Keys(uint64_t first, uint64_t count) {
    std::vector<uint64_t> keys(count);
    std::iota(keys.begin(), keys.end(), first);
    return keys;
  }
  void TearDown() override { mirror_.Leave(); }

  EventMirror mirror_;
};

TEST_F(EventsTest, APutIsToldWithAllThatItsEngineSaid) {
  Begin();
  PutCall call = InlinePut({1, 2});
  call.parent = KeyOf(77);
  call.part.first_token = 160;
  call.part.salt = "pepper";
  call.metadata = {{{1, 2, 3}, "sql", "x"}, {{4, 5}, "sql", "y"}};
  ASSERT_TRUE(store_->IsWatched());
  Put(std::move(call));
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 1U) << "one prompt, one event";
  const StoreEvent& event = told[0];
  EXPECT_EQ(event.kind, StoreEventKind::kStored);
  EXPECT_TRUE(event.namespace_digest == ns_);
  EXPECT_EQ(event.salt, "pepper");
  EXPECT_EQ(event.keys, KeyOf(1) + KeyOf(2));
  EXPECT_EQ(event.parent, KeyOf(77));
  EXPECT_EQ(event.first_token, 160U);
  EXPECT_EQ(event.block_tokens, 16U);
  EXPECT_EQ(event.tier, "g2");
  ASSERT_EQ(event.metadata.size(), 2U);
  EXPECT_EQ(event.metadata[0].token_ids, (std::vector<uint32_t>{1, 2, 3}));
  EXPECT_EQ(event.metadata[1].extra_keys, "y");
}

TEST_F(EventsTest, DuplicatesAndFailuresAreNotTold) {
  Begin();
  PutKeys({1});
  News();
  PutKeys({1});
  PutCall late = InlinePut({2});
  late.deadline = clock_.Now() - absl::Seconds(1);
  Put(std::move(late));
  store_->SetDraining(true);
  PutKeys({3});
  EXPECT_TRUE(News().empty());
}

TEST_F(EventsTest, KeysThatAreNoChainHaveNoParents) {
  Begin();
  PutCall call = InlinePut({1, 2});
  call.part.rule = Rule::kIndependent;
  Put(std::move(call));
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[1].parent, "");
}

TEST_F(EventsTest, EvictedAndDeletedBlocksAreRemoved) {
  PutKeys({1, 2, 3});
  Begin(true);
  News();
  ASSERT_TRUE(Delete(Part({2})).ok());
  std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kRemoved);
  EXPECT_EQ(told[0].keys, KeyOf(2));
  EXPECT_EQ(told[0].tier, "g2");
  ASSERT_TRUE(Evict("", 0).ok());
  told = News();
  ASSERT_EQ(told.size(), 1U) << "those that go together share an event";
  EXPECT_EQ(told[0].key_count(), 2U);
  EXPECT_EQ(mirror_.blocks(), 0U);
  ASSERT_TRUE(Delete(Part({2, 9})).ok());
  EXPECT_TRUE(News().empty()) << "they were not held";
}

TEST_F(EventsTest, ADamagedBlockIsRemovedByWhoeverFindsIt) {
  PutKeys({1});
  Begin(true);
  News();
  GetCall lease = GetOf({1}, Delivery::kLease);
  const GetResult held = Get(std::move(lease));
  char* byte = slabs_.Find(held.slab_offsets[0], PayloadOf(1, kPayload));
  ASSERT_NE(byte, nullptr);
  *byte = static_cast<char>(*byte ^ 1);
  bool verified = false;
  store_->Verify([&](const VerifyResult& result) { verified = result.corrupt == 1; });
  executor_.RunAll();
  ASSERT_TRUE(verified);
  ASSERT_EQ(News().size(), 1U);
  EXPECT_EQ(TierOf(1), "");
}

TEST_F(EventsTest, AClearIsOneEventAndItsBlocksGoSilently) {
  PutKeys({1, 2, 3});
  Begin(true);
  News();
  ASSERT_TRUE(Clear().ok());
  store_->Tick();
  store_->Tick();
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kCleared);
  EXPECT_EQ(mirror_.blocks(), 0U);
  PutKeys({1});
  News();
  EXPECT_EQ(mirror_.blocks(), 1U);
}

TEST_F(EventsTest, WhatIsReadUpFromAForeignTierIsStored) {
  Make({}, true);
  mirror_.Leave();
  Begin();
  const std::string key = KeyOf(5);
  lower_.Hold({ns_, 1, "", key}, PayloadOf(5, 4096));
  GetCall call = GetOf({5}, Delivery::kInline);
  call.wait_pending = true;
  std::optional<GetOutcome> outcome;
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> result) {
    outcome = static_cast<GetOutcome>(result->outcomes[0]);
  });
  while (!outcome.has_value()) {
    executor_.RunAll();
    lower_.EndOne();
  }
  ASSERT_EQ(outcome, GetOutcome::kOk);
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kStored);
  EXPECT_EQ(TierOf(5), "g2");
}

TEST_F(EventsTest, ASnapshotTellsParentsFirstAndThenWhatIsNew) {
  // Ids are used again, so that children come to lie in front of their parents.
  PutKeys(Keys(100, 300));
  ASSERT_TRUE(Delete(Part(Keys(100, 300))).ok());
  PutKeys(Keys(1, 300));
  PutCall child = InlinePut({500});
  child.parent = KeyOf(300);
  child.part.first_token = uint64_t{300} * 16;
  Put(std::move(child));
  Begin(true);
  PutKeys({900});  // while it is told
  const std::vector<StoreEvent> told = News();
  std::map<std::string, size_t> at;
  for (size_t i = 0; i < told.size(); ++i) {
    if (told[i].kind == StoreEventKind::kStored) {
      if (!told[i].parent.empty()) {
        EXPECT_TRUE(at.contains(told[i].parent)) << "its parent has not been told of";
      }
      at.emplace(told[i].keys, i);
    }
  }
  EXPECT_EQ(at.size(), 302U);
  const auto end = std::find_if(told.begin(), told.end(), [](const StoreEvent& event) {
    return event.kind == StoreEventKind::kSnapshotEnd;
  });
  ASSERT_NE(end, told.end());
  EXPECT_EQ(told[0].sequence, end->sequence);
  EXPECT_EQ(told.back().keys, KeyOf(900));
  EXPECT_EQ(told.back().sequence, end->sequence + 1);
  EXPECT_EQ(mirror_.blocks(), 302U);
}

TEST_F(EventsTest, WhatGoesWhileASnapshotIsToldIsNotHeldInTheEnd) {
  PutKeys(Keys(1, 600));
  Begin(true);
  for (int i = 0; i < 3; ++i) {
    mirror_.Step();
  }
  ASSERT_TRUE(Delete(Part(Keys(1, 600))).ok());
  PutKeys({7});
  News();
  EXPECT_EQ(mirror_.blocks(), 1U);
  EXPECT_EQ(TierOf(7), "g2");
}

TEST_F(EventsTest, WhoComesBackMissesNothing) {
  Begin();
  PutKeys({1, 2});
  News();
  mirror_.Leave();
  clock_.Advance(absl::Seconds(59));
  store_->Tick();
  PutKeys({3});
  ASSERT_TRUE(Delete(Part({1})).ok());
  Begin();
  EXPECT_EQ(News().size(), 2U);
  EXPECT_FALSE(mirror_.gapped());
  EXPECT_EQ(TierOf(1), "");
  EXPECT_EQ(TierOf(3), "g2");
}

TEST_F(EventsTest, AMinuteAfterTheLastWatcherNothingIsRecordedAndThatIsAGap) {
  Begin();
  PutKeys({1});
  News();
  mirror_.Leave();
  clock_.Advance(absl::Seconds(60));
  store_->Tick();
  EXPECT_FALSE(store_->IsWatched());
  Begin();
  const std::vector<StoreEvent> told = News();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].kind, StoreEventKind::kGap);
  EXPECT_TRUE(store_->IsWatched());
  EXPECT_EQ(store_->Usage().counters.event_gaps, 1U);
}

TEST_F(EventsTest, AnotherPublisherOrAFutureEventIsAGap) {
  Begin();
  PutKeys({1});
  News();
  for (const auto& [publisher, after] :
       {std::pair<uint64_t, uint64_t>{mirror_.publisher() + 2, 0}, {mirror_.publisher(), 1000}}) {
    WatchCall call;
    call.publisher_id = publisher;
    call.after_sequence = after;
    auto watcher = store_->Watch(tenant_, std::move(call));
    ASSERT_TRUE(watcher.ok());
    const EventBatch batch = (*watcher)->Next();
    ASSERT_EQ(batch.events.size(), 1U);
    EXPECT_EQ(batch.events[0].kind, StoreEventKind::kGap);
    EXPECT_EQ(batch.events[0].sequence, mirror_.sequence());
    EXPECT_TRUE((*watcher)->Next().events.empty()) << "and then live";
  }
}

TEST_F(EventsTest, WhoDoesNotKeepUpIsToldOfAGap) {
  Begin();
  News();
  PutCall call = InlinePut({1}, 4096);
  for (uint64_t key = 1; key <= 400; ++key) {
    call = InlinePut({key}, 4096);
    call.metadata.resize(1);
    call.metadata[0].extra_keys.assign(size_t{60} << 10, 'x');
    Put(std::move(call));
  }
  const std::vector<StoreEvent> told = News();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0].kind, StoreEventKind::kGap);
  EXPECT_EQ(told[1].sequence, told[0].sequence + 1) << "what is still kept follows";
  EXPECT_TRUE(mirror_.gapped());
  EXPECT_LE(store_->Usage().event_bytes, uint64_t{17} << 20);
  Begin(true);
  News();
  EXPECT_EQ(mirror_.blocks(), 400U);
}

TEST_F(EventsTest, AFilterLeavesHolesAndNoMore) {
  const Digest128 other = Open(RecordOf(1 << 19));
  mirror_.Watch(*store_, tenant_, true, {other});
  mirror_.Drain();
  PutKeys({1});
  PutCall call = InlinePut({2});
  call.part.namespace_digest = other;
  Put(std::move(call));
  mirror_.Drain();
  EXPECT_EQ(mirror_.blocks(), 1U);
  EXPECT_FALSE(mirror_.gapped());
  EXPECT_EQ(mirror_.TierOf(EventMirror::NameOf(other, KeyOf(2))), "g2");
}

TEST_F(EventsTest, NamespacesAreDescribedOnceBeforeTheyAreNamed) {
  auto watcher = store_->Watch(tenant_, {});
  ASSERT_TRUE(watcher.ok());
  PutKeys({1});
  EventBatch batch = (*watcher)->Next();
  ASSERT_EQ(batch.namespaces.size(), 1U);
  EXPECT_TRUE(batch.namespaces[0].digest == ns_);
  EXPECT_EQ(batch.namespaces[0].record.model, "test/model");
  PutKeys({2});
  batch = (*watcher)->Next();
  EXPECT_EQ(batch.events.size(), 1U);
  EXPECT_TRUE(batch.namespaces.empty());
}

TEST_F(EventsTest, TenantsHearTheirOwnBlocksAlone) {
  const TenantId other = *store_->OpenTenant("b");
  const Digest128 foreign = store_->OpenNamespace(other, RecordOf(1 << 20))->digest;
  auto stranger = store_->Watch(other, {});
  ASSERT_TRUE(stranger.ok());
  Begin();
  PutKeys({1, 2});
  ASSERT_TRUE(Evict("a", 0).ok());
  const EventBatch heard = (*stranger)->Next();
  EXPECT_TRUE(heard.events.empty());
  EXPECT_EQ(heard.newest, 1U) << "not even by holes in the sequence";
  PutCall call = InlinePut({1});
  call.part.namespace_digest = foreign;
  Put(std::move(call), Caller{other, kNoSession});
  EXPECT_EQ((*stranger)->Next().events.size(), 1U);
  for (const StoreEvent& event : News()) {
    EXPECT_TRUE(event.namespace_digest == ns_);
  }
}

TEST_F(EventsTest, WatchersAndSnapshotsHaveALimit) {
  std::vector<std::unique_ptr<StoreWatcher>> watchers;
  WatchCall snapshot;
  snapshot.snapshot = true;
  for (uint32_t i = 0; i < kMaxSnapshotsPerTenant; ++i) {
    watchers.push_back(*store_->Watch(tenant_, snapshot));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Watch(tenant_, snapshot).status()));
  while (watchers.size() < kMaxWatchersPerTenant) {
    watchers.push_back(*store_->Watch(tenant_, {}));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(store_->Watch(tenant_, {}).status()));
  EXPECT_EQ(store_->Usage().watchers, kMaxWatchersPerTenant);
  watchers.clear();
  EXPECT_EQ(store_->Usage().watchers, 0U);
  EXPECT_TRUE(store_->Watch(tenant_, snapshot).ok()) << "those that left do not count";
}

TEST_F(EventsTest, WithNobodyWatchingNothingIsKept) {
  PutKeys({1, 2, 3});
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_FALSE(store_->IsWatched());
  EXPECT_EQ(store_->Usage().event_bytes, 0U);
}

}  // namespace
}  // namespace terrace::testing
