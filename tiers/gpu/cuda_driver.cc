#include "tiers/gpu/cuda_driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace terrace::cuda {
namespace {

constexpr char kDefaultLibrary[] = "libcuda.so.1";
constexpr char kLibraryVariable[] = "TERRACE_CUDA_DRIVER";

std::string LibraryFrom(const std::string& wanted) {
  if (!wanted.empty()) {
    return wanted;
  }
  const char* named = std::getenv(kLibraryVariable);
  return named != nullptr && *named != '\0' ? named : kDefaultLibrary;
}

// Fills function pointers and remembers the first that is missing.
class SymbolBinder {
 public:
  explicit SymbolBinder(void* library) : library_(library) {}

  template <typename Function>
  void Need(Function** slot, const char* name) {
    if (!Take(slot, name) && missing_.empty()) {
      missing_ = name;
    }
  }
  template <typename Function>
  void NeedEither(Function** slot, const char* name, const char* older_name) {
    if (!Take(slot, name)) {
      Need(slot, older_name);
    }
  }
  template <typename Function>
  bool Take(Function** slot, const char* name) {
    void* symbol = dlsym(library_, name);
    static_assert(sizeof symbol == sizeof *slot);
    std::memcpy(slot, &symbol, sizeof symbol);
    return symbol != nullptr;
  }
  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

void BindDevices(SymbolBinder& binder, DriverCalls& calls) {
  binder.Need(&calls.Init, "cuInit");
  binder.Need(&calls.DriverGetVersion, "cuDriverGetVersion");
  binder.Need(&calls.GetErrorName, "cuGetErrorName");
  binder.Need(&calls.DeviceGetCount, "cuDeviceGetCount");
  binder.Need(&calls.DeviceGet, "cuDeviceGet");
  binder.Need(&calls.DeviceGetAttribute, "cuDeviceGetAttribute");
  // The second version tells slices of one GPU (MIG) apart.
  binder.NeedEither(&calls.DeviceGetUuid, "cuDeviceGetUuid_v2", "cuDeviceGetUuid");
  binder.Take(&calls.DeviceGetPCIBusId, "cuDeviceGetPCIBusId");
  binder.Need(&calls.DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  binder.Need(&calls.DevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2");
  binder.Need(&calls.CtxSetCurrent, "cuCtxSetCurrent");
  binder.Need(&calls.CtxGetStreamPriorityRange, "cuCtxGetStreamPriorityRange");
}

void BindMemory(SymbolBinder& binder, DriverCalls& calls) {
  binder.Need(&calls.MemAlloc, "cuMemAlloc_v2");
  binder.Need(&calls.MemFree, "cuMemFree_v2");
  binder.Need(&calls.MemGetAddressRange, "cuMemGetAddressRange_v2");
  binder.Need(&calls.MemHostRegister, "cuMemHostRegister_v2");
  binder.Need(&calls.MemHostUnregister, "cuMemHostUnregister");
  binder.Need(&calls.IpcGetMemHandle, "cuIpcGetMemHandle");
  binder.Need(&calls.IpcOpenMemHandle, "cuIpcOpenMemHandle_v2");
  binder.Need(&calls.IpcCloseMemHandle, "cuIpcCloseMemHandle");
  binder.Need(&calls.MemGetAllocationGranularity, "cuMemGetAllocationGranularity");
  binder.Need(&calls.MemCreate, "cuMemCreate");
  binder.Need(&calls.MemExportToShareableHandle, "cuMemExportToShareableHandle");
  binder.Need(&calls.MemImportFromShareableHandle, "cuMemImportFromShareableHandle");
  binder.Need(&calls.MemRelease, "cuMemRelease");
  binder.Need(&calls.MemAddressReserve, "cuMemAddressReserve");
  binder.Need(&calls.MemAddressFree, "cuMemAddressFree");
  binder.Need(&calls.MemMap, "cuMemMap");
  binder.Need(&calls.MemUnmap, "cuMemUnmap");
  binder.Need(&calls.MemSetAccess, "cuMemSetAccess");
}

void BindStreams(SymbolBinder& binder, DriverCalls& calls) {
  binder.Need(&calls.MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2");
  binder.Need(&calls.MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2");
  binder.Need(&calls.MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2");
  binder.Take(&calls.MemcpyBatchAsync, "cuMemcpyBatchAsync_v2");
  binder.Take(&calls.MemcpyBatchAsyncWithFailIndex, "cuMemcpyBatchAsync");
  binder.Need(&calls.StreamCreateWithPriority, "cuStreamCreateWithPriority");
  binder.Need(&calls.StreamDestroy, "cuStreamDestroy_v2");
  binder.Need(&calls.StreamSynchronize, "cuStreamSynchronize");
  binder.Need(&calls.StreamWaitEvent, "cuStreamWaitEvent");
  // Not the first version: it answers NOT_SUPPORTED unless the kernel module was told otherwise.
  binder.Take(&calls.StreamWaitValue64, "cuStreamWaitValue64_v2");
  binder.Need(&calls.LaunchHostFunc, "cuLaunchHostFunc");
  binder.Need(&calls.EventCreate, "cuEventCreate");
  binder.Need(&calls.EventDestroy, "cuEventDestroy_v2");
  binder.Need(&calls.EventRecord, "cuEventRecord");
  binder.Need(&calls.EventQuery, "cuEventQuery");
  binder.Need(&calls.EventSynchronize, "cuEventSynchronize");
  binder.Need(&calls.IpcGetEventHandle, "cuIpcGetEventHandle");
  binder.Need(&calls.IpcOpenEventHandle, "cuIpcOpenEventHandle");
}

void BindKernels(SymbolBinder& binder, DriverCalls& calls) {
  binder.Take(&calls.ModuleLoadData, "cuModuleLoadData");
  binder.Take(&calls.ModuleUnload, "cuModuleUnload");
  binder.Take(&calls.ModuleGetFunction, "cuModuleGetFunction");
  binder.Take(&calls.MemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2");
  binder.Take(&calls.LaunchKernel, "cuLaunchKernel");
}

absl::StatusCode CodeOf(Result result) {
  switch (result) {
    case kOutOfMemory:
      return absl::StatusCode::kResourceExhausted;
    case kInvalidValue:
    case kInvalidDevice:
    case kInvalidHandle:
    case kHostMemoryAlreadyRegistered:
    case kHostMemoryNotRegistered:
    case kMapFailed:
    case kAlreadyMapped:
      return absl::StatusCode::kInvalidArgument;
    case kNotSupported:
    case kInvalidImage:
    case kNoBinaryForGpu:
      return absl::StatusCode::kUnimplemented;
    case kNotPermitted:
      return absl::StatusCode::kPermissionDenied;
    case kNoDevice:
    case kStubLibrary:
    case kNotInitialized:
    case kInvalidContext:
      return absl::StatusCode::kUnavailable;
    default:
      return CudaDriver::EndsContext(result) ? absl::StatusCode::kUnavailable
                                             : absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDriver>> CudaDriver::Load(const std::string& library) {
  const std::string path = LibraryFrom(library);
  void* loaded = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (loaded == nullptr) {
    return absl::UnavailableError(absl::StrCat("no CUDA driver: ", dlerror()));
  }
  std::unique_ptr<CudaDriver> driver(new CudaDriver());
  if (const absl::Status status = driver->Bind(loaded); !status.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", status.message()));
  }
  if (const Result result = driver->calls_.Init(0); result != kSuccess) {
    return absl::UnavailableError(driver->StatusOf(result, "cuInit").message());
  }
  return driver;
}

absl::Status CudaDriver::Bind(void* library) {
  SymbolBinder binder(library);
  BindDevices(binder, calls_);
  BindMemory(binder, calls_);
  BindStreams(binder, calls_);
  BindKernels(binder, calls_);
  if (!binder.missing().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("lacks ", binder.missing(), "; drivers from CUDA 11.4 on have it"));
  }
  return absl::OkStatus();
}

absl::Status CudaDriver::StatusOf(Result result, std::string_view what) const {
  if (result == kSuccess) {
    return absl::OkStatus();
  }
  const char* name = nullptr;
  const bool named = calls_.GetErrorName(result, &name) == kSuccess && name != nullptr;
  const std::string text = named ? std::string(name) : absl::StrCat("CUDA error ", result);
  return absl::Status(CodeOf(result), absl::StrCat(std::string(what), ": ", text));
}

bool CudaDriver::EndsContext(Result result) {
  switch (result) {
    case kDeinitialized:
    case kEccUncorrectable:
    case kIllegalAddress:
    case kLaunchTimeout:
    case kContextIsDestroyed:
    case kHardwareStackError:
    case kIllegalInstruction:
    case kMisalignedAddress:
    case kLaunchFailed:
    case kUnknown:
      return true;
    default:
      return false;
  }
}

bool CudaDriver::copies_in_batches() const {
  return calls_.MemcpyBatchAsync != nullptr || calls_.MemcpyBatchAsyncWithFailIndex != nullptr;
}

void CudaDriver::ForgoBatches() {
  calls_.MemcpyBatchAsync = nullptr;
  calls_.MemcpyBatchAsyncWithFailIndex = nullptr;
}

bool CudaDriver::launches_kernels() const {
  return calls_.ModuleLoadData != nullptr && calls_.ModuleUnload != nullptr &&
         calls_.ModuleGetFunction != nullptr && calls_.MemHostGetDevicePointer != nullptr &&
         calls_.LaunchKernel != nullptr;
}

Result CudaDriver::EnqueueSingly(CopyDirection direction,
                                 absl::Span<const CopyRange> copies,
                                 Stream stream) const {
  for (const CopyRange& copy : copies) {
    const Result result = direction == CopyDirection::kToDevice
                              ? calls_.MemcpyHtoDAsync(copy.device, copy.host, copy.bytes, stream)
                              : calls_.MemcpyDtoHAsync(copy.host, copy.device, copy.bytes, stream);
    if (result != kSuccess) {
      return result;
    }
  }
  return kSuccess;
}

Result CudaDriver::EnqueueCopies(CopyDirection direction,
                                 absl::Span<const CopyRange> copies,
                                 Stream stream) const {
  if (copies.size() < 2 || !copies_in_batches()) {
    return EnqueueSingly(direction, copies, stream);
  }
  std::vector<DevicePointer> to;
  std::vector<DevicePointer> from;
  std::vector<size_t> sizes;
  to.reserve(copies.size());
  from.reserve(copies.size());
  sizes.reserve(copies.size());
  for (const CopyRange& copy : copies) {
    const auto host = reinterpret_cast<DevicePointer>(copy.host);
    to.push_back(direction == CopyDirection::kToDevice ? copy.device : host);
    from.push_back(direction == CopyDirection::kToDevice ? host : copy.device);
    sizes.push_back(copy.bytes);
  }
  CopyAttributes attributes{};
  attributes.source_access_order = kSourceInStreamOrder;
  size_t first = 0;
  if (calls_.MemcpyBatchAsync != nullptr) {
    return calls_.MemcpyBatchAsync(to.data(), from.data(), sizes.data(), copies.size(), &attributes,
                                   &first, 1, stream);
  }
  size_t failed = 0;
  return calls_.MemcpyBatchAsyncWithFailIndex(to.data(), from.data(), sizes.data(), copies.size(),
                                              &attributes, &first, 1, &failed, stream);
}

}  // namespace terrace::cuda
