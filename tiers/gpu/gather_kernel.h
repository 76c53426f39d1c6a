// The kernels that collect small pieces in a stage and spread them again, and the stages.
//
// They touch device memory alone: between stage and host it is the copy engines that copy. A kernel
// that read and wrote pinned memory itself would need no stage, but would keep processors that the
// engine decodes with for as long as the bus takes, a hundred times longer than the memory does.
// It reads nothing of the host's but what it has to do.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/cuda_objects.h"
#include "tiers/gpu/gather_plan.h"
#include "tiers/os/file_system.h"

namespace terrace {

// Room for one batch. Who enqueues with it leaves it alone until the batch has been.
class GatherStage {
 public:
  // For batches of at most so many bytes and pieces. Errors: RESOURCE_EXHAUSTED, else as StatusOf.
  static absl::StatusOr<GatherStage> Make(const cuda::PrimaryContext& context,
                                          uint64_t bytes,
                                          size_t pieces);

 private:
  friend class GatherKernel;
  GatherStage(cuda::OwnedMemory memory,
              AlignedBuffer table,
              cuda::PinnedMemory pinned,
              cuda::DevicePointer table_address)
      : memory_(std::move(memory)),
        table_(std::move(table)),
        pinned_(std::move(pinned)),
        table_address_(table_address) {}

  cuda::OwnedMemory memory_;
  AlignedBuffer table_;  // of moves
  cuda::PinnedMemory pinned_;
  cuda::DevicePointer table_address_;
};

// Thread-compatible.
class GatherKernel {
 public:
  // Errors: UNIMPLEMENTED (no image, or none for this device or driver), else as StatusOf.
  static absl::StatusOr<GatherKernel> Load(const cuda::PrimaryContext& context,
                                           absl::Span<const char> image);

  // All that the plan says; after an error any of it may run.
  [[nodiscard]] cuda::Result Enqueue(cuda::CopyDirection direction,
                                     const GatherPlan& plan,
                                     const GatherStage& stage,
                                     cuda::Stream stream) const;

 private:
  GatherKernel(const cuda::PrimaryContext& context,
               cuda::LoadedModule module,
               cuda::Function gather,
               cuda::Function spread)
      : context_(&context), module_(std::move(module)), gather_(gather), spread_(spread) {}
  [[nodiscard]] cuda::Result Launch(cuda::Function function,
                                    uint32_t moves,
                                    const GatherStage& stage,
                                    cuda::Stream stream) const;

  const cuda::PrimaryContext* context_;
  cuda::LoadedModule module_;
  cuda::Function gather_;
  cuda::Function spread_;
};

}  // namespace terrace
