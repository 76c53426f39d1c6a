// What another tenant stores costs a caller exactly what nobody's does: the look-up key of the
// index contains the scope, which belongs to one namespace of one tenant, and namespaces are looked
// up in the caller's own table. So both are the same plain miss; here the allocations of every verb
// are counted, and what the store counts of itself.
#include "tests/unit/block_store/counted_allocations.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

class TenantCost : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    PutKeys({1, 2, 3, 4, 5, 6, 7, 8});
    foreign_ = ns_;
    other_ = Caller{*store_->OpenTenant("b"), kNoSession};
    own_ = store_->OpenNamespace(other_.tenant, RecordOf(1 << 20))->digest;
    ns_ = own_;
    Put(InlinePut({1000}), other_);  // so that the tenant has a scope of its own to look in
    ASSERT_FALSE(own_ == foreign_);
  }
  // Everything that the store and the allocator can tell of what `call` did.
  template <typename Call>
  std::vector<uint64_t> CostOf(Call call) {
    const StoreUsage before = store_->Usage();
    const uint64_t allocated = CountedAllocations();
    call();
    const uint64_t by_call = CountedAllocations() - allocated;
    const StoreUsage after = store_->Usage();
    return {by_call,
            after.counters.probe_keys - before.counters.probe_keys,
            after.counters.probe_hits - before.counters.probe_hits,
            after.counters.get_outcomes[0] - before.counters.get_outcomes[0],
            after.counters.bytes_copied_out - before.counters.bytes_copied_out,
            after.counters.single_flight_joined - before.counters.single_flight_joined,
            after.metadata_bytes - before.metadata_bytes,
            after.holds - before.holds,
            after.blocks - before.blocks};
  }
  void ExpectAlike(const StorePart& owners, const StorePart& nobodys) {
    const std::function<void(const StorePart&)> verbs[] = {
        [this](const StorePart& part) {
          ProbeCall call;
          call.parts = {part};
          call.hold = absl::Seconds(1);
          call.prefetch = true;
          store_->Probe(other_, std::move(call), [](const ProbeResult&) {});
        },
        [this](const StorePart& part) {
          GetCall call;
          call.parts = {part};
          call.wait_pending = true;
          call.deadline = clock_.Now() + absl::Seconds(1);
          store_->Get(other_, std::move(call), [](const absl::StatusOr<GetResult>&) {});
          executor_.RunAll();
        },
        [this](const StorePart& part) {
          PrefetchCall call;
          call.parts = {part};
          call.deadline = clock_.Now() + absl::Seconds(1);
          store_->Prefetch(other_, std::move(call), [](const absl::StatusOr<PrefetchResult>&) {});
        },
        [this](const StorePart& part) { store_->Delete(other_, part, [](const auto&) {}); },
        [this](const StorePart& part) {
          static_cast<void>(store_->Pin(other_, part, absl::ZeroDuration()));
        },
        [this](const StorePart& part) { static_cast<void>(store_->Unpin(other_, part)); },
    };
    for (const auto& verb : verbs) {
      verb(nobodys);  // whatever grows at its first use has grown
      const std::vector<uint64_t> owners_cost = CostOf([&] { verb(owners); });
      const std::vector<uint64_t> nobodys_cost = CostOf([&] { verb(nobodys); });
      EXPECT_EQ(owners_cost, nobodys_cost);
      EXPECT_GT(owners_cost[0], 0U) << "nothing is counted";
    }
  }
  StorePart In(const Digest128& digest, const std::vector<uint64_t>& keys, Rule rule) {
    StorePart part = Part(keys, rule);
    part.namespace_digest = digest;
    return part;
  }

  Digest128 foreign_;
  Digest128 own_;
  Caller other_;
};

TEST_F(TenantCost, AKeyThatAnotherStoredCostsWhatNobodysDoes) {
  const std::vector<uint64_t> owners = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint64_t> nobodys = {11, 12, 13, 14, 15, 16, 17, 18};
  for (const Rule rule : {Rule::kPrefix, Rule::kIndependent}) {
    ExpectAlike(In(own_, owners, rule), In(own_, nobodys, rule));
  }
}

TEST_F(TenantCost, AForeignNamespaceCostsWhatNobodysDoes) {
  Digest128 never;
  ASSERT_TRUE(Digest128::FromBytes(std::string(16, 'n'), &never));
  const std::vector<uint64_t> keys = {1, 2, 3, 4, 5, 6, 7, 8};
  for (const Rule rule : {Rule::kPrefix, Rule::kIndependent}) {
    ExpectAlike(In(foreign_, keys, rule), In(never, keys, rule));
  }
}

TEST_F(TenantCost, TheCountsTellAHitFromAMiss) {
  const std::vector<uint64_t> hit = CostOf([&] { Get(GetOf({1000}, Delivery::kInline), other_); });
  const std::vector<uint64_t> miss = CostOf([&] { Get(GetOf({1001}, Delivery::kInline), other_); });
  EXPECT_NE(hit, miss) << "else the tests above could not fail";
}

}  // namespace
}  // namespace terrace::testing
