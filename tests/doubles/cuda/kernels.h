// The kernels that the stand-in knows, on the processor, in the order of their stream. Thread-safe.
#pragma once

#include <cstdint>

#include "tests/doubles/cuda/streams.h"
#include "tiers/gpu/gather_move.h"

namespace terrace::stand_in {

// A kernel of tiers/gpu/gather_kernels.cu.
struct GatherLaunch {
  bool gathers = false;  // into the stage, else out of it
  const GatherMove* moves = nullptr;
  uint32_t count = 0;
  cuda::DevicePointer stage = 0;
};
// kSuccess, or what the driver answers at once. The moves are read when it runs, as a device would.
cuda::Result EnqueueGather(StreamQueue& stream, const GatherLaunch& launch);

}  // namespace terrace::stand_in
