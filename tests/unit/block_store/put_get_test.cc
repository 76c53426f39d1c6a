// Put and get: what goes in comes out, and nothing else ever does.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

TEST_F(StoreTest, StoredBytesComeBackInline) {
  const PutResult put = PutKeys({1, 2, 3});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(OutcomeAt(put, i), PutOutcome::kStored);
    EXPECT_EQ(static_cast<Level>(put.levels[i]), Level::kDram);
  }
  const GetResult get = Get(GetOf({1, 2, 3}, Delivery::kInline));
  EXPECT_TRUE(get.payload ==
              PayloadOf(1, kPayload) + PayloadOf(2, kPayload) + PayloadOf(3, kPayload));
  EXPECT_EQ(get.payload_bytes, (std::vector<uint32_t>{kPayload, kPayload, kPayload}));
}

TEST_F(StoreTest, KeysNeverStoredAreMisses) {
  PutKeys({1});
  const GetResult get = Get(GetOf({1, 9, 1}, Delivery::kInline));
  EXPECT_EQ(OutcomeAt(get, 0), GetOutcome::kOk);
  EXPECT_EQ(OutcomeAt(get, 1), GetOutcome::kMiss);
  EXPECT_EQ(OutcomeAt(get, 2), GetOutcome::kMiss)
      << "behind the end of a prefix nothing is delivered";
  GetCall independent = GetOf({1, 9, 1}, Delivery::kInline);
  independent.parts[0].rule = Rule::kIndependent;
  EXPECT_EQ(OutcomeAt(Get(std::move(independent)), 2), GetOutcome::kOk);
}

TEST_F(StoreTest, ASecondPutOfAKeyIsADuplicateAndChangesNothing) {
  PutKeys({1});
  PutCall other = InlinePut({1});
  other.payload = PayloadOf(77, kPayload);
  const PutResult put = Put(std::move(other));
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kDuplicate);
  EXPECT_TRUE(Get(GetOf({1}, Delivery::kInline)).payload == PayloadOf(1, kPayload));
}

TEST_F(StoreTest, ABlockIsPendingUntilItsBytesAreComplete) {
  std::optional<absl::StatusOr<PutResult>> result;
  store_->Put(caller_, InlinePut({1}), [&](absl::StatusOr<PutResult> r) { result = std::move(r); });
  EXPECT_FALSE(result.has_value());
  const ProbeCall probe{{Part({1})}, "", {}, false, Priority::kNormal};
  std::optional<ProbeResult> seen;
  store_->Probe(caller_, probe, [&](ProbeResult r) { seen = std::move(r); });
  EXPECT_EQ(static_cast<KeyState>(seen->states[0]), KeyState::kPending);
  std::optional<absl::StatusOr<GetResult>> impatient;
  store_->Get(caller_, GetOf({1}, Delivery::kInline),
              [&](absl::StatusOr<GetResult> r) { impatient = std::move(r); });
  ASSERT_TRUE(impatient.has_value());
  EXPECT_EQ(OutcomeAt(**impatient, 0), GetOutcome::kMiss);
  executor_.RunAll();
  EXPECT_EQ(OutcomeAt(**result, 0), PutOutcome::kStored);
}

TEST_F(StoreTest, AGetThatWaitsSeesAPutThatIsOnItsWay) {
  std::optional<absl::StatusOr<PutResult>> put;
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Put(caller_, InlinePut({1}), [&](absl::StatusOr<PutResult> r) { put = std::move(r); });
  GetCall call = GetOf({1}, Delivery::kInline);
  call.wait_pending = true;
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
  EXPECT_FALSE(get.has_value());
  executor_.RunAll();
  ASSERT_TRUE(get.has_value());
  EXPECT_TRUE((*get)->payload == PayloadOf(1, kPayload));
}

TEST_F(StoreTest, AGetThatWaitsEndsAtItsDeadline) {
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Put(caller_, InlinePut({1}), [](const absl::StatusOr<PutResult>&) {});
  GetCall call = GetOf({1}, Delivery::kInline);
  call.wait_pending = true;
  call.deadline = clock_.Now() + absl::Milliseconds(50);
  store_->Get(caller_, std::move(call), [&](absl::StatusOr<GetResult> r) { get = std::move(r); });
  clock_.Advance(absl::Milliseconds(60));
  store_->Tick();
  ASSERT_TRUE(get.has_value());
  EXPECT_EQ(OutcomeAt(**get, 0), GetOutcome::kDeadline);
  executor_.RunAll();
}

TEST_F(StoreTest, TwoPutsOfOneKeyAreOneCopyAndTheSecondIsADuplicate) {
  std::optional<absl::StatusOr<PutResult>> first;
  std::optional<absl::StatusOr<PutResult>> second;
  store_->Put(caller_, InlinePut({1}), [&](absl::StatusOr<PutResult> r) { first = std::move(r); });
  store_->Put(caller_, InlinePut({1}), [&](absl::StatusOr<PutResult> r) { second = std::move(r); });
  executor_.RunAll();
  EXPECT_EQ(OutcomeAt(**first, 0), PutOutcome::kStored);
  EXPECT_EQ(OutcomeAt(**second, 0), PutOutcome::kDuplicate);
  EXPECT_EQ(store_->Usage().counters.single_flight_joined, 1U);
  EXPECT_EQ(store_->Usage().blocks, 1U);
}

TEST_F(StoreTest, AKeyNamedTwiceInOnePutIsStoredOnce) {
  const PutResult put = PutKeys({5, 5});
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kStored);
  EXPECT_EQ(OutcomeAt(put, 1), PutOutcome::kDuplicate);
  EXPECT_EQ(store_->Usage().calls_in_flight, 0U);
}

TEST_F(StoreTest, APutPastItsDeadlineStoresNothing) {
  PutCall call = InlinePut({1, 2});
  call.deadline = clock_.Now() + absl::Milliseconds(10);
  std::optional<absl::StatusOr<PutResult>> put;
  store_->Put(caller_, std::move(call), [&](absl::StatusOr<PutResult> r) { put = std::move(r); });
  clock_.Advance(absl::Milliseconds(20));
  executor_.RunAll();
  EXPECT_EQ(OutcomeAt(**put, 0), PutOutcome::kFailed);
  EXPECT_EQ(ReasonAt(**put, 0), Reason::kDeadline);
  EXPECT_FALSE(Holds(1));
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

TEST_F(StoreTest, ABadKeyNeverFailsItsNeighbours) {
  PutCall call = InlinePut({1, 2, 3});
  call.payload_bytes[1] = (1 << 20) + 1;  // over block_bytes, and it would reach beyond the payload
  const PutResult put = Put(std::move(call));
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kStored);
  EXPECT_EQ(ReasonAt(put, 1), Reason::kInvalid);
  EXPECT_EQ(ReasonAt(put, 2), Reason::kInvalid) << "its inline bytes are not there";
  EXPECT_TRUE(Holds(1));
}

TEST_F(StoreTest, PutIntoANamespaceThatIsNotOpenIsRefused) {
  PutCall call = InlinePut({1});
  call.part.namespace_digest = Digest128{1, 2};
  std::optional<absl::StatusOr<PutResult>> put;
  store_->Put(caller_, std::move(call), [&](absl::StatusOr<PutResult> r) { put = std::move(r); });
  EXPECT_EQ(put->status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreTest, SaltsDoNotSeeEachOther) {
  PutCall call = InlinePut({1});
  call.part.salt = "alice";
  Put(std::move(call));
  EXPECT_FALSE(Holds(1));
  StorePart salted = Part({1});
  salted.salt = "alice";
  EXPECT_EQ(Probe({salted}).part_hits[0], 1U);
  salted.salt = "alic";
  EXPECT_EQ(Probe({salted}).part_hits[0], 0U);
}

TEST_F(StoreTest, TenantsDoNotSeeEachOther) {
  PutKeys({1});
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  ASSERT_TRUE(store_->OpenNamespace(other.tenant, RecordOf(1 << 20)).ok());
  EXPECT_EQ(Probe({Part({1})}, {}, other).part_hits[0], 0U) << "not by the first tenant's digest";
  StorePart own = Part({1});
  own.namespace_digest = store_->OpenNamespace(other.tenant, RecordOf(1 << 20))->digest;
  EXPECT_NE(own.namespace_digest, ns_);
  EXPECT_EQ(Probe({own}, {}, other).part_hits[0], 0U) << "not by its own digest of the same record";
  EXPECT_EQ(Delete(Part({1}), other).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StoreTest, ThereIsALimitedNumberOfTenants) {
  BlockStoreOptions options;
  options.max_tenants = 2;
  Make(options);
  const absl::StatusOr<TenantId> second = store_->OpenTenant("b");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(store_->OpenTenant("c").status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->OpenTenant("b"), second) << "one that is there is found";
}

TEST_F(StoreTest, ARaisedGenerationMakesOlderBlocksMissesAndGivesTheirRoomBack) {
  PutKeys({1, 2});
  EXPECT_EQ(*Clear(), 2U);
  EXPECT_FALSE(Holds(1));
  EXPECT_EQ(OutcomeAt(PutKeys({1}), 0), PutOutcome::kStored)
      << "stored anew under the new generation";
  for (int i = 0; i < 4; ++i) {
    store_->Tick();
  }
  EXPECT_EQ(store_->Usage().blocks, 1U);
  EXPECT_TRUE(Holds(1));
}

TEST_F(StoreTest, APutUnderWayWhenTheGenerationRisesIsNotStored) {
  std::optional<absl::StatusOr<PutResult>> put;
  store_->Put(caller_, InlinePut({1}), [&](absl::StatusOr<PutResult> r) { put = std::move(r); });
  ASSERT_TRUE(Clear().ok());
  executor_.RunAll();
  EXPECT_EQ(ReasonAt(**put, 0), Reason::kCleared);
  EXPECT_FALSE(Holds(1));
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

TEST_F(StoreTest, TheCallingThreadCopiesWhatIsSmallAndALoneBlock) {
  copied_by_caller_ = BlockStoreOptions{}.copied_by_caller;
  Make(BlockStoreOptions{});
  constexpr uint32_t kLarge = 1 << 20;
  for (const auto& [bytes, alone, at_once] : {std::tuple(kPayload, false, true),
                                              std::tuple(kLarge, false, false),
                                              std::tuple(kLarge, true, true)}) {
    const uint64_t key = bytes + (alone ? 1 : 0);
    std::optional<absl::StatusOr<PutResult>> put;
    PutCall put_call = InlinePut({key}, bytes);
    put_call.alone = alone;
    store_->Put(caller_, std::move(put_call), [&](auto result) { put = std::move(result); });
    EXPECT_EQ(put.has_value(), at_once) << bytes;
    executor_.RunAll();
    ASSERT_EQ(OutcomeAt(**put, 0), PutOutcome::kStored);
    std::optional<absl::StatusOr<GetResult>> get;
    GetCall get_call = GetOf({key}, Delivery::kInline);
    get_call.alone = alone;
    store_->Get(caller_, std::move(get_call), [&](auto result) { get = std::move(result); });
    EXPECT_EQ(get.has_value(), at_once) << bytes;
    executor_.RunAll();
    EXPECT_TRUE((*get)->payload == PayloadOf(key, bytes));
  }
}

// Another copy thread is asked for help, and whoever copies the last slice answers.
TEST_F(StoreTest, ALoneGetIsCompleteThoughNoOtherThreadCameToHelp) {
  copied_by_caller_ = BlockStoreOptions{}.copied_by_caller;
  Make(BlockStoreOptions{});
  constexpr uint32_t kBytes = 1 << 20;
  PutKeys({1, 2}, kBytes);
  std::optional<absl::StatusOr<GetResult>> get;
  GetCall call = GetOf({1, 2}, Delivery::kInline);
  call.alone = true;
  store_->Get(caller_, std::move(call), [&](auto result) { get = std::move(result); });
  ASSERT_TRUE(get.has_value());
  EXPECT_TRUE((*get)->payload == PayloadOf(1, kBytes) + PayloadOf(2, kBytes));
  EXPECT_EQ(store_->Usage().calls_in_flight, 1U) << "the job that helps has yet to run";
  EXPECT_TRUE(Delete(Part({1, 2})).ok());
  executor_.RunAll();
  EXPECT_EQ(store_->Usage().calls_in_flight, 0U);
}

TEST_F(StoreTest, InlineGetsDeliverThePrefixThatFits) {
  constexpr uint32_t kBig = 1 << 20;
  PutKeys({1, 2, 3, 4}, kBig);
  const GetResult get = Get(GetOf({1, 2, 3, 4}, Delivery::kInline));
  EXPECT_EQ(get.payload.size(), 3U * kBig);
  EXPECT_EQ(OutcomeAt(get, 2), GetOutcome::kOk);
  EXPECT_EQ(OutcomeAt(get, 3), GetOutcome::kTrimmed);
}

TEST_F(StoreTest, ABitFlippedInDramIsFoundOnDeliveryAndTheBlockDropped) {
  BlockStoreOptions options;
  options.verify_one_in = 1;
  Make(options);
  PutKeys({1});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  char* payload = slabs_.Find(lease.slab_offsets[0], PayloadOf(1, kPayload));
  ASSERT_NE(payload, nullptr);
  payload[100] = static_cast<char>(payload[100] ^ 1);
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  EXPECT_EQ(OutcomeAt(Get(GetOf({1}, Delivery::kInline)), 0), GetOutcome::kCorrupt);
  EXPECT_FALSE(Holds(1));
  EXPECT_EQ(store_->Usage().counters.corrupt, 1U);
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

TEST_F(StoreTest, AKeyThatFailsLateNeverShiftsItsNeighboursBytes) {
  BlockStoreOptions options;
  options.verify_one_in = 1;
  Make(options);
  PutKeys({1, 2, 3});
  const GetResult lease = Get(GetOf({1, 2, 3}, Delivery::kLease));
  char* payload = slabs_.Find(lease.slab_offsets[1], PayloadOf(2, kPayload));
  ASSERT_NE(payload, nullptr);
  payload[5] = static_cast<char>(payload[5] ^ 4);
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  const GetResult get = Get(GetOf({1, 2, 3}, Delivery::kInline));
  EXPECT_EQ(OutcomeAt(get, 1), GetOutcome::kCorrupt);
  EXPECT_EQ(OutcomeAt(get, 2), GetOutcome::kOk);
  EXPECT_TRUE(get.payload == PayloadOf(1, kPayload) + PayloadOf(3, kPayload));
}

TEST_F(StoreTest, VerifyFindsWhatIsCorruptAndDropsOnlyThat) {
  PutKeys({1, 2});
  const GetResult lease = Get(GetOf({1}, Delivery::kLease));
  char* payload = slabs_.Find(lease.slab_offsets[0], PayloadOf(1, kPayload));
  ASSERT_NE(payload, nullptr);
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  payload[0] = static_cast<char>(payload[0] ^ 0x80);
  std::optional<VerifyResult> verified;
  store_->Verify([&](VerifyResult r) { verified = r; });
  executor_.RunAll();
  ASSERT_TRUE(verified.has_value());
  EXPECT_EQ(verified->blocks, 2U);
  EXPECT_EQ(verified->bytes, 2U * kPayload);
  EXPECT_EQ(verified->corrupt, 1U);
  EXPECT_FALSE(Holds(1));
  EXPECT_TRUE(Holds(2));
}

TEST_F(StoreTest, WhileDrainingNothingIsStoredAndEverythingIsReadable) {
  PutKeys({1});
  store_->SetDraining(true);
  EXPECT_EQ(ReasonAt(PutKeys({2}), 0), Reason::kDraining);
  EXPECT_EQ(OutcomeAt(Get(GetOf({1}, Delivery::kInline)), 0), GetOutcome::kOk);
  store_->SetDraining(false);
  EXPECT_EQ(OutcomeAt(PutKeys({2}), 0), PutOutcome::kStored);
}

}  // namespace
}  // namespace terrace::testing
