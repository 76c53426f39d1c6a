// Private namespaces: forgotten with the processes that opened them, and nothing before.
#include "tests/doubles/event_mirror.h"
#include "tests/doubles/local_room.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

using doubles::EventMirror;
using doubles::LocalRoom;

NamespaceRecord PrivateRecord(NamespaceRecord record, const std::string& label) {
  record.labels[std::string(kPrivateLabel)] = label;
  return record;
}

class PrivateNamespaces : public StoreTest {
 protected:
  static constexpr uint32_t kPlaces = 4;

  void SetUp() override {
    BlockStoreOptions options;
    options.max_namespaces_per_tenant = kPlaces;
    Make(options);
  }
  Caller NewCaller(BlockStore::LeaseRight right = BlockStore::LeaseRight::kNone) {
    return Caller{tenant_, store_->OpenSession(tenant_, right)};
  }
  absl::StatusOr<OpenedNamespace> TryOpen(const std::string& label, const Caller& caller) {
    return store_->OpenNamespace(caller, PrivateRecord(RecordOf(1 << 20), label));
  }
  // What follows is of this namespace, and said by `caller`.
  void Use(const std::string& label, const Caller& caller) {
    const absl::StatusOr<OpenedNamespace> opened = TryOpen(label, caller);
    ASSERT_TRUE(opened.ok()) << opened.status();
    ns_ = opened->digest;
    caller_ = caller;
  }
  void Close(const Caller& caller) {
    store_->CloseSession(caller.session, [] {});
  }
  void PassTime() {
    for (int i = 0; i < 200; ++i) {
      clock_.Advance(absl::Milliseconds(10));
      store_->Tick();
      executor_.RunAll();
    }
  }
  // Beside the one that every test has.
  size_t Private() { return store_->Namespaces().size() - 1; }
  void ExpectNothingIsLeft() {
    EXPECT_EQ(Private(), 0U);
    const StoreUsage usage = store_->Usage();
    EXPECT_EQ(usage.blocks, 0U);
    EXPECT_EQ(usage.used_slot_bytes, 0U);
    EXPECT_EQ(usage.payload_bytes, 0U);
    EXPECT_EQ(store_->Tenants()[0].pinned_bytes, 0U);
  }
};

TEST_F(PrivateNamespaces, APlaceIsGivenBackWithItsSession) {
  for (int i = 0; i < 20; ++i) {
    const Caller engine = NewCaller();
    ASSERT_TRUE(TryOpen(std::to_string(i), engine).ok()) << i;
    Close(engine);
  }
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, WhatIsNotPrivateStays) {
  const Caller engine = NewCaller();
  NamespaceRecord record = RecordOf(1 << 20);
  record.labels["public"] = "1";
  ASSERT_TRUE(store_->OpenNamespace(engine, record).ok());
  Close(engine);
  PassTime();
  EXPECT_EQ(store_->Namespaces().size(), 2U);
}

TEST_F(PrivateNamespaces, AProcessThatLivesKeepsIt) {
  const Caller engine = NewCaller(BlockStore::LeaseRight::kProvenByPidfd);
  Use("a", engine);
  PutKeys({1});
  Close(engine);
  PassTime();
  Use("a", NewCaller(BlockStore::LeaseRight::kProvenByPidfd));  // it has come back
  EXPECT_TRUE(Holds(1));
  store_->ProcessGone(engine.session);
  PassTime();
  EXPECT_TRUE(Holds(1)) << "its second session";
  store_->ProcessGone(caller_.session);
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, TheLastOfItsSessionsTakesItAlong) {
  const Caller first = NewCaller();
  const Caller second = NewCaller();
  Use("a", first);
  Use("a", second);
  Use("a", first);  // twice is once
  PutKeys({1});
  Close(first);
  PassTime();
  caller_ = second;
  EXPECT_TRUE(Holds(1));
  Close(second);
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, OneThatWasOpenedWithoutASessionStays) {
  const Caller engine = NewCaller();
  Use("a", engine);
  ASSERT_TRUE(TryOpen("a", Caller{tenant_, kNoSession}).ok());
  Close(engine);
  PassTime();
  EXPECT_EQ(Private(), 1U);
}

TEST_F(PrivateNamespaces, OneThatASessionOpensAfterItsEndIsForgotten) {
  const Caller engine = NewCaller();
  Close(engine);
  ASSERT_TRUE(TryOpen("a", engine).ok());
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, PinsAndHoldsOfItDoNotKeepIt) {
  Use("a", NewCaller());
  PutKeys({1, 2});
  ASSERT_TRUE(store_->Pin(caller_, Part({1}), absl::Hours(1)).ok());
  const Caller other = NewCaller();
  Probe({Part({2})}, absl::Seconds(30), other);
  Close(caller_);
  PassTime();
  EXPECT_EQ(Private(), 1U) << "somebody holds a block of it";
  EXPECT_EQ(store_->Usage().blocks, 0U);
  Close(other);
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, ALeasedBlockStaysUntilItsRelease) {
  Use("a", NewCaller());
  PutKeys({1});
  const Caller reader = NewCaller(BlockStore::LeaseRight::kProvenByPidfd);
  const GetResult lease = Get(GetOf({1}, Delivery::kLease), reader);
  ASSERT_EQ(OutcomeAt(lease, 0), GetOutcome::kOk);
  Close(caller_);
  PassTime();
  EXPECT_EQ(Private(), 1U);
  Use("b", NewCaller());
  PutKeys({3, 4, 5});
  EXPECT_NE(slabs_.Find(lease.slab_offsets[0], PayloadOf(1, kPayload)), nullptr);
  Close(caller_);
  store_->Release(reader, {{lease.lease_id, {}}}, {});
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, WhoComesBackInTimeHasIt) {
  Use("a", NewCaller());
  PutKeys({1});
  Close(caller_);
  Use("a", NewCaller());
  PassTime();
  EXPECT_TRUE(Holds(1));
  EXPECT_EQ(Private(), 1U);
}

// Its number is another's.
TEST_F(PrivateNamespaces, NothingIsFoundInAnother) {
  for (uint32_t i = 0; i < 3 * kPlaces; ++i) {
    Use(std::to_string(i), NewCaller());
    EXPECT_FALSE(Holds(1)) << i;
    PutCall call = InlinePut({1});
    call.payload = PayloadOf(1000 + i, kPayload);
    EXPECT_EQ(OutcomeAt(Put(std::move(call)), 0), PutOutcome::kStored);
    EXPECT_EQ(Get(GetOf({1}, Delivery::kInline)).payload, PayloadOf(1000 + i, kPayload));
    Close(caller_);
    PassTime();
  }
  Use("0", NewCaller());
  EXPECT_FALSE(Holds(1));
  Close(caller_);
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, APutUnderWayEndsFirst) {
  for (const bool of_session : {true, false}) {
    Use("a", NewCaller());
    std::optional<absl::StatusOr<PutResult>> result;
    store_->Put(of_session ? caller_ : Caller{tenant_, kNoSession}, InlinePut({1, 2, 3}),
                [&](absl::StatusOr<PutResult> r) { result = std::move(r); });
    Close(caller_);
    for (int i = 0; i < 10; ++i) {
      store_->Tick();
    }
    EXPECT_EQ(Private(), 1U) << "the put names it";
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    PassTime();
    ExpectNothingIsLeft();
  }
}

TEST_F(PrivateNamespaces, AReadFromALowerTierEndsFirst) {
  BlockStoreOptions options;
  options.max_namespaces_per_tenant = kPlaces;
  Make(options, true);
  Use("a", NewCaller());
  lower_.Hold(BlockIdentity{ns_, 1, "", KeyOf(1)}, PayloadOf(1, kPayload));
  PrefetchCall call;
  call.parts.push_back(Part({1}));
  call.deadline = clock_.Now() + absl::Seconds(30);
  store_->Prefetch(caller_, std::move(call), [](const absl::StatusOr<PrefetchResult>&) {});
  executor_.RunAll();
  Close(caller_);
  for (int i = 0; i < 10; ++i) {
    store_->Tick();
  }
  while (lower_.EndOne()) {
  }
  PassTime();
  ExpectNothingIsLeft();
}

TEST_F(PrivateNamespaces, SiblingsOfItsFamilyOutliveIt) {
  const Caller first = NewCaller();
  const Caller second = NewCaller();
  const NamespaceRecord rank0 = PrivateRecord(RecordOf(1 << 20, 0, 2), "a");
  const NamespaceRecord rank1 = PrivateRecord(RecordOf(1 << 20, 1, 2), "a");
  ASSERT_TRUE(store_->OpenNamespace(first, rank0).ok());
  ns_ = store_->OpenNamespace(second, rank1)->digest;
  caller_ = second;
  PutKeys({1});
  Close(first);
  PassTime();
  EXPECT_EQ(Private(), 1U);
  EXPECT_TRUE(Holds(1));
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_FALSE(Holds(1));
}

TEST_F(PrivateNamespaces, WatchersHearThatItIsGone) {
  EventMirror early;
  early.Watch(*store_, tenant_, false);
  Use("a", NewCaller());
  PutKeys({1, 2});
  early.Drain();
  EXPECT_EQ(early.blocks(), 2U);
  const uint64_t sequence = early.sequence();
  PutKeys({3});
  Close(caller_);
  PassTime();
  early.Drain();
  EXPECT_EQ(early.blocks(), 0U);
  const std::vector<StoreEvent> told = early.Told();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().kind, StoreEventKind::kCleared);
  early.Leave();

  // Who was not told of the namespace while it was there hears nothing of it.
  WatchCall again;
  again.publisher_id = early.publisher();
  again.after_sequence = sequence;
  const auto late = store_->Watch(tenant_, again);
  ASSERT_TRUE(late.ok());
  const EventBatch batch = (*late)->Next();
  EXPECT_TRUE(batch.events.empty());
  EXPECT_TRUE(batch.namespaces.empty());
}

class PrivateNamespacesBelow : public ::testing::Test {
 protected:
  void SetUp() override { room_.Open(); }
  SessionId NewSession() {
    return room_.store().OpenSession(room_.caller().tenant, BlockStore::LeaseRight::kNone);
  }
  void Use(const std::string& label) {
    room_.Use(PrivateRecord(LocalRoom::Record(), label), NewSession());
  }
  void Close() {
    room_.store().CloseSession(room_.caller().session, [] {});
  }
  void PassTime() {
    for (int i = 0; i < 10; ++i) {
      room_.Settle();
    }
  }
  size_t Private() { return room_.store().Namespaces().size() - 1; }

  LocalRoom room_;
};

TEST_F(PrivateNamespacesBelow, AClearUnderWayIsAnsweredFirst) {
  Use("a");
  room_.Put({1});
  std::optional<absl::StatusOr<ClearedNamespace>> cleared;
  room_.store().ClearNamespace(room_.caller().tenant, room_.Part({}).namespace_digest,
                               [&](auto result) { cleared = std::move(result); });
  Close();
  for (int i = 0; i < 10; ++i) {
    room_.Tick(absl::Milliseconds(10));
  }
  PassTime();
  ASSERT_TRUE(cleared.has_value());
  EXPECT_TRUE(cleared->ok()) << cleared->status();
  EXPECT_EQ(Private(), 0U);
  Use("a");
  EXPECT_EQ(room_.StateOf(1), KeyState::kMiss) << "cleared is cleared, whoever forgets";
}

TEST_F(PrivateNamespacesBelow, AWriteUnderWayEndsFirst) {
  Use("a");
  const LocalRoom::PutAnswer put = room_.StartPut({1, 2}, Level::kLocalWritten);
  for (int i = 0; i < 3; ++i) {
    room_.Step();
  }
  Close();
  for (int i = 0; i < 10; ++i) {
    room_.Tick(absl::Milliseconds(10));
  }
  PassTime();
  EXPECT_TRUE(put->has_value());
  EXPECT_EQ(Private(), 0U);
  EXPECT_EQ(room_.store().Usage().used_slot_bytes, 0U);
}

// Nobody else has the name; who does finds what is his.
TEST_F(PrivateNamespacesBelow, WhatTheTierHoldsIsOfThatNameAlone) {
  Use("a");
  room_.Put({1, 2}, Level::kLocalWritten);
  ASSERT_TRUE(room_.Delete({2}).ok());
  Close();
  PassTime();
  ASSERT_EQ(Private(), 0U);
  Use("b");
  EXPECT_EQ(room_.StateOf(1), KeyState::kMiss);
  Use("a");
  EXPECT_EQ(room_.StateOf(1), KeyState::kLower);
  EXPECT_EQ(room_.Get(1), GetOutcome::kOk);
  EXPECT_EQ(room_.StateOf(2), KeyState::kMiss) << "deleted";
}

TEST_F(PrivateNamespacesBelow, ItsSpaceIsReclaimed) {
  room_.Close();
  room_.tier_options.capacity_bytes = 8 * LocalRoom::kSegment;
  room_.Open();
  for (int engine = 0; engine < 12; ++engine) {
    Use(std::to_string(engine));
    for (uint64_t key = 0; key < 16; ++key) {
      EXPECT_GE(static_cast<Level>(room_.Put({key}, Level::kLocalWritten).levels[0]),
                Level::kLocalWritten)
          << engine << " " << key;
    }
    Close();
    PassTime();
    EXPECT_EQ(Private(), 0U);
  }
}

TEST_F(PrivateNamespacesBelow, NoneIsThereAfterARestart) {
  Use("a");
  room_.Put({1}, Level::kLocalSynced);
  room_.Close();
  room_.Open();
  EXPECT_EQ(Private(), 0U);
}

// What the local tier still holds is told by nobody's events, so that a watcher needs a snapshot
// when somebody comes back for it.
TEST_F(PrivateNamespacesBelow, AWatcherIsToldToLookWhenItIsOpenedAgain) {
  EventMirror mirror;
  mirror.Watch(room_.store(), room_.caller().tenant, false);
  Use("a");
  room_.Put({1}, Level::kLocalWritten);
  Close();
  PassTime();
  mirror.Drain([&] { room_.Settle(); });
  EXPECT_EQ(mirror.blocks(), 0U);
  EXPECT_FALSE(mirror.gapped());
  Use("a");
  mirror.Drain([&] { room_.Settle(); });
  EXPECT_TRUE(mirror.gapped());
  mirror.Watch(room_.store(), room_.caller().tenant, true);
  mirror.Drain([&] { room_.Settle(); });
  EXPECT_EQ(mirror.blocks(), 1U);
  mirror.Leave();
}

}  // namespace
}  // namespace terrace::testing
