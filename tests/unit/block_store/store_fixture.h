// A BlockStore over heap slabs, a clock that stands still and an executor that steps, with the
// small verbs its tests speak.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/block_store.h"
#include "tests/doubles/heap_slab_source.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/slow_tier.h"
#include "tests/doubles/step_executor.h"
#include "tests/doubles/store_answers.h"

namespace terrace::testing {

inline std::string KeyOf(uint64_t n, uint32_t key_bytes = 32) {
  std::string key(key_bytes, '\0');
  for (uint32_t i = 0; i < key_bytes; ++i) {
    key[i] =
        static_cast<char>((n * 0x9e3779b97f4a7c15ULL + i * 0x2545f4914f6cdd1dULL) >> (i % 8 * 8));
  }
  for (uint32_t i = 0; i < 8; ++i) {
    key[i] = static_cast<char>(n >> (8 * i));
  }
  return key;
}

inline std::string PayloadOf(uint64_t n, uint32_t bytes) {
  std::string payload(bytes, '\0');
  uint64_t state = n * 0x9e3779b97f4a7c15ULL + 1;
  for (uint32_t i = 0; i < bytes; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    payload[i] = static_cast<char>(state >> 56U);
  }
  return payload;
}

inline NamespaceRecord RecordOf(uint64_t block_bytes,
                                uint32_t shard_rank = 0,
                                uint32_t shard_count = 1) {
  NamespaceRecord record;
  record.model = "test/model";
  record.weights_revision = "r1";
  record.kv_dtype = "bf16";
  record.layout = "test/1";
  record.hash_algorithm = "sha256_cbor";
  record.block_tokens = 16;
  record.block_bytes = block_bytes;
  record.shard_rank = shard_rank;
  record.shard_count = shard_count;
  return record;
}

// A memfd of the test's own, mapped here, to be registered as a region.
class TestRegion {
 public:
  explicit TestRegion(uint64_t bytes) : bytes_(bytes) {
    fd_ = memfd_create("test-region", MFD_CLOEXEC);
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes)), 0);
    data_ = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  ~TestRegion() {
    munmap(data_, bytes_);
    close(fd_);
  }
  TestRegion(const TestRegion&) = delete;
  TestRegion& operator=(const TestRegion&) = delete;
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  uint64_t bytes_;
  int fd_ = -1;
  char* data_ = nullptr;
};

// Heap slabs whose memory the test can reach: the store's own mapping is the only writable one.
// Outlives the slabs it made; one thread makes, destroys and finds.
class ReachableSlabSource final : public SlabSource {
 public:
  absl::StatusOr<std::unique_ptr<SlabMemory>> Make(uint64_t bytes) override {
    if (meanwhile) {
      std::exchange(meanwhile, nullptr)();
    }
    auto memory = heap_.Make(bytes);
    if (!memory.ok()) {
      return memory;
    }
    return std::make_unique<Slab>(*std::move(memory), slabs_);
  }
  // Where `payload` lies at this offset of some slab that is mapped; nullptr: nowhere.
  [[nodiscard]] char* Find(uint64_t offset, std::string_view payload) const {
    for (const absl::Span<char> slab : slabs_) {
      if (offset + payload.size() <= slab.size() &&
          std::string_view(slab.data() + offset, payload.size()) == payload) {
        return slab.data() + offset;
      }
    }
    return nullptr;
  }
  HeapSlabSource& heap() { return heap_; }

  // Runs once, while the next slab is being made: what another thread does meanwhile.
  std::function<void()> meanwhile;

 private:
  class Slab final : public SlabMemory {
   public:
    Slab(std::unique_ptr<SlabMemory> memory, std::list<absl::Span<char>>& reachable)
        : memory_(std::move(memory)),
          reachable_(reachable),
          here_(reachable.insert(reachable.end(), memory_->memory())) {}
    ~Slab() override { reachable_.erase(here_); }
    Slab(const Slab&) = delete;
    Slab& operator=(const Slab&) = delete;
    [[nodiscard]] absl::Span<char> memory() const override { return memory_->memory(); }
    [[nodiscard]] const Descriptor& descriptor() const override { return memory_->descriptor(); }
    [[nodiscard]] PageKind page_kind() const override { return memory_->page_kind(); }

   private:
    const std::unique_ptr<SlabMemory> memory_;
    std::list<absl::Span<char>>& reachable_;
    const std::list<absl::Span<char>>::iterator here_;
  };

  HeapSlabSource heap_;
  std::list<absl::Span<char>> slabs_;
};

class StoreTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kPayload = 64 * 1024 - 7;  // odd on purpose

  void SetUp() override { Make(BlockStoreOptions{}); }

  void Make(BlockStoreOptions options, bool with_lower_tier = false) {
    store_.reset();
    if (options.dram_bytes == uint64_t{1} << 30) {
      options.dram_bytes = uint64_t{128} << 20;
    }
    options.copied_by_caller = copied_by_caller_;
    BlockStore::Parts parts;
    parts.clock = &clock_;
    parts.executor = &executor_;
    parts.slabs = slab_source_;
    parts.keeper = keeper_;
    parts.observer = &observer_;
    parts.shared = shared_;
    parts.learnt = learnt_;
    if (with_lower_tier) {
      parts.lower_tiers.push_back(&lower_);
    }
    auto store = BlockStore::Create(options, parts);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
    tenant_ = *store_->OpenTenant("a");
    session_ = store_->OpenSession(tenant_, BlockStore::LeaseRight::kProvenByPidfd);
    caller_ = Caller{tenant_, session_};
    ns_ = Open(RecordOf(1 << 20));
  }

  Digest128 Open(const NamespaceRecord& record) {
    return store_->OpenNamespace(tenant_, record)->digest;
  }

  StorePart Part(const std::vector<uint64_t>& keys, Rule rule = Rule::kPrefix) const {
    StorePart part;
    part.namespace_digest = ns_;
    part.rule = rule;
    for (const uint64_t key : keys) {
      part.keys += KeyOf(key);
    }
    return part;
  }

  PutCall InlinePut(const std::vector<uint64_t>& keys, uint32_t bytes = kPayload) const {
    PutCall call;
    call.part = Part(keys);
    for (const uint64_t key : keys) {
      call.payload += PayloadOf(key, bytes);
      call.payload_bytes.push_back(bytes);
    }
    call.deadline = clock_.Now() + absl::Seconds(5);
    return call;
  }

  PutResult Put(PutCall call, std::optional<Caller> caller = std::nullopt) {
    std::optional<absl::StatusOr<PutResult>> result;
    store_->Put(caller.value_or(caller_), std::move(call),
                [&](absl::StatusOr<PutResult> r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    EXPECT_TRUE(result->ok()) << result->status();
    return **result;
  }
  PutResult PutKeys(const std::vector<uint64_t>& keys, uint32_t bytes = kPayload) {
    return Put(InlinePut(keys, bytes));
  }

  GetCall GetOf(const std::vector<uint64_t>& keys, Delivery delivery) const {
    GetCall call;
    call.parts.push_back(Part(keys));
    call.delivery = delivery;
    call.deadline = clock_.Now() + absl::Seconds(5);
    return call;
  }
  GetResult Get(GetCall call, std::optional<Caller> caller = std::nullopt) {
    std::optional<absl::StatusOr<GetResult>> result;
    store_->Get(caller.value_or(caller_), std::move(call),
                [&](absl::StatusOr<GetResult> r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    EXPECT_TRUE(result->ok()) << result->status();
    return **result;
  }
  ProbeResult Probe(const std::vector<StorePart>& parts,
                    absl::Duration hold = absl::ZeroDuration(),
                    std::optional<Caller> caller = std::nullopt) {
    ProbeCall call;
    call.parts = parts;
    call.hold = hold;
    std::optional<ProbeResult> result;
    store_->Probe(caller.value_or(caller_), std::move(call),
                  [&](ProbeResult r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    return *result;
  }
  absl::StatusOr<BlockStore::DeleteResult> Delete(const StorePart& part,
                                                  std::optional<Caller> caller = std::nullopt) {
    std::optional<absl::StatusOr<BlockStore::DeleteResult>> result;
    store_->Delete(caller.value_or(caller_), part, [&](auto r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    return *result;
  }
  absl::StatusOr<uint64_t> Clear() {
    std::optional<absl::StatusOr<ClearedNamespace>> result;
    store_->ClearNamespace(tenant_, ns_, [&](auto r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    return result->ok() ? absl::StatusOr<uint64_t>((*result)->generation) : result->status();
  }
  absl::StatusOr<EvictResult> Evict(std::string_view tenant, uint64_t target_used_bytes) {
    std::optional<absl::StatusOr<EvictResult>> result;
    store_->Evict(tenant, target_used_bytes, [&](auto r) { result = std::move(r); });
    executor_.RunAll();
    EXPECT_TRUE(result.has_value());
    return *result;
  }
  bool Holds(uint64_t key) {
    return (static_cast<uint8_t>(Probe({Part({key})}).states[0]) & 0xfU) ==
           static_cast<uint8_t>(KeyState::kReady);
  }

  void Register(const TestRegion& memory, uint32_t region_id, RegionGeometry geometry) {
    auto mapped = GuardedRegion::Map(memory.fd(), 0, memory.bytes(), MapAccess::kReadWrite);
    ASSERT_TRUE(mapped.ok());
    const auto status = store_->RegisterRegion(
        session_, {region_id, std::move(*mapped), std::move(geometry), false});
    ASSERT_TRUE(status.ok()) << status.status();
  }
  static RegionGeometry Flat(uint32_t blocks, uint64_t bytes) {
    return RegionGeometry{blocks, {RegionPlane{0, bytes, {RegionSegment{0, bytes}}}}};
  }

  struct CountingObserver final : StoreObserver {
    void SlabRetired(SessionId session, SlabId slab) override {
      retired.emplace_back(session, slab);
    }
    std::vector<std::pair<SessionId, SlabId>> retired;
  };

  doubles::ManualClock clock_;
  doubles::StepExecutor executor_{3};  // steps one by one; the store plans for three at a time
  ReachableSlabSource slabs_;
  SlabSource* slab_source_ = &slabs_;  // of the next Make
  DramKeeper* keeper_ = nullptr;       // likewise; outlives the store
  doubles::SlowTier lower_;
  std::vector<SharedTier*> shared_;  // of the next Make; outlive the store
  std::vector<LearntPolicy> learnt_;  // of an earlier life
  uint64_t copied_by_caller_ = 0;    // of the next Make
  CountingObserver observer_;
  std::unique_ptr<BlockStore> store_;
  TenantId tenant_{0};
  SessionId session_ = kNoSession;
  Caller caller_;
  Digest128 ns_;
};

using doubles::OutcomeAt;
using doubles::ReasonAt;

}  // namespace terrace::testing
