// One node of a simulated pool: the tier itself, over files, executors and time of the simulation.
//
// Confined to the simulation's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "tiers/os/file_system.h"
#include "tiers/shared/shared_tier.h"
#include "tools/sim/simulated_mount.h"
#include "tools/sim/simulated_pool_files.h"
#include "tools/sim/virtual_time.h"

namespace terrace::sim {

// The number-th block that a node makes: its key follows from that alone.
struct BlockName {
  uint32_t node = 0;
  uint32_t number = 0;
  [[nodiscard]] std::string Key() const;
};

// A slot whose payload is zeros: a header's room in front, as every block of the simulation has it.
class ZeroBlock {
 public:
  explicit ZeroBlock(uint32_t payload_bytes);
  [[nodiscard]] absl::Span<char> slot() const { return slot_.span(); }
  [[nodiscard]] uint32_t payload_bytes() const { return payload_bytes_; }
  [[nodiscard]] const Digest128& checksum() const { return checksum_; }

 private:
  AlignedBuffer slot_;
  uint32_t payload_bytes_;
  Digest128 checksum_;
};

class PoolNode {
 public:
  // What all nodes share; borrowed.
  struct Room {
    SimulatedMount* mount = nullptr;
    BufferShelf* shelf = nullptr;
    VirtualClock* clock = nullptr;
    const ZeroBlock* block = nullptr;
  };

  // `options.node` names it.
  PoolNode(const SharedTierOptions& options, const Room& room)
      : options_(options), room_(room), files_(options.node, *room.mount, *room.shelf) {}
  PoolNode(const PoolNode&) = delete;
  PoolNode& operator=(const PoolNode&) = delete;
  ~PoolNode() { Kill(); }

  // INVALID_ARGUMENT: an option of the tier.
  absl::Status Start();
  [[nodiscard]] bool runs() const { return tier_ != nullptr; }
  void Tick();
  // As by kill -9: no call is made any more. A node that does not run stays so.
  void Kill();

  // `done` runs in a later Tick, or at once. The node runs.
  void Publish(const BlockName& name, std::function<void(WriteOutcome)> done);
  [[nodiscard]] bool Finds(const BlockName& name) const;
  // The block is found, and read to its end.
  ReadOutcome Read(const BlockName& name);

  [[nodiscard]] SharedTierFigures figures() const { return tier_->figures(); }
  [[nodiscard]] const CallCounts& counts() const { return files_.counts(); }

 private:
  const SharedTierOptions options_;
  const Room room_;
  SimulatedPoolFiles files_;
  QueuedExecutor executor_;
  std::unique_ptr<SharedTier> tier_;
};

}  // namespace terrace::sim
