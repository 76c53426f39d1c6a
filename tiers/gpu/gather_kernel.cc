#include "tiers/gpu/gather_kernel.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "tiers/vocab/check.h"

namespace terrace {

absl::StatusOr<GatherStage> GatherStage::Make(const cuda::PrimaryContext& context,
                                              uint64_t bytes,
                                              size_t pieces) {
  auto memory = cuda::OwnedMemory::Allocate(context, StageBytesFor(bytes, pieces));
  if (!memory.ok()) {
    return memory.status();
  }
  AlignedBuffer table(MovesFor(bytes, pieces) * sizeof(GatherMove));
  if (table.bytes() == nullptr) {
    return absl::ResourceExhaustedError("no memory for the list of moves");
  }
  auto pinned =
      cuda::PinnedMemory::Register(context, table.span(), cuda::PinnedMemory::Access::kReadWrite);
  if (!pinned.ok()) {
    return pinned.status();
  }
  const absl::StatusOr<cuda::DevicePointer> table_address = pinned->AddressForKernels();
  if (!table_address.ok()) {
    return table_address.status();
  }
  return GatherStage(*std::move(memory), std::move(table), *std::move(pinned), *table_address);
}

absl::StatusOr<GatherKernel> GatherKernel::Load(const cuda::PrimaryContext& context,
                                                absl::Span<const char> image) {
  if (image.empty()) {
    return absl::UnimplementedError("built without nvcc, or TERRACE_GATHER_KERNELS names no file");
  }
  auto module = cuda::LoadedModule::Load(context, image.data());
  if (!module.ok()) {
    return module.status();
  }
  const absl::StatusOr<cuda::Function> gather = module->Find(kGatherKernel);
  const absl::StatusOr<cuda::Function> spread = module->Find(kSpreadKernel);
  if (!gather.ok() || !spread.ok()) {
    return gather.ok() ? spread.status() : gather.status();
  }
  return GatherKernel(context, *std::move(module), *gather, *spread);
}

cuda::Result GatherKernel::Launch(cuda::Function function,
                                  uint32_t moves,
                                  const GatherStage& stage,
                                  cuda::Stream stream) const {
  constexpr uint32_t kMovesOfBlock = kGatherThreads / kWarpThreads;
  const unsigned blocks = std::min(kMaxGatherBlocks, (moves + kMovesOfBlock - 1) / kMovesOfBlock);
  cuda::DevicePointer table = stage.table_address_;
  cuda::DevicePointer memory = stage.memory_.address();
  void* parameters[] = {&table, &moves, &memory};
  return context_->driver()->LaunchKernel(function, blocks, 1, 1, kGatherThreads, 1, 1, 0, stream,
                                          parameters, nullptr);
}

cuda::Result GatherKernel::Enqueue(cuda::CopyDirection direction,
                                   const GatherPlan& plan,
                                   const GatherStage& stage,
                                   cuda::Stream stream) const {
  const cuda::CudaDriver& driver = context_->driver();
  TERRACE_CHECK(plan.moves.size() * sizeof(GatherMove) <= stage.table_.size());
  std::vector<cuda::CopyRange> staged;
  staged.reserve(plan.staged.size());
  for (const StagedCopy& copy : plan.staged) {
    TERRACE_CHECK(copy.offset + copy.bytes <= stage.memory_.bytes());
    staged.push_back({stage.memory_.address() + copy.offset, copy.host, copy.bytes});
  }
  cuda::Result result = cuda::kSuccess;
  if (!plan.moves.empty()) {
    std::memcpy(stage.table_.bytes(), plan.moves.data(), plan.moves.size() * sizeof(GatherMove));
    const auto moves = static_cast<uint32_t>(plan.moves.size());
    const bool loads = direction == cuda::CopyDirection::kToDevice;
    result = loads ? driver.EnqueueCopies(direction, staged, stream)
                   : Launch(gather_, moves, stage, stream);
    if (result == cuda::kSuccess) {
      result = loads ? Launch(spread_, moves, stage, stream)
                     : driver.EnqueueCopies(direction, staged, stream);
    }
  }
  if (result == cuda::kSuccess && !plan.plain.empty()) {
    result = driver.EnqueueCopies(direction, plan.plain, stream);
  }
  return result;
}

}  // namespace terrace
