#include "tiers/gpu/copy_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace terrace {
namespace {

uint64_t PayloadOf(const RegionGeometry& geometry) {
  uint64_t bytes = 0;
  for (const RegionPlane& plane : geometry.planes) {
    for (const RegionSegment& segment : plane.segments) {
      bytes += segment.bytes;
    }
  }
  return bytes;
}

absl::Status CheckRequest(const PlanRequest& request) {
  const RegionGeometry& geometry = *request.geometry;
  if (request.planes_per_layer == 0 || geometry.planes.size() % request.planes_per_layer != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("planes_per_layer: a divisor of ", geometry.planes.size()));
  }
  if (request.blocks.empty()) {
    return absl::InvalidArgumentError("blocks: at least 1");
  }
  size_t segments = 0;
  for (const RegionPlane& plane : geometry.planes) {
    segments += plane.segments.size();
  }
  if (segments == 0 || request.blocks.size() > kMaxPiecesOfPlan / segments) {
    return absl::InvalidArgumentError(
        absl::StrCat("blocks: at most ", kMaxPiecesOfPlan, " segments in all"));
  }
  const uint64_t payload = PayloadOf(geometry);
  for (const BlockPlace& place : request.blocks) {
    if (place.block >= geometry.block_count) {
      return absl::InvalidArgumentError(
          absl::StrCat("block: the region has ", geometry.block_count));
    }
    if (place.payload_bytes == 0 || place.payload_bytes > payload) {
      return absl::InvalidArgumentError(absl::StrCat("payload_bytes: 1 to ", payload));
    }
  }
  return absl::OkStatus();
}

// Adds to a plan, and makes one piece of two that lie behind each other on both sides.
class PlanBuilder {
 public:
  explicit PlanBuilder(CopyPlan& plan) : plan_(plan) {}

  void Add(const cuda::CopyRange& piece) {
    plan_.bytes += piece.bytes;
    if (plan_.pieces.size() > layer_begin_) {
      cuda::CopyRange& last = plan_.pieces.back();
      if (last.device + last.bytes == piece.device && last.host + last.bytes == piece.host) {
        last.bytes += piece.bytes;
        return;
      }
    }
    plan_.pieces.push_back(piece);
  }
  void EndLayer() {
    layer_begin_ = plan_.pieces.size();
    plan_.layer_ends.push_back(static_cast<uint32_t>(layer_begin_));
  }

 private:
  CopyPlan& plan_;
  size_t layer_begin_ = 0;
};

// The segments of one plane of one block; `payload_offset` is where the plane begins in the block.
void AddPlane(const PlanRequest& request,
              const RegionPlane& plane,
              const BlockPlace& place,
              uint64_t payload_offset,
              PlanBuilder& builder) {
  const cuda::DevicePointer begin =
      request.region + plane.offset + uint64_t{place.block} * plane.block_stride;
  for (const RegionSegment& segment : plane.segments) {
    if (payload_offset >= place.payload_bytes) {
      return;
    }
    const uint64_t bytes = std::min(segment.bytes, place.payload_bytes - payload_offset);
    builder.Add({begin + segment.offset, place.host + payload_offset, bytes});
    payload_offset += segment.bytes;
  }
}

}  // namespace

absl::StatusOr<uint64_t> ValidateGpuGeometry(const RegionGeometry& geometry,
                                             uint64_t region_bytes) {
  absl::StatusOr<uint64_t> payload = ValidateGeometry(geometry, region_bytes);
  if (!payload.ok()) {
    return payload;
  }
  const auto misaligned = [](absl::string_view field) {
    return absl::InvalidArgumentError(
        absl::StrCat("geometry.planes.", field, ": a multiple of ", kDeviceAlignment));
  };
  for (const RegionPlane& plane : geometry.planes) {
    if (plane.offset % kDeviceAlignment != 0) {
      return misaligned("offset");
    }
    if (plane.block_stride % kDeviceAlignment != 0) {
      return misaligned("block_stride");
    }
    for (const RegionSegment& segment : plane.segments) {
      if (segment.offset % kDeviceAlignment != 0) {
        return misaligned("segments.offset");
      }
      if (segment.bytes % kDeviceAlignment != 0) {
        return misaligned("segments.bytes");
      }
    }
  }
  return payload;
}

absl::StatusOr<CopyPlan> PlanCopies(const PlanRequest& request) {
  if (const absl::Status status = CheckRequest(request); !status.ok()) {
    return status;
  }
  const std::vector<RegionPlane>& planes = request.geometry->planes;
  CopyPlan plan;
  PlanBuilder builder(plan);
  uint64_t layer_offset = 0;
  for (size_t first = 0; first < planes.size(); first += request.planes_per_layer) {
    uint64_t layer_bytes = 0;
    for (const BlockPlace& place : request.blocks) {
      uint64_t payload_offset = layer_offset;
      for (size_t i = first; i < first + request.planes_per_layer; ++i) {
        AddPlane(request, planes[i], place, payload_offset, builder);
        for (const RegionSegment& segment : planes[i].segments) {
          payload_offset += segment.bytes;
        }
      }
      layer_bytes = payload_offset - layer_offset;
    }
    layer_offset += layer_bytes;
    builder.EndLayer();
  }
  return plan;
}

}  // namespace terrace
