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
    asks_owners_ = NewAsker("b");
    asks_nobodys_ = NewAsker("c");
  }
  // A tenant that has a scope of its own to look in.
  struct Asker {
    Caller caller;
    Digest128 own;
  };
  struct Question {
    std::vector<uint64_t> keys;
    const Digest128* space = nullptr;  // nullptr: the asker's own
  };
  Asker NewAsker(const std::string& tenant) {
    Asker asker{Caller{*store_->OpenTenant(tenant), kNoSession}, {}};
    asker.own = store_->OpenNamespace(asker.caller.tenant, RecordOf(1 << 20))->digest;
    EXPECT_FALSE(asker.own == foreign_);
    ns_ = asker.own;
    Put(InlinePut({1000}), asker.caller);
    return asker;
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
  // Two tenants of the same past ask, one for what another stored, the other for what nobody did:
  // placement remembers what its own tenant has asked for.
  void ExpectAlike(const Question& owners, const Question& nobodys, Rule rule) {
    using Verb = std::function<void(const Caller&, const StorePart&)>;
    const Verb verbs[] = {
        [this](const Caller& caller, const StorePart& part) {
          ProbeCall call;
          call.parts = {part};
          call.hold = absl::Seconds(1);
          call.prefetch = true;
          store_->Probe(caller, std::move(call), [](const ProbeResult&) {});
        },
        [this](const Caller& caller, const StorePart& part) {
          GetCall call;
          call.parts = {part};
          call.wait_pending = true;
          call.deadline = clock_.Now() + absl::Seconds(1);
          store_->Get(caller, std::move(call), [](const absl::StatusOr<GetResult>&) {});
          executor_.RunAll();
        },
        [this](const Caller& caller, const StorePart& part) {
          PrefetchCall call;
          call.parts = {part};
          call.deadline = clock_.Now() + absl::Seconds(1);
          store_->Prefetch(caller, std::move(call), [](const absl::StatusOr<PrefetchResult>&) {});
        },
        [this](const Caller& caller, const StorePart& part) {
          store_->Delete(caller, part, [](const auto&) {});
        },
        [this](const Caller& caller, const StorePart& part) {
          static_cast<void>(store_->Pin(caller, part, absl::ZeroDuration()));
        },
        [this](const Caller& caller, const StorePart& part) {
          static_cast<void>(store_->Unpin(caller, part));
        },
    };
    for (const auto& verb : verbs) {
      const auto ask = [&](const Asker& asker, const Question& question) {
        StorePart part = Part(question.keys, rule);
        part.namespace_digest = question.space == nullptr ? asker.own : *question.space;
        verb(asker.caller, part);
      };
      const Question warming{{21, 22, 23, 24, 25, 26, 27, 28}, owners.space};
      ask(asks_owners_, warming);  // whatever grows at its first use has grown
      ask(asks_nobodys_, warming);
      const std::vector<uint64_t> owners_cost = CostOf([&] { ask(asks_owners_, owners); });
      const std::vector<uint64_t> nobodys_cost = CostOf([&] { ask(asks_nobodys_, nobodys); });
      EXPECT_EQ(owners_cost, nobodys_cost);
      EXPECT_GT(owners_cost[0], 0U) << "nothing is counted";
    }
  }
  Digest128 foreign_;
  Asker asks_owners_;
  Asker asks_nobodys_;
};

TEST_F(TenantCost, AKeyThatAnotherStoredCostsWhatNobodysDoes) {
  const std::vector<uint64_t> owners = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint64_t> nobodys = {11, 12, 13, 14, 15, 16, 17, 18};
  for (const Rule rule : {Rule::kPrefix, Rule::kIndependent}) {
    ExpectAlike({owners}, {nobodys}, rule);
  }
}

TEST_F(TenantCost, AForeignNamespaceCostsWhatNobodysDoes) {
  Digest128 never;
  ASSERT_TRUE(Digest128::FromBytes(std::string(16, 'n'), &never));
  const std::vector<uint64_t> keys = {1, 2, 3, 4, 5, 6, 7, 8};
  for (const Rule rule : {Rule::kPrefix, Rule::kIndependent}) {
    ExpectAlike({keys, &foreign_}, {keys, &never}, rule);
  }
}

TEST_F(TenantCost, TheCountsTellAHitFromAMiss) {
  const std::vector<uint64_t> hit =
      CostOf([&] { Get(GetOf({1000}, Delivery::kInline), asks_nobodys_.caller); });
  const std::vector<uint64_t> miss =
      CostOf([&] { Get(GetOf({1001}, Delivery::kInline), asks_nobodys_.caller); });
  EXPECT_NE(hit, miss) << "else the tests above could not fail";
}

}  // namespace
}  // namespace terrace::testing
