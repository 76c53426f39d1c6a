// The GPU that a worker is for, among those that the driver shows.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"

#include "tiers/gpu/cuda_objects.h"

namespace terrace {

struct FoundDevice {
  std::unique_ptr<cuda::CudaDriver> driver;
  std::optional<cuda::PrimaryContext> context;
  uint32_t ordinal = 0;
};

// Loads the driver and retains the device's context, which may take seconds. Errors: NOT_FOUND (no
// such device here), else those of the driver.
absl::Status FindDevice(const cuda::DeviceUuid& wanted, FoundDevice* device);

}  // namespace terrace
