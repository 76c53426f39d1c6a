// Leases, holds, pins, sessions: what keeps blocks, and that nothing outlives its owner.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

TEST_F(StoreTest, ALeaseNamesTheBytesWhereTheyLie) {
  PutKeys({1});
  const GetResult get = Get(GetOf({1}, Delivery::kLease));
  ASSERT_EQ(OutcomeAt(get, 0), GetOutcome::kOk);
  EXPECT_FALSE(get.lease_id.IsZero());
  EXPECT_EQ(get.payload_bytes[0], kPayload);
  EXPECT_NE(slabs_.Find(get.slab_offsets[0], PayloadOf(1, kPayload)), nullptr);
  EXPECT_EQ(store_->Usage().leased_blocks, 1U);
}

TEST_F(StoreTest, LeasedBlocksAreNeverEvicted) {
  PutKeys({1});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1));
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_FALSE(Holds(1));
}

TEST_F(StoreTest, ADeletedBlockIsHiddenAtOnceAndFreedWithItsLastLease) {
  PutKeys({1});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  EXPECT_EQ(Delete(Part({1}))->deleted, 1U);
  EXPECT_FALSE(Holds(1));
  EXPECT_GT(store_->Usage().used_slot_bytes, 0U);
  EXPECT_EQ(OutcomeAt(PutKeys({1}), 0), PutOutcome::kStored) << "the key is free again";
  const uint64_t used = store_->Usage().used_slot_bytes;
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  EXPECT_LT(store_->Usage().used_slot_bytes, used);
  EXPECT_TRUE(Holds(1));
}

TEST_F(StoreTest, DeletingAKeyTwiceInOneCallCountsItOnce) {
  PutKeys({1});
  const auto result = Delete(Part({1, 1, 2}));
  EXPECT_EQ(result->deleted, 1U);
  EXPECT_EQ(result->not_found, 2U);
}

TEST_F(StoreTest, ReleasingTwiceOrWhatIsForeignIsNotFoundAndChangesNothing) {
  PutKeys({1});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  const Caller stranger{tenant_,
                        store_->OpenSession(tenant_, BlockStore::LeaseRight::kProvenByPidfd)};
  EXPECT_EQ(store_->Release(stranger, {{lease.lease_id, {}}}, {}).not_found, 1U);
  EXPECT_EQ(store_->Usage().leased_blocks, 1U);
  EXPECT_EQ(store_->Release(caller_, {{lease.lease_id, {}}}, {}).released, 1U);
  EXPECT_EQ(store_->Release(caller_, {{lease.lease_id, {}}}, {}).not_found, 1U);
  EXPECT_EQ(store_->Release(caller_, {{Digest128{1, 1}, {}}}, {Digest128{3, 4}}).not_found, 2U);
  EXPECT_EQ(store_->Usage().leased_blocks, 0U);
}

TEST_F(StoreTest, AKeyNamedTwiceIsLeasedTwice) {
  PutKeys({1});
  const GetResult lease = Get(GetOf({1, 1}, Delivery::kLease));
  EXPECT_EQ(store_->Usage().leased_blocks, 2U);
  store_->Release(caller_, {{lease.lease_id, {0}}}, {});
  EXPECT_EQ(store_->Usage().leased_blocks, 1U);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1)) << "the second one keeps it";
  store_->Release(caller_, {{lease.lease_id, {1}}}, {});
  EXPECT_EQ(store_->Usage().leased_blocks, 0U);
}

TEST_F(StoreTest, ALeaseCanBeGivenUpInParts) {
  PutKeys({1, 2, 3});
  const GetResult lease = Get(GetOf({1, 2, 3}, Delivery::kLease));
  store_->Release(caller_, {{lease.lease_id, {0, 2, 2, 99}}}, {});
  EXPECT_EQ(store_->Usage().leased_blocks, 1U);
  store_->Release(caller_, {{lease.lease_id, {1}}}, {});
  EXPECT_EQ(store_->Usage().leased_blocks, 0U);
  EXPECT_EQ(store_->Release(caller_, {{lease.lease_id, {}}}, {}).not_found, 1U)
      << "it ended with its last block";
}

TEST_F(StoreTest, LeasesNeedAProvenProcess) {
  PutKeys({1});
  const Caller unproven{tenant_, store_->OpenSession(tenant_, BlockStore::LeaseRight::kNone)};
  for (const Caller& caller : {unproven, Caller{tenant_, kNoSession}}) {
    std::optional<absl::StatusOr<GetResult>> get;
    store_->Get(caller, GetOf({1}, Delivery::kLease),
                [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
    EXPECT_EQ(get->status().code(), absl::StatusCode::kFailedPrecondition);
  }
}

TEST_F(StoreTest, ASessionMayLeaseAQuarterOfItsTenantsDram) {
  constexpr uint32_t kBig = 1 << 20;
  std::vector<uint64_t> keys;
  for (uint64_t i = 0; i < 40; ++i) {
    keys.push_back(i);
    PutKeys({i}, kBig);
  }
  const GetResult get = Get(GetOf(keys, Delivery::kLease));
  const uint64_t limit = store_->LeaseLimitBytes(session_);
  EXPECT_EQ(limit, (uint64_t{128} << 20) / 4);
  size_t granted = 0;
  while (granted < keys.size() && OutcomeAt(get, granted) == GetOutcome::kOk) {
    ++granted;
  }
  EXPECT_EQ(granted, limit / SlotBytesFor(kBig));
  for (size_t i = granted; i < keys.size(); ++i) {
    EXPECT_EQ(OutcomeAt(get, i), GetOutcome::kBusy);
  }
}

TEST_F(StoreTest, LeasesOutliveTheConnectionAndEndWithTheProcess) {
  PutKeys({1});
  Get(GetOf({1}, Delivery::kLease));
  store_->CloseSession(session_, [] {});
  EXPECT_EQ(store_->Usage().sessions, 0U);
  EXPECT_EQ(store_->Usage().leased_blocks, 1U) << "a live process may still read its mapping";
  EXPECT_GT(store_->Usage().quarantined_bytes, 0U);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().blocks, 1U);
  store_->ProcessGone(session_);
  EXPECT_EQ(store_->Usage().leased_blocks, 0U);
  EXPECT_EQ(store_->Usage().quarantined_bytes, 0U);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

TEST_F(StoreTest, HoldsEndByReleaseExpiryAndTheirCreatorsEnd) {
  PutKeys({1});
  const ProbeResult released = Probe({Part({1})}, absl::Seconds(30));
  ASSERT_FALSE(released.hold_id.IsZero());
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1)) << "held";
  EXPECT_EQ(store_->Release(caller_, {}, {released.hold_id}).released, 1U);
  EXPECT_EQ(store_->Usage().holds, 0U);

  Probe({Part({1})}, absl::Seconds(30));
  clock_.Advance(absl::Seconds(31));
  store_->Tick();
  EXPECT_EQ(store_->Usage().holds, 0U);

  Probe({Part({1})}, absl::Seconds(30));
  store_->CloseSession(session_, [] {});
  EXPECT_EQ(store_->Usage().holds, 0U);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().blocks, 0U);
}

TEST_F(StoreTest, HoldsAreCutToTenMinutes) {
  PutKeys({1});
  EXPECT_EQ(Probe({Part({1})}, absl::Hours(5)).hold, kMaxHold);
  EXPECT_TRUE(Probe({Part({2})}, absl::Seconds(5)).hold_id.IsZero()) << "nothing to hold";
}

TEST_F(StoreTest, AHoldMayBeReleasedByAnySessionOfTheTenantButNoOther) {
  PutKeys({1});
  const ProbeResult probe = Probe({Part({1})}, absl::Seconds(30));
  const Caller foreign{*store_->OpenTenant("b"), kNoSession};
  EXPECT_EQ(store_->Release(foreign, {}, {probe.hold_id}).not_found, 1U);
  const Caller colleague{tenant_, store_->OpenSession(tenant_, BlockStore::LeaseRight::kNone)};
  EXPECT_EQ(store_->Release(colleague, {}, {probe.hold_id}).released, 1U);
}

TEST_F(StoreTest, PinsAreBudgetedAndMayHaveATimeLimit) {
  BlockStoreOptions options;
  options.pin_share = 0.001;  // of 128 MiB: 134 KB, one slot
  Make(options);
  PutKeys({1, 2});
  auto pinned = store_->Pin(caller_, Part({1, 2, 3}), absl::Seconds(10));
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(static_cast<Reason>(pinned->reasons[0]), Reason::kNone);
  EXPECT_EQ(static_cast<Reason>(pinned->reasons[1]), Reason::kQuota);
  EXPECT_EQ(static_cast<Reason>(pinned->reasons[2]), Reason::kNotPresent);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1));
  EXPECT_FALSE(Holds(2));
  clock_.Advance(absl::Seconds(11));
  store_->Tick();
  EXPECT_EQ(store_->Tenants()[0].pinned_bytes, 0U);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_FALSE(Holds(1));
}

TEST_F(StoreTest, UnpinEndsAPinAndDeleteDoesToo) {
  PutKeys({1, 2});
  ASSERT_TRUE(store_->Pin(caller_, Part({1, 2}), absl::ZeroDuration()).ok());
  EXPECT_EQ(*store_->Unpin(caller_, Part({1, 3})), 1U);
  EXPECT_EQ(Delete(Part({2}))->deleted, 1U);
  EXPECT_EQ(store_->Tenants()[0].pinned_bytes, 0U);
  EXPECT_EQ(store_->Usage().blocks, 1U);
}

TEST_F(StoreTest, ACancelledPutStoresNothingMoreAndItsCancelAnswersLast) {
  PutCall call = InlinePut({1, 2});
  call.call_id = 7;
  std::string order;
  store_->Put(caller_, std::move(call), [&](const absl::StatusOr<PutResult>& r) {
    EXPECT_EQ(ReasonAt(*r, 0), Reason::kCancelled);
    order += "put ";
  });
  store_->CancelCall(caller_, 7, [&](bool found) { order += found ? "found" : "lost"; });
  EXPECT_EQ(order, "") << "not before no copy can touch the memory";
  executor_.RunAll();
  EXPECT_TRUE(order == "put found" || order == "foundput ") << order;
  EXPECT_FALSE(Holds(1));
  bool again = true;
  store_->CancelCall(caller_, 7, [&](bool found) { again = found; });
  EXPECT_FALSE(again);
}

TEST_F(StoreTest, TheEndOfASessionCancelsWhatItWaitsFor) {
  store_->Put(Caller{tenant_, kNoSession}, InlinePut({1}), [](const absl::StatusOr<PutResult>&) {});
  GetCall call = GetOf({1}, Delivery::kLease);
  call.wait_pending = true;
  call.call_id = 9;
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
  EXPECT_FALSE(get.has_value());
  store_->ProcessGone(session_);
  ASSERT_TRUE(get.has_value());
  EXPECT_EQ(OutcomeAt(**get, 0), GetOutcome::kCancelled);
  executor_.RunAll();
  EXPECT_EQ(store_->Usage().leased_blocks, 0U);
  EXPECT_EQ(store_->Usage().calls_in_flight, 0U);
}

TEST_F(StoreTest, NothingStartsInASessionThatEnded) {
  PutKeys({1});
  store_->CloseSession(session_, [] {});
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Get(caller_, GetOf({1}, Delivery::kLease),
              [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
  EXPECT_FALSE(get->ok());
  std::optional<absl::StatusOr<PutResult>> put;
  store_->Put(caller_, InlinePut({2}), [&](absl::StatusOr<PutResult> r) { put = std::move(r); });
  EXPECT_FALSE(put->ok());
  EXPECT_FALSE(store_->MapSlab(session_, SlabId{0}).ok());
}

}  // namespace
}  // namespace terrace::testing
