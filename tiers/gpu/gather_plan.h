// How a batch of copies becomes a kernel and few copies: its small pieces are brought together in a
// stage, a stretch of device memory, in the order in which they lie in host memory, so that between
// the stage and the host one copy serves what many would have. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "tiers/gpu/cuda_driver.h"
#include "tiers/gpu/gather_move.h"

namespace terrace {

// Fewer are copied one by one: a launch takes as long as some copies.
inline constexpr size_t kMinGatheredPieces = 16;
// For each copy between the stage and the host that many pieces have to be spared.
inline constexpr size_t kMinPiecesOfStagedCopy = 4;

// A copy between the stage and host memory.
struct StagedCopy {
  uint64_t offset = 0;  // in the stage
  char* host = nullptr;
  uint64_t bytes = 0;
};

struct GatherPlan {
  std::vector<GatherMove> moves;  // none: it is not worth it
  std::vector<StagedCopy> staged;
  std::vector<cuda::CopyRange> plain;  // what is copied as it lies
  uint64_t staged_bytes = 0;
};

// Pieces of at most `piece_bytes` are small.
GatherPlan PlanGather(absl::Span<const cuda::CopyRange> copies, uint64_t piece_bytes);

// What a stage needs for any batch of so many bytes and pieces.
uint64_t StageBytesFor(uint64_t bytes, size_t pieces);
size_t MovesFor(uint64_t bytes, size_t pieces);

}  // namespace terrace
