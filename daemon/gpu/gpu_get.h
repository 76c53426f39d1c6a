// A get of blocks into regions of GPUs.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "daemon/block_store.h"
#include "daemon/gpu/gpu_call.h"
#include "daemon/gpu_handoff.h"

namespace terrace {

struct GpuGetParts {
  // The store's, of the tenant; called until `done` has run.
  std::function<void(GetCall, std::function<void(absl::StatusOr<GetResult>)>)> get;
  const Clock* clock = nullptr;
  TenantId tenant{0};
  GetCall call;                                           // its regions checked: one index a key
  std::vector<std::shared_ptr<const GpuRegion>> regions;  // one a part
  std::vector<GpuOrder> orders;                           // likewise
  // Once: when no copy can touch the client's memory any more.
  std::function<void(GetResult)> done;
};

std::shared_ptr<GpuCall> BeginGpuGet(GpuGetParts parts);

}  // namespace terrace
