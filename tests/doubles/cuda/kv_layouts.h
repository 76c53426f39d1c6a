// How engines lay out a KV cache in GPU memory, as geometries of regions. A block has keys and
// values of every layer, `half_bytes` each.
#pragma once

#include <cstdint>

#include "tiers/vocab/region_geometry.h"

namespace terrace::stand_in {

struct KvShape {
  uint32_t blocks = 0;
  uint32_t layers = 0;
  uint64_t half_bytes = 0;
};

// [layer][K or V][block]
inline RegionGeometry KeysFirst(const KvShape& shape) {
  RegionGeometry geometry{shape.blocks, {}};
  for (uint64_t plane = 0; plane < uint64_t{2} * shape.layers; ++plane) {
    geometry.planes.push_back(
        {plane * shape.blocks * shape.half_bytes, shape.half_bytes, {{0, shape.half_bytes}}});
  }
  return geometry;
}

// [layer][block][K or V]
inline RegionGeometry BlocksFirst(const KvShape& shape) {
  const uint64_t half = shape.half_bytes;
  RegionGeometry geometry{shape.blocks, {}};
  for (uint64_t layer = 0; layer < shape.layers; ++layer) {
    geometry.planes.push_back(
        {layer * shape.blocks * 2 * half, 2 * half, {{0, half}, {half, half}}});
  }
  return geometry;
}

// [block][layer][K and V]: all layers of a block together, and a tail that belongs to nobody
inline RegionGeometry OneStridedAllocation(const KvShape& shape, uint64_t tail_bytes) {
  const uint64_t both = 2 * shape.half_bytes;
  RegionGeometry geometry{shape.blocks, {}};
  for (uint64_t layer = 0; layer < shape.layers; ++layer) {
    geometry.planes.push_back({layer * both, shape.layers * both + tail_bytes, {{0, both}}});
  }
  return geometry;
}

}  // namespace terrace::stand_in
