// Another process that owns device memory of the stand-in: an engine's part in a test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>

#include "tests/doubles/cuda/exporter_protocol.h"
#include "tiers/os/descriptor.h"

namespace terrace::stand_in {

// Thread-compatible. Its end kills the process.
class ExportingProcess {
 public:
  // kAsLoadedHere: with the driver that CudaDriver::Load finds by itself, and copies for kernels.
  enum class Driver : uint8_t { kStandIn, kAsLoadedHere };
  explicit ExportingProcess(Driver driver = Driver::kStandIn);
  ExportingProcess(const ExportingProcess&) = delete;
  ExportingProcess& operator=(const ExportingProcess&) = delete;
  ~ExportingProcess() { Kill(); }

  cuda::IpcMemHandle Allocate(uint64_t bytes);
  Descriptor AllocateShared(uint64_t bytes);
  void Free();
  void HoldBack(bool hold);
  // Returns when the kernel is queued, and the event behind it is recorded.
  void Fill(uint64_t offset, uint64_t bytes, unsigned char value);
  // Of the event that is recorded behind each Fill.
  cuda::IpcEventHandle event();
  // That one is destroyed, and this one recorded from now on.
  cuda::IpcEventHandle NewEvent();
  // As kill -9; returns when the process is gone.
  void Kill();

 private:
  ExporterAnswer Ask(const ExporterCommand& command, Descriptor* passed = nullptr);

  pid_t pid_ = -1;
  Descriptor socket_;
};

}  // namespace terrace::stand_in
