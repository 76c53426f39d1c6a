// Collects small pieces of device memory in one place, and spreads them again. Compiled for several
// architectures by nvcc, loaded by gather_kernel.cc.
//
// The moves lie in pinned host memory: each warp has a lane fetch one of the next 32 and then
// passes them around, so that one trip over the bus serves 32 moves.
#include "tiers/gpu/gather_move.h"

namespace {

using terrace::GatherMove;
using terrace::kWarpThreads;

constexpr unsigned kAllLanes = 0xffffffffU;
constexpr unsigned kWordsAtATime = 4;  // loads that are on their way before the first store

// By a warp; both sides are aligned for Word, and `words` is how many there are.
template <typename Word>
__device__ void CopyWords(Word* to, const Word* from, uint64_t words, unsigned lane) {
  uint64_t i = lane;
  for (; i + (kWordsAtATime - 1) * kWarpThreads < words; i += kWordsAtATime * kWarpThreads) {
    Word held[kWordsAtATime];
    for (unsigned j = 0; j < kWordsAtATime; ++j) {
      held[j] = from[i + j * kWarpThreads];
    }
    for (unsigned j = 0; j < kWordsAtATime; ++j) {
      to[i + j * kWarpThreads] = held[j];
    }
  }
  for (; i < words; i += kWarpThreads) {
    to[i] = from[i];
  }
}

__device__ void CopyBytes(char* to, const char* from, uint64_t bytes, unsigned lane) {
  const uint64_t both = reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from);
  uint64_t done = 0;
  if (both % sizeof(uint4) == 0) {
    done = bytes / sizeof(uint4) * sizeof(uint4);
    CopyWords(reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4*>(from),
              bytes / sizeof(uint4), lane);
  } else if (both % sizeof(uint32_t) == 0) {
    done = bytes / sizeof(uint32_t) * sizeof(uint32_t);
    CopyWords(reinterpret_cast<uint32_t*>(to), reinterpret_cast<const uint32_t*>(from),
              bytes / sizeof(uint32_t), lane);
  }
  CopyWords(to + done, from + done, bytes - done, lane);
}

template <bool kGathers>
__device__ void MoveAll(const GatherMove* moves, uint32_t count, char* stage) {
  const unsigned lane = threadIdx.x % kWarpThreads;
  const unsigned warp = (blockIdx.x * blockDim.x + threadIdx.x) / kWarpThreads;
  const unsigned warps = gridDim.x * blockDim.x / kWarpThreads;
  for (uint32_t first = warp; first < count; first += warps * kWarpThreads) {
    const uint64_t mine = first + uint64_t{lane} * warps;
    const GatherMove move = mine < count ? moves[mine] : GatherMove{0, 0, 0};
    for (unsigned turn = 0; turn < kWarpThreads; ++turn) {
      const uint64_t device = __shfl_sync(kAllLanes, move.device, turn);
      const uint64_t offset = __shfl_sync(kAllLanes, move.offset, turn);
      const uint64_t bytes = __shfl_sync(kAllLanes, move.bytes, turn);
      char* const memory = reinterpret_cast<char*>(device);
      CopyBytes(kGathers ? stage + offset : memory, kGathers ? memory : stage + offset, bytes,
                lane);
    }
  }
}

}  // namespace

extern "C" __global__ void terrace_gather(const GatherMove* moves, uint32_t count, char* stage) {
  MoveAll<true>(moves, count, stage);
}

extern "C" __global__ void terrace_spread(const GatherMove* moves, uint32_t count, char* stage) {
  MoveAll<false>(moves, count, stage);
}
