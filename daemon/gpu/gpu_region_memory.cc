#include "daemon/gpu/gpu_region_memory.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "tiers/gpu/copy_plan.h"

namespace terrace {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 48;  // far beyond any device

}  // namespace

absl::StatusOr<uint64_t> CheckGpuRegion(const GpuRegionMemory& memory) {
  if (memory.offset % kDeviceAlignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat("offset: a multiple of ", kDeviceAlignment));
  }
  if (memory.bytes == 0 || memory.bytes > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("bytes: 1 to ", kMaxBytes));
  }
  if (memory.offset > memory.allocation_bytes ||
      memory.bytes > memory.allocation_bytes - memory.offset) {
    return absl::InvalidArgumentError("bytes: at most what the allocation holds from offset on");
  }
  if (memory.planes_per_layer == 0 ||
      memory.geometry.planes.size() % memory.planes_per_layer != 0) {
    return absl::InvalidArgumentError("planes_per_layer: must divide the number of planes");
  }
  if (memory.canary_block.has_value() && *memory.canary_block >= memory.geometry.block_count) {
    return absl::InvalidArgumentError("canary_block: below geometry.block_count");
  }
  return ValidateGpuGeometry(memory.geometry, memory.bytes);
}

}  // namespace terrace
