#include "tiers/vocab/region_geometry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "tiers/vocab/block_key.h"

namespace terrace {
namespace {

constexpr size_t kMaxPlanes = 1024;
constexpr size_t kMaxSegments = 1024;
constexpr size_t kMaxSegmentsInAll = 65536;

struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
};

bool AddOverflows(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b;
}

absl::Status Overlap(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("geometry.", what, ": overlap"));
}

// Within one plane the segments of one block may not overlap, nor those of neighbouring blocks.
absl::Status CheckPlane(const RegionPlane& plane,
                        uint32_t block_count,
                        uint64_t region_bytes,
                        uint64_t* payload) {
  if (plane.segments.empty() || plane.segments.size() > kMaxSegments) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry.planes.segments: 1 to ", kMaxSegments));
  }
  std::vector<Extent> extents;
  for (const RegionSegment& segment : plane.segments) {
    if (segment.bytes == 0 || segment.bytes > kMaxPayloadBytes || segment.offset > region_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "geometry.planes.segments: 1 to ", kMaxPayloadBytes, " bytes, inside the region"));
    }
    extents.push_back({segment.offset, segment.offset + segment.bytes});
    *payload += segment.bytes;
    if (*payload > kMaxPayloadBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("geometry: a block may have at most ", kMaxPayloadBytes, " bytes"));
    }
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      return Overlap("planes.segments");
    }
  }
  if (block_count > 1 && plane.block_stride == 0) {
    return absl::InvalidArgumentError(
        "geometry.planes.block_stride: must not be 0 with more than one block");
  }
  const uint64_t span = extents.back().end - extents.front().begin;
  if (block_count > 1 && plane.block_stride < span) {
    return Overlap("planes.block_stride");
  }
  const uint64_t steps = block_count - 1;
  if (steps != 0 && plane.block_stride > region_bytes / steps) {
    return absl::InvalidArgumentError("geometry.planes: reaches beyond the region");
  }
  const uint64_t last = plane.block_stride * steps;
  if (AddOverflows(plane.offset, last) || AddOverflows(plane.offset + last, extents.back().end) ||
      plane.offset + last + extents.back().end > region_bytes) {
    return absl::InvalidArgumentError("geometry.planes: reaches beyond the region");
  }
  return absl::OkStatus();
}

// Between planes: either the extents of two planes are apart as a whole, or they interleave with
// one stride and their segments are apart modulo that stride (e.g. K and V side by side in every
// block).
absl::Status CheckPlanesApart(const RegionGeometry& geometry) {
  struct PlaneExtent {
    const RegionPlane* plane = nullptr;
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  std::vector<PlaneExtent> planes;
  for (const RegionPlane& plane : geometry.planes) {
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (const RegionSegment& segment : plane.segments) {
      low = std::min(low, segment.offset);
      high = std::max(high, segment.offset + segment.bytes);
    }
    planes.push_back({&plane, plane.offset + low,
                      plane.offset + plane.block_stride * (geometry.block_count - 1) + high});
  }
  std::sort(planes.begin(), planes.end(),
            [](const PlaneExtent& a, const PlaneExtent& b) { return a.begin < b.begin; });
  // A group of planes that reach into each other must share a stride; their segments are then
  // compared within it.
  for (size_t first = 0; first < planes.size();) {
    size_t last = first + 1;
    uint64_t end = planes[first].end;
    while (last < planes.size() && planes[last].begin < end) {
      end = std::max(end, planes[last].end);
      ++last;
    }
    if (last - first > 1) {
      const uint64_t stride = planes[first].plane->block_stride;
      std::vector<Extent> extents;
      for (size_t i = first; i < last; ++i) {
        if (planes[i].plane->block_stride != stride && geometry.block_count > 1) {
          return Overlap("planes");
        }
        for (const RegionSegment& segment : planes[i].plane->segments) {
          const uint64_t begin = planes[i].plane->offset + segment.offset - planes[first].begin;
          extents.push_back({begin, begin + segment.bytes});
        }
      }
      std::sort(extents.begin(), extents.end(),
                [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
      for (size_t i = 1; i < extents.size(); ++i) {
        if (extents[i].begin < extents[i - 1].end) {
          return Overlap("planes");
        }
      }
      if (geometry.block_count > 1 && extents.back().end > stride) {
        return Overlap("planes");
      }
    }
    first = last;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> ValidateGeometry(const RegionGeometry& geometry, uint64_t region_bytes) {
  if (geometry.block_count == 0) {
    return absl::InvalidArgumentError("geometry.block_count: must be at least 1");
  }
  if (geometry.planes.empty() || geometry.planes.size() > kMaxPlanes) {
    return absl::InvalidArgumentError(absl::StrCat("geometry.planes: 1 to ", kMaxPlanes));
  }
  uint64_t payload = 0;
  size_t segments = 0;
  for (const RegionPlane& plane : geometry.planes) {
    segments += plane.segments.size();
    if (segments > kMaxSegmentsInAll) {
      return absl::InvalidArgumentError(
          absl::StrCat("geometry: at most ", kMaxSegmentsInAll, " segments in all"));
    }
    if (const absl::Status status = CheckPlane(plane, geometry.block_count, region_bytes, &payload);
        !status.ok()) {
      return status;
    }
  }
  if (const absl::Status status = CheckPlanesApart(geometry); !status.ok()) {
    return status;
  }
  return payload;
}

}  // namespace terrace
