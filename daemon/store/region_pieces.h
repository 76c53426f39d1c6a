// From a block of a region to the byte ranges that its payload lies in.
#pragma once

#include <cstdint>
#include <vector>

#include "daemon/store/records.h"
#include "tiers/dram/one_pass.h"

namespace terrace {

// Replaces `out` by the pieces of the first payload_bytes of the block, in payload order. The
// geometry was validated at registration, block < geometry.block_count, payload_bytes <=
// region.payload_bytes.
template <typename PieceType>
void PiecesOf(const Region& region,
              uint32_t block,
              uint64_t payload_bytes,
              std::vector<PieceType>& out) {
  out.clear();
  for (const RegionPlane& plane : region.geometry.planes) {
    char* base = region.memory.data() + plane.offset + plane.block_stride * block;
    for (const RegionSegment& segment : plane.segments) {
      if (payload_bytes == 0) {
        return;
      }
      const uint64_t bytes = segment.bytes < payload_bytes ? segment.bytes : payload_bytes;
      out.push_back({base + segment.offset, static_cast<size_t>(bytes)});
      payload_bytes -= bytes;
    }
  }
}

}  // namespace terrace
