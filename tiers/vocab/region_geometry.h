// Where the blocks of a region lie: in memory of a client's that is named to the daemon once, be it
// of the host or of a GPU. The wire's form of it is Geometry in proto/terrace/v1/session.proto.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace terrace {

// Bytes of every block, from where the block begins in its plane.
struct RegionSegment {
  uint64_t offset = 0;
  uint64_t bytes = 0;
};
// A share of every block: block i begins at offset + i * block_stride.
struct RegionPlane {
  uint64_t offset = 0;
  uint64_t block_stride = 0;
  std::vector<RegionSegment> segments;
};
// The payload of a block is its planes' segments end to end.
struct RegionGeometry {
  uint32_t block_count = 0;
  std::vector<RegionPlane> planes;
};
// Payload bytes of one block, or INVALID_ARGUMENT naming what breaks bounds (region_bytes) or
// overlaps.
absl::StatusOr<uint64_t> ValidateGeometry(const RegionGeometry& geometry, uint64_t region_bytes);

}  // namespace terrace
