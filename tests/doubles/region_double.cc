#include "tests/doubles/region_double.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "tests/doubles/request_limits.h"

namespace terrace::doubles {
namespace {

struct Range {
  uint64_t begin = 0;
  uint64_t bytes = 0;
};

// Byte ranges of a block relative to the region, in payload order.
std::vector<Range> RangesOf(const v1::Geometry& geometry, uint32_t block) {
  std::vector<Range> ranges;
  for (const v1::Plane& plane : geometry.planes()) {
    for (const v1::Segment& segment : plane.segments()) {
      const uint64_t begin = plane.offset() + block * plane.block_stride() + segment.offset();
      ranges.push_back({begin, segment.bytes()});
    }
  }
  return ranges;
}

absl::Status CheckPlane(const v1::Plane& plane, const v1::Geometry& geometry, uint64_t limit) {
  if (plane.segments_size() < 1 || plane.segments_size() > 1024) {
    return Invalid("geometry.planes.segments", "1 to 1024");
  }
  uint64_t end_of_segments = 0;
  for (const v1::Segment& segment : plane.segments()) {
    if (segment.bytes() < 1 || segment.bytes() > kPayloadBytes) {
      return Invalid("geometry.planes.segments.bytes", "1 to 67108864");
    }
    if (segment.offset() > limit || segment.offset() + segment.bytes() > limit) {
      return Invalid("geometry.planes.segments.offset", "inside the region");
    }
    end_of_segments = std::max(end_of_segments, segment.offset() + segment.bytes());
  }
  if (geometry.block_count() > 1 && plane.block_stride() < end_of_segments) {
    return Invalid("geometry.planes.block_stride", "at least the end of the last segment");
  }
  const uint64_t steps = geometry.block_count() - 1;
  if (plane.block_stride() > limit || plane.offset() > limit ||
      (steps != 0 && plane.block_stride() > limit / steps) ||
      plane.offset() + steps * plane.block_stride() + end_of_segments > limit) {
    return Invalid("geometry.planes", "every block inside the region");
  }
  return absl::OkStatus();
}

absl::Status CheckOverlap(const v1::Geometry& geometry) {
  std::vector<Range> all;
  for (uint32_t block = 0; block < geometry.block_count(); ++block) {
    const std::vector<Range> ranges = RangesOf(geometry, block);
    all.insert(all.end(), ranges.begin(), ranges.end());
  }
  std::sort(all.begin(), all.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < all.size(); ++i) {
    if (all[i - 1].begin + all[i - 1].bytes > all[i].begin) {
      return Invalid("geometry.planes", "blocks and segments that do not overlap");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> CheckGeometry(const v1::Geometry& geometry, uint64_t region_bytes) {
  if (geometry.block_count() < 1) {
    return Invalid("geometry.block_count", "from 1");
  }
  if (geometry.planes_size() < 1 || geometry.planes_size() > 1024) {
    return Invalid("geometry.planes", "1 to 1024");
  }
  for (const v1::Plane& plane : geometry.planes()) {
    if (absl::Status status = CheckPlane(plane, geometry, region_bytes); !status.ok()) {
      return status;
    }
  }
  uint64_t payload_bytes = 0;
  for (const Range& range : RangesOf(geometry, 0)) {
    payload_bytes += range.bytes;
  }
  if (payload_bytes > kPayloadBytes) {
    return Invalid("geometry", "at most 67108864 bytes a block");
  }
  if (absl::Status status = CheckOverlap(geometry); !status.ok()) {
    return status;
  }
  return payload_bytes;
}

bool RegionDouble::Gather(uint32_t block, uint64_t bytes_wanted, std::string* payload) const {
  payload->clear();
  for (const Range& range : RangesOf(geometry, block)) {
    const uint64_t take = std::min(range.bytes, bytes_wanted - payload->size());
    const uint64_t at = offset + range.begin;
    if (take != 0 && at + take > memory->size()) {
      return false;
    }
    payload->append(memory->data() + at, take);
  }
  return payload->size() == bytes_wanted;
}

bool RegionDouble::Scatter(uint32_t block, std::string_view payload) const {
  uint64_t done = 0;
  for (const Range& range : RangesOf(geometry, block)) {
    const uint64_t take = std::min<uint64_t>(range.bytes, payload.size() - done);
    const uint64_t at = offset + range.begin;
    if (take != 0 && at + take > memory->size()) {
      return false;
    }
    std::memcpy(memory->data() + at, payload.data() + done, take);
    done += take;
  }
  return done == payload.size();
}

}  // namespace terrace::doubles
