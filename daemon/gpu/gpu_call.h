// A get or put of blocks in the memory of a GPU, from its call to its end; and what both have in
// common: the copies that they wait for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "daemon/gpu/gpu_device.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// A region as calls need it. Owners: the session's table, and calls that name it.
struct GpuRegion {
  std::shared_ptr<GpuDevice> device;
  uint64_t number = 0;  // of the device
  TenantId tenant{0};
  uint64_t payload_bytes = 0;  // of a block, at most
  uint32_t block_count = 0;
};

// Thread-safe. Owners: the table of calls, and callbacks that will come.
class GpuCall {
 public:
  virtual ~GpuCall() = default;
  // Asks for an early end, which comes when no copy can touch the client's memory any more.
  virtual void Cancel() = 0;
  // Time passes.
  virtual void Tick() = 0;
};

// Payload that is handled as one: large enough for a copy to run at full rate, small enough for
// several to be on their way.
inline constexpr uint64_t kGpuPieceBytes = uint64_t{16} << 20;
inline constexpr uint32_t kMaxBlocksOfPiece = 2048;

// The copies of one call that have been asked for and have not ended. Guarded by the call's lock.
class CopiesInFlight {
 public:
  // Before the copy is asked for.
  uint64_t Add(std::shared_ptr<GpuDevice> device) {
    copies_[++last_] = {std::move(device), 0};
    return last_;
  }
  // After it. It may have ended meanwhile.
  void Begun(uint64_t id, uint64_t token) {
    if (const auto copy = copies_.find(id); copy != copies_.end()) {
      copy->second.token = token;
    }
  }
  void Ended(uint64_t id) { copies_.erase(id); }
  [[nodiscard]] bool empty() const { return copies_.empty(); }
  // To be run without the lock.
  [[nodiscard]] std::vector<std::function<void()>> Cancels() const {
    std::vector<std::function<void()>> cancels;
    for (const auto& [id, copy] : copies_) {
      if (copy.token != 0) {
        cancels.emplace_back([copy = copy] { copy.device->Cancel(copy.token); });
      }
    }
    return cancels;
  }

 private:
  struct Copy {
    std::shared_ptr<GpuDevice> device;
    uint64_t token = 0;  // 0: being asked for
  };
  absl::flat_hash_map<uint64_t, Copy> copies_;
  uint64_t last_ = 0;
};

}  // namespace terrace
