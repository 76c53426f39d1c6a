#include "tiers/gpu/cuda_objects.h"

#include "absl/strings/str_cat.h"

namespace terrace::cuda {

absl::StatusOr<PrimaryContext> PrimaryContext::Retain(const CudaDriver& driver, int ordinal) {
  Device device = 0;
  if (const Result result = driver->DeviceGet(&device, ordinal); result != kSuccess) {
    return driver.StatusOf(result, absl::StrCat("device ", ordinal));
  }
  PrimaryContext made(driver, device);
  if (const Result result = driver->DevicePrimaryCtxRetain(&made.context_, device);
      result != kSuccess) {
    made.context_ = nullptr;
    return driver.StatusOf(result, absl::StrCat("context of device ", ordinal));
  }
  return made;
}

PrimaryContext::PrimaryContext(PrimaryContext&& other) noexcept
    : driver_(other.driver_),
      device_(other.device_),
      context_(std::exchange(other.context_, nullptr)) {}

PrimaryContext::~PrimaryContext() {
  if (context_ != nullptr) {
    (*driver_)->DevicePrimaryCtxRelease(device_);
  }
}

absl::Status PrimaryContext::MakeCurrent() const {
  return driver_->StatusOf((*driver_)->CtxSetCurrent(context_), "cuCtxSetCurrent");
}

int PrimaryContext::Attribute(int attribute) const {
  int value = 0;
  return (*driver_)->DeviceGetAttribute(&value, attribute, device_) == kSuccess ? value : 0;
}

absl::StatusOr<DeviceUuid> PrimaryContext::Uuid() const {
  DeviceUuid uuid{};
  const Result result = (*driver_)->DeviceGetUuid(&uuid, device_);
  if (result != kSuccess) {
    return driver_->StatusOf(result, "cuDeviceGetUuid");
  }
  return uuid;
}

std::string PrimaryContext::PciBusId() const {
  char id[32] = {};
  const DriverCalls& calls = *driver_->operator->();
  const bool known = calls.DeviceGetPCIBusId != nullptr &&
                     calls.DeviceGetPCIBusId(id, sizeof id - 1, device_) == kSuccess;
  return known ? id : "";
}

absl::StatusOr<OwnedStream> OwnedStream::Create(const PrimaryContext& context, Urgency urgency) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  const CudaDriver& driver = context.driver();
  int least = 0;
  int greatest = 0;
  Stream stream = nullptr;
  Result result = driver->CtxGetStreamPriorityRange(&least, &greatest);
  if (result == kSuccess) {
    result = driver->StreamCreateWithPriority(&stream, kStreamNonBlocking,
                                              urgency == Urgency::kFirst ? greatest : least);
  }
  if (result != kSuccess) {
    return driver.StatusOf(result, "stream");
  }
  return OwnedStream(context, stream);
}

OwnedStream::~OwnedStream() {
  if (stream_ != nullptr && context_->MakeCurrent().ok()) {
    context_->driver()->StreamDestroy(stream_);
  }
}

namespace {

absl::StatusOr<Event> MakeEvent(const PrimaryContext& context, unsigned flags) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  Event event = nullptr;
  const Result result = context.driver()->EventCreate(&event, flags);
  if (result != kSuccess) {
    return context.driver().StatusOf(result, "event");
  }
  return event;
}

}  // namespace

absl::StatusOr<OwnedEvent> OwnedEvent::Create(const PrimaryContext& context) {
  const absl::StatusOr<Event> event = MakeEvent(context, kEventDisableTiming);
  if (!event.ok()) {
    return event.status();
  }
  return OwnedEvent(context, *event);
}

absl::StatusOr<OwnedEvent> OwnedEvent::CreateShared(const PrimaryContext& context) {
  const absl::StatusOr<Event> event = MakeEvent(context, kEventDisableTiming | kEventInterprocess);
  if (!event.ok()) {
    return event.status();
  }
  return OwnedEvent(context, *event);
}

absl::StatusOr<OwnedEvent> OwnedEvent::Open(const PrimaryContext& context,
                                            const IpcEventHandle& handle) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  Event event = nullptr;
  const Result result = context.driver()->IpcOpenEventHandle(&event, handle);
  if (result != kSuccess) {
    return context.driver().StatusOf(result, "event handle");
  }
  return OwnedEvent(context, event);
}

OwnedEvent::~OwnedEvent() {
  if (event_ != nullptr && context_->MakeCurrent().ok()) {
    context_->driver()->EventDestroy(event_);
  }
}

absl::StatusOr<ImportedMemory> ImportedMemory::OpenIpc(const PrimaryContext& context,
                                                       const IpcMemHandle& handle,
                                                       uint64_t bytes) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  const CudaDriver& driver = context.driver();
  DevicePointer address = 0;
  if (const Result result = driver->IpcOpenMemHandle(&address, handle, kIpcLazyPeerAccess);
      result != kSuccess) {
    return driver.StatusOf(result, "handle");
  }
  ImportedMemory opened(context, Kind::kIpc, address, bytes);
  DevicePointer start = 0;
  size_t whole = 0;
  if (const Result result = driver->MemGetAddressRange(&start, &whole, address);
      result != kSuccess) {
    return driver.StatusOf(result, "size of the allocation");
  }
  constexpr uint64_t kRounding = uint64_t{2} << 20;  // what drivers give beyond what was asked for
  if (start != address || whole < bytes || whole - bytes >= kRounding) {
    return absl::InvalidArgumentError("bytes: the allocation behind handle has another size");
  }
  return opened;
}

absl::StatusOr<ImportedMemory> ImportedMemory::MapShared(const PrimaryContext& context,
                                                         const Descriptor& descriptor,
                                                         uint64_t bytes) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  const CudaDriver& driver = context.driver();
  AllocationProperties properties{};
  properties.type = kAllocationPinned;
  properties.requested_handle_types = kHandlePosixDescriptor;
  properties.location = {kLocationDevice, context.device()};
  size_t granule = 0;
  if (const Result result =
          driver->MemGetAllocationGranularity(&granule, &properties, kGranularityMinimum);
      result != kSuccess) {
    return driver.StatusOf(result, "granularity");
  }
  if (bytes == 0 || granule == 0 || bytes % granule != 0) {
    return absl::InvalidArgumentError(absl::StrCat("bytes: a multiple of ", granule));
  }
  AllocationHandle handle = 0;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver wants the descriptor as a pointer
  void* shareable = reinterpret_cast<void*>(static_cast<intptr_t>(descriptor.get()));
  if (const Result result =
          driver->MemImportFromShareableHandle(&handle, shareable, kHandlePosixDescriptor);
      result != kSuccess) {
    return driver.StatusOf(result, "descriptor");
  }
  DevicePointer address = 0;
  if (const Result result = driver->MemAddressReserve(&address, bytes, granule, 0, 0);
      result != kSuccess) {
    driver->MemRelease(handle);
    return driver.StatusOf(result, "address range");
  }
  ImportedMemory made(context, Kind::kShared, address, bytes);
  const Result mapped = driver->MemMap(address, bytes, 0, handle, 0);
  driver->MemRelease(handle);  // the mapping keeps the memory
  if (mapped != kSuccess) {
    return driver.StatusOf(mapped, "bytes: more than the allocation");
  }
  made.mapped_ = true;
  const AccessDescription access{properties.location, kAccessReadWrite};
  if (const Result result = driver->MemSetAccess(address, bytes, &access, 1); result != kSuccess) {
    return driver.StatusOf(result, "access");
  }
  return made;
}

ImportedMemory::~ImportedMemory() {
  if (address_ == 0 || !context_->MakeCurrent().ok()) {
    return;
  }
  const CudaDriver& driver = context_->driver();
  if (kind_ == Kind::kIpc) {
    driver->IpcCloseMemHandle(address_);
    return;
  }
  if (mapped_) {
    driver->MemUnmap(address_, bytes_);
  }
  driver->MemAddressFree(address_, bytes_);
}

absl::StatusOr<OwnedMemory> OwnedMemory::Allocate(const PrimaryContext& context, uint64_t bytes) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  DevicePointer address = 0;
  if (const Result result = context.driver()->MemAlloc(&address, bytes); result != kSuccess) {
    return context.driver().StatusOf(result, "device memory");
  }
  return OwnedMemory(context, address, bytes);
}

OwnedMemory::~OwnedMemory() {
  if (address_ != 0 && context_->MakeCurrent().ok()) {
    context_->driver()->MemFree(address_);
  }
}

absl::StatusOr<LoadedModule> LoadedModule::Load(const PrimaryContext& context, const void* image) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  if (!context.driver().launches_kernels()) {
    return absl::UnimplementedError("the driver lacks the calls for kernels");
  }
  Module module = nullptr;
  if (const Result result = context.driver()->ModuleLoadData(&module, image); result != kSuccess) {
    return context.driver().StatusOf(result, "kernels");
  }
  return LoadedModule(context, module);
}

LoadedModule::~LoadedModule() {
  if (module_ != nullptr && context_->MakeCurrent().ok()) {
    context_->driver()->ModuleUnload(module_);
  }
}

absl::StatusOr<Function> LoadedModule::Find(const char* name) const {
  Function function = nullptr;
  if (const Result result = context_->driver()->ModuleGetFunction(&function, module_, name);
      result != kSuccess) {
    return context_->driver().StatusOf(result, absl::StrCat("kernel ", name));
  }
  return function;
}

absl::StatusOr<PinnedMemory> PinnedMemory::Register(const PrimaryContext& context,
                                                    absl::Span<char> memory,
                                                    Access access) {
  if (const absl::Status status = context.MakeCurrent(); !status.ok()) {
    return status;
  }
  const bool read_only = access == Access::kReadOnly;
  if (read_only && context.Attribute(kAttributeReadOnlyHostRegister) == 0) {
    return absl::UnimplementedError("the device cannot register memory read-only");
  }
  // Mapped, so that kernels can read what says what they have to do.
  const unsigned flags =
      kHostRegisterPortable | (read_only ? kHostRegisterReadOnly : kHostRegisterMapped);
  const Result result = context.driver()->MemHostRegister(memory.data(), memory.size(), flags);
  if (result != kSuccess) {
    return context.driver().StatusOf(result, "cuMemHostRegister");
  }
  return PinnedMemory(context, memory);
}

absl::StatusOr<DevicePointer> PinnedMemory::AddressForKernels() const {
  const CudaDriver& driver = context_->driver();
  if (!driver.launches_kernels()) {
    return absl::UnimplementedError("the driver lacks the calls for kernels");
  }
  DevicePointer address = 0;
  const Result result = driver->MemHostGetDevicePointer(&address, memory_.data(), 0);
  if (result != kSuccess) {
    return driver.StatusOf(result, "cuMemHostGetDevicePointer");
  }
  return address;
}

PinnedMemory::~PinnedMemory() {
  if (!memory_.empty() && context_->MakeCurrent().ok()) {
    context_->driver()->MemHostUnregister(memory_.data());
  }
}

}  // namespace terrace::cuda
