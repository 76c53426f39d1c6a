// Up to which size it pays to gather pieces: measured on the device at hand.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/gpu/gather_kernel.h"

namespace terrace {

// The same bytes, in pieces of one size, moved both ways.
struct GatherSample {
  uint64_t piece_bytes = 0;
  absl::Duration one_by_one;
  absl::Duration gathered;
};

// The largest size at which gathering was faster by a tenth, as it was at all smaller ones; 0: at
// none. `samples` by rising size. Pure.
uint64_t LargestWorthGathering(absl::Span<const GatherSample> samples);

// Moves up to 4 MiB, as much as the stage holds, both ways, for sizes from 4 KiB to 256 KiB, and
// stops where gathering no longer pays. Blocks for some milliseconds; with memory of the device's
// and the host's that it gives back. Errors: RESOURCE_EXHAUSTED, else as CudaDriver::StatusOf.
//   stage_bytes  of one batch, as the stage was made for
absl::StatusOr<uint64_t> MeasureGather(const cuda::PrimaryContext& context,
                                       const GatherKernel& kernel,
                                       const GatherStage& stage,
                                       uint64_t stage_bytes,
                                       cuda::CopyDirection direction);

}  // namespace terrace
