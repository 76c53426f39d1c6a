// A get or put of blocks in the memory of a GPU, from its call to its end; and what both have in
// common: whose turn it is to work on it, and the copies that it waits for.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "daemon/gpu/gpu_device.h"
#include "tiers/gpu/copy_plan.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// A region as calls need it. Owners: the session's table, and calls that name it.
struct GpuRegion {
  std::shared_ptr<GpuDevice> device;
  uint64_t number = 0;  // of the device
  TenantId tenant{0};
  uint64_t payload_bytes = 0;  // of a block, at most
  uint32_t block_count = 0;
  uint32_t block_pieces = 1;  // segments of all planes
  std::atomic<bool> closed{false};  // or never opened: nothing that waits for it will come

  // Blocks whose copies make one plan.
  [[nodiscard]] uint64_t MaxBlocksOfCopy() const {
    return std::max<uint64_t>(kMaxPiecesOfPlan / std::max(block_pieces, 1U), 1);
  }
};

// Payload that is handled as one: large enough for a copy to run at full rate, small enough for
// several to be on their way.
inline constexpr uint64_t kGpuPieceBytes = uint64_t{16} << 20;
inline constexpr uint64_t kMaxBlocksOfPiece = 2048;

// Thread-safe. Owners: the table of calls, and callbacks that will come.
class GpuCall : public std::enable_shared_from_this<GpuCall> {
 public:
  virtual ~GpuCall() = default;
  // Begins what can be begun, and finishes when all has ended. Whoever comes while another thread
  // is at it leaves it to that one.
  void Pump();
  // Asks for an early end, which comes when no copy can touch the client's memory any more.
  void Cancel();
  // Time passes.
  virtual void Tick() {}

 protected:
  // Without the lock, one thread at a time.
  virtual void Work() = 0;
  virtual void Finish() = 0;
  [[nodiscard]] virtual bool IsOverLocked() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) = 0;
  // cancelled_ has just been set.
  virtual void StopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {}

  // `done` runs when the copy has ended and is none of copies_ any more; Pump follows it.
  void Copy(const std::shared_ptr<GpuDevice>& device,
            GpuCopyCall call,
            std::function<void(const absl::Status&)> done);

  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;

  struct AskedCopy {
    std::shared_ptr<GpuDevice> device;
    uint64_t token = 0;  // 0: being asked for
  };
  absl::flat_hash_map<uint64_t, AskedCopy> copies_ ABSL_GUARDED_BY(mutex_);  // that have not ended

 private:
  uint64_t last_copy_ ABSL_GUARDED_BY(mutex_) = 0;
  bool pumping_ ABSL_GUARDED_BY(mutex_) = false;
  bool again_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace terrace
