// A put of blocks from a region of a GPU.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "daemon/block_store.h"
#include "daemon/gpu/gpu_call.h"
#include "daemon/gpu_handoff.h"

namespace terrace {

struct GpuPutParts {
  // The store's, of the tenant; called until `done` has run.
  std::function<void(PutCall, std::function<void(absl::StatusOr<PutResult>)>)> put;
  const Clock* clock = nullptr;
  TenantId tenant{0};
  PutCall call;  // its region checked: one index a key
  // BlockStore::InDram of the call's part: these are copied from the device only if the store turns
  // out not to hold them any more.
  std::string held;
  std::shared_ptr<const GpuRegion> region;
  GpuOrder order;
  std::function<void(uint64_t bytes)> saved;  // payload that has come into staging memory
  // Once: when no copy can touch the client's memory any more.
  std::function<void(absl::StatusOr<PutResult>)> done;
};

std::shared_ptr<GpuCall> BeginGpuPut(GpuPutParts parts);

}  // namespace terrace
