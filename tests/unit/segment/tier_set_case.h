// Several drives as one tier, for tests: each path is a simulated disk of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/segment/tier_room.h"
#include "tiers/segment/tier_set.h"

namespace terrace {

inline const absl::Status kEio = absl::InternalError("EIO");
inline constexpr uint32_t kPayload = 30000;

// Each path is another disk's.
class Mounts final : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<Folder>> OpenFolder(const std::string& path,
                                                     FolderMode mode) override {
    return systems.at(path)->OpenFolder(path, mode);
  }
  std::map<std::string, FileSystem*> systems;
};

// Drives on simulated disks of their own, as one tier that moves only when the test says so.
class TierSetTest : public testing::Test {
 protected:
  struct TestDrive {
    doubles::SimulatedDisk disk;
    doubles::FaultPlan plan;
    doubles::FaultyFileSystem files{disk, plan};
  };
  static std::string PathOf(size_t number) { return "/drive" + std::to_string(number); }

  void Make(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      drives_.push_back(std::make_unique<TestDrive>());
      mounts_.systems[PathOf(i)] = &drives_[i]->files;
      Drive drive;
      drive.options.path = PathOf(i);
      drive.options.segment_bytes = kTestSegmentBytes;
      drive.options.max_payload_bytes = 40000;
      drive.options.capacity_bytes = 16 * kTestSegmentBytes;
      drive.options.free_reserve_bytes = 0;
      drive.options.hash_inline_bytes = 4096;
      drive.options.scrub_interval = absl::InfiniteDuration();
      options_.drives.push_back(drive);
    }
  }
  absl::Status TryOpen() {
    io_ = std::make_unique<doubles::StepIo>(clock_, 0);
    for (Drive& drive : options_.drives) {
      drive.io = io_.get();
    }
    SegmentTierParts parts;
    parts.files = &mounts_;
    parts.clock = &clock_;
    parts.hashing = &executor_;
    parts.maintenance = &executor_;
    absl::StatusOr<std::unique_ptr<SegmentTier>> opened = OpenTierSet(options_, parts);
    if (!opened.ok()) {
      return opened.status();
    }
    set_ = *std::move(opened);
    RunAll();
    return absl::OkStatus();
  }
  void Open() { ASSERT_TRUE(TryOpen().ok()); }
  void TearDown() override { Kill(); }
  void Kill() {
    if (set_ == nullptr) {
      return;
    }
    io_->ScatterWaiting(17);
    for (const auto& drive : drives_) {
      drive->disk.CutPower();
    }
    RunAll();
    set_.reset();
    for (const auto& drive : drives_) {
      drive->plan.Heal();
      drive->disk.RestoreAfterKill();
    }
  }
  void RunAll() {
    while (io_->Step() || executor_.Step()) {
    }
  }
  void Advance(absl::Duration by) {
    for (absl::Duration left = by; left > absl::ZeroDuration(); left -= absl::Milliseconds(500)) {
      clock_.Advance(std::min(left, absl::Milliseconds(500)));
      set_->Tick();
      RunAll();
    }
  }
  WriteOutcome Write(const TestBlock& block, LowerBlock* placed = nullptr) {
    slots_.push_back(std::make_unique<AlignedBuffer>(
        kPageBytes + uint64_t{PagesOf(block.payload_bytes)} * kPageBytes));
    const absl::Span<char> slot = slots_.back()->span();
    const std::string payload = block.payload();
    std::memcpy(slot.data() + kPageBytes, payload.data(), payload.size());
    WriteRequest request;
    request.identity = block.identity();
    request.slot = slot;
    request.payload_bytes = block.payload_bytes;
    request.checksum = PayloadChecksum({payload.data(), payload.size()});
    std::optional<WriteOutcome> outcome;
    set_->Write(request, [&](WriteOutcome ended, const LowerBlock& at) {
      EXPECT_FALSE(outcome.has_value());
      outcome = ended;
      if (placed != nullptr) {
        *placed = at;
      }
    });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(WriteOutcome::kClosed);
  }
  ReadOutcome Read(const TestBlock& block) {
    LowerTier::ReadRequest request;
    request.identity = block.identity();
    if (!set_->Lookup(request.identity, &request.block)) {
      return ReadOutcome::kGone;
    }
    const AlignedBuffer slot(kPageBytes + uint64_t{PagesOf(block.payload_bytes)} * kPageBytes);
    request.destination = slot.span().subspan(kPageBytes);
    request.header_page_in_front = true;
    request.deadline = absl::InfiniteDuration();
    std::optional<ReadOutcome> outcome;
    set_->Read(request, [&](ReadOutcome ended) { outcome = ended; });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    if (outcome == ReadOutcome::kVerified) {
      const std::string payload = block.payload();
      EXPECT_EQ(std::memcmp(request.destination.data(), payload.data(), payload.size()), 0)
          << "WRONG BYTES";
    }
    return outcome.value_or(ReadOutcome::kFault);
  }
  WriteOutcome Delete(const TestBlock& block) {
    std::optional<WriteOutcome> outcome;
    const BlockIdentity identity = block.identity();
    set_->Delete({&identity, 1}, [&](WriteOutcome ended, uint32_t) { outcome = ended; });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(WriteOutcome::kClosed);
  }
  WriteOutcome PutNote(const std::string& name, const std::string& value) {
    std::optional<WriteOutcome> outcome;
    set_->PutNote(name, value, [&](WriteOutcome ended) { outcome = ended; });
    RunAll();
    EXPECT_TRUE(outcome.has_value());
    return outcome.value_or(WriteOutcome::kClosed);
  }
  absl::Status Sync() {
    absl::Status result = absl::UnknownError("did not end");
    set_->Sync([&](const absl::Status& status) { result = status; });
    RunAll();
    return result;
  }
  int DriveOf(const TestBlock& block) {
    LowerBlock found;
    return set_->Lookup(block.identity(), &found) ? static_cast<int>(found.location >> 56) : -1;
  }
  std::vector<TestBlock> Fill(uint64_t first, uint64_t count) {
    std::vector<TestBlock> blocks;
    for (uint64_t i = 0; i < count; ++i) {
      blocks.emplace_back(first + i, kPayload);
      EXPECT_EQ(Write(blocks.back()), WriteOutcome::kWritten);
    }
    EXPECT_TRUE(Sync().ok());
    return blocks;
  }
  void FailDrive(size_t number) {
    for (const doubles::FileCall call : doubles::kAllFileCalls) {
      drives_[number]->plan.Fail(call, 1, kEio, 1000000);
    }
  }
  std::string NoteValue(const std::string& name) {
    for (const SegmentTier::Note& note : set_->Notes()) {
      if (note.name == name) {
        return note.value;
      }
    }
    return "";
  }

  doubles::ManualClock clock_;
  doubles::StepExecutor executor_;
  std::vector<std::unique_ptr<TestDrive>> drives_;
  Mounts mounts_;
  std::unique_ptr<doubles::StepIo> io_;
  std::vector<std::unique_ptr<AlignedBuffer>> slots_;
  TierSetOptions options_;
  std::unique_ptr<SegmentTier> set_;
};

}  // namespace terrace
