// Moves blocks between a GPU and host memory, and waits for nobody: what the worker of a GPU is
// for.
//
// A transfer is a list of pieces, each an address in the device and one in host memory. Loads go to
// the device, saves come from it. Both are cut into batches; a batch is one call of the driver on
// the direction's stream, with an event behind it, and at most so many bytes of each direction are
// with the driver at a time. Loads have the more urgent stream, and their batches are begun before
// those of saves that came earlier. Transfers of one direction begin in the order of their coming,
// but one whose event is not there yet lets others pass; between transfers no order is promised.
//
// Order with the memory's owner: the first batch is begun only after `behind` has completed. The
// engine looks at that event instead of queueing behind it, so that a producer that never gets
// there holds up nobody, and its transfer can be cancelled.
//
// Blocks in pieces so small that copies of them do not get up to speed are gathered: a kernel
// brings them together in a stage in the device's memory, and one copy serves them all
// (gathering.h). Up to which size that pays is measured at the start; a device, driver or build
// that cannot copies piece by piece, and facts() says why.
//
// Host memory is added before it is used. What the device can be given is registered, and copied
// directly; else its copies go through a ring of two pinned halves, which a thread of its own fills
// or empties while the other half is with the device.
//
// After an error of the driver the engine has failed: every transfer ends with it, Submit answers
// UNAVAILABLE, and so it stays. Its owner ends the process, as an error that ended the context
// cannot be left in any other way; only when the process is gone is it certain that a copy which
// was with the driver at such an error touches its memory no more.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/copy_plan.h"
#include "tiers/gpu/cuda_objects.h"
#include "tiers/gpu/kernel_image.h"

namespace terrace {

// How host memory is reached.
enum class HostPath : uint8_t { kDirect, kRing };

// kRing where TERRACE_GPU_SLABS says "ring": so that what devices without read-only registration do
// can be seen, and measured, on others.
HostPath ReadOnlyPathFromEnvironment();

struct CopyEngineOptions {
  std::string name = "gpu-0";  // of its thread; the ring's is the same with "-ring"; 10 characters
  uint64_t max_bytes_in_flight = uint64_t{128} << 20;  // of each direction
  uint64_t ring_half_bytes = uint64_t{64} << 20;       // at most max_bytes_in_flight
  uint32_t max_transfers = 4096;                       // accepted and not completed
  // kRing: no memory is registered read-only, whatever the device can.
  HostPath read_only_memory = ReadOnlyPathFromEnvironment();
  absl::Span<const char> kernels = KernelImage();      // empty: nothing is gathered
  uint64_t stage_bytes = uint64_t{16} << 20;  // of each of four; a quarter of max_bytes_in_flight
                                              // at most is used
  // The largest; nullopt: measured.
  std::optional<uint64_t> gathered_piece_bytes = FixedPieceBytes();
};

struct DeviceTransfer {
  cuda::CopyDirection direction = cuda::CopyDirection::kToDevice;
  CopyPlan plan;  // its pieces inside host memory that was added; written by saves
  // Recorded by the memory's owner before Submit; null: the memory is ready. Not destroyed before
  // the completion.
  cuda::Event behind = nullptr;
  // Recorded behind the last copy; with `done` and OK, it has been. Null: none.
  cuda::Event after = nullptr;
  // Counts layers whose bytes have all arrived, in order; on a page that a client may map. Null:
  // none.
  std::atomic<uint32_t>* layers_landed = nullptr;
};

struct CopyEngineFacts {
  uint64_t transfers = 0;        // accepted and not completed
  uint64_t bytes_to_device = 0;  // landed
  uint64_t bytes_to_host = 0;
  uint64_t bytes_through_ring = 0;   // of both
  uint64_t bytes_gathered = 0;       // of both
  uint64_t direct_memory_bytes = 0;  // added, by path
  uint64_t ring_memory_bytes = 0;
  std::string ring_reason;  // why the last memory that goes through the ring does; "": none does
  uint64_t gathered_piece_bytes_to_device = 0;  // the largest; 0: none is
  uint64_t gathered_piece_bytes_to_host = 0;
  std::string plain_reason;  // why nothing is gathered; "": something is
  absl::Status failure;      // what the engine failed with
};

class CopyEngineCore;

// Thread-safe.
class CopyEngine {
 public:
  // Borrows the context. Errors: INVALID_ARGUMENT (options), RESOURCE_EXHAUSTED (threads), else as
  // CudaDriver::StatusOf.
  static absl::StatusOr<std::unique_ptr<CopyEngine>> Start(const cuda::PrimaryContext& context,
                                                           const CopyEngineOptions& options);
  // Cancels everything and waits until nothing is in flight.
  ~CopyEngine();
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  // Registers memory, read-only where it is mapped so. Blocks: pinning takes about 100 ms a GiB;
  // the first memory that goes through the ring makes the ring. Errors: INVALID_ARGUMENT (empty, or
  // overlaps what was added), RESOURCE_EXHAUSTED (no memory for the ring), UNAVAILABLE (failed).
  absl::StatusOr<HostPath> AddHostMemory(absl::Span<char> memory,
                                         cuda::PinnedMemory::Access access);
  // Errors: NOT_FOUND; FAILED_PRECONDITION (a transfer that has not completed names it).
  absl::Status RemoveHostMemory(absl::Span<char> memory);

  // Returns a token for Cancel. `done` runs once, on the engine's thread, and must only hand work
  // on; with OK and CANCELLED, no copy can touch the memory any more, nor where `behind` could not
  // be asked (as CudaDriver::StatusOf), and none has. Else it gets what the engine failed with.
  // Without OK any of the bytes may have been copied. Never blocks. Errors, with which `done` does
  // not run: INVALID_ARGUMENT ("pieces", "layer_ends"), RESOURCE_EXHAUSTED (max_transfers),
  // UNAVAILABLE (failed).
  absl::StatusOr<uint64_t> Submit(DeviceTransfer transfer, std::function<void(absl::Status)> done);
  // Asks for an early end. Too late or unknown: nothing happens.
  void Cancel(uint64_t token);

  [[nodiscard]] CopyEngineFacts facts() const;

 private:
  explicit CopyEngine(std::unique_ptr<CopyEngineCore> core);
  std::unique_ptr<CopyEngineCore> core_;
};

}  // namespace terrace
