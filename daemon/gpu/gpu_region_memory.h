// Memory of a GPU that another process has allocated, and the blocks in it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/statusor.h"

#include "daemon/gpu/gpu_frame.h"
#include "tiers/os/descriptor.h"
#include "tiers/vocab/region_geometry.h"

namespace terrace {

struct GpuRegionMemory {
  GpuMemoryKind kind = GpuMemoryKind::kIpc;
  cuda::IpcMemHandle handle{};    // kIpc
  Descriptor descriptor;          // kShared
  uint64_t allocation_bytes = 0;  // of which the region is a part
  uint64_t offset = 0;
  uint64_t bytes = 0;
  RegionGeometry geometry;
  uint32_t planes_per_layer = 1;
  std::optional<uint32_t> canary_block;  // holds nothing yet: a pattern goes out and back
  // Nullable. Told, before a worker opens the memory, whose copies may touch it from then on: the
  // pidfd of that process. Runs on the device's thread and must only hand work on.
  std::function<void(Descriptor worker)> tell_owner;
};

// Payload bytes of one block, or INVALID_ARGUMENT naming the field that is wrong: all that can be
// known without the device.
absl::StatusOr<uint64_t> CheckGpuRegion(const GpuRegionMemory& memory);

}  // namespace terrace
