#include "daemon/gpu/found_device.h"

#include <cstring>
#include <utility>

namespace terrace {

absl::Status FindDevice(const cuda::DeviceUuid& wanted, FoundDevice* device) {
  absl::StatusOr<std::unique_ptr<cuda::CudaDriver>> driver = cuda::CudaDriver::Load();
  if (!driver.ok()) {
    return driver.status();
  }
  device->driver = *std::move(driver);
  const cuda::CudaDriver& calls = *device->driver;
  int count = 0;
  if (const cuda::Result result = calls->DeviceGetCount(&count); result != cuda::kSuccess) {
    return calls.StatusOf(result, "cuDeviceGetCount");
  }
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    cuda::Device number = 0;
    cuda::DeviceUuid uuid{};
    if (calls->DeviceGet(&number, ordinal) != cuda::kSuccess ||
        calls->DeviceGetUuid(&uuid, number) != cuda::kSuccess ||
        std::memcmp(uuid.bytes, wanted.bytes, sizeof(uuid.bytes)) != 0) {
      continue;
    }
    absl::StatusOr<cuda::PrimaryContext> context =
        cuda::PrimaryContext::Retain(*device->driver, ordinal);
    if (!context.ok()) {
      return context.status();
    }
    device->context.emplace(*std::move(context));
    device->ordinal = static_cast<uint32_t>(ordinal);
    return absl::OkStatus();
  }
  return absl::NotFoundError("device_uuid: no such GPU on this host");
}

}  // namespace terrace
