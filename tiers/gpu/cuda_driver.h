// The driver of the GPUs on this host, loaded when asked for: a table of its calls, and what its
// results mean.
//
// The library stays loaded until the process ends, as it has threads of its own. After a result
// that EndsContext, every further call of this process fails: its owner ends, and starts anew as
// another process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/cuda_types.h"

namespace terrace::cuda {

// The driver's calls, named as there without "cu" and version; arguments as in its reference.
struct DriverCalls {
  Result (*Init)(unsigned flags) = nullptr;
  Result (*DriverGetVersion)(int* version) = nullptr;
  Result (*GetErrorName)(Result result, const char** name) = nullptr;
  Result (*DeviceGetCount)(int* count) = nullptr;
  Result (*DeviceGet)(Device* device, int ordinal) = nullptr;
  Result (*DeviceGetAttribute)(int* value, int attribute, Device device) = nullptr;
  Result (*DeviceGetUuid)(DeviceUuid* uuid, Device device) = nullptr;
  // May be absent.
  Result (*DeviceGetPCIBusId)(char* id, int room, Device device) = nullptr;
  Result (*DevicePrimaryCtxRetain)(Context* context, Device device) = nullptr;
  Result (*DevicePrimaryCtxRelease)(Device device) = nullptr;
  Result (*CtxSetCurrent)(Context context) = nullptr;
  Result (*CtxGetStreamPriorityRange)(int* least, int* greatest) = nullptr;

  Result (*MemAlloc)(DevicePointer* pointer, size_t bytes) = nullptr;
  Result (*MemFree)(DevicePointer pointer) = nullptr;
  Result (*MemGetAddressRange)(DevicePointer* start, size_t* bytes, DevicePointer any) = nullptr;
  Result (*MemHostRegister)(void* memory, size_t bytes, unsigned flags) = nullptr;
  Result (*MemHostUnregister)(void* memory) = nullptr;
  Result (*IpcGetMemHandle)(IpcMemHandle* handle, DevicePointer pointer) = nullptr;
  Result (*IpcOpenMemHandle)(DevicePointer* pointer, IpcMemHandle handle, unsigned flags) = nullptr;
  Result (*IpcCloseMemHandle)(DevicePointer pointer) = nullptr;

  Result (*MemGetAllocationGranularity)(size_t* bytes,
                                        const AllocationProperties* properties,
                                        int option) = nullptr;
  Result (*MemCreate)(AllocationHandle* handle,
                      size_t bytes,
                      const AllocationProperties* properties,
                      unsigned long long flags) = nullptr;
  Result (*MemExportToShareableHandle)(void* shareable,
                                       AllocationHandle handle,
                                       int handle_type,
                                       unsigned long long flags) = nullptr;
  Result (*MemImportFromShareableHandle)(AllocationHandle* handle,
                                         void* shareable,
                                         int handle_type) = nullptr;
  Result (*MemRelease)(AllocationHandle handle) = nullptr;
  Result (*MemAddressReserve)(DevicePointer* pointer,
                              size_t bytes,
                              size_t alignment,
                              DevicePointer wanted,
                              unsigned long long flags) = nullptr;
  Result (*MemAddressFree)(DevicePointer pointer, size_t bytes) = nullptr;
  Result (*MemMap)(DevicePointer pointer,
                   size_t bytes,
                   size_t offset,
                   AllocationHandle handle,
                   unsigned long long flags) = nullptr;
  Result (*MemUnmap)(DevicePointer pointer, size_t bytes) = nullptr;
  Result (*MemSetAccess)(DevicePointer pointer,
                         size_t bytes,
                         const AccessDescription* descriptions,
                         size_t count) = nullptr;

  Result (*MemcpyHtoDAsync)(DevicePointer to,
                            const void* from,
                            size_t bytes,
                            Stream stream) = nullptr;
  Result (*MemcpyDtoHAsync)(void* to, DevicePointer from, size_t bytes, Stream stream) = nullptr;
  Result (*MemcpyDtoDAsync)(DevicePointer to,
                            DevicePointer from,
                            size_t bytes,
                            Stream stream) = nullptr;
  // Either or both may be absent: since CUDA 13, and since 12.8.
  Result (*MemcpyBatchAsync)(DevicePointer* to,
                             DevicePointer* from,
                             size_t* bytes,
                             size_t count,
                             CopyAttributes* attributes,
                             size_t* first_of_attributes,
                             size_t attributes_count,
                             Stream stream) = nullptr;
  Result (*MemcpyBatchAsyncWithFailIndex)(DevicePointer* to,
                                          DevicePointer* from,
                                          size_t* bytes,
                                          size_t count,
                                          CopyAttributes* attributes,
                                          size_t* first_of_attributes,
                                          size_t attributes_count,
                                          size_t* fail_index,
                                          Stream stream) = nullptr;

  Result (*StreamCreateWithPriority)(Stream* stream, unsigned flags, int priority) = nullptr;
  Result (*StreamDestroy)(Stream stream) = nullptr;
  Result (*StreamSynchronize)(Stream stream) = nullptr;
  Result (*StreamWaitEvent)(Stream stream, Event event, unsigned flags) = nullptr;
  // Absent from drivers before CUDA 11.7.
  Result (*StreamWaitValue64)(Stream stream,
                              DevicePointer address,
                              uint64_t value,
                              unsigned flags) = nullptr;
  Result (*LaunchHostFunc)(Stream stream, HostFunction function, void* argument) = nullptr;
  Result (*EventCreate)(Event* event, unsigned flags) = nullptr;
  Result (*EventDestroy)(Event event) = nullptr;
  Result (*EventRecord)(Event event, Stream stream) = nullptr;
  Result (*EventQuery)(Event event) = nullptr;
  Result (*EventSynchronize)(Event event) = nullptr;

  // Kernels: any of these may be absent (launches_kernels).
  Result (*ModuleLoadData)(Module* module, const void* image) = nullptr;
  Result (*ModuleUnload)(Module module) = nullptr;
  Result (*ModuleGetFunction)(Function* function, Module module, const char* name) = nullptr;
  Result (*MemHostGetDevicePointer)(DevicePointer* pointer, void* memory, unsigned flags) = nullptr;
  Result (*LaunchKernel)(Function function,
                         unsigned grid_x,
                         unsigned grid_y,
                         unsigned grid_z,
                         unsigned block_x,
                         unsigned block_y,
                         unsigned block_z,
                         unsigned shared_bytes,
                         Stream stream,
                         void** parameters,
                         void** extra) = nullptr;

  Result (*IpcGetEventHandle)(IpcEventHandle* handle, Event event) = nullptr;
  Result (*IpcOpenEventHandle)(Event* event, IpcEventHandle handle) = nullptr;
};

// One side of a copy: an address in the device, or in this process.
struct CopyRange {
  DevicePointer device = 0;
  char* host = nullptr;
  size_t bytes = 0;
};
enum class CopyDirection : uint8_t { kToDevice, kToHost };

// Immutable but for ForgoBatches, and so are its calls: thread-safe as the driver is.
class CudaDriver {
 public:
  // Loads `library` (empty: what the environment's TERRACE_CUDA_DRIVER names, else libcuda.so.1)
  // and initialises it. Blocks for as long as the driver takes, which may be seconds.
  // Errors: UNAVAILABLE (no such library, no device, a driver that does not start: with the
  // driver's name for it), FAILED_PRECONDITION (a library that lacks a call, which is named).
  static absl::StatusOr<std::unique_ptr<CudaDriver>> Load(const std::string& library = "");

  const DriverCalls* operator->() const { return &calls_; }

  // OK, or "what: CUDA_ERROR_NAME". RESOURCE_EXHAUSTED: out of memory. INVALID_ARGUMENT: a value or
  // handle. UNIMPLEMENTED: not supported. PERMISSION_DENIED. UNAVAILABLE: no device, or a context
  // that is lost. INTERNAL: the rest.
  [[nodiscard]] absl::Status StatusOf(Result result, std::string_view what) const;
  // Whether no call of this process can succeed after it (a "sticky" error).
  static bool EndsContext(Result result);

  [[nodiscard]] bool copies_in_batches() const;
  // From now on copies are enqueued one by one. Not while others use the driver.
  void ForgoBatches();
  [[nodiscard]] bool launches_kernels() const;
  // Enqueues copies that may run in any order among each other, in one call where the driver has
  // one. After an error any of them may run.
  [[nodiscard]] Result EnqueueCopies(CopyDirection direction,
                                     absl::Span<const CopyRange> copies,
                                     Stream stream) const;
  // As EnqueueCopies, one call a copy.
  [[nodiscard]] Result EnqueueSingly(CopyDirection direction,
                                     absl::Span<const CopyRange> copies,
                                     Stream stream) const;

 private:
  CudaDriver() = default;
  absl::Status Bind(void* library);

  DriverCalls calls_;
};

}  // namespace terrace::cuda
