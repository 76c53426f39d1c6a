// A BlockStore over a local tier as the daemon's, on one simulated disk: everything moves only when
// the test says so, processes die and power goes when the test says so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/block_store.h"
#include "tests/doubles/faulty_file_system.h"
#include "tests/doubles/heap_slab_source.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/seeded.h"
#include "tests/doubles/simulated_disk.h"
#include "tests/doubles/step_executor.h"
#include "tests/doubles/step_io.h"
#include "tests/doubles/store_answers.h"
#include "tiers/segment/tier_set.h"

namespace terrace::doubles {

class LocalRoom {
 public:
  static constexpr uint32_t kPayload = (uint32_t{1} << 20) - 7;  // odd on purpose
  static constexpr uint64_t kDram = uint64_t{64} << 20;          // 64 slots, or a few fewer
  static constexpr uint64_t kSegment = uint64_t{8} << 20;

  explicit LocalRoom(uint64_t seed = 0) : seed_(seed), choice_(seed + 1) {
    tier_options.path = "/local";
    tier_options.segment_bytes = kSegment;
    tier_options.max_payload_bytes = uint64_t{1} << 20;
    tier_options.capacity_bytes = 64 * kSegment;
    tier_options.free_reserve_bytes = 0;
    store_options.dram_bytes = kDram;
    store_options.verify_one_in = 1;
  }
  ~LocalRoom() { Abandon(); }

  void Open() {
    const absl::Status opened = TryOpen();
    ASSERT_TRUE(opened.ok()) << opened;
  }
  absl::Status TryOpen() {
    io_ = std::make_unique<StepIo>(clock_, seed_);
    SegmentTierParts parts;
    parts.files = &files_;
    parts.clock = &clock_;
    parts.hashing = &tier_executor_;
    parts.maintenance = &tier_executor_;
    TierSetOptions set;
    set.drives.emplace_back();
    set.drives.back().options = tier_options;
    set.drives.back().io = io_.get();
    set.opens_without_drives = true;
    absl::StatusOr<std::unique_ptr<SegmentTier>> tier = OpenTierSet(set, parts);
    if (!tier.ok()) {
      return tier.status();
    }
    tier_ = *std::move(tier);
    BlockStore::Parts store_parts;
    store_parts.clock = &clock_;
    store_parts.executor = &executor_;
    store_parts.slabs = &slabs_;
    store_parts.local = tier_.get();
    store_parts.shared = shared;
    absl::StatusOr<std::unique_ptr<BlockStore>> store =
        BlockStore::Create(store_options, store_parts);
    if (!store.ok()) {
      return store.status();
    }
    store_ = *std::move(store);
    caller_.tenant = *store_->OpenTenant("a");
    caller_.session = store_->OpenSession(caller_.tenant, BlockStore::LeaseRight::kProvenByPidfd);
    ns_ = store_->OpenNamespace(caller_.tenant, Record())->digest;
    return absl::OkStatus();
  }
  // Stops as a service does: what is under way ends, and the tier is closed.
  void Close() {
    Settle();
    store_.reset();
    bool closed = false;
    tier_->Close([&closed](const absl::Status&) { closed = true; });
    Settle();
    EXPECT_TRUE(closed);
    tier_.reset();
  }
  // The process is gone: what was in flight may or may not have happened, and nothing else does.
  void Abandon() {
    if (tier_ == nullptr) {
      return;
    }
    io_->ScatterWaiting(seed_ + 17);
    disk_.CutPower();
    Settle();
    store_.reset();
    Settle();
    tier_.reset();
  }
  void Kill() {
    Abandon();
    disk_.RestoreAfterKill();
  }
  void LosePower(uint64_t seed) {
    Abandon();
    disk_.RestoreAfterPowerLoss(seed);
  }

  // One step of one of the machines, the seed says which. False: nothing is left to do.
  bool Step() {
    switch (seed_ == 0 ? 0 : choice_.Below(3)) {
      case 0:
        return executor_.Step() || tier_executor_.Step() || io_->Step();
      case 1:
        return tier_executor_.Step() || io_->Step() || executor_.Step();
      default:
        return io_->Step() || executor_.Step() || tier_executor_.Step();
    }
  }
  void RunAll() {
    while (Step()) {
    }
  }
  void Tick(absl::Duration by) {
    clock_.Advance(by);
    store_ != nullptr ? store_->Tick() : tier_->Tick();
  }
  // Until nothing moves, with a little time passing.
  void Settle() {
    RunAll();
    for (int i = 0; i < 20; ++i) {
      Tick(absl::Milliseconds(10));
      RunAll();
    }
  }
  // Until `done`, with time passing where nothing else moves.
  void RunUntil(const std::function<bool()>& done) {
    for (int ticks = 0; !done() && ticks < 5000;) {
      if (!Step()) {
        Tick(absl::Milliseconds(10));
        ++ticks;
      }
    }
    ASSERT_TRUE(done()) << "it never ends";
  }

  [[nodiscard]] static std::string KeyOf(uint64_t n) { return Seeded(n * 2 + 1).Bytes(32); }
  // Eight bytes at a time: there are many of a megabyte.
  [[nodiscard]] static std::string PayloadOf(uint64_t n, uint32_t bytes = kPayload) {
    std::string payload(bytes, '\0');
    uint64_t word = n * 0x9e3779b97f4a7c15ULL + 1;
    for (uint32_t at = 0; at < bytes; at += 8) {
      word = word * 6364136223846793005ULL + 1442695040888963407ULL;
      const uint64_t mixed = word ^ (word >> 29);
      std::memcpy(payload.data() + at, &mixed, std::min<uint32_t>(8, bytes - at));
    }
    return payload;
  }
  [[nodiscard]] static NamespaceRecord Record() {
    NamespaceRecord record;
    record.model = "test/model";
    record.weights_revision = "r1";
    record.kv_dtype = "bf16";
    record.layout = "test/1";
    record.hash_algorithm = "sha256_cbor";
    record.block_tokens = 16;
    record.block_bytes = uint64_t{1} << 20;
    return record;
  }
  [[nodiscard]] StorePart Part(const std::vector<uint64_t>& keys) const {
    StorePart part;
    part.namespace_digest = ns_;
    for (const uint64_t key : keys) {
      part.keys += KeyOf(key);
    }
    return part;
  }

  using PutAnswer = std::shared_ptr<std::optional<absl::StatusOr<PutResult>>>;
  PutAnswer StartPut(const std::vector<uint64_t>& keys,
                     Level level = Level::kDram,
                     uint32_t bytes = kPayload,
                     absl::Duration timeout = absl::Seconds(30)) {
    PutCall call;
    call.part = Part(keys);
    for (const uint64_t key : keys) {
      call.payload += PayloadOf(key, bytes);
      call.payload_bytes.push_back(bytes);
    }
    call.wait_for = level;
    call.deadline = clock_.Now() + timeout;
    call.call_id = ++last_call_;
    auto answer = std::make_shared<std::optional<absl::StatusOr<PutResult>>>();
    store_->Put(caller_, std::move(call), [answer](auto result) { *answer = std::move(result); });
    return answer;
  }
  PutResult Put(const std::vector<uint64_t>& keys,
                Level level = Level::kDram,
                uint32_t bytes = kPayload) {
    const PutAnswer answer = StartPut(keys, level, bytes);
    RunUntil([&] { return answer->has_value(); });
    EXPECT_TRUE((*answer)->ok()) << (*answer)->status();
    return **std::move(*answer);
  }
  // Inline, one key a call where there are more; waits for lower tiers. What is delivered is
  // compared with PayloadOf byte for byte.
  GetOutcome Get(uint64_t key, uint32_t bytes = kPayload) {
    GetCall call;
    call.parts.push_back(Part({key}));
    call.wait_pending = true;
    call.deadline = clock_.Now() + absl::Seconds(30);
    std::optional<absl::StatusOr<GetResult>> result;
    store_->Get(caller_, std::move(call), [&](auto r) { result = std::move(r); });
    RunUntil([&] { return result.has_value(); });
    EXPECT_TRUE(result->ok()) << result->status();
    const auto outcome = static_cast<GetOutcome>((*result)->outcomes[0]);
    if (outcome == GetOutcome::kOk) {
      EXPECT_TRUE((*result)->payload == PayloadOf(key, bytes)) << "WRONG BYTES of key " << key;
    }
    return outcome;
  }
  // kReady, kLower, ...
  KeyState StateOf(uint64_t key) {
    ProbeCall call;
    call.parts = {Part({key})};
    KeyState state = KeyState::kMiss;
    store_->Probe(caller_, std::move(call), [&](const ProbeResult& result) {
      state = static_cast<KeyState>(static_cast<uint8_t>(result.states[0]) & 0xfU);
    });
    return state;
  }
  absl::StatusOr<BlockStore::DeleteResult> Delete(const std::vector<uint64_t>& keys) {
    std::optional<absl::StatusOr<BlockStore::DeleteResult>> result;
    store_->Delete(caller_, Part(keys), [&](auto r) { result = std::move(r); });
    RunUntil([&] { return result.has_value(); });
    return *result;
  }
  // The new generation.
  absl::StatusOr<uint64_t> Clear() {
    const absl::StatusOr<ClearedNamespace> cleared = ClearFully();
    return cleared.ok() ? absl::StatusOr<uint64_t>(cleared->generation) : cleared.status();
  }
  absl::StatusOr<ClearedNamespace> ClearFully() {
    std::optional<absl::StatusOr<ClearedNamespace>> result;
    store_->ClearNamespace(caller_.tenant, ns_, [&](auto r) { result = std::move(r); });
    RunUntil([&] { return result.has_value(); });
    return *result;
  }
  OpenedNamespace OpenAgain() { return *store_->OpenNamespace(caller_.tenant, Record()); }
  // What follows is of a namespace of this record, and said by this session.
  void Use(const NamespaceRecord& record, SessionId session) {
    caller_.session = session;
    ns_ = store_->OpenNamespace(caller_, record)->digest;
  }
  absl::Status Flush(Level level, absl::Duration timeout = absl::Seconds(30)) {
    std::optional<absl::Status> result;
    store_->Flush(caller_.tenant, level, clock_.Now() + timeout,
                  [&](absl::Status status) { result = std::move(status); });
    RunUntil([&] { return result.has_value(); });
    return *result;
  }
  EvictResult Evict(uint64_t target_used_bytes) {
    std::optional<absl::StatusOr<EvictResult>> result;
    store_->Evict("", target_used_bytes, [&](auto r) { result = std::move(r); });
    RunUntil([&] { return result.has_value(); });
    EXPECT_TRUE(result->ok());
    return **result;
  }

  BlockStore& store() { return *store_; }
  SegmentTier& tier() { return *tier_; }
  SimulatedDisk& disk() { return disk_; }
  FaultPlan& faults() { return plan_; }
  ManualClock& clock() { return clock_; }
  StepIo& io() { return *io_; }
  StepExecutor& executor() { return executor_; }
  [[nodiscard]] const Caller& caller() const { return caller_; }
  [[nodiscard]] uint64_t last_call() const { return last_call_; }
  [[nodiscard]] StoreCounters counters() const { return store_->Usage().counters; }
  [[nodiscard]] uint64_t losses() const {
    uint64_t sum = 0;
    for (const uint64_t count : counters().local_losses) {
      sum += count;
    }
    return sum;
  }

  SegmentTierOptions tier_options;
  BlockStoreOptions store_options;
  std::vector<SharedTier*> shared;  // of the stores that are opened from now on; outlive them

 private:
  const uint64_t seed_;
  Seeded choice_;
  ManualClock clock_;
  SimulatedDisk disk_;
  FaultPlan plan_;
  FaultyFileSystem files_{disk_, plan_};
  StepExecutor executor_{3};
  StepExecutor tier_executor_;
  HeapSlabSource slabs_;
  std::unique_ptr<StepIo> io_;
  std::unique_ptr<SegmentTier> tier_;
  std::unique_ptr<BlockStore> store_;
  Caller caller_;
  Digest128 ns_;
  uint64_t last_call_ = 0;
};

}  // namespace terrace::doubles
