// Stores that live one after the other on the same slabs: what one leaves, the next one has, byte
// for byte or not at all.
#include <algorithm>
#include <cstring>

#include "tests/doubles/from_environment.h"
#include "tests/doubles/memory_keeper.h"
#include "tests/doubles/seeded.h"
#include "tests/unit/block_store/store_fixture.h"

namespace terrace::testing {
namespace {

using doubles::FromEnvironment;
using doubles::MemoryKeeper;
using doubles::Seeded;

class KeptTest : public StoreTest {
 protected:
  static constexpr uint64_t kDram = uint64_t{128} << 20;
  static constexpr uint32_t kLarge = (4 << 20) - 5;  // 15 to a slab

  void SetUp() override {
    slab_source_ = sealed_.get();
    keeper_ = &kept_;
    options_.policy = "lru";
    options_.dram_bytes = kDram;
    NextLife();
  }
  void TearDown() override {
    executor_.RunAll();
    store_.reset();
  }
  // As after a kill: nothing is told to the store that ends.
  void NextLife() {
    kept_.End();
    executor_.RunAll();
    Make(options_);
    ns_ = Open(RecordOf(8 << 20));
  }
  void Tick(absl::Duration time = absl::Seconds(2)) {
    clock_.Advance(time);
    store_->Tick();
    executor_.RunAll();
  }
  std::string Payload(uint64_t key, uint32_t bytes = kLarge) { return PayloadOf(key, bytes); }
  void PutLarge(const std::vector<uint64_t>& keys) {
    for (const uint64_t key : keys) {
      PutCall call = InlinePut({key}, kLarge);
      const std::string payload = std::move(call.payload);
      call.payload.clear();
      call.in_place = {payload.data()};
      EXPECT_EQ(OutcomeAt(Put(std::move(call)), 0), PutOutcome::kStored) << key;
    }
  }
  // "": a miss; else what the block holds.
  std::string Read(uint64_t key, Delivery delivery = Delivery::kInPlace, bool sampled = false) {
    GetCall call = GetOf({key}, delivery);
    call.sampled = sampled;
    const GetResult result = Get(std::move(call));
    last_ = OutcomeAt(result, 0);
    if (last_ != GetOutcome::kOk) {
      return "";
    }
    if (delivery == Delivery::kInPlace) {
      return std::string(result.in_place[0].data(), result.in_place[0].size());
    }
    if (delivery == Delivery::kInline) {
      return result.payload;
    }
    auto grant = store_->MapSlab(session_, SlabId{result.slab_ids[0]});
    EXPECT_TRUE(grant.ok());
    auto mapping = Mapping::Map(grant->descriptor.get(), 0, grant->bytes, MapAccess::kReadOnly);
    EXPECT_TRUE(mapping.ok());
    std::string bytes(mapping->data() + result.slab_offsets[0], result.payload_bytes[0]);
    lease_ = result.lease_id;
    leased_.push_back(*std::move(mapping));
    return bytes;
  }
  // How many of the keys are there; each is right.
  size_t RightOnes(const std::vector<uint64_t>& keys) {
    size_t right = 0;
    for (const uint64_t key : keys) {
      const std::string bytes = Read(key);
      EXPECT_TRUE(bytes.empty() || bytes == Payload(key)) << key;
      right += bytes.empty() ? 0 : 1;
    }
    return right;
  }
  static std::vector<uint64_t> Keys(uint64_t begin, uint64_t end) {
    std::vector<uint64_t> keys;
    for (uint64_t key = begin; key < end; ++key) {
      keys.push_back(key);
    }
    return keys;
  }

  std::unique_ptr<SlabSource> sealed_ = MakeSealedSlabSource(false, 1);
  MemoryKeeper kept_{kDram};
  BlockStoreOptions options_;
  GetOutcome last_ = GetOutcome::kMiss;
  Digest128 lease_;
  std::vector<Mapping> leased_;
};

TEST_F(KeptTest, BlocksOutliveTheStore) {
  PutLarge(Keys(0, 20));
  const StoreUsage before = store_->Usage();
  NextLife();
  const StoreUsage after = store_->Usage();
  EXPECT_EQ(after.blocks, before.blocks);
  EXPECT_EQ(after.used_slot_bytes, before.used_slot_bytes);
  EXPECT_EQ(store_->Tenants()[0].used_bytes, before.used_slot_bytes);
  EXPECT_EQ(RightOnes(Keys(0, 20)), 20U);
  NextLife();
  EXPECT_EQ(RightOnes(Keys(0, 20)), 20U);
}

TEST_F(KeptTest, EveryDeliveryIsVerifiedFirst) {
  PutLarge({1, 2, 3, 4, 5});
  ASSERT_EQ(PutKeys({10}).outcomes[0], static_cast<char>(PutOutcome::kStored));
  NextLife();
  EXPECT_EQ(Read(1), Payload(1));
  EXPECT_EQ(Read(2, Delivery::kLease), Payload(2));
  EXPECT_EQ(Read(3, Delivery::kInPlace, true), Payload(3));
  EXPECT_EQ(Read(10, Delivery::kInline), Payload(10, kPayload));
}

// The test writes to the memory by way of a file of /proc: no mapping for writing can be had.
bool FlipIn(const Descriptor& slab, std::string_view payload) {
  auto mapping = Mapping::Map(slab.get(), 0, kMinSlabBytes, MapAccess::kReadOnly);
  const std::string_view all(mapping->data(), mapping->size());
  return all.find(payload.substr(0, 64)) != std::string_view::npos;
}

TEST_F(KeptTest, NobodyCanWriteToASlabOfAnEarlierLife) {
  PutLarge({1});
  NextLife();
  const Descriptor& slab = kept_.slabs().begin()->second;
  EXPECT_TRUE(FlipIn(slab, Payload(1)));
  EXPECT_FALSE(Mapping::Map(slab.get(), 0, kMinSlabBytes, MapAccess::kReadWrite).ok());
}

TEST_F(KeptTest, WhatWasDeletedIsGone) {
  PutLarge({1, 2, 3});
  ASSERT_TRUE(Delete(Part({2})).ok());
  NextLife();
  EXPECT_EQ(Read(1), Payload(1));
  EXPECT_EQ(Read(2), "");
  EXPECT_EQ(Read(3), Payload(3));
  ASSERT_TRUE(Delete(Part({3})).ok());
  NextLife();
  EXPECT_EQ(Read(1), Payload(1));
  EXPECT_EQ(Read(3), "");
}

TEST_F(KeptTest, WhatWasClearedIsGoneAndTheGenerationStays) {
  PutLarge({1, 2});
  EXPECT_EQ(*Clear(), 2U);
  PutLarge({3});
  NextLife();
  EXPECT_EQ(store_->OpenNamespace(tenant_, RecordOf(8 << 20))->generation, 2U);
  EXPECT_EQ(Read(1), "");
  EXPECT_EQ(Read(2), "");
  EXPECT_EQ(Read(3), Payload(3));
  EXPECT_EQ(*Clear(), 3U);
  NextLife();
  EXPECT_EQ(Read(3), "");
}

TEST_F(KeptTest, WhatWasEvictedIsGone) {
  PutLarge(Keys(0, 40));  // 30 fit
  EXPECT_EQ(RightOnes(Keys(0, 40)), 30U);
  NextLife();
  EXPECT_EQ(RightOnes(Keys(0, 40)), 30U);
}

TEST_F(KeptTest, PrivateNamespacesAreForgotten) {
  NamespaceRecord record = RecordOf(8 << 20);
  record.labels[std::string(kPrivateLabel)] = "x";
  ns_ = store_->OpenNamespace(caller_, record)->digest;
  PutLarge({1});
  NextLife();
  ns_ = store_->OpenNamespace(caller_, record)->digest;
  EXPECT_EQ(Read(1), "");
}

TEST_F(KeptTest, AFullStoreTakesNewBlocksAfterwards) {
  PutLarge(Keys(0, 30));
  NextLife();
  PutLarge(Keys(100, 160));
  EXPECT_EQ(RightOnes(Keys(100, 160)), 30U);
  EXPECT_EQ(RightOnes(Keys(0, 30)), 0U);
  EXPECT_EQ(kept_.count(), 2U) << "slabs that were given up are still kept";
  NextLife();
  EXPECT_EQ(RightOnes(Keys(100, 160)), 30U);
}

TEST_F(KeptTest, AnotherSlotSizeCanHaveTheRoom) {
  PutLarge(Keys(0, 30));
  NextLife();
  EXPECT_EQ(OutcomeAt(PutKeys({500}), 0), PutOutcome::kStored);
  EXPECT_EQ(Read(500), Payload(500, kPayload));
  NextLife();
  EXPECT_EQ(Read(500), Payload(500, kPayload));
}

TEST_F(KeptTest, ADeletedStoreTakesNewBlocksAfterwards) {
  PutLarge(Keys(0, 30));
  NextLife();
  ASSERT_TRUE(Delete(Part(Keys(0, 30))).ok());
  PutLarge(Keys(100, 130));
  EXPECT_EQ(RightOnes(Keys(100, 130)), 30U);
}

TEST_F(KeptTest, EmptySlabsOfAnEarlierLifeGoByThemselves) {
  PutLarge(Keys(0, 30));
  NextLife();
  ASSERT_TRUE(Delete(Part(Keys(0, 30))).ok());
  Tick();
  Tick();
  EXPECT_EQ(kept_.count(), 0U);
  EXPECT_EQ(store_->Usage().assigned_slabs, 0U);
}

TEST_F(KeptTest, LeasedBytesOfAnEarlierLifeNeverChange) {
  PutLarge(Keys(0, 30));
  ASSERT_EQ(Read(7, Delivery::kLease), Payload(7));
  const Mapping mapping = std::move(leased_.back());
  const std::string_view bytes(mapping.data(), mapping.size());
  const size_t at = bytes.find(Payload(7).substr(0, 256));
  ASSERT_NE(at, std::string_view::npos);
  NextLife();
  for (uint64_t key = 100; key < 200; ++key) {  // some are declined: a slab is kept for the client
    PutCall call = InlinePut({key}, kLarge);
    const std::string payload = std::move(call.payload);
    call.payload.clear();
    call.in_place = {payload.data()};
    static_cast<void>(Put(std::move(call)));
    ASSERT_EQ(bytes.substr(at, kLarge), Payload(7)) << key;
  }
  static_cast<void>(RightOnes(Keys(100, 200)));
  EXPECT_GE(RightOnes(Keys(185, 200)), 10U);
  EXPECT_LE(store_->Usage().capacity_bytes, kDram);
}

TEST_F(KeptTest, WhatAnEarlierLifeHadLeasedIsHeldForTenMinutes) {
  PutLarge(Keys(0, 30));
  ASSERT_EQ(Read(7, Delivery::kLease), Payload(7));
  ASSERT_EQ(Read(29, Delivery::kLease), Payload(29));
  const Mapping mapping = std::move(leased_.back());
  const std::string before(mapping.data(), mapping.size());
  NextLife();
  Tick(absl::Minutes(9));
  EXPECT_GT(store_->Usage().kept.held_bytes, 0U);
  Tick(absl::Minutes(2));
  EXPECT_EQ(store_->Usage().kept.held_bytes, 0U);
  PutLarge(Keys(100, 130));
  EXPECT_EQ(RightOnes(Keys(100, 130)), 30U);
  EXPECT_EQ(std::string(mapping.data(), mapping.size()), before) << "nothing is written there";
  EXPECT_LE(store_->Usage().capacity_bytes, kDram);
}

TEST_F(KeptTest, ReleasedLeasesHoldNothing) {
  PutLarge(Keys(0, 30));
  ASSERT_EQ(Read(7, Delivery::kLease), Payload(7));
  const LeaseRelease release{lease_, {}};
  EXPECT_EQ(store_->Release(caller_, {&release, 1}, {}).released, 1U);
  NextLife();
  PutLarge(Keys(100, 130));
  EXPECT_EQ(RightOnes(Keys(100, 130)), 30U);
}

TEST_F(KeptTest, LessCapacityKeepsTheNewest) {
  PutLarge(Keys(0, 30));
  options_.dram_bytes = uint64_t{64} << 20;
  NextLife();
  EXPECT_EQ(RightOnes(Keys(0, 30)), 15U);
  EXPECT_EQ(Read(29), Payload(29));
  EXPECT_EQ(kept_.count(), 1U);
}

TEST_F(KeptTest, SlabsThatAreMissingAreMisses) {
  PutLarge(Keys(0, 30));
  kept_.slabs().erase(kept_.slabs().begin());
  NextLife();
  EXPECT_EQ(RightOnes(Keys(0, 30)), 15U);
}

TEST_F(KeptTest, SlabsInEachOthersPlaceAreMisses) {
  PutLarge(Keys(0, 30));
  std::swap(kept_.slabs().begin()->second, std::next(kept_.slabs().begin())->second);
  NextLife();
  EXPECT_EQ(RightOnes(Keys(0, 30)), 0U);
  EXPECT_GE(store_->Usage().counters.corrupt, 30U);
}

TEST_F(KeptTest, AnyDeliveryOfASlabInAnothersPlaceIsCorrupt) {
  PutLarge(Keys(0, 30));
  std::swap(kept_.slabs().begin()->second, std::next(kept_.slabs().begin())->second);
  for (const Delivery delivery : {Delivery::kLease, Delivery::kInPlace}) {
    for (const bool sampled : {false, true}) {
      NextLife();
      EXPECT_EQ(Read(3, delivery, sampled && delivery == Delivery::kInPlace), "");
      EXPECT_TRUE(last_ == GetOutcome::kCorrupt || last_ == GetOutcome::kMiss);
      kept_.End();
    }
  }
}

TEST_F(KeptTest, WhereNobodyKeepsItNothingIsKept) {
  PutLarge({1});
  kept_.refuse = true;
  NextLife();
  EXPECT_EQ(Read(1), Payload(1));
  PutLarge({2});
  EXPECT_EQ(Read(2), Payload(2));
}

TEST_F(KeptTest, ParentsAreKnownAgain) {
  PutCall call = InlinePut({1, 2, 3});
  ASSERT_EQ(OutcomeAt(Put(std::move(call)), 2), PutOutcome::kStored);
  NextLife();
  auto watcher = store_->Watch(tenant_, {});
  ASSERT_TRUE(watcher.ok());
  const ProbeResult probe = Probe({Part({1, 2, 3})});
  EXPECT_EQ(probe.part_hits[0], 3U);
}

TEST_F(KeptTest, TenantsHaveTheirOwn) {
  PutLarge({1});
  const TenantId other = *store_->OpenTenant("b");
  const Digest128 theirs = store_->OpenNamespace(other, RecordOf(8 << 20))->digest;
  NextLife();
  const TenantId b = *store_->OpenTenant("b");
  GetCall call = GetOf({1}, Delivery::kInPlace);
  call.parts[0].namespace_digest = theirs;
  EXPECT_EQ(OutcomeAt(Get(call, Caller{b, kNoSession}), 0), GetOutcome::kMiss);
  call.parts[0].namespace_digest = ns_;
  EXPECT_EQ(OutcomeAt(Get(call, Caller{b, kNoSession}), 0), GetOutcome::kMiss);
}

// Random words of the directory are flipped: blocks may be lost, and none is wrong.
TEST_F(KeptTest, FlipsInTheDirectoryAreMisses) {
  Seeded random(FromEnvironment("TERRACE_KEEP_SEED", 1));
  for (int round = 0; round < 12; ++round) {
    PutLarge(Keys(0, 5));
    PutKeys({100, 101, 102});
    kept_.End();
    executor_.RunAll();
    const absl::Span<char> left = kept_.left();
    uint32_t flipped = 0;
    for (size_t at = 0; at < left.size() && flipped < 3; ++at) {
      if (left[at] != 0 && random.OneIn(100)) {
        left[at] = static_cast<char>(left[at] ^ (1 << random.Below(8)));
        ++flipped;
      }
    }
    Make(options_);
    ns_ = Open(RecordOf(8 << 20));
    static_cast<void>(RightOnes(Keys(0, 5)));
    for (const uint64_t key : {100, 101, 102}) {
      const std::string bytes = Read(key);
      EXPECT_TRUE(bytes.empty() || bytes == Payload(key, kPayload));
    }
    ASSERT_TRUE(Delete(Part(Keys(0, 110))).ok());
  }
}

// Puts, deletions, clears, leases and lives in any order, against a map.
TEST_F(KeptTest, AgreesWithAModelOverManyLives) {
  Seeded random(FromEnvironment("TERRACE_KEEP_SEED", 7));
  const uint64_t steps = FromEnvironment("TERRACE_KEEP_STEPS", 400);
  // Keys that may be there, and under which content: a key is put with another payload only after
  // it was deleted or cleared.
  std::map<uint64_t, uint64_t> content;
  uint64_t version = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    const uint64_t key = random.Below(24);
    switch (random.Below(12)) {
      case 0:
        NextLife();
        break;
      case 1:
        ASSERT_TRUE(Delete(Part({key})).ok());
        content.erase(key);
        break;
      case 2:
        if (random.OneIn(4)) {
          ASSERT_TRUE(Clear().ok());
          content.clear();
        }
        break;
      case 3:
      case 4:
      case 5: {
        const uint32_t bytes = random.OneIn(3) ? kPayload : kLarge;
        if (content.contains(key)) {
          break;
        }
        PutCall call = InlinePut({key}, bytes);
        const std::string payload = PayloadOf(++version * 100 + key, bytes);
        call.payload.clear();
        call.in_place = {payload.data()};
        if (OutcomeAt(Put(std::move(call)), 0) == PutOutcome::kStored) {
          content[key] = version * 100 + key;
        }
        break;
      }
      case 6:
        Tick();
        break;
      default: {
        const std::string bytes =
            Read(key, random.OneIn(2) ? Delivery::kInPlace : Delivery::kLease);
        if (!bytes.empty()) {
          ASSERT_TRUE(content.contains(key)) << key << " came back at step " << step;
          ASSERT_EQ(bytes, PayloadOf(content[key], static_cast<uint32_t>(bytes.size()))) << key;
        } else if (last_ == GetOutcome::kMiss) {
          content.erase(key);  // evicted
        }
        EXPECT_NE(last_, GetOutcome::kCorrupt);
        leased_.clear();
      }
    }
  }
}

}  // namespace
}  // namespace terrace::testing
