// replay --in-process: BlockStore itself in this process, on a clock that follows the trace, with
// copies made by the calling thread. Its hit ratio must be that of the placement code alone.
#pragma once

#include "absl/status/status.h"

#include "tools/bench/scenario.h"
#include "tools/trace/request_trace.h"

namespace terrace::bench {

// Uses of options: policy, dram_bytes (0: 64 MiB), block_bytes (0: 4 KiB), block_tokens, seed,
// verify. Errors: whatever kept the store from being made; CANCELLED.
absl::Status ReplayInProcess(const BenchOptions& options,
                             const RequestTrace& trace,
                             uint32_t block_tokens,
                             Report& report,
                             Progress& progress);

// Blocks of this size that so much DRAM holds when they are all that there is.
uint64_t CapacityBlocks(uint64_t dram_bytes, uint64_t block_bytes);

}  // namespace terrace::bench
