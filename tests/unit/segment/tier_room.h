// A segment tier on a simulated disk that moves only when the test says so: one thread, one order a
// seed.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/faulty_file_system.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/seeded.h"
#include "tests/doubles/simulated_disk.h"
#include "tests/doubles/step_executor.h"
#include "tests/doubles/step_io.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/segment_tier.h"

namespace terrace {

inline constexpr char kTierPath[] = "/tier";
inline constexpr uint64_t kTestSegmentBytes = uint64_t{256} << 10;

// A block whose bytes follow from a number.
struct TestBlock {
  std::string key;
  std::string salt;
  uint64_t generation = 1;
  uint32_t payload_bytes = 0;

  explicit TestBlock(uint64_t number, uint32_t bytes = 10000)
      : key(doubles::Seeded(number * 2 + 1).Bytes(32)), payload_bytes(bytes) {}

  [[nodiscard]] BlockIdentity identity() const { return {{0x1111, 0x2222}, generation, salt, key}; }
  [[nodiscard]] std::string payload() const {
    return doubles::Seeded(PayloadChecksum({key.data(), key.size()}).lo).Bytes(payload_bytes);
  }
};

class TierRoom {
 public:
  explicit TierRoom(uint64_t seed = 0) : seed_(seed) {
    options_.path = kTierPath;
    options_.segment_bytes = kTestSegmentBytes;
    options_.max_payload_bytes = 40000;
    options_.capacity_bytes = 8 * kTestSegmentBytes;
    options_.free_reserve_bytes = 0;
    options_.batch_bytes = 32 << 10;
    options_.write_depth = 4;
    options_.hash_inline_bytes = 4096;  // so that both ways are gone
  }

  ~TierRoom() { Abandon(); }

  absl::Status TryOpen() {
    io_ = std::make_unique<doubles::StepIo>(clock_, seed_);
    SegmentTierParts parts;
    parts.files = &files_;
    parts.io = io_.get();
    parts.clock = &clock_;
    parts.hashing = &executor_;
    parts.maintenance = &executor_;
    parts.index = index_;
    parts.judge = judge_;
    absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenSegmentTier(options_, parts);
    if (!opened.ok()) {
      return opened.status();
    }
    tier_ = *std::move(opened);
    return absl::OkStatus();
  }
  void Open() {
    const absl::Status opened = TryOpen();
    ASSERT_TRUE(opened.ok()) << opened;
    RunAll();
  }
  // One step of one of the machines, the seed says which. False: nothing is left to do.
  bool Step() {
    const bool io_first = seed_ == 0 || choice_.OneIn(2);
    if (io_first ? io_->Step() || executor_.Step() : executor_.Step() || io_->Step()) {
      return true;
    }
    return false;
  }
  void RunAll() {
    while (Step()) {
    }
  }
  void Close() {
    bool closed = false;
    tier_->Close([&](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      closed = true;
    });
    RunAll();
    EXPECT_TRUE(closed);
    tier_.reset();
  }
  // The process is gone: what it had in flight may or may not have happened, and nothing else does.
  void Abandon() {
    if (tier_ == nullptr) {
      return;
    }
    io_->ScatterWaiting(seed_ + 17);
    disk_.CutPower();
    RunAll();
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
  void Advance(absl::Duration by) {
    clock_.Advance(by);
    tier_->Tick();
    RunAll();
  }

  // Memory of a slot with the block in it; lives as long as the room.
  absl::Span<char> SlotOf(const TestBlock& block) {
    slots_.push_back(std::make_unique<AlignedBuffer>(
        kPageBytes + uint64_t{PagesOf(block.payload_bytes)} * kPageBytes));
    const absl::Span<char> slot = slots_.back()->span();
    std::memset(slot.data(), 'j', slot.size());
    const std::string payload = block.payload();
    std::memcpy(slot.data() + kPageBytes, payload.data(), payload.size());
    return slot;
  }
  // The outcome arrives when steps are made.
  std::shared_ptr<std::optional<WriteOutcome>> StartWrite(const TestBlock& block,
                                                          Heat heat = Heat::kWarm,
                                                          std::string_view metadata = "") {
    const std::string payload = block.payload();
    WriteRequest request;
    request.identity = block.identity();
    request.slot = SlotOf(block);
    request.payload_bytes = block.payload_bytes;
    request.checksum = PayloadChecksum({payload.data(), payload.size()});
    request.heat = heat;
    request.metadata = metadata;
    request.deadline = clock_.Now() + absl::Hours(1);
    auto outcome = std::make_shared<std::optional<WriteOutcome>>();
    tier_->Write(request, [outcome](WriteOutcome ended, const LowerBlock&) {
      EXPECT_FALSE(outcome->has_value());
      *outcome = ended;
    });
    return outcome;
  }
  WriteOutcome Write(const TestBlock& block,
                     Heat heat = Heat::kWarm,
                     std::string_view metadata = "") {
    const auto outcome = StartWrite(block, heat, metadata);
    RunAll();
    EXPECT_TRUE(outcome->has_value());
    return outcome->value_or(WriteOutcome::kClosed);
  }
  WriteOutcome Delete(const std::vector<TestBlock>& blocks) {
    std::vector<BlockIdentity> identities;
    for (const TestBlock& block : blocks) {
      identities.push_back(block.identity());
    }
    std::optional<WriteOutcome> outcome;
    tier_->Delete(identities, [&](WriteOutcome ended, uint32_t) { outcome = ended; });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(WriteOutcome::kClosed);
  }
  WriteOutcome PutNote(std::string_view name, std::string_view value) {
    std::optional<WriteOutcome> outcome;
    tier_->PutNote(name, value, [&](WriteOutcome ended) { outcome = ended; });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(WriteOutcome::kClosed);
  }
  absl::Status Sync() {
    absl::Status result = absl::UnknownError("did not end");
    tier_->Sync([&](const absl::Status& status) { result = status; });
    RunAll();
    return result;
  }

  bool Holds(const TestBlock& block) {
    LowerBlock found;
    return tier_->Lookup(block.identity(), &found);
  }
  // Looks up and reads. kGone when the lookup finds nothing. Whatever is verified is compared byte
  // for byte.
  ReadOutcome Read(const TestBlock& block, bool header_page_in_front = true) {
    LowerTier::ReadRequest request;
    request.identity = block.identity();
    if (!tier_->Lookup(request.identity, &request.block)) {
      return ReadOutcome::kGone;
    }
    const AlignedBuffer slot(kPageBytes +
                             uint64_t{PagesOf(request.block.payload_bytes)} * kPageBytes);
    request.destination = slot.span().subspan(kPageBytes);
    request.header_page_in_front = header_page_in_front;
    request.deadline = clock_.Now() + absl::Hours(1);
    std::optional<ReadOutcome> outcome;
    tier_->Read(request, [&](ReadOutcome ended) {
      EXPECT_FALSE(outcome.has_value());
      outcome = ended;
    });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    if (outcome == ReadOutcome::kVerified) {
      const std::string payload = block.payload();
      EXPECT_EQ(request.block.payload_bytes, payload.size());
      EXPECT_EQ(std::memcmp(request.destination.data(), payload.data(), payload.size()), 0)
          << "WRONG BYTES";
    }
    return outcome.value_or(ReadOutcome::kFault);
  }

  SegmentTier& tier() { return *tier_; }
  [[nodiscard]] bool is_open() const { return tier_ != nullptr; }
  SegmentTierOptions& options() { return options_; }
  doubles::SimulatedDisk& disk() { return disk_; }
  doubles::FaultPlan& faults() { return plan_; }
  doubles::ManualClock& clock() { return clock_; }
  doubles::StepIo& io() { return *io_; }
  doubles::StepExecutor& executor() { return executor_; }
  void SetIndex(BlockIndex* index) { index_ = index; }
  void SetJudge(ReclaimJudge* judge) { judge_ = judge; }
  std::vector<std::string> SegmentNames() {
    std::vector<std::string> names;
    for (const std::string& name : disk_.Names(kTierPath)) {
      if (name.rfind("segment-", 0) == 0) {
        names.push_back(name);
      }
    }
    return names;
  }
  // Where a record of the block lies: file name and offset of its header.
  std::pair<std::string, uint64_t> PlaceOf(const TestBlock& block) {
    LowerBlock found;
    EXPECT_TRUE(tier_->Lookup(block.identity(), &found));
    char name[64];
    snprintf(name, sizeof(name), "segment-%08x.terrace",
             static_cast<unsigned>(found.location >> 32));
    return {name, (found.location & 0xffffffffU) * kPageBytes};
  }

 private:
  const uint64_t seed_;
  doubles::Seeded choice_{seed_ + 1};
  doubles::ManualClock clock_;
  doubles::SimulatedDisk disk_;
  doubles::FaultPlan plan_;
  doubles::FaultyFileSystem files_{disk_, plan_};
  doubles::StepExecutor executor_;
  std::unique_ptr<doubles::StepIo> io_;
  std::vector<std::unique_ptr<AlignedBuffer>> slots_;
  BlockIndex* index_ = nullptr;
  ReclaimJudge* judge_ = nullptr;
  SegmentTierOptions options_;
  std::unique_ptr<SegmentTier> tier_;
};

}  // namespace terrace
