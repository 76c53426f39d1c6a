// What of NVIDIA's driver interface (cuda.h) is used here, declared anew, so that neither building
// nor starting needs CUDA. Each line names its original; values and layouts are those of the
// driver's ABI, which the _v2 of a symbol pins (CUDA 11.4 to 13: group__CUDA__TYPES of the driver
// API's reference).
#pragma once

#include <cstddef>
#include <cstdint>

namespace terrace::cuda {

using Result = int;  // CUresult
inline constexpr Result kSuccess = 0;
inline constexpr Result kInvalidValue = 1;
inline constexpr Result kOutOfMemory = 2;
inline constexpr Result kNotInitialized = 3;
inline constexpr Result kDeinitialized = 4;
inline constexpr Result kStubLibrary = 34;
inline constexpr Result kNoDevice = 100;
inline constexpr Result kInvalidDevice = 101;
inline constexpr Result kInvalidImage = 200;
inline constexpr Result kInvalidContext = 201;
inline constexpr Result kMapFailed = 205;
inline constexpr Result kAlreadyMapped = 208;
inline constexpr Result kNoBinaryForGpu = 209;
inline constexpr Result kEccUncorrectable = 214;
inline constexpr Result kOperatingSystem = 304;
inline constexpr Result kInvalidHandle = 400;
inline constexpr Result kNotFound = 500;
inline constexpr Result kNotReady = 600;
inline constexpr Result kIllegalAddress = 700;
inline constexpr Result kLaunchTimeout = 702;
inline constexpr Result kContextIsDestroyed = 709;
inline constexpr Result kHostMemoryAlreadyRegistered = 712;
inline constexpr Result kHostMemoryNotRegistered = 713;
inline constexpr Result kHardwareStackError = 714;
inline constexpr Result kIllegalInstruction = 715;
inline constexpr Result kMisalignedAddress = 716;
inline constexpr Result kLaunchFailed = 719;
inline constexpr Result kNotPermitted = 800;
inline constexpr Result kNotSupported = 801;
inline constexpr Result kUnknown = 999;

using Device = int;                  // CUdevice
using DevicePointer = uint64_t;      // CUdeviceptr, 64 bits on every system that has a driver today
using Context = struct ContextTag*;  // CUcontext
using Stream = struct StreamTag*;    // CUstream
using Event = struct EventTag*;      // CUevent
using Module = struct ModuleTag*;    // CUmodule
using Function = struct FunctionTag*;  // CUfunction
using AllocationHandle = uint64_t;   // CUmemGenericAllocationHandle
using HostFunction = void (*)(void*);  // CUhostFn

// CUdevice_attribute
inline constexpr int kAttributeAsyncEngineCount = 40;
inline constexpr int kAttributeUnifiedAddressing = 41;
inline constexpr int kAttributePciDomain = 50;
inline constexpr int kAttributePciBus = 33;
inline constexpr int kAttributePciDevice = 34;
inline constexpr int kAttributeHostPointers = 91;  // ..._CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM
inline constexpr int kAttributeHostRegister = 99;
inline constexpr int kAttributeVirtualMemory = 102;
inline constexpr int kAttributePosixDescriptors = 103;
inline constexpr int kAttributeReadOnlyHostRegister = 113;
inline constexpr int kAttributeIpcEvents = 125;

inline constexpr unsigned kStreamNonBlocking = 1;     // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kEventDisableTiming = 2;    // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kEventInterprocess = 4;     // CU_EVENT_INTERPROCESS
inline constexpr unsigned kHostRegisterPortable = 1;  // CU_MEMHOSTREGISTER_PORTABLE
inline constexpr unsigned kHostRegisterMapped = 2;    // CU_MEMHOSTREGISTER_DEVICEMAP
inline constexpr unsigned kHostRegisterReadOnly = 8;  // CU_MEMHOSTREGISTER_READ_ONLY
inline constexpr unsigned kIpcLazyPeerAccess = 1;     // CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
inline constexpr unsigned kWaitValueAtLeast = 0;      // CU_STREAM_WAIT_VALUE_GEQ
inline constexpr int kAllocationPinned = 1;           // CU_MEM_ALLOCATION_TYPE_PINNED
inline constexpr int kHandlePosixDescriptor = 1;      // CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
inline constexpr int kLocationDevice = 1;             // CU_MEM_LOCATION_TYPE_DEVICE
inline constexpr int kAccessReadWrite = 3;            // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
inline constexpr int kGranularityMinimum = 0;         // CU_MEM_ALLOC_GRANULARITY_MINIMUM
inline constexpr int kSourceInStreamOrder = 1;        // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM

inline constexpr size_t kIpcHandleBytes = 64;  // CU_IPC_HANDLE_SIZE

struct DeviceUuid {  // CUuuid
  char bytes[16];
};
struct IpcMemHandle {  // CUipcMemHandle
  char reserved[kIpcHandleBytes];
};
struct IpcEventHandle {  // CUipcEventHandle
  char reserved[kIpcHandleBytes];
};
struct MemLocation {  // CUmemLocation
  int type;
  int id;
};
struct AllocationProperties {  // CUmemAllocationProp
  int type;
  int requested_handle_types;
  MemLocation location;
  void* win32_handle_metadata;
  unsigned char compression_type;
  unsigned char gpu_direct_rdma_capable;
  unsigned short usage;
  unsigned char reserved[4];
};
struct AccessDescription {  // CUmemAccessDesc
  MemLocation location;
  int flags;
};
struct CopyAttributes {  // CUmemcpyAttributes
  int source_access_order;
  MemLocation source_hint;
  MemLocation destination_hint;
  unsigned flags;
};
static_assert(sizeof(AllocationProperties) == 32 && sizeof(AccessDescription) == 12 &&
              sizeof(CopyAttributes) == 24);

}  // namespace terrace::cuda
