// From a block of a region to the byte ranges that its payload lies in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "daemon/store/records.h"
#include "tiers/copy/one_pass.h"

namespace terrace {

// Replaces `out` by the pieces of payload bytes [begin, begin + bytes) of the block, in payload
// order. The geometry was validated at registration, block < geometry.block_count, begin + bytes <=
// region.payload_bytes.
template <typename PieceType>
void PiecesOf(const Region& region,
              uint32_t block,
              uint64_t begin,
              uint64_t bytes,
              std::vector<PieceType>& out) {
  out.clear();
  for (const RegionPlane& plane : region.geometry.planes) {
    char* base = region.memory.data() + plane.offset + plane.block_stride * block;
    for (const RegionSegment& segment : plane.segments) {
      if (bytes == 0) {
        return;
      }
      if (begin >= segment.bytes) {
        begin -= segment.bytes;
        continue;
      }
      const uint64_t taken = std::min<uint64_t>(segment.bytes - begin, bytes);
      out.push_back({base + segment.offset + begin, static_cast<size_t>(taken)});
      bytes -= taken;
      begin = 0;
    }
  }
}

}  // namespace terrace
