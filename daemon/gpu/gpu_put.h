// A put of blocks from a region of a GPU.
#pragma once

#include <functional>
#include <memory>

#include "daemon/block_store.h"
#include "daemon/gpu/gpu_call.h"
#include "daemon/gpu_handoff.h"

namespace terrace {

struct GpuPutParts {
  BlockStore* store = nullptr;  // alive until `done` has run
  const Clock* clock = nullptr;
  TenantId tenant{0};
  PutCall call;  // its region checked: one index a key
  std::shared_ptr<const GpuRegion> region;
  GpuOrder order;
  std::function<void(uint64_t bytes)> saved;  // payload that has come into staging memory
  // Once: when no copy can touch the client's memory any more.
  std::function<void(absl::StatusOr<PutResult>)> done;
};

std::shared_ptr<GpuCall> BeginGpuPut(GpuPutParts parts);

}  // namespace terrace
