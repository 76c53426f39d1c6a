// RAII for what the driver hands out. Every type is move-only and thread-compatible, makes its
// context current on the thread that creates or destroys it, and is destroyed before the driver.
// Destructors release and never report: after an error that ends the context there is nothing left
// to release.
//
// None of them waits for copies: whoever destroys a mapping or a registration has seen to it that
// none is queued that touches it. The driver hands out addresses again at once, so that a copy that
// is late would meet another client's memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/cuda_driver.h"
#include "tiers/os/descriptor.h"

namespace terrace::cuda {

// A device's primary context, retained. The other objects borrow it, where it lies.
class PrimaryContext {
 public:
  // `ordinal` counts what the driver shows. Errors: INVALID_ARGUMENT (no such device), else as
  // StatusOf.
  static absl::StatusOr<PrimaryContext> Retain(const CudaDriver& driver, int ordinal);
  PrimaryContext(PrimaryContext&& other) noexcept;
  PrimaryContext& operator=(PrimaryContext&&) = delete;
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  ~PrimaryContext();

  // On the calling thread.
  [[nodiscard]] absl::Status MakeCurrent() const;
  [[nodiscard]] const CudaDriver& driver() const { return *driver_; }
  [[nodiscard]] Device device() const { return device_; }
  // 0 where the driver does not know the attribute.
  [[nodiscard]] int Attribute(int attribute) const;
  [[nodiscard]] absl::StatusOr<DeviceUuid> Uuid() const;
  // "0000:3B:00.0"; "" where the driver does not say.
  [[nodiscard]] std::string PciBusId() const;

 private:
  PrimaryContext(const CudaDriver& driver, Device device) : driver_(&driver), device_(device) {}

  const CudaDriver* driver_;
  Device device_;
  Context context_ = nullptr;
};

// A stream that does not wait for the default one.
class OwnedStream {
 public:
  enum class Urgency : uint8_t { kFirst, kLast };
  static absl::StatusOr<OwnedStream> Create(const PrimaryContext& context, Urgency urgency);
  OwnedStream(OwnedStream&& other) noexcept
      : context_(other.context_), stream_(std::exchange(other.stream_, nullptr)) {}
  OwnedStream& operator=(OwnedStream&&) = delete;
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  ~OwnedStream();
  [[nodiscard]] Stream get() const { return stream_; }

 private:
  OwnedStream(const PrimaryContext& context, Stream stream) : context_(&context), stream_(stream) {}
  const PrimaryContext* context_;
  Stream stream_;
};

// An event without timing.
class OwnedEvent {
 public:
  static absl::StatusOr<OwnedEvent> Create(const PrimaryContext& context);
  // One that can be exported.
  static absl::StatusOr<OwnedEvent> CreateShared(const PrimaryContext& context);
  // Another process's. Errors: as StatusOf, INVALID_ARGUMENT for a handle that names none.
  static absl::StatusOr<OwnedEvent> Open(const PrimaryContext& context,
                                         const IpcEventHandle& handle);
  OwnedEvent(OwnedEvent&& other) noexcept
      : context_(other.context_), event_(std::exchange(other.event_, nullptr)) {}
  OwnedEvent& operator=(OwnedEvent&&) = delete;
  OwnedEvent(const OwnedEvent&) = delete;
  OwnedEvent& operator=(const OwnedEvent&) = delete;
  ~OwnedEvent();
  [[nodiscard]] Event get() const { return event_; }

 private:
  OwnedEvent(const PrimaryContext& context, Event event) : context_(&context), event_(event) {}
  const PrimaryContext* context_;
  Event event_;
};

// Device memory of this process's own.
class OwnedMemory {
 public:
  // RESOURCE_EXHAUSTED, else as StatusOf.
  static absl::StatusOr<OwnedMemory> Allocate(const PrimaryContext& context, uint64_t bytes);
  OwnedMemory(OwnedMemory&& other) noexcept
      : context_(other.context_),
        address_(std::exchange(other.address_, 0)),
        bytes_(other.bytes_) {}
  OwnedMemory& operator=(OwnedMemory&&) = delete;
  OwnedMemory(const OwnedMemory&) = delete;
  OwnedMemory& operator=(const OwnedMemory&) = delete;
  ~OwnedMemory();
  [[nodiscard]] DevicePointer address() const { return address_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  OwnedMemory(const PrimaryContext& context, DevicePointer address, uint64_t bytes)
      : context_(&context), address_(address), bytes_(bytes) {}
  const PrimaryContext* context_;
  DevicePointer address_;
  uint64_t bytes_;
};

// Kernels that were compiled beforehand.
class LoadedModule {
 public:
  // `image`: PTX, a cubin or a fat binary, which says its own length. Errors: UNIMPLEMENTED (a
  // driver without the calls, an image without code for the device), else as StatusOf.
  static absl::StatusOr<LoadedModule> Load(const PrimaryContext& context, const void* image);
  LoadedModule(LoadedModule&& other) noexcept
      : context_(other.context_), module_(std::exchange(other.module_, nullptr)) {}
  LoadedModule& operator=(LoadedModule&&) = delete;
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;
  ~LoadedModule();
  // Lives as long as the module.
  [[nodiscard]] absl::StatusOr<Function> Find(const char* name) const;

 private:
  LoadedModule(const PrimaryContext& context, Module module)
      : context_(&context), module_(module) {}
  const PrimaryContext* context_;
  Module module_;
};

// Another process's device memory.
class ImportedMemory {
 public:
  // By legacy IPC handle; maps the whole allocation, which must have `bytes`. Errors:
  // INVALID_ARGUMENT ("handle": names no memory; "bytes": the allocation has another size), else as
  // StatusOf.
  static absl::StatusOr<ImportedMemory> OpenIpc(const PrimaryContext& context,
                                                const IpcMemHandle& handle,
                                                uint64_t bytes);
  // By a descriptor that cuMemExportToShareableHandle made; `bytes` a multiple of the device's
  // granularity. Errors: INVALID_ARGUMENT ("descriptor": names no memory; "bytes": no such
  // multiple, or more than the allocation), else as StatusOf.
  static absl::StatusOr<ImportedMemory> MapShared(const PrimaryContext& context,
                                                  const Descriptor& descriptor,
                                                  uint64_t bytes);
  ImportedMemory(ImportedMemory&& other) noexcept
      : context_(other.context_),
        kind_(other.kind_),
        address_(std::exchange(other.address_, 0)),
        bytes_(other.bytes_),
        mapped_(other.mapped_) {}
  ImportedMemory& operator=(ImportedMemory&&) = delete;
  ImportedMemory(const ImportedMemory&) = delete;
  ImportedMemory& operator=(const ImportedMemory&) = delete;
  ~ImportedMemory();
  [[nodiscard]] DevicePointer address() const { return address_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  enum class Kind : uint8_t { kIpc, kShared };
  ImportedMemory(const PrimaryContext& context, Kind kind, DevicePointer address, uint64_t bytes)
      : context_(&context), kind_(kind), address_(address), bytes_(bytes) {}

  const PrimaryContext* context_;
  Kind kind_;
  DevicePointer address_;
  uint64_t bytes_;
  bool mapped_ = false;  // of kShared
};

// Host memory that copies read and write without a detour.
class PinnedMemory {
 public:
  enum class Access : uint8_t { kReadWrite, kReadOnly };
  // kReadOnly is for memory that is mapped so. Errors: UNIMPLEMENTED (kReadOnly on a device that
  // cannot), RESOURCE_EXHAUSTED (locked memory), INVALID_ARGUMENT (registered already, or mapped
  // read-only and not registered so), else as StatusOf.
  static absl::StatusOr<PinnedMemory> Register(const PrimaryContext& context,
                                               absl::Span<char> memory,
                                               Access access);
  PinnedMemory(PinnedMemory&& other) noexcept
      : context_(other.context_), memory_(std::exchange(other.memory_, {})) {}
  PinnedMemory& operator=(PinnedMemory&&) = delete;
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory();

  // Where kernels find the memory, which was registered kReadWrite. Errors: UNIMPLEMENTED, else as
  // StatusOf.
  [[nodiscard]] absl::StatusOr<DevicePointer> AddressForKernels() const;

 private:
  PinnedMemory(const PrimaryContext& context, absl::Span<char> memory)
      : context_(&context), memory_(memory) {}
  const PrimaryContext* context_;
  absl::Span<char> memory_;
};

}  // namespace terrace::cuda
