// A block that goes out to a region and comes back: whether the memory that was opened is reachable
// as its geometry says.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "tiers/gpu/cuda_objects.h"
#include "tiers/vocab/region_geometry.h"

namespace terrace {

// Overwrites the block. Blocks for two copies of it. Errors: INVALID_ARGUMENT (canary_block: beyond
// the geometry), DATA_LOSS (what came back is not what went out), else as CudaDriver::StatusOf.
absl::Status SendCanary(const cuda::PrimaryContext& context,
                        cuda::DevicePointer region,
                        const RegionGeometry& geometry,
                        uint32_t block);

}  // namespace terrace
