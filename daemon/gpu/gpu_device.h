// One GPU as the core has it: a worker process, what it was told, and what it owes. Nothing in this
// process calls CUDA.
//
// A worker is started when a region is to be opened, and ended a while after the last one is
// closed, because a context costs memory of the device. One that dies (as it does when the device's
// context is lost), says what is no message, or does not answer in time, loses its place: it is
// killed, its staging memory is never used again, and another one is started, with backoff, in
// which the regions are opened anew. What the first one was doing ends as UNAVAILABLE, but only
// when its process is gone: until then its copies may touch memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "daemon/block_store.h"
#include "daemon/gpu/gpu_frame.h"
#include "daemon/gpu/gpu_region_memory.h"
#include "tiers/os/descriptor.h"
#include "tiers/shared/pool_files.h"
#include "tiers/vocab/clock.h"

namespace terrace {

struct GpuDeviceOptions {
  cuda::DeviceUuid uuid{};
  uint32_t number = 0;  // names the worker, "gpu:N"; as the core counts the GPUs in use
  std::string program = "/proc/self/exe";
  uint64_t staging_bytes = uint64_t{256} << 20;        // of saves on their way; page-aligned
  absl::Duration start_deadline = absl::Seconds(60);   // drivers take seconds
  absl::Duration answer_deadline = absl::Seconds(15);  // of all but copies, which have their own
  absl::Duration cancel_deadline = absl::Seconds(5);
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(30);
  absl::Duration linger = absl::Seconds(5);  // of a worker without regions
  uint32_t max_stuck = 8;  // workers that were killed and are not over; then none is started
};

struct GpuDeviceParts {
  const Clock* clock = nullptr;  // borrowed, outlives the device
  // Called on the device's thread, when a copy names a slab for the first time.
  std::function<absl::StatusOr<BlockStore::SlabGrant>(TenantId, SlabId)> map_slab;
  // Nullable: told, on the device's thread, when a worker serves, and when one loses its place and
  // why; must not block.
  std::function<void(const std::string& event)> say;
};

struct GpuCopyCall {
  uint64_t region = 0;
  TenantId tenant{0};
  cuda::CopyDirection direction = cuda::CopyDirection::kToDevice;
  // Places in slabs of the tenant's, or (kStagingSlab) in `staging`, from its beginning.
  std::vector<GpuBlock> blocks;
  std::shared_ptr<PoolBuffer> staging;
  std::optional<cuda::IpcEventHandle> behind;
  std::optional<uint32_t> progress_slot;
  absl::Duration deadline = absl::InfiniteDuration();  // absolute, on the clock
};

struct GpuDeviceFigures {
  uint32_t number = 0;  // as the options have it
  bool serving = false;
  int worker_pid = 0;  // 0: there is none
  uint64_t worker_starts = 0;
  uint64_t workers_lost = 0;
  uint64_t workers_leaving = 0;  // killed, and not over yet
  uint64_t regions = 0;
  uint64_t copies_in_flight = 0;
  uint64_t staging_bytes_used = 0;
  uint32_t ordinal = 0;  // of the driver
  bool read_only_memory = false;
  uint64_t load_piece_bytes = 0;  // the largest that the worker gathers; 0: none is
  uint64_t save_piece_bytes = 0;
  std::string plain_reason;   // why none is; "": some are
  std::string single_reason;  // why copies are enqueued one by one; "": they are not
  GpuWorkerFacts worker;   // of the present one, as of a second ago
  std::string last_fault;  // why the last one lost its place
};

// Thread-safe. Callbacks run on the device's thread (after Stop: on the calling one) and must only
// hand work on.
class GpuDevice {
 public:
  // Starts no worker yet. RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<GpuDevice>> Start(const GpuDeviceOptions& options,
                                                          GpuDeviceParts parts);
  virtual ~GpuDevice() = default;
  // Kills the worker, without waiting for one that hangs; what has not ended has ended when it
  // returns, mostly as CANCELLED, and what comes later ends at once. Idempotent. To be called
  // before the last owner lets go: that may be a callback.
  virtual void Stop() = 0;

  // `region`: a number that was never used before. It may be named at once. `done` says whether it
  // could be opened: INVALID_ARGUMENT, NOT_FOUND (the device), DATA_LOSS (canary),
  // RESOURCE_EXHAUSTED, else of the driver, or UNAVAILABLE. Then the number is void.
  virtual void OpenRegion(uint64_t region,
                          GpuRegionMemory memory,
                          std::function<void(absl::Status)> done) = 0;
  // `done` when nothing can touch the memory any more; its copies have ended as CANCELLED before.
  virtual void CloseRegion(uint64_t region, std::function<void()> done) = 0;
  // To be mapped by the client, too: kProgressSlots counters of 32 bits. nullptr: no such region.
  virtual std::shared_ptr<const SealedMemory> ProgressPage(uint64_t region) = 0;

  // Returns a token for Cancel. `done` runs when no copy can touch the memory any more: OK,
  // CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND (the region), INVALID_ARGUMENT, RESOURCE_EXHAUSTED,
  // UNAVAILABLE. Without OK any of the bytes may have been copied.
  virtual uint64_t Copy(GpuCopyCall call, std::function<void(absl::Status)> done) = 0;
  virtual void Cancel(uint64_t token) = 0;

  // For saves; of the present worker, so that a copy that names one of an earlier worker's is
  // UNAVAILABLE. nullptr: there is no room, or no worker now.
  virtual std::shared_ptr<PoolBuffer> TakeStaging(uint64_t bytes) = 0;

  // `done` when no worker has the slab mapped.
  virtual void DropSlab(SlabId slab, std::function<void()> done) = 0;

  [[nodiscard]] virtual GpuDeviceFigures figures() const = 0;
};

}  // namespace terrace
