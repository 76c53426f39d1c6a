// What is declared anew of the driver's interface against NVIDIA's own header, where there is one:
// every value, every layout, every call's shape and the version of its symbol. A number that is
// wrong would show nowhere else but on a GPU. Almost all of it is checked by the compiler.
#include <cstddef>
#include <string>
#include <type_traits>

#include <cuda.h>
#include <cudaTypedefs.h>
#include <gtest/gtest.h>

#include "tiers/gpu/cuda_driver.h"

namespace terrace::cuda {
namespace {

template <typename Ours, typename Theirs>
constexpr bool IsSameValue(Ours ours, Theirs theirs) {
  return static_cast<long long>(ours) == static_cast<long long>(theirs);
}

static_assert(IsSameValue(kSuccess, CUDA_SUCCESS));
static_assert(IsSameValue(kInvalidValue, CUDA_ERROR_INVALID_VALUE));
static_assert(IsSameValue(kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY));
static_assert(IsSameValue(kNotInitialized, CUDA_ERROR_NOT_INITIALIZED));
static_assert(IsSameValue(kDeinitialized, CUDA_ERROR_DEINITIALIZED));
static_assert(IsSameValue(kStubLibrary, CUDA_ERROR_STUB_LIBRARY));
static_assert(IsSameValue(kNoDevice, CUDA_ERROR_NO_DEVICE));
static_assert(IsSameValue(kInvalidDevice, CUDA_ERROR_INVALID_DEVICE));
static_assert(IsSameValue(kInvalidImage, CUDA_ERROR_INVALID_IMAGE));
static_assert(IsSameValue(kInvalidContext, CUDA_ERROR_INVALID_CONTEXT));
static_assert(IsSameValue(kMapFailed, CUDA_ERROR_MAP_FAILED));
static_assert(IsSameValue(kAlreadyMapped, CUDA_ERROR_ALREADY_MAPPED));
static_assert(IsSameValue(kNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU));
static_assert(IsSameValue(kEccUncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE));
static_assert(IsSameValue(kOperatingSystem, CUDA_ERROR_OPERATING_SYSTEM));
static_assert(IsSameValue(kInvalidHandle, CUDA_ERROR_INVALID_HANDLE));
static_assert(IsSameValue(kNotFound, CUDA_ERROR_NOT_FOUND));
static_assert(IsSameValue(kNotReady, CUDA_ERROR_NOT_READY));
static_assert(IsSameValue(kIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS));
static_assert(IsSameValue(kLaunchTimeout, CUDA_ERROR_LAUNCH_TIMEOUT));
static_assert(IsSameValue(kContextIsDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED));
static_assert(IsSameValue(kHostMemoryAlreadyRegistered, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED));
static_assert(IsSameValue(kHostMemoryNotRegistered, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED));
static_assert(IsSameValue(kHardwareStackError, CUDA_ERROR_HARDWARE_STACK_ERROR));
static_assert(IsSameValue(kIllegalInstruction, CUDA_ERROR_ILLEGAL_INSTRUCTION));
static_assert(IsSameValue(kMisalignedAddress, CUDA_ERROR_MISALIGNED_ADDRESS));
static_assert(IsSameValue(kLaunchFailed, CUDA_ERROR_LAUNCH_FAILED));
static_assert(IsSameValue(kNotPermitted, CUDA_ERROR_NOT_PERMITTED));
static_assert(IsSameValue(kNotSupported, CUDA_ERROR_NOT_SUPPORTED));
static_assert(IsSameValue(kUnknown, CUDA_ERROR_UNKNOWN));

static_assert(IsSameValue(kAttributeAsyncEngineCount, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT));
static_assert(IsSameValue(kAttributeUnifiedAddressing, CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING));
static_assert(IsSameValue(kAttributePciDomain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID));
static_assert(IsSameValue(kAttributePciBus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID));
static_assert(IsSameValue(kAttributePciDevice, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
static_assert(IsSameValue(kAttributeHostPointers,
                          CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM));
static_assert(IsSameValue(kAttributeHostRegister, CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED));
static_assert(IsSameValue(kAttributeVirtualMemory,
                          CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED));
static_assert(IsSameValue(kAttributePosixDescriptors,
                          CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED));
static_assert(IsSameValue(kAttributeReadOnlyHostRegister,
                          CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED));
static_assert(IsSameValue(kAttributeIpcEvents, CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED));

static_assert(IsSameValue(kStreamNonBlocking, CU_STREAM_NON_BLOCKING));
static_assert(IsSameValue(kEventDisableTiming, CU_EVENT_DISABLE_TIMING));
static_assert(IsSameValue(kEventInterprocess, CU_EVENT_INTERPROCESS));
static_assert(IsSameValue(kHostRegisterPortable, CU_MEMHOSTREGISTER_PORTABLE));
static_assert(IsSameValue(kHostRegisterMapped, CU_MEMHOSTREGISTER_DEVICEMAP));
static_assert(IsSameValue(kHostRegisterReadOnly, CU_MEMHOSTREGISTER_READ_ONLY));
static_assert(IsSameValue(kIpcLazyPeerAccess, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
static_assert(IsSameValue(kWaitValueAtLeast, CU_STREAM_WAIT_VALUE_GEQ));
static_assert(IsSameValue(kAllocationPinned, CU_MEM_ALLOCATION_TYPE_PINNED));
static_assert(IsSameValue(kHandlePosixDescriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
static_assert(IsSameValue(kLocationDevice, CU_MEM_LOCATION_TYPE_DEVICE));
static_assert(IsSameValue(kAccessReadWrite, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
static_assert(IsSameValue(kGranularityMinimum, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
static_assert(IsSameValue(kIpcHandleBytes, CU_IPC_HANDLE_SIZE));
#if CUDA_VERSION >= 12080
static_assert(IsSameValue(kSourceInStreamOrder, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM));
#endif

// Layouts: every member where theirs is.
#define TERRACE_SAME_STRUCT(ours, theirs) \
  static_assert(sizeof(ours) == sizeof(theirs) && alignof(ours) == alignof(theirs))
#define TERRACE_SAME_MEMBER(ours, our_member, theirs, their_member)            \
  static_assert(offsetof(ours, our_member) == offsetof(theirs, their_member)); \
  static_assert(sizeof(ours::our_member) == sizeof(theirs::their_member))

TERRACE_SAME_STRUCT(DeviceUuid, CUuuid);
TERRACE_SAME_STRUCT(IpcMemHandle, CUipcMemHandle);
TERRACE_SAME_STRUCT(IpcEventHandle, CUipcEventHandle);
TERRACE_SAME_STRUCT(MemLocation, CUmemLocation);
TERRACE_SAME_MEMBER(MemLocation, type, CUmemLocation, type);
TERRACE_SAME_MEMBER(MemLocation, id, CUmemLocation, id);
TERRACE_SAME_STRUCT(AllocationProperties, CUmemAllocationProp);
TERRACE_SAME_MEMBER(AllocationProperties, type, CUmemAllocationProp, type);
TERRACE_SAME_MEMBER(AllocationProperties,
                    requested_handle_types,
                    CUmemAllocationProp,
                    requestedHandleTypes);
TERRACE_SAME_MEMBER(AllocationProperties, location, CUmemAllocationProp, location);
TERRACE_SAME_MEMBER(AllocationProperties,
                    win32_handle_metadata,
                    CUmemAllocationProp,
                    win32HandleMetaData);
TERRACE_SAME_MEMBER(AllocationProperties,
                    compression_type,
                    CUmemAllocationProp,
                    allocFlags.compressionType);
TERRACE_SAME_STRUCT(AccessDescription, CUmemAccessDesc);
TERRACE_SAME_MEMBER(AccessDescription, location, CUmemAccessDesc, location);
TERRACE_SAME_MEMBER(AccessDescription, flags, CUmemAccessDesc, flags);
#if CUDA_VERSION >= 12080
TERRACE_SAME_STRUCT(CopyAttributes, CUmemcpyAttributes);
TERRACE_SAME_MEMBER(CopyAttributes, source_access_order, CUmemcpyAttributes, srcAccessOrder);
TERRACE_SAME_MEMBER(CopyAttributes, source_hint, CUmemcpyAttributes, srcLocHint);
TERRACE_SAME_MEMBER(CopyAttributes, destination_hint, CUmemcpyAttributes, dstLocHint);
TERRACE_SAME_MEMBER(CopyAttributes, flags, CUmemcpyAttributes, flags);
#endif

// Two types that a call passes alike: as pointers, as numbers of one size and kind, or as structs
// of one size.
template <typename Ours, typename Theirs>
constexpr bool IsPassedAlike() {
  if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
    using Our = std::remove_cv_t<std::remove_pointer_t<Ours>>;
    using Their = std::remove_cv_t<std::remove_pointer_t<Theirs>>;
    if constexpr (std::is_void_v<Our> || std::is_void_v<Their>) {
      return std::is_void_v<Our> && std::is_void_v<Their>;
    } else if constexpr (std::is_function_v<Our> || std::is_function_v<Their>) {
      return std::is_function_v<Our> && std::is_function_v<Their>;
    } else if constexpr (std::is_same_v<Ours, Context> || std::is_same_v<Ours, Stream> ||
                         std::is_same_v<Ours, Event> || std::is_same_v<Ours, Module> ||
                         std::is_same_v<Ours, Function>) {
      return true;  // never looked into; which of theirs it is, the caller of this says
    } else {
      return IsPassedAlike<Our, Their>();
    }
  } else {
    const bool our_number = std::is_arithmetic_v<Ours> || std::is_enum_v<Ours>;
    const bool their_number = std::is_arithmetic_v<Theirs> || std::is_enum_v<Theirs>;
    return our_number == their_number && sizeof(Ours) == sizeof(Theirs) &&
           std::is_class_v<Ours> == std::is_class_v<Theirs> &&
           std::is_floating_point_v<Ours> == std::is_floating_point_v<Theirs>;
  }
}

template <typename Ours, typename Theirs>
struct IsSameCall : std::false_type {};
template <typename... OurTypes, typename... TheirTypes>
struct IsSameCall<Result (*)(OurTypes...), CUresult (*)(TheirTypes...)> {
  static constexpr bool All() {
    if constexpr (sizeof...(OurTypes) == sizeof...(TheirTypes)) {
      return (IsPassedAlike<OurTypes, TheirTypes>() && ...);
    } else {
      return false;
    }
  }
  static constexpr bool value = All();
};

// That the check itself finds something.
static_assert(!IsSameCall<Result (*)(int), CUresult (*)(size_t)>::value);
static_assert(!IsSameCall<Result (*)(int*), CUresult (*)(size_t*)>::value);
static_assert(!IsSameCall<Result (*)(int), CUresult (*)(int, int)>::value);
static_assert(!IsSameCall<Result (*)(int*), CUresult (*)(int)>::value);
static_assert(!IsSameCall<Result (*)(AccessDescription*), CUresult (*)(CUmemLocation*)>::value);

#define TERRACE_SAME_CALL(ours, theirs) \
  static_assert(IsSameCall<decltype(DriverCalls::ours), theirs>::value)

// By the version that the table's symbol has.
TERRACE_SAME_CALL(Init, PFN_cuInit_v2000);
TERRACE_SAME_CALL(DriverGetVersion, PFN_cuDriverGetVersion_v2020);
TERRACE_SAME_CALL(GetErrorName, PFN_cuGetErrorName_v6000);
TERRACE_SAME_CALL(DeviceGetCount, PFN_cuDeviceGetCount_v2000);
TERRACE_SAME_CALL(DeviceGet, PFN_cuDeviceGet_v2000);
TERRACE_SAME_CALL(DeviceGetAttribute, PFN_cuDeviceGetAttribute_v2000);
TERRACE_SAME_CALL(DeviceGetUuid, PFN_cuDeviceGetUuid_v11040);
TERRACE_SAME_CALL(DeviceGetUuid, PFN_cuDeviceGetUuid_v9020);
TERRACE_SAME_CALL(DeviceGetPCIBusId, PFN_cuDeviceGetPCIBusId_v4010);
TERRACE_SAME_CALL(DevicePrimaryCtxRetain, PFN_cuDevicePrimaryCtxRetain_v7000);
TERRACE_SAME_CALL(DevicePrimaryCtxRelease, PFN_cuDevicePrimaryCtxRelease_v11000);
TERRACE_SAME_CALL(CtxSetCurrent, PFN_cuCtxSetCurrent_v4000);
TERRACE_SAME_CALL(CtxGetStreamPriorityRange, PFN_cuCtxGetStreamPriorityRange_v5050);
TERRACE_SAME_CALL(MemAlloc, PFN_cuMemAlloc_v3020);
TERRACE_SAME_CALL(MemFree, PFN_cuMemFree_v3020);
TERRACE_SAME_CALL(MemGetAddressRange, PFN_cuMemGetAddressRange_v3020);
TERRACE_SAME_CALL(MemHostRegister, PFN_cuMemHostRegister_v6050);
TERRACE_SAME_CALL(MemHostUnregister, PFN_cuMemHostUnregister_v4000);
TERRACE_SAME_CALL(IpcGetMemHandle, PFN_cuIpcGetMemHandle_v4010);
TERRACE_SAME_CALL(IpcOpenMemHandle, PFN_cuIpcOpenMemHandle_v11000);
TERRACE_SAME_CALL(IpcCloseMemHandle, PFN_cuIpcCloseMemHandle_v4010);
TERRACE_SAME_CALL(MemGetAllocationGranularity, PFN_cuMemGetAllocationGranularity_v10020);
TERRACE_SAME_CALL(MemCreate, PFN_cuMemCreate_v10020);
TERRACE_SAME_CALL(MemExportToShareableHandle, PFN_cuMemExportToShareableHandle_v10020);
TERRACE_SAME_CALL(MemImportFromShareableHandle, PFN_cuMemImportFromShareableHandle_v10020);
TERRACE_SAME_CALL(MemRelease, PFN_cuMemRelease_v10020);
TERRACE_SAME_CALL(MemAddressReserve, PFN_cuMemAddressReserve_v10020);
TERRACE_SAME_CALL(MemAddressFree, PFN_cuMemAddressFree_v10020);
TERRACE_SAME_CALL(MemMap, PFN_cuMemMap_v10020);
TERRACE_SAME_CALL(MemUnmap, PFN_cuMemUnmap_v10020);
TERRACE_SAME_CALL(MemSetAccess, PFN_cuMemSetAccess_v10020);
TERRACE_SAME_CALL(MemcpyHtoDAsync, PFN_cuMemcpyHtoDAsync_v3020);
TERRACE_SAME_CALL(MemcpyDtoHAsync, PFN_cuMemcpyDtoHAsync_v3020);
TERRACE_SAME_CALL(MemcpyDtoDAsync, PFN_cuMemcpyDtoDAsync_v3020);
#if CUDA_VERSION >= 12080
TERRACE_SAME_CALL(MemcpyBatchAsyncWithFailIndex, PFN_cuMemcpyBatchAsync_v12080);
#endif
#if CUDA_VERSION >= 13000
TERRACE_SAME_CALL(MemcpyBatchAsync, PFN_cuMemcpyBatchAsync_v13000);
#endif
TERRACE_SAME_CALL(StreamCreateWithPriority, PFN_cuStreamCreateWithPriority_v5050);
TERRACE_SAME_CALL(StreamDestroy, PFN_cuStreamDestroy_v4000);
TERRACE_SAME_CALL(StreamSynchronize, PFN_cuStreamSynchronize_v2000);
TERRACE_SAME_CALL(StreamWaitEvent, PFN_cuStreamWaitEvent_v3020);
TERRACE_SAME_CALL(StreamWaitValue64, PFN_cuStreamWaitValue64_v11070);
TERRACE_SAME_CALL(LaunchHostFunc, PFN_cuLaunchHostFunc_v10000);
TERRACE_SAME_CALL(EventCreate, PFN_cuEventCreate_v2000);
TERRACE_SAME_CALL(EventDestroy, PFN_cuEventDestroy_v4000);
TERRACE_SAME_CALL(EventRecord, PFN_cuEventRecord_v2000);
TERRACE_SAME_CALL(EventQuery, PFN_cuEventQuery_v2000);
TERRACE_SAME_CALL(EventSynchronize, PFN_cuEventSynchronize_v2000);
TERRACE_SAME_CALL(ModuleLoadData, PFN_cuModuleLoadData_v2000);
TERRACE_SAME_CALL(ModuleUnload, PFN_cuModuleUnload_v2000);
TERRACE_SAME_CALL(ModuleGetFunction, PFN_cuModuleGetFunction_v2000);
TERRACE_SAME_CALL(MemHostGetDevicePointer, PFN_cuMemHostGetDevicePointer_v3020);
TERRACE_SAME_CALL(LaunchKernel, PFN_cuLaunchKernel_v4000);
TERRACE_SAME_CALL(IpcGetEventHandle, PFN_cuIpcGetEventHandle_v4010);
TERRACE_SAME_CALL(IpcOpenEventHandle, PFN_cuIpcOpenEventHandle_v4010);

// A library of NVIDIA's with all of the driver's symbols, which answers each call that it is a
// stub: a name that the table has wrong would be said before that.
TEST(CudaHeaderTest, TheStubOfTheDriverHasEveryCallOfTheTable) {
  const std::string stub = TERRACE_CUDA_STUB;
  if (stub.empty()) {
    GTEST_SKIP() << "no stub of the driver beside the header";
  }
  const absl::Status status = CudaDriver::Load(stub).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(status.message().find("lacks"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace terrace::cuda
