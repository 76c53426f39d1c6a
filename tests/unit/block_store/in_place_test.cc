// Gets in place: what the front reads piece by piece, verified first and kept where it is.
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

std::string_view Text(absl::Span<const char> bytes) {
  return {bytes.data(), bytes.size()};
}

TEST_F(StoreTest, InPlaceNamesThePayloadsThemselves) {
  PutKeys({1, 2});
  const GetResult get = Get(GetOf({1, 2, 3}, Delivery::kInPlace), Caller{tenant_, kNoSession});
  EXPECT_EQ(OutcomeAt(get, 0), GetOutcome::kOk);
  EXPECT_EQ(OutcomeAt(get, 2), GetOutcome::kMiss);
  ASSERT_EQ(get.in_place.size(), 3U);
  EXPECT_TRUE(Text(get.in_place[0]) == PayloadOf(1, kPayload));
  EXPECT_TRUE(Text(get.in_place[1]) == PayloadOf(2, kPayload));
  EXPECT_TRUE(get.in_place[2].empty());
  EXPECT_EQ(get.payload_bytes[1], kPayload);
  EXPECT_TRUE(get.payload.empty());
  EXPECT_TRUE(get.lease_id.IsZero());
}

TEST_F(StoreTest, ABlockReadInPlaceOutlivesEvictionAndDeletion) {
  PutKeys({1, 2});
  GetResult get = Get(GetOf({1, 2}, Delivery::kInPlace));
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_TRUE(Holds(1));
  EXPECT_EQ(Delete(Part({1}))->deleted, 1U);
  EXPECT_FALSE(Holds(1));
  EXPECT_TRUE(Text(get.in_place[0]) == PayloadOf(1, kPayload));
  EXPECT_GT(store_->Usage().used_slot_bytes, 0U);
  get.reading.reset();
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
  EXPECT_EQ(store_->Usage().calls_in_flight, 0U);
}

TEST_F(StoreTest, EveryBlockReadInPlaceIsVerifiedWhateverTheShareIs) {
  BlockStoreOptions options;
  options.verify_one_in = 0;
  Make(options);
  PutKeys({1, 2, 3});
  const GetResult lease = Get(GetOf({1, 2, 3}, Delivery::kLease));
  char* payload = slabs_.Find(lease.slab_offsets[1], PayloadOf(2, kPayload));
  ASSERT_NE(payload, nullptr);
  payload[kPayload - 1] = static_cast<char>(payload[kPayload - 1] ^ 1);
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  const GetResult get = Get(GetOf({1, 2, 3}, Delivery::kInPlace));
  EXPECT_EQ(OutcomeAt(get, 0), GetOutcome::kOk);
  EXPECT_EQ(OutcomeAt(get, 1), GetOutcome::kCorrupt);
  EXPECT_EQ(OutcomeAt(get, 2), GetOutcome::kOk);
  EXPECT_TRUE(get.in_place[1].empty());
  EXPECT_EQ(get.payload_bytes[1], 0U);
  EXPECT_FALSE(Holds(2));
  EXPECT_EQ(store_->Usage().counters.corrupt, 1U);
}

TEST_F(StoreTest, ASampledReadInPlaceIsThereAtOnceAndLooksAtItsShareAlone) {
  BlockStoreOptions options;
  options.verify_one_in = 2;
  Make(options);
  PutKeys({1, 2});
  const GetResult lease = Get(GetOf({1, 2}, Delivery::kLease));
  for (const uint64_t key : {1, 2}) {
    char* payload = slabs_.Find(lease.slab_offsets[key - 1], PayloadOf(key, kPayload));
    ASSERT_NE(payload, nullptr);
    payload[7] = static_cast<char>(payload[7] ^ 1);
  }
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  GetCall call = GetOf({1, 2}, Delivery::kInPlace);
  call.parts[0].rule = Rule::kIndependent;
  call.sampled = true;
  EXPECT_EQ(Get(call).reading != nullptr, true);
  EXPECT_EQ(store_->Usage().counters.corrupt, 1U) << "one of two";
}

TEST_F(StoreTest, ASampledReadInPlaceSaysWhichSlabsTheBlocksLieIn) {
  BlockStoreOptions options;
  options.verify_one_in = 0;
  Make(options);
  PutKeys({1, 2});
  const GetResult lease = Get(GetOf({1, 2}, Delivery::kLease));
  GetCall call = GetOf({1, 2, 3}, Delivery::kInPlace);
  call.sampled = true;
  std::optional<absl::StatusOr<GetResult>> get;
  store_->Get(caller_, std::move(call), [&](auto result) { get = std::move(result); });
  ASSERT_TRUE(get.has_value()) << "nothing is read, and nothing waited for";
  for (const size_t i : {0, 1}) {
    EXPECT_EQ((*get)->slab_ids[i], lease.slab_ids[i]);
    EXPECT_EQ((*get)->slab_offsets[i], lease.slab_offsets[i]);
    EXPECT_TRUE(Text((*get)->in_place[i]) == PayloadOf(i + 1, kPayload));
  }
  EXPECT_EQ(OutcomeAt(**get, 2), GetOutcome::kMiss);
}

TEST_F(StoreTest, APutTakesPayloadsFromWhereTheyLie) {
  const std::string first = PayloadOf(1, kPayload);
  const std::string second = PayloadOf(2, kPayload);
  PutCall call;
  call.part = Part({1, 2});
  call.payload_bytes = {kPayload, kPayload};
  call.in_place = {first.data(), second.data()};
  call.deadline = clock_.Now() + absl::Seconds(5);
  const PutResult put = Put(std::move(call), Caller{tenant_, kNoSession});
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kStored);
  const GetResult get = Get(GetOf({1, 2}, Delivery::kInline));
  EXPECT_TRUE(get.payload == first + second);
}

TEST_F(StoreTest, APutInPlaceNamesAPlaceForEachKey) {
  const std::string payload = PayloadOf(1, kPayload);
  PutCall call;
  call.part = Part({1, 2});
  call.payload_bytes = {kPayload, kPayload};
  call.in_place = {payload.data()};
  std::optional<absl::StatusOr<PutResult>> put;
  store_->Put(caller_, std::move(call), [&](auto result) { put = std::move(result); });
  EXPECT_EQ(put->status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, APutWithoutAPayloadFindsWhatIsHeldAndStoresNothing) {
  PutKeys({1, 2});
  const std::string third = PayloadOf(3, kPayload);
  PutCall call;
  call.part = Part({1, 9, 2, 3});
  call.payload_bytes.assign(4, kPayload);
  call.in_place = {nullptr, nullptr, nullptr, third.data()};
  call.deadline = clock_.Now() + absl::Seconds(5);
  const PutResult put = Put(std::move(call), Caller{tenant_, kNoSession});
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kDuplicate);
  EXPECT_EQ(OutcomeAt(put, 1), PutOutcome::kFailed);
  EXPECT_EQ(put.reasons[1], static_cast<char>(Reason::kInvalid));
  EXPECT_EQ(OutcomeAt(put, 2), PutOutcome::kDuplicate);
  EXPECT_EQ(OutcomeAt(put, 3), PutOutcome::kStored);
  EXPECT_TRUE(Get(GetOf({3}, Delivery::kInline)).payload == third);
  EXPECT_EQ(OutcomeAt(Get(GetOf({9}, Delivery::kInline)), 0), GetOutcome::kMiss);
}

TEST_F(StoreTest, WhatLiesInDramIsSaidOfItsOwnTenantAlone) {
  PutKeys({1, 2});
  EXPECT_EQ(store_->InDram(tenant_, Part({1, 2, 9})), std::string("\1\1\0", 3));
  const absl::StatusOr<TenantId> other = store_->OpenTenant("other");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(store_->InDram(*other, Part({1, 2})), std::string(2, '\0'));
  StorePart unknown = Part({1});
  unknown.salt = "salt";
  EXPECT_EQ(store_->InDram(tenant_, unknown), std::string(1, '\0'));
}

TEST_F(StoreTest, BlocksReadInPlaceAreAtMostTheLeaseShareOfTheTenantsDram) {
  PutKeys({1, 2, 3, 4});
  const uint64_t slot_bytes = store_->Usage().used_slot_bytes / 4;
  ASSERT_TRUE(store_->SetQuota(tenant_, 0, 8 * slot_bytes).ok());
  GetResult first = Get(GetOf({1, 2, 3}, Delivery::kInPlace));
  EXPECT_EQ(OutcomeAt(first, 1), GetOutcome::kOk);
  EXPECT_EQ(OutcomeAt(first, 2), GetOutcome::kBusy);
  EXPECT_EQ(OutcomeAt(Get(GetOf({4}, Delivery::kInPlace)), 0), GetOutcome::kBusy)
      << "the share is the tenant's, not the call's";
  first.reading.reset();
  EXPECT_EQ(OutcomeAt(Get(GetOf({4}, Delivery::kInPlace)), 0), GetOutcome::kOk);
}

TEST_F(StoreTest, AnInPlaceGetPastItsDeadlineReadsNothing) {
  PutKeys({1});
  GetCall call = GetOf({1}, Delivery::kInPlace);
  call.deadline = clock_.Now() - absl::Milliseconds(1);
  const GetResult get = Get(std::move(call));
  EXPECT_EQ(OutcomeAt(get, 0), GetOutcome::kDeadline);
  EXPECT_EQ(get.reading, nullptr);
  ASSERT_TRUE(Evict("", 0).ok());
  EXPECT_EQ(store_->Usage().used_slot_bytes, 0U);
}

}  // namespace
}  // namespace terrace::testing
