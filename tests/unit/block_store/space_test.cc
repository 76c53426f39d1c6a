// Room: eviction order, quotas, families, slabs that move between block sizes and tenants.
#include <numeric>

#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

constexpr uint32_t kBig = (1 << 20) - 4096;  // 64 slots of 1 MiB in a slab of 64 MiB

std::vector<uint64_t> Range(uint64_t begin, uint64_t end) {
  std::vector<uint64_t> keys(end - begin);
  std::iota(keys.begin(), keys.end(), begin);
  return keys;
}

class SpaceTest : public StoreTest {
 protected:
  void SetUp() override {
    BlockStoreOptions options;
    options.policy = "lru";  // which block goes is asserted here, and nothing is learnt so soon
    Make(options);
  }
  // One chain per call, in puts of three blocks so that each fits into one inline message.
  void PutChain(const std::vector<uint64_t>& keys, uint32_t bytes = kBig) {
    std::string parent;
    for (size_t begin = 0; begin < keys.size(); begin += 3) {
      const std::vector<uint64_t> some(
          keys.begin() + static_cast<std::ptrdiff_t>(begin),
          keys.begin() + static_cast<std::ptrdiff_t>(std::min(begin + 3, keys.size())));
      PutCall call = InlinePut(some, bytes);
      call.parent = parent;
      Put(std::move(call));
      parent = KeyOf(some.back());
    }
  }
  uint32_t HitsOf(const std::vector<uint64_t>& keys) { return Probe({Part(keys)}).part_hits[0]; }
};

TEST_F(SpaceTest, TheOldestChainGoesFirstAndItsSuffixBeforeItsPrefix) {
  PutChain(Range(0, 60));
  PutChain(Range(100, 160));  // 120 of 128 slots
  PutChain(Range(200, 218));  // needs 10 more than are free
  EXPECT_EQ(HitsOf(Range(0, 60)), 50U);
  EXPECT_EQ(HitsOf(Range(100, 160)), 60U);
  EXPECT_EQ(HitsOf(Range(200, 218)), 18U);
}

TEST_F(SpaceTest, ATouchedChainStays) {
  PutChain(Range(0, 60));
  PutChain(Range(100, 160));
  HitsOf(Range(0, 60));
  PutChain(Range(200, 218));
  EXPECT_EQ(HitsOf(Range(0, 60)), 60U);
  EXPECT_EQ(HitsOf(Range(100, 160)), 50U);
}

TEST_F(SpaceTest, WhenEverythingIsLockedPutsAreDeclinedAndNothingIsLost) {
  PutChain(Range(0, 128));
  Probe({Part(Range(0, 128))}, absl::Seconds(30));
  const PutResult put = Put(InlinePut({500}, kBig));
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kDeclined);
  EXPECT_EQ(ReasonAt(put, 0), Reason::kNoSpace);
  EXPECT_EQ(HitsOf(Range(0, 128)), 128U);
  clock_.Advance(absl::Seconds(31));
  store_->Tick();
  EXPECT_EQ(OutcomeAt(Put(InlinePut({500}, kBig)), 0), PutOutcome::kStored);
}

TEST_F(SpaceTest, APutNeverEvictsItsOwnBlocks) {
  PutChain(Range(0, 126));
  Probe({Part(Range(0, 126))}, absl::Seconds(30));
  const PutResult put = Put(InlinePut({500, 501, 502}, kBig));
  EXPECT_EQ(OutcomeAt(put, 0), PutOutcome::kStored);
  EXPECT_EQ(OutcomeAt(put, 1), PutOutcome::kStored);
  EXPECT_EQ(ReasonAt(put, 2), Reason::kNoSpace);
}

TEST_F(SpaceTest, OverItsLimitATenantEvictsItsOwn) {
  ASSERT_TRUE(store_->SetQuota(tenant_, 0, uint64_t{10} << 20).ok());
  PutChain(Range(0, 20));
  EXPECT_LE(store_->Tenants()[0].used_bytes, uint64_t{10} << 20);
  EXPECT_EQ(store_->Usage().blocks, 10U);
}

TEST_F(SpaceTest, QuotasThatCannotBeKeptAreRefused) {
  EXPECT_FALSE(store_->SetQuota(tenant_, uint64_t{129} << 20, 0).ok());
  EXPECT_FALSE(store_->SetQuota(tenant_, 100, 50).ok());
  const TenantId other = *store_->OpenTenant("b");
  EXPECT_TRUE(store_->SetQuota(tenant_, uint64_t{64} << 20, 0).ok());
  EXPECT_FALSE(store_->SetQuota(other, uint64_t{65} << 20, 0).ok());
}

TEST_F(SpaceTest, AFloodLeavesAnotherTenantItsGuarantee) {
  const Caller quiet{*store_->OpenTenant("quiet"), kNoSession};
  ASSERT_TRUE(store_->SetQuota(quiet.tenant, uint64_t{64} << 20, 0).ok());
  const Digest128 quiet_ns = store_->OpenNamespace(quiet.tenant, RecordOf(1 << 20))->digest;
  PutChain(Range(0, 200));
  EXPECT_EQ(store_->Usage().blocks, 64U)
      << "the flood has one slab; the other is kept for the guarantee";
  for (uint64_t key = 0; key < 64; ++key) {
    PutCall call = InlinePut({key}, kBig);
    call.part.namespace_digest = quiet_ns;
    EXPECT_EQ(OutcomeAt(Put(std::move(call), quiet), 0), PutOutcome::kStored);
  }
  PutChain(Range(300, 500));
  EXPECT_EQ(store_->Usage().blocks, 128U);
  for (const TenantUsage& tenant : store_->Tenants()) {
    EXPECT_EQ(tenant.blocks, 64U) << tenant.alias;
  }
}

TEST_F(SpaceTest, ASlabChangesItsBlockSizeWithinATenant) {
  PutChain(Range(0, 128));
  PutChain(Range(1000, 1010), 200 * 1024);
  EXPECT_EQ(HitsOf(Range(1000, 1010)), 10U);
  EXPECT_EQ(store_->Usage().counters.slabs_recut, 1U);
  EXPECT_EQ(store_->Usage().assigned_slabs, 2U);
  const GetResult get = Get(GetOf({1000}, Delivery::kInline));
  EXPECT_TRUE(get.payload == PayloadOf(1000, 200 * 1024));
}

// Slots above 8 MiB are cut from slabs that are made when they are wanted, of which one fits here.
TEST_F(SpaceTest, ASlabThatAnotherThreadMadeMeanwhileServesBoth) {
  constexpr uint32_t kHuge = 9 << 20;
  ns_ = Open(RecordOf(kHuge));
  std::vector<PutOutcome> outcomes;
  const auto take = [&](const absl::StatusOr<PutResult>& put) {
    ASSERT_TRUE(put.ok());
    outcomes.push_back(OutcomeAt(*put, 0));
  };
  store_->Put(caller_, InlinePut({1}, kHuge), take);
  store_->Put(caller_, InlinePut({2}, kHuge), take);
  slabs_.meanwhile = [this] { executor_.RunAll(); };
  executor_.RunAll();
  EXPECT_EQ(outcomes, std::vector<PutOutcome>(2, PutOutcome::kStored));
  EXPECT_EQ(HitsOf({1, 2}), 2U);
}

TEST_F(SpaceTest, WhatIsWorthKeepingInAnEmptiedSlabMoves) {
  PutChain(Range(0, 64));
  PutChain(Range(100, 164));
  // The slab that is emptied is the colder one on average, but its best blocks are touched last.
  HitsOf(Range(100, 164));
  HitsOf(Range(0, 4));
  PutChain(Range(1000, 1003), 200 * 1024);
  EXPECT_EQ(HitsOf(Range(0, 4)), 4U);
  for (uint64_t key = 0; key < 4; ++key) {
    EXPECT_TRUE(Get(GetOf({key}, Delivery::kInline)).payload == PayloadOf(key, kBig));
  }
}

TEST_F(SpaceTest, ASlabNeverPassesFromOneTenantToAnother) {
  PutChain(Range(0, 128));
  const int made = slabs_.heap().made();
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  PutCall call = InlinePut({1}, kBig);
  call.part.namespace_digest = store_->OpenNamespace(other.tenant, RecordOf(1 << 20))->digest;
  EXPECT_EQ(OutcomeAt(Put(std::move(call), other), 0), PutOutcome::kStored);
  EXPECT_EQ(slabs_.heap().made(), made + 1) << "fresh memory for the new tenant";
  EXPECT_EQ(store_->Usage().counters.slabs_retired, 1U);
  store_->Tick();
  EXPECT_EQ(slabs_.heap().alive(), 2) << "and the old one given back";
}

TEST_F(SpaceTest, ARetiredSlabStaysWhileASessionMayMapIt) {
  PutChain(Range(0, 128));
  const GetResult lease = Get(GetOf(Range(0, 1), Delivery::kLease));
  store_->Release(caller_, {{lease.lease_id, {}}}, {});
  const GetResult other_lease = Get(GetOf(Range(127, 128), Delivery::kLease));
  store_->Release(caller_, {{other_lease.lease_id, {}}}, {});
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  PutCall call = InlinePut({1}, kBig);
  call.part.namespace_digest = store_->OpenNamespace(other.tenant, RecordOf(1 << 20))->digest;
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kDeclined);
  ASSERT_FALSE(observer_.retired.empty());
  EXPECT_EQ(observer_.retired[0].first, session_);
  EXPECT_EQ(slabs_.heap().alive(), 2);
  store_->ProcessGone(session_);
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kStored);
}

TEST_F(SpaceTest, ARetiredSlabGoesWhenTheLastSessionHasUnmappedIt) {
  PutChain(Range(0, 128));
  for (const uint64_t key : {0, 127}) {
    const GetResult lease = Get(GetOf(Range(key, key + 1), Delivery::kLease));
    store_->Release(caller_, {{lease.lease_id, {}}}, {});
  }
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  PutCall call = InlinePut({1}, kBig);
  call.part.namespace_digest = store_->OpenNamespace(other.tenant, RecordOf(1 << 20))->digest;
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kDeclined);
  ASSERT_FALSE(observer_.retired.empty());
  store_->UnmapSlab(session_, SlabId{12345});
  store_->UnmapSlab(kNoSession, observer_.retired[0].second);
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kDeclined);
  for (int times = 0; times < 2; ++times) {
    store_->UnmapSlab(session_, observer_.retired[0].second);
  }
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kStored);
}

TEST_F(SpaceTest, BlocksLargerThanASlabOfTheUsualSizeGetOneOfTheirOwn) {
  BlockStoreOptions options;
  options.dram_bytes = uint64_t{256} << 20;
  Make(options);
  ns_ = Open(RecordOf(uint64_t{16} << 20));
  const TestRegion memory(uint64_t{16} << 20);
  Register(memory, 1, Flat(1, uint64_t{16} << 20));
  const std::string payload = PayloadOf(1, 16 << 20);
  std::memcpy(memory.data(), payload.data(), payload.size());
  PutCall put;
  put.part = Part({1});
  put.payload_bytes = {16 << 20};
  put.region = {1, {0}};
  put.deadline = clock_.Now() + absl::Seconds(5);
  ASSERT_EQ(OutcomeAt(Put(std::move(put)), 0), PutOutcome::kStored);
  std::memset(memory.data(), 0, payload.size());
  GetCall get = GetOf({1}, Delivery::kRegion);
  get.regions = {{1, {0}}};
  ASSERT_EQ(OutcomeAt(Get(std::move(get)), 0), GetOutcome::kOk);
  EXPECT_TRUE(std::string(memory.data(), payload.size()) == payload);
}

TEST_F(SpaceTest, MemoryThatCannotBeMadeIsADeclineAndNotAnError) {
  PutChain(Range(0, 128));
  slabs_.heap().FailNext(1000);
  const Caller other{*store_->OpenTenant("b"), kNoSession};
  PutCall call = InlinePut({1}, kBig);
  call.part.namespace_digest = store_->OpenNamespace(other.tenant, RecordOf(1 << 20))->digest;
  EXPECT_EQ(ReasonAt(Put(call, other), 0), Reason::kNoSpace);
  slabs_.heap().FailNext(0);
  EXPECT_EQ(OutcomeAt(Put(call, other), 0), PutOutcome::kStored);
}

TEST_F(SpaceTest, AFamilyIsEvictedTogether) {
  const Digest128 rank0 = Open(RecordOf(1 << 20, 0, 2));
  const Digest128 rank1 = Open(RecordOf(1 << 20, 1, 2));
  for (const Digest128& ns : {rank0, rank1}) {
    PutCall call = InlinePut({1, 2}, kBig);
    call.part.namespace_digest = ns;
    Put(std::move(call));
  }
  const uint64_t slot = SlotBytesFor(kBig);
  const auto evicted = Evict("", 3 * slot);
  ASSERT_TRUE(evicted.ok());
  EXPECT_EQ(evicted->blocks, 2U) << "one block was asked for; its sibling goes with it";
  for (const Digest128& ns : {rank0, rank1}) {
    StorePart part = Part({1, 2});
    part.namespace_digest = ns;
    EXPECT_EQ(Probe({part}).part_hits[0], 1U);
  }
}

TEST_F(SpaceTest, GroupsWithSuffixedKeysAreOneFamily) {
  NamespaceRecord full = RecordOf(1 << 20);
  full.key_suffix = std::string("\0\0\0\0", 4);
  NamespaceRecord window = full;
  window.group = 1;
  window.key_suffix = std::string("\0\0\0\1", 4);
  for (const NamespaceRecord& record : {full, window}) {
    PutCall call = InlinePut({1}, kBig);
    call.part.namespace_digest = Open(record);
    call.part.key_bytes = 36;
    call.part.keys = KeyOf(1) + record.key_suffix;
    EXPECT_EQ(OutcomeAt(Put(std::move(call)), 0), PutOutcome::kStored);
  }
  EXPECT_EQ(Evict("", SlotBytesFor(kBig))->blocks, 2U);
}

TEST_F(SpaceTest, ExplainSaysWhereABlockIsAndWhatKeepsIt) {
  PutChain(Range(0, 3));
  EXPECT_EQ(store_->Explain("a", Part({2}))->eviction_rank, 0U);
  EXPECT_EQ(store_->Explain("a", Part({0}))->eviction_rank, 2U);
  Probe({Part({0})}, absl::Seconds(5));
  EXPECT_EQ(store_->Explain("", Part({0}))->holds, 1U);
  EXPECT_EQ(store_->Explain("", Part({77}))->state, KeyState::kMiss);
  EXPECT_EQ(store_->Explain("nobody", Part({0})).status().code(), absl::StatusCode::kNotFound);
  StorePart elsewhere = Part({0});
  elsewhere.namespace_digest = Digest128{1, 2};
  EXPECT_EQ(store_->Explain("a", elsewhere).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store_->OpenTenant("b").ok());
  EXPECT_EQ(store_->Explain("", Part({0})).status().code(), absl::StatusCode::kInvalidArgument)
      << "whose?";
}

TEST_F(SpaceTest, WhatNobodyOwnsIsNotEvicted) {
  PutChain(Range(0, 3));
  EXPECT_EQ(Evict("nobody", 0).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Usage().blocks, 3U);
}

TEST_F(SpaceTest, UsageAddsUp) {
  PutChain(Range(0, 5));
  const StoreUsage usage = store_->Usage();
  EXPECT_EQ(usage.blocks, 5U);
  EXPECT_EQ(usage.payload_bytes, 5U * kBig);
  EXPECT_EQ(usage.used_slot_bytes, 5U * SlotBytesFor(kBig));
  EXPECT_EQ(usage.counters.bytes_in, 5U * kBig);
  EXPECT_EQ(usage.calls_in_flight, 0U);
  EXPECT_EQ(store_->Namespaces()[0].blocks, 5U);
}

}  // namespace
}  // namespace terrace::testing
