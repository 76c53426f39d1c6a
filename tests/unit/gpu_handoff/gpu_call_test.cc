// Gets and puts of a GPU's blocks between a store and a device that answer when the test says so.
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "daemon/gpu/gpu_get.h"
#include "daemon/gpu/gpu_put.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/seeded.h"

namespace terrace {
namespace {

constexpr uint32_t kPayload = 4096;
constexpr uint32_t kBlocks = 16;

class Staging final : public PoolBuffer {
 public:
  explicit Staging(uint64_t bytes) : memory_(bytes, '\0') {}
  [[nodiscard]] absl::Span<char> memory() const override { return absl::MakeSpan(memory_); }

 private:
  mutable std::string memory_;
};

// Keeps what it is asked to copy. Saves are made from `memory` when they end well.
class ScriptedDevice final : public GpuDevice {
 public:
  struct Asked {
    GpuCopyCall call;
    std::function<void(absl::Status)> done;
  };
  std::deque<Asked> asked;
  std::string memory = doubles::Seeded(1).Bytes(kBlocks * kPayload);
  bool has_room = true;

  void EndNext(const absl::Status& status = absl::OkStatus()) {
    ASSERT_FALSE(asked.empty());
    Asked copy = std::move(asked.front());
    asked.pop_front();
    for (const GpuBlock& block : copy.call.blocks) {
      if (status.ok() && copy.call.direction == cuda::CopyDirection::kToHost) {
        std::memcpy(copy.call.staging->memory().data() + block.offset,
                    memory.data() + uint64_t{block.block} * kPayload, block.bytes);
      }
    }
    copy.done(status);
  }
  [[nodiscard]] std::string Payload(uint32_t block) const {
    return memory.substr(uint64_t{block} * kPayload, kPayload);
  }

  void Stop() override {}
  void OpenRegion(uint64_t, GpuRegionMemory, std::function<void(absl::Status)> done) override {
    done(absl::OkStatus());
  }
  void CloseRegion(uint64_t, std::function<void()> done) override { done(); }
  std::shared_ptr<const SealedMemory> ProgressPage(uint64_t) override { return nullptr; }
  uint64_t Copy(GpuCopyCall call, std::function<void(absl::Status)> done) override {
    asked.push_back({std::move(call), std::move(done)});
    return ++last_token_;
  }
  void Cancel(uint64_t) override {}
  std::shared_ptr<PoolBuffer> TakeStaging(uint64_t bytes) override {
    return has_room ? std::make_shared<Staging>(bytes) : nullptr;
  }
  void DropSlab(SlabId, std::function<void()> done) override { done(); }
  [[nodiscard]] GpuDeviceFigures figures() const override { return {}; }

 private:
  uint64_t last_token_ = 0;
};

class GpuCallTest : public testing::Test {
 protected:
  GpuCallTest() {
    auto region = std::make_shared<GpuRegion>();
    region->device = device_;
    region->number = 1;
    region->payload_bytes = kPayload;
    region->block_count = kBlocks;
    region_ = region;
  }
  static StorePart PartOf(uint32_t keys) {
    StorePart part;
    for (uint32_t i = 0; i < keys; ++i) {
      part.keys += std::string(32, static_cast<char>('a' + i));
    }
    return part;
  }
  // Key i lies in block i.
  static RegionBlocks BlocksOf(uint32_t keys) {
    RegionBlocks blocks;
    blocks.region_id = 1;
    for (uint32_t i = 0; i < keys; ++i) {
      blocks.block_indexes.push_back(i);
    }
    return blocks;
  }

  const std::shared_ptr<ScriptedDevice> device_ = std::make_shared<ScriptedDevice>();
  std::shared_ptr<GpuRegion> region_;
  doubles::ManualClock clock_;
};

class GpuPutTest : public GpuCallTest {
 protected:
  struct Asked {
    PutCall call;
    std::function<void(absl::StatusOr<PutResult>)> done;
  };
  // `held`: as BlockStore::InDram says it, in digits.
  void Begin(const std::string& held) {
    const auto keys = static_cast<uint32_t>(held.size());
    GpuPutParts parts;
    parts.put = [this](PutCall call, std::function<void(absl::StatusOr<PutResult>)> done) {
      asked_.push_back({std::move(call), std::move(done)});
    };
    parts.clock = &clock_;
    parts.call.part = PartOf(keys);
    parts.call.payload_bytes.assign(keys, kPayload);
    parts.call.region = BlocksOf(keys);
    parts.call.deadline = clock_.Now() + absl::Seconds(10);
    for (const char key : held) {
      parts.held += key == '1' ? '\1' : '\0';
    }
    parts.region = region_;
    parts.saved = [this](uint64_t bytes) { saved_ += bytes; };
    parts.done = [this](absl::StatusOr<PutResult> result) { result_ = *std::move(result); };
    put_ = BeginGpuPut(std::move(parts));
  }
  // The store's next answer: one outcome and reason for all keys.
  void Answer(PutOutcome outcome, Reason reason = Reason::kNone) {
    AnswerEach(std::vector<std::pair<PutOutcome, Reason>>(asked_.front().call.part.key_count(),
                                                          {outcome, reason}));
  }
  void AnswerEach(const std::vector<std::pair<PutOutcome, Reason>>& keys) {
    Asked asked = std::move(asked_.front());
    asked_.pop_front();
    ASSERT_EQ(asked.call.part.key_count(), keys.size());
    PutResult result;
    for (const auto& [outcome, reason] : keys) {
      result.outcomes += static_cast<char>(outcome);
      result.reasons += static_cast<char>(reason);
      result.levels += static_cast<char>(Level::kDram);
    }
    asked.done(std::move(result));
  }
  [[nodiscard]] std::string PayloadAsked(uint32_t key) const {
    const char* const from = asked_.front().call.in_place[key];
    return from == nullptr ? "none" : std::string(from, kPayload);
  }
  [[nodiscard]] std::vector<uint32_t> BlocksAsked() const {
    std::vector<uint32_t> blocks;
    for (const GpuBlock& block : device_->asked.front().call.blocks) {
      blocks.push_back(block.block);
    }
    return blocks;
  }

  std::deque<Asked> asked_;  // of the store
  uint64_t saved_ = 0;
  std::optional<PutResult> result_;
  std::shared_ptr<GpuCall> put_;
};

TEST_F(GpuPutTest, WhatTheStoreHoldsIsNotCopied) {
  Begin("11000");
  ASSERT_EQ(device_->asked.size(), 1U);
  EXPECT_EQ(BlocksAsked(), (std::vector<uint32_t>{2, 3, 4}));
  ASSERT_EQ(asked_.size(), 1U) << "what is held waits for no copy";
  EXPECT_EQ(PayloadAsked(1), "none");
  Answer(PutOutcome::kDuplicate);
  device_->EndNext();
  ASSERT_EQ(asked_.size(), 1U);
  EXPECT_EQ(asked_.front().call.parent, std::string(32, 'b')) << "one chain";
  EXPECT_TRUE(PayloadAsked(0) == device_->Payload(2));
  EXPECT_TRUE(PayloadAsked(2) == device_->Payload(4));
  Answer(PutOutcome::kStored);
  ASSERT_TRUE(result_.has_value());
  const auto duplicate = static_cast<char>(PutOutcome::kDuplicate);
  EXPECT_EQ(result_->outcomes,
            std::string(2, duplicate) + std::string(3, static_cast<char>(PutOutcome::kStored)));
  EXPECT_EQ(saved_, 3 * kPayload);
}

TEST_F(GpuPutTest, APutOfWhatIsHeldNeedsNeitherTheDeviceNorRoom) {
  device_->has_room = false;
  Begin("111");
  Answer(PutOutcome::kDuplicate);
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->outcomes, std::string(3, static_cast<char>(PutOutcome::kDuplicate)));
  EXPECT_TRUE(device_->asked.empty());
  EXPECT_EQ(saved_, 0U);
}

TEST_F(GpuPutTest, APutThatWaitsForRoomEndsWithItsRegion) {
  device_->has_room = false;
  Begin("00");
  put_->Tick();
  EXPECT_FALSE(result_.has_value());
  region_->closed = true;
  put_->Tick();
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->reasons, std::string(2, static_cast<char>(Reason::kRegionFailed)));
}

TEST_F(GpuPutTest, WhatHasLeftTheStoreMeanwhileIsCopiedAfterAll) {
  Begin("111");
  AnswerEach({{PutOutcome::kDuplicate, Reason::kNone},
              {PutOutcome::kFailed, Reason::kInvalid},
              {PutOutcome::kDuplicate, Reason::kNone}});
  EXPECT_FALSE(result_.has_value());
  ASSERT_EQ(device_->asked.size(), 1U);
  EXPECT_EQ(BlocksAsked(), std::vector<uint32_t>{1});
  device_->EndNext();
  ASSERT_EQ(asked_.size(), 1U);
  EXPECT_TRUE(PayloadAsked(0) == device_->Payload(1));
  EXPECT_EQ(asked_.front().call.parent, std::string(32, 'a'));
  Answer(PutOutcome::kStored);
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->outcomes[1], static_cast<char>(PutOutcome::kStored));
}

TEST_F(GpuPutTest, WhatTheStoreRefusesWithItsBytesIsRefused) {
  Begin("1");
  Answer(PutOutcome::kFailed, Reason::kInvalid);
  device_->EndNext();
  Answer(PutOutcome::kFailed, Reason::kInvalid);
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->reasons[0], static_cast<char>(Reason::kInvalid));
  EXPECT_TRUE(device_->asked.empty());
}

TEST_F(GpuPutTest, WhatIsHeldAndComesTooLateIsNotCopied) {
  Begin("1");
  Answer(PutOutcome::kFailed, Reason::kDeadline);
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->reasons[0], static_cast<char>(Reason::kDeadline));
  EXPECT_TRUE(device_->asked.empty());
}

TEST_F(GpuPutTest, ACancelledPutCopiesNothingMore) {
  Begin("1");
  put_->Cancel();
  EXPECT_FALSE(result_.has_value()) << "the store has not answered yet";
  Answer(PutOutcome::kFailed, Reason::kInvalid);
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->reasons[0], static_cast<char>(Reason::kCancelled));
  EXPECT_TRUE(device_->asked.empty());
}

TEST_F(GpuPutTest, ACancelReachesWhatIsStillToBeCopiedAfterAll) {
  device_->has_room = false;
  Begin("1");
  Answer(PutOutcome::kFailed, Reason::kInvalid);
  EXPECT_FALSE(result_.has_value()) << "it waits for staging memory";
  put_->Cancel();
  ASSERT_TRUE(result_.has_value());
  EXPECT_EQ(result_->reasons[0], static_cast<char>(Reason::kCancelled));
}

// Blocks so large that each is a group of its own, read from a tier that takes its time.
TEST_F(GpuCallTest, ABlockGoesUpWhileTheNextIsStillRead) {
  region_->payload_bytes = kGpuPieceBytes;
  std::deque<std::function<void(absl::StatusOr<GetResult>)>> asked;
  std::optional<GetResult> result;
  GpuGetParts parts;
  parts.get = [&asked](const GetCall& call, std::function<void(absl::StatusOr<GetResult>)> done) {
    EXPECT_EQ(call.parts.front().key_count(), 1U);
    asked.push_back(std::move(done));
  };
  parts.clock = &clock_;
  parts.call.parts.push_back(PartOf(3));
  parts.call.regions.push_back(BlocksOf(3));
  parts.call.wait_pending = true;
  parts.call.deadline = clock_.Now() + absl::Seconds(10);
  parts.regions.push_back(region_);
  parts.orders.emplace_back();
  parts.done = [&result](GetResult got) { result = std::move(got); };
  const std::shared_ptr<GpuCall> get = BeginGpuGet(std::move(parts));
  ASSERT_EQ(asked.size(), 3U) << "all are read beside each other";
  const auto answer = [&asked](size_t which) {
    GetResult found;
    found.outcomes.assign(1, static_cast<char>(GetOutcome::kOk));
    found.payload_bytes.assign(1, kPayload);
    found.slab_ids.assign(1, 1);
    found.slab_offsets.assign(1, 0);
    asked[which](std::move(found));
  };
  for (const size_t which : {1, 0, 2}) {
    answer(which);
    ASSERT_EQ(device_->asked.size(), 1U) << "it goes up at once";
    EXPECT_EQ(device_->asked.front().call.blocks.front().block, which);
    EXPECT_FALSE(result.has_value());
    device_->EndNext();
  }
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->outcomes, std::string(3, static_cast<char>(GetOutcome::kOk)));
}

// A copy leaves the list of those that can be cancelled before it has told how it ended; and what
// it gives back may make another thread look at the call just then.
TEST_F(GpuCallTest, AGetIsNotOverBeforeItsCopiesHaveToldHowTheyEnded) {
  std::shared_ptr<GpuCall> get;
  std::optional<GetResult> result;
  GpuGetParts parts;
  parts.get = [&get](const GetCall& call,
                     const std::function<void(absl::StatusOr<GetResult>)>& done) {
    GetResult found;
    const size_t keys = call.parts.front().key_count();
    found.outcomes.assign(keys, static_cast<char>(GetOutcome::kOk));
    found.payload_bytes.assign(keys, kPayload);
    found.slab_ids.assign(keys, 1);
    found.slab_offsets.assign(keys, 0);
    found.reading = {&get, [&get](const void* /*nothing*/) { get->Pump(); }};
    done(std::move(found));
  };
  parts.clock = &clock_;
  parts.call.parts.push_back(PartOf(2));
  parts.call.regions.push_back(BlocksOf(2));
  parts.call.deadline = clock_.Now() + absl::Seconds(10);
  parts.regions.push_back(region_);
  parts.orders.emplace_back();
  parts.done = [&result](GetResult got) { result = std::move(got); };
  get = BeginGpuGet(std::move(parts));
  ASSERT_EQ(device_->asked.size(), 1U);
  device_->EndNext(absl::UnavailableError("the worker is gone"));
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->outcomes, std::string(2, static_cast<char>(GetOutcome::kRegionFailed)));
  EXPECT_EQ(result->payload_bytes, (std::vector<uint32_t>{0, 0}));
}

}  // namespace
}  // namespace terrace
