// The driver's symbols, first half: devices and memory.
#include <cstring>

#include "tests/doubles/cuda/device_memory.h"
#include "tests/doubles/cuda/state.h"

using namespace terrace::cuda;
using terrace::stand_in::Counters;
using terrace::stand_in::DeviceMemory;
using terrace::stand_in::Enter;
using terrace::stand_in::HostRegistry;
using terrace::stand_in::kGranule;
using terrace::stand_in::Needs;

#define STAND_IN_ENTER(needs)                                               \
  if (const Result entered = Enter(__func__, needs); entered != kSuccess) { \
    return entered;                                                         \
  }

namespace {

bool IsDevice(int ordinal) {
  return ordinal >= 0 && ordinal < terrace::stand_in::Devices();
}

}  // namespace

STAND_IN_SYMBOL Result cuInit(unsigned) {
  STAND_IN_ENTER(Needs::kNothing);
  terrace::stand_in::SetInitialised();
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDriverGetVersion(int* version) {
  STAND_IN_ENTER(Needs::kNothing);
  *version = STAND_IN_VERSION;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuGetErrorName(Result result, const char** name) {
  static constexpr struct {
    Result result;
    const char* name;
  } kNames[] = {{kSuccess, "CUDA_SUCCESS"},
                {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
                {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
                {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED"},
                {kStubLibrary, "CUDA_ERROR_STUB_LIBRARY"},
                {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
                {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
                {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
                {kAlreadyMapped, "CUDA_ERROR_ALREADY_MAPPED"},
                {kEccUncorrectable, "CUDA_ERROR_ECC_UNCORRECTABLE"},
                {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
                {kNotFound, "CUDA_ERROR_NOT_FOUND"},
                {kNotReady, "CUDA_ERROR_NOT_READY"},
                {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                {kHostMemoryAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
                {kHostMemoryNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"},
                {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
                {kNotPermitted, "CUDA_ERROR_NOT_PERMITTED"},
                {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED"}};
  for (const auto& known : kNames) {
    if (known.result == result) {
      *name = known.name;
      return kSuccess;
    }
  }
  *name = nullptr;
  return kInvalidValue;
}

STAND_IN_SYMBOL Result cuDeviceGetCount(int* count) {
  STAND_IN_ENTER(Needs::kInit);
  *count = terrace::stand_in::Devices();
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDeviceGet(Device* device, int ordinal) {
  STAND_IN_ENTER(Needs::kInit);
  if (!IsDevice(ordinal)) {
    return kInvalidDevice;
  }
  *device = ordinal;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDeviceGetAttribute(int* value, int attribute, Device device) {
  STAND_IN_ENTER(Needs::kInit);
  if (!IsDevice(device)) {
    return kInvalidDevice;
  }
  switch (attribute) {
    case kAttributeReadOnlyHostRegister:
      *value = terrace::stand_in::ReadOnlyRegistration() ? 1 : 0;
      return kSuccess;
    case kAttributeHostPointers:
      *value = terrace::stand_in::HostPointers() ? 1 : 0;
      return kSuccess;
    case kAttributeAsyncEngineCount:
      *value = 2;
      return kSuccess;
    case kAttributeUnifiedAddressing:
    case kAttributeHostRegister:
    case kAttributeVirtualMemory:
    case kAttributePosixDescriptors:
    case kAttributeIpcEvents:
      *value = 1;
      return kSuccess;
    case kAttributePciDomain:
    case kAttributePciBus:
    case kAttributePciDevice:
      *value = 0;
      return kSuccess;
    default:
      return kInvalidValue;
  }
}

STAND_IN_SYMBOL Result cuDeviceGetUuid_v2(DeviceUuid* uuid, Device device) {
  STAND_IN_ENTER(Needs::kInit);
  if (!IsDevice(device)) {
    return kInvalidDevice;
  }
  std::memcpy(uuid->bytes, "stand-in-device0", sizeof uuid->bytes);
  uuid->bytes[sizeof uuid->bytes - 1] = static_cast<char>('0' + device);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDeviceGetPCIBusId(char* id, int room, Device device) {
  STAND_IN_ENTER(Needs::kInit);
  constexpr char kId[] = "0000:00:00.0";
  if (!IsDevice(device) || room < static_cast<int>(sizeof kId)) {
    return kInvalidValue;
  }
  std::memcpy(id, kId, sizeof kId);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDevicePrimaryCtxRetain(Context* context, Device device) {
  STAND_IN_ENTER(Needs::kInit);
  if (!IsDevice(device)) {
    return kInvalidDevice;
  }
  ++Counters().retained_contexts;
  *context = terrace::stand_in::ContextOf(device);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuDevicePrimaryCtxRelease_v2(Device) {
  STAND_IN_ENTER(Needs::kInit);
  --Counters().retained_contexts;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuCtxSetCurrent(Context context) {
  STAND_IN_ENTER(Needs::kInit);
  terrace::stand_in::SetCurrent(context);
  return kSuccess;
}

STAND_IN_SYMBOL Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  STAND_IN_ENTER(Needs::kContext);
  *least = 0;
  *greatest = -5;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuMemAlloc_v2(DevicePointer* pointer, size_t bytes) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Allocate(pointer, bytes);
}

STAND_IN_SYMBOL Result cuMemFree_v2(DevicePointer pointer) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Free(pointer);
}

STAND_IN_SYMBOL Result cuMemGetAddressRange_v2(DevicePointer* start,
                                               size_t* bytes,
                                               DevicePointer any) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().RangeOf(start, bytes, any);
}

STAND_IN_SYMBOL Result cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags) {
  STAND_IN_ENTER(Needs::kContext);
  return HostRegistry::Instance().Register(memory, bytes, flags);
}

STAND_IN_SYMBOL Result cuMemHostUnregister(void* memory) {
  STAND_IN_ENTER(Needs::kContext);
  return HostRegistry::Instance().Unregister(memory);
}

STAND_IN_SYMBOL Result cuIpcGetMemHandle(IpcMemHandle* handle, DevicePointer pointer) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Export(handle, pointer);
}

STAND_IN_SYMBOL Result cuIpcOpenMemHandle_v2(DevicePointer* pointer,
                                             IpcMemHandle handle,
                                             unsigned flags) {
  STAND_IN_ENTER(Needs::kContext);
  if (flags != kIpcLazyPeerAccess) {
    return kInvalidValue;
  }
  return DeviceMemory::Instance().Import(pointer, handle);
}

STAND_IN_SYMBOL Result cuIpcCloseMemHandle(DevicePointer pointer) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().CloseImport(pointer);
}

STAND_IN_SYMBOL Result cuMemGetAllocationGranularity(size_t* bytes,
                                                     const AllocationProperties* properties,
                                                     int) {
  STAND_IN_ENTER(Needs::kContext);
  if (properties->type != kAllocationPinned || properties->location.type != kLocationDevice) {
    return kInvalidValue;
  }
  *bytes = kGranule;
  return kSuccess;
}

STAND_IN_SYMBOL Result cuMemCreate(AllocationHandle* handle,
                                   size_t bytes,
                                   const AllocationProperties* properties,
                                   unsigned long long) {
  STAND_IN_ENTER(Needs::kContext);
  if (properties->type != kAllocationPinned || properties->location.type != kLocationDevice) {
    return kInvalidValue;
  }
  return DeviceMemory::Instance().CreateHandle(handle, bytes);
}

STAND_IN_SYMBOL Result cuMemExportToShareableHandle(void* shareable,
                                                    AllocationHandle handle,
                                                    int type,
                                                    unsigned long long) {
  STAND_IN_ENTER(Needs::kContext);
  if (type != kHandlePosixDescriptor) {
    return kNotSupported;
  }
  return DeviceMemory::Instance().ExportHandle(static_cast<int*>(shareable), handle);
}

STAND_IN_SYMBOL Result cuMemImportFromShareableHandle(AllocationHandle* handle,
                                                      void* shareable,
                                                      int type) {
  STAND_IN_ENTER(Needs::kContext);
  if (type != kHandlePosixDescriptor) {
    return kNotSupported;
  }
  const int fd = static_cast<int>(reinterpret_cast<intptr_t>(shareable));
  return DeviceMemory::Instance().ImportHandle(handle, fd);
}

STAND_IN_SYMBOL Result cuMemRelease(AllocationHandle handle) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().ReleaseHandle(handle);
}

STAND_IN_SYMBOL Result cuMemAddressReserve(
    DevicePointer* pointer, size_t bytes, size_t, DevicePointer, unsigned long long) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Reserve(pointer, bytes);
}

STAND_IN_SYMBOL Result cuMemAddressFree(DevicePointer pointer, size_t bytes) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().FreeReserved(pointer, bytes);
}

STAND_IN_SYMBOL Result cuMemMap(DevicePointer pointer,
                                size_t bytes,
                                size_t offset,
                                AllocationHandle handle,
                                unsigned long long) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Map(pointer, bytes, offset, handle);
}

STAND_IN_SYMBOL Result cuMemUnmap(DevicePointer pointer, size_t bytes) {
  STAND_IN_ENTER(Needs::kContext);
  return DeviceMemory::Instance().Unmap(pointer, bytes);
}

STAND_IN_SYMBOL Result cuMemSetAccess(DevicePointer pointer,
                                      size_t bytes,
                                      const AccessDescription* descriptions,
                                      size_t count) {
  STAND_IN_ENTER(Needs::kContext);
  if (count != 1 || descriptions->flags != kAccessReadWrite) {
    return kInvalidValue;
  }
  return DeviceMemory::Instance().SetAccess(pointer, bytes);
}
