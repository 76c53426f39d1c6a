// Whether several copies in one call of the driver do what they should: tried on the device at
// hand, as the call is young, and its two forms differ in their arguments.
#pragma once

#include "absl/status/status.h"

#include "tiers/gpu/cuda_objects.h"

namespace terrace {

// Moves a few KiB there and back. Errors, all of which say why copies are to be made one by one:
// UNIMPLEMENTED (a driver without the call, or a device that has other addresses for pinned memory
// than the processor: the call would take them as they are, and end the context), DATA_LOSS (bytes
// that went astray), RESOURCE_EXHAUSTED, else as CudaDriver::StatusOf; but with UNAVAILABLE the
// context is lost.
absl::Status TryCopiesInBatches(const cuda::PrimaryContext& context);

}  // namespace terrace
