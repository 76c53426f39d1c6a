#include "tiers/gpu/canary.h"

#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "tiers/gpu/copy_plan.h"

namespace terrace {
namespace {

// Different in every byte that lies near, so that a stride that is wrong shows.
std::string Pattern(uint64_t bytes) {
  std::string pattern(bytes, '\0');
  uint64_t state = 0x9e3779b97f4a7c15ULL ^ bytes;
  for (char& byte : pattern) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<char>(state >> 56U);
  }
  return pattern;
}

uint64_t PayloadBytes(const RegionGeometry& geometry) {
  uint64_t bytes = 0;
  for (const RegionPlane& plane : geometry.planes) {
    for (const RegionSegment& segment : plane.segments) {
      bytes += segment.bytes;
    }
  }
  return bytes;
}

// Between `host`, which is not registered, and the block.
absl::Status CopyBlock(const cuda::PrimaryContext& context,
                       cuda::CopyDirection direction,
                       const PlanRequest& request) {
  const absl::StatusOr<CopyPlan> plan = PlanCopies(request);
  if (!plan.ok()) {
    return absl::InvalidArgumentError("canary_block: beyond the geometry");
  }
  const absl::StatusOr<cuda::OwnedStream> stream =
      cuda::OwnedStream::Create(context, cuda::OwnedStream::Urgency::kLast);
  if (!stream.ok()) {
    return stream.status();
  }
  const cuda::CudaDriver& driver = context.driver();
  cuda::Result result = driver.EnqueueSingly(direction, plan->pieces, stream->get());
  if (result == cuda::kSuccess) {
    result = driver->StreamSynchronize(stream->get());
  }
  return driver.StatusOf(result, "canary");
}

}  // namespace

absl::Status SendCanary(const cuda::PrimaryContext& context,
                        cuda::DevicePointer region,
                        const RegionGeometry& geometry,
                        uint32_t block) {
  const uint64_t bytes = PayloadBytes(geometry);
  std::string out = Pattern(bytes);
  std::string back(bytes, '\0');
  for (auto& [host, direction] :
       {std::pair(&out, cuda::CopyDirection::kToDevice), {&back, cuda::CopyDirection::kToHost}}) {
    const BlockPlace place{block, host->data(), bytes};
    PlanRequest request;
    request.geometry = &geometry;
    request.region = region;
    request.blocks = {&place, 1};
    request.planes_per_layer = static_cast<uint32_t>(geometry.planes.size());
    if (absl::Status copied = CopyBlock(context, direction, request); !copied.ok()) {
      return copied;
    }
  }
  return out == back ? absl::OkStatus()
                     : absl::DataLossError("canary: what came back is not what went out");
}

}  // namespace terrace
