// Gets into and puts from the memory of GPUs: between the store, which keeps the blocks, and the
// workers, which copy them.
//
// A get is cut into groups of a few blocks. Each is pinned where it lies in DRAM (read from lower
// tiers first, all groups of a window at once) and goes up as soon as it is there, while others are
// still read. A put is cut likewise: each piece is copied into the staging memory of the worker,
// and taken from there into the arena in one pass.
//
// Threads: all functions from any thread. Callbacks run on the calling thread or on one of the
// store's or a device's; they must only hand work on.
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
#include "daemon/gpu/gpu_device.h"
#include "tiers/os/descriptor.h"
#include "tiers/vocab/clock.h"

namespace terrace {

inline constexpr uint32_t kMaxGpus = 16;  // in use at a time

struct GpuRegionSpec {
  uint32_t region_id = 0;  // unique in the session
  cuda::DeviceUuid device{};
  GpuRegionMemory memory;
};
struct GpuRegionGrant {
  uint64_t payload_bytes = 0;  // of one block
  Descriptor progress_page;    // kProgressSlots counters of 32 bits
};

// What a get or put of GPU regions says beyond GetCall and PutCall, for each region that it names.
struct GpuOrder {
  std::optional<cuda::IpcEventHandle> behind;  // recorded before the call; copies begin after it
  // Of a get: counts the layers that have landed, as long as all blocks are copied together, which
  // they are when they lay in DRAM; the client set it to 0 before.
  std::optional<uint32_t> progress_slot;
};

struct GpuFigures {
  std::vector<GpuDeviceFigures> devices;
  uint64_t regions = 0;
  uint64_t calls_in_flight = 0;
  uint64_t gets = 0;  // that have ended
  uint64_t puts = 0;
  uint64_t loaded_bytes = 0;  // of payload, of blocks that gets delivered
  uint64_t saved_bytes = 0;   // of payload that lay in staging memory
};

class GpuHandoff {
 public:
  struct Options {
    GpuDeviceOptions device;  // of each, but for its uuid and number
    uint32_t max_regions_per_session = 64;
  };
  struct Parts {
    BlockStore* store = nullptr;  // borrowed, outlives the handoff
    const Clock* clock = nullptr;
    std::function<void(const std::string& event)> say;  // nullable; as GpuDeviceParts
  };
  static std::unique_ptr<GpuHandoff> Create(const Options& options, const Parts& parts);
  // Ends all calls as CANCELLED, and the workers without waiting for one that hangs.
  virtual ~GpuHandoff() = default;

  // `done`: INVALID_ARGUMENT (what of geometry or handle is wrong), ALREADY_EXISTS (the id, or the
  // handle in another session), RESOURCE_EXHAUSTED, else as GpuDevice::OpenRegion.
  virtual void RegisterRegion(const Caller& caller,
                              GpuRegionSpec spec,
                              std::function<void(absl::StatusOr<GpuRegionGrant>)> done) = 0;
  [[nodiscard]] virtual bool HasRegion(SessionId session, uint32_t region_id) const = 0;
  // `done` when nothing can touch the memory any more; at once when the id is unknown.
  virtual void UnregisterRegion(SessionId session,
                                uint32_t region_id,
                                std::function<void()> done) = 0;

  // As BlockStore::Get with Delivery::kRegion; one order a part. NOT_FOUND: region id. Keys whose
  // copy a lost worker was making are REGION_FAILED.
  virtual void Get(const Caller& caller,
                   GetCall call,
                   std::vector<GpuOrder> orders,
                   std::function<void(absl::StatusOr<GetResult>)> done) = 0;
  // As BlockStore::Put from a region.
  virtual void Put(const Caller& caller,
                   PutCall call,
                   const GpuOrder& order,
                   std::function<void(absl::StatusOr<PutResult>)> done) = 0;
  // False: it is none of its calls, and `done` does not run. Else as BlockStore::CancelCall.
  virtual bool CancelCall(const Caller& caller,
                          uint64_t call_id,
                          std::function<void(bool)> done) = 0;
  // The session's calls are cancelled, its regions closed. `done` when nothing can touch the memory
  // of any region that the session had, even one that is being unregistered; at once when it had
  // none.
  virtual void CloseSession(SessionId session, std::function<void()> done) = 0;

  // False: the session is none of its own.
  virtual bool SlabRetired(SessionId session, SlabId slab) = 0;
  // Time passes; at least every 50 ms.
  virtual void Tick() = 0;
  [[nodiscard]] virtual GpuFigures figures() const = 0;
};

}  // namespace terrace
