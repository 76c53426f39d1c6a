#include "tests/doubles/cuda/kernels.h"

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "tests/doubles/cuda/device_memory.h"
#include "tests/doubles/cuda/state.h"

namespace terrace::stand_in {
namespace {

// Whether what the move touches is there. `as_asked`: the range's generation at the launch.
bool MoveOne(const GatherLaunch& launch, const GatherMove& move, uint64_t as_asked) {
  DeviceMemory& memory = DeviceMemory::Instance();
  const std::optional<Located> piece = memory.Locate(move.device, move.bytes);
  const std::optional<Located> stage = memory.Locate(launch.stage + move.offset, move.bytes);
  if (!piece || piece->generation != as_asked) {
    ++Counters().late_copies;
  }
  if (!piece || piece->exporter_dead || !stage) {
    ++Counters().faults;
    return false;
  }
  const Located& source = launch.gathers ? *piece : *stage;
  if (source.backing->UnderPendingWrite(source.offset, source.offset + move.bytes)) {
    ++Counters().reads_under_pending_write;
  }
  std::memcpy(launch.gathers ? stage->bytes() : piece->bytes(),
              launch.gathers ? piece->bytes() : stage->bytes(), move.bytes);
  return true;
}

void Run(const GatherLaunch& launch, const std::vector<uint64_t>& generations) {
  if (LostWith() != cuda::kSuccess) {
    return;
  }
  if (const cuda::Result due = BeginCopy(); due != cuda::kSuccess) {
    LoseContext(due);
    return;
  }
  if (LostWith() != cuda::kSuccess) {
    return;
  }
  // Warps run in any order: here it is the last first.
  for (uint32_t i = launch.count; i-- > 0;) {
    if (!MoveOne(launch, launch.moves[i], generations[i])) {
      LoseContext(cuda::kIllegalAddress);
      return;
    }
  }
  ++Counters().kernels;
}

}  // namespace

cuda::Result EnqueueGather(StreamQueue& stream, const GatherLaunch& launch) {
  if (launch.count == 0 ||
      HostRegistry::Instance().Find(launch.moves, launch.count * sizeof(GatherMove)) !=
          HostRegistry::Lookup::kReadWrite) {
    return cuda::kInvalidValue;
  }
  std::vector<uint64_t> generations;
  for (uint32_t i = 0; i < launch.count; ++i) {
    const GatherMove& move = launch.moves[i];
    const auto located = DeviceMemory::Instance().Locate(move.device, move.bytes);
    // A device would find out when it runs; then it is a fault.
    generations.push_back(located ? located->generation : 0);
  }
  stream.Add([launch, generations = std::move(generations)] { Run(launch, generations); });
  return cuda::kSuccess;
}

}  // namespace terrace::stand_in
