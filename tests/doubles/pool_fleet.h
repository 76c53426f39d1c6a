// Several nodes on one pool in memory: time, work and calls move only when the test says so, and
// nodes die when it says so.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/doubles/direct_pool_files.h"
#include "tests/doubles/manual_clock.h"
#include "tests/doubles/memory_block_index.h"
#include "tests/doubles/memory_rooted_files.h"
#include "tests/doubles/seeded.h"
#include "tests/doubles/step_executor.h"
#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/shared/shared_tier.h"

namespace terrace::doubles {

// The n-th block: identity and bytes follow from n alone.
struct FleetBlock {
  explicit FleetBlock(uint64_t n, uint64_t in_generation = 1)
      : generation(in_generation), key(Seeded(n * 2 + 1).Bytes(32)) {
    Seeded random(n * 2);
    payload = random.Bytes(20000 + random.Below(40000));
  }
  [[nodiscard]] BlockIdentity identity() const { return {space, generation, "salt", key}; }

  Digest128 space{77, 78};
  uint64_t generation;
  std::string key;
  std::string payload;
};

class PoolFleet {
 public:
  static constexpr uint64_t kSegment = uint64_t{1} << 20;

  struct Node {
    explicit Node(MemoryMount& mount) : view(mount) {}
    MemoryRootedFiles view;
    std::unique_ptr<DirectPoolFiles> files;
    MemoryBlockIndex index;
    StepExecutor executor{2};
    std::vector<RaisedGeneration> learned;
    Digest128 pool;
    bool with_index = true;
    std::optional<const PoolSecret*> secret;  // nullopt: as all have
    std::unique_ptr<SharedTier> tier;
  };

  explicit PoolFleet(int nodes) {
    options.segment_bytes = kSegment;
    options.max_payload_bytes = 64 << 10;
    options.capacity_bytes = 256 * kSegment;
    options.free_reserve_bytes = 0;
    for (int i = 0; i < nodes; ++i) {
      nodes_.push_back(std::make_unique<Node>(mount));
    }
  }
  ~PoolFleet() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      Kill(i);
    }
  }

  static Digest128 NameOf(size_t i) { return {9000 + i, i + 1}; }

  void Start(size_t i) {
    Node& node = *nodes_[i];
    node.files = std::make_unique<DirectPoolFiles>(node.view);
    SharedTierOptions its = options;
    its.node = NameOf(i);
    its.expected_pool = node.pool;
    SharedTierParts parts;
    parts.files = node.files.get();
    parts.clock = &clock;
    parts.hashing = &node.executor;
    parts.maintenance = &node.executor;
    parts.secret = node.secret.value_or(secret);
    if (node.with_index) {
      parts.open_index = [&node](const Digest128&) { return &node.index; };
    }
    parts.opened = [&node](const Digest128& pool) { node.pool = pool; };
    absl::StatusOr<std::unique_ptr<SharedTier>> opened = OpenSharedTier(its, parts);
    ASSERT_TRUE(opened.ok()) << opened.status();
    node.tier = *std::move(opened);
    node.tier->WatchGenerations([&node](const std::vector<RaisedGeneration>& news) {
      node.learned.insert(node.learned.end(), news.begin(), news.end());
    });
  }
  void StartAll() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      Start(i);
    }
    Pass(absl::Seconds(8));
  }
  // As by kill -9: no call is made any more.
  void Kill(size_t i) {
    Node& node = *nodes_[i];
    if (node.tier == nullptr) {
      return;
    }
    node.files->Stop();
    node.executor.RunAll();
    node.tier.reset();
    node.executor.RunAll();
  }
  void Stop(size_t i) {
    Node& node = *nodes_[i];
    node.executor.RunAll();
    std::optional<absl::Status> closed;
    node.tier->Close(clock.Now() + absl::Seconds(5), [&](absl::Status s) { closed = s; });
    node.executor.RunAll();
    ASSERT_TRUE(closed.has_value());
    EXPECT_TRUE(closed->ok()) << *closed;
    node.tier.reset();
  }
  void Pass(absl::Duration time) {
    for (absl::Duration passed; passed < time; passed += absl::Milliseconds(50)) {
      clock.Advance(absl::Milliseconds(50));
      for (const std::unique_ptr<Node>& node : nodes_) {
        if (node->tier != nullptr) {
          node->tier->Tick();
          node->executor.RunAll();
        }
      }
    }
  }

  using Answer = std::shared_ptr<std::optional<WriteOutcome>>;
  Answer StartPublish(size_t i, const FleetBlock& block, Awaited awaited = Awaited::kYes) {
    const uint64_t padded = (block.payload.size() + 4095) / 4096 * 4096;
    auto slot = std::make_shared<AlignedBuffer>(padded + 4096);
    std::memcpy(slot->bytes() + 4096, block.payload.data(), block.payload.size());
    WriteRequest request;
    request.identity = block.identity();
    request.slot = slot->span();
    request.payload_bytes = static_cast<uint32_t>(block.payload.size());
    request.checksum = PayloadChecksum(block.payload);
    request.awaited = awaited;
    request.deadline = clock.Now() + absl::Seconds(30);
    auto answer = std::make_shared<std::optional<WriteOutcome>>();
    // The slot is somebody else's from `released` on.
    nodes_[i]->tier->Publish(
        request, [slot] { std::memset(slot->bytes(), 0x5a, slot->size()); },
        [answer](WriteOutcome outcome) { *answer = outcome; });
    return answer;
  }
  WriteOutcome Publish(size_t i, const FleetBlock& block) {
    const Answer answer = StartPublish(i, block);
    for (int n = 0; n < 200 && !answer->has_value(); ++n) {
      nodes_[i]->executor.RunAll();
      Pass(absl::Milliseconds(50));
    }
    EXPECT_TRUE(answer->has_value());
    return answer->value_or(WriteOutcome::kFault);
  }
  [[nodiscard]] bool Finds(size_t i, const FleetBlock& block) {
    LowerBlock found;
    return nodes_[i]->tier->Lookup(block.identity(), &found);
  }
  // Wrong bytes fail the test.
  std::optional<ReadOutcome> Read(size_t i, const FleetBlock& block) {
    LowerTier::ReadRequest request;
    request.identity = block.identity();
    if (!nodes_[i]->tier->Lookup(request.identity, &request.block)) {
      return std::nullopt;
    }
    const AlignedBuffer slot((request.block.payload_bytes + 4095) / 4096 * 4096 + 4096);
    request.destination = slot.span().subspan(4096);
    request.header_page_in_front = true;
    request.deadline = clock.Now() + absl::Seconds(5);
    std::optional<ReadOutcome> outcome;
    nodes_[i]->tier->Read(request, [&outcome](ReadOutcome o) { outcome = o; });
    nodes_[i]->executor.RunAll();
    EXPECT_TRUE(outcome.has_value()) << "the read never ends";
    if (outcome == ReadOutcome::kVerified) {
      const std::string got(request.destination.data(), request.block.payload_bytes);
      EXPECT_TRUE(got == block.payload) << "WRONG BYTES";
    }
    return outcome;
  }
  WriteOutcome Delete(size_t i, const FleetBlock& block) {
    // Shared with the callback, which may run after this has given up.
    const auto outcome = std::make_shared<std::optional<WriteOutcome>>();
    const BlockIdentity identity = block.identity();
    nodes_[i]->tier->Delete({&identity, 1}, [outcome](WriteOutcome o) { *outcome = o; });
    for (int n = 0; n < 100 && !outcome->has_value(); ++n) {
      Pass(absl::Milliseconds(50));
    }
    return outcome->value_or(WriteOutcome::kDeadline);
  }
  absl::Status Raise(size_t i, const RaisedGeneration& raised) {
    const auto status = std::make_shared<std::optional<absl::Status>>();  // likewise
    nodes_[i]->tier->RaiseGeneration(raised, [status](absl::Status s) { *status = s; });
    for (int n = 0; n < 100 && !status->has_value(); ++n) {
      Pass(absl::Milliseconds(50));
    }
    return status->value_or(absl::DeadlineExceededError("never told"));
  }

  Node& node(size_t i) { return *nodes_[i]; }
  SharedTier& tier(size_t i) { return *nodes_[i]->tier; }

  SharedTierOptions options;
  const PoolSecret* secret = nullptr;  // borrowed; of all nodes
  MemoryMount mount;
  ManualClock clock;

 private:
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace terrace::doubles
