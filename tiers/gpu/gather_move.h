// What the kernels of gather_kernels.cu are told, read alike by nvcc and by the project's compiler.
#pragma once

#include <stdint.h>

namespace terrace {

// Bytes that lie at `device` in the engine's memory, and at `offset` in a stage.
struct GatherMove {
  uint64_t device;
  uint64_t offset;
  uint64_t bytes;
};

// A move is the work of one warp, so a longer piece is several moves.
inline constexpr uint64_t kMaxMoveBytes = uint64_t{16} << 10;

inline constexpr unsigned kGatherThreads = 256;  // of a block
inline constexpr unsigned kWarpThreads = 32;
// A bound on what is taken from the kernels of the engine: enough to outrun any bus to the host.
inline constexpr unsigned kMaxGatherBlocks = 64;

// The kernels' names; each has the parameters (const GatherMove* moves, uint32_t count, void*
// stage).
inline constexpr char kGatherKernel[] = "terrace_gather";  // from the memory to the stage
inline constexpr char kSpreadKernel[] = "terrace_spread";  // from the stage to the memory

}  // namespace terrace
