// What has to be copied so that blocks get from a GPU region to host memory, or back: pieces, layer
// by layer, so that the first layer of every block is there before the second of any. Pure.
//
// A geometry says all that a layout of an engine's cache consists of: keys before values (two
// planes a layer), blocks first (one plane a layer, keys and values in it), packed (all layers of a
// block together), one strided allocation for all layers, latent attention (one plane a layer).
// Several groups in one allocation are several regions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/cuda_driver.h"
#include "tiers/vocab/region_geometry.h"

namespace terrace {

// What copies and kernels can address at once. An offset that is none of its multiples is mostly
// one that was counted in elements.
inline constexpr uint64_t kDeviceAlignment = 4;

// As ValidateGeometry, and with every offset, stride and length a multiple of kDeviceAlignment
// (INVALID_ARGUMENT naming which is not).
absl::StatusOr<uint64_t> ValidateGpuGeometry(const RegionGeometry& geometry, uint64_t region_bytes);

struct CopyPlan {
  std::vector<cuda::CopyRange> pieces;
  // For every layer, how many pieces it and those before it are. The last is pieces.size().
  std::vector<uint32_t> layer_ends;
  uint64_t bytes = 0;
};

// A block of the region, and its payload in host memory.
struct BlockPlace {
  uint32_t block = 0;
  char* host = nullptr;
  uint64_t payload_bytes = 0;  // from the block's beginning; 1 to what the geometry says
};

struct PlanRequest {
  const RegionGeometry* geometry = nullptr;  // validated
  cuda::DevicePointer region = 0;
  absl::Span<const BlockPlace> blocks;
  uint32_t planes_per_layer = 1;  // all planes: the blocks are copied in pieces as large as can be
};

inline constexpr size_t kMaxPiecesOfPlan = size_t{1} << 20;

// INVALID_ARGUMENT: "block", "payload_bytes", "planes_per_layer" beyond the geometry, no blocks, or
// more than kMaxPiecesOfPlan pieces.
absl::StatusOr<CopyPlan> PlanCopies(const PlanRequest& request);

}  // namespace terrace
