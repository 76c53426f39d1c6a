#include "tiers/gpu/gathering.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

#include "tiers/gpu/gather_choice.h"

namespace terrace {

absl::Status Gathering::TryToSetUp(const cuda::PrimaryContext& context,
                                   const GatheringOptions& options) {
  auto kernel = GatherKernel::Load(context, options.image);
  if (!kernel.ok()) {
    return kernel.status();
  }
  kernel_.emplace(*std::move(kernel));
  for (const auto direction : {cuda::CopyDirection::kToDevice, cuda::CopyDirection::kToHost}) {
    std::array<Stage, 2>& stages = stages_[Index(direction)];
    uint64_t& piece_bytes = piece_bytes_[Index(direction)];
    for (Stage& stage : stages) {
      auto room = GatherStage::Make(context, options.stage_bytes, kMaxPiecesOfStage);
      if (!room.ok()) {
        return room.status();
      }
      stage.room.emplace(*std::move(room));
    }
    const absl::StatusOr<uint64_t> chosen =
        options.piece_bytes.has_value()
            ? absl::StatusOr<uint64_t>(*options.piece_bytes)
            : MeasureGather(context, *kernel_, *stages[0].room, options.stage_bytes, direction);
    if (!chosen.ok()) {
      return chosen.status();
    }
    piece_bytes = *chosen;
    if (piece_bytes == 0) {
      Release(stages);
    }
  }
  return absl::OkStatus();
}

void Gathering::Release(std::array<Stage, 2>& stages) {
  for (Stage& stage : stages) {
    stage.room.reset();
  }
}

absl::StatusOr<Gathering> Gathering::SetUp(const cuda::PrimaryContext& context,
                                           const GatheringOptions& options) {
  Gathering made;
  const absl::Status status = made.TryToSetUp(context, options);
  if (absl::IsUnavailable(status)) {
    return status;
  }
  if (!status.ok()) {
    Release(made.stages_[0]);
    Release(made.stages_[1]);
    made.kernel_.reset();
    made.piece_bytes_ = {};
    made.reason_ = std::string(status.message());
  } else if (made.piece_bytes_ == std::array<uint64_t, 2>{}) {
    made.reason_ = "the copy engines are faster with small pieces, too";
  }
  return made;
}

bool Gathering::Suits(cuda::CopyDirection direction,
                      absl::Span<const cuda::CopyRange> pieces) const {
  const uint64_t largest = piece_bytes(direction);
  size_t small = 0;
  for (const cuda::CopyRange& piece : pieces) {
    small += piece.bytes <= largest ? 1 : 0;
    if (small == kMinGatheredPieces) {
      return true;
    }
  }
  return false;
}

std::optional<uint32_t> Gathering::TakeStage(cuda::CopyDirection direction) {
  std::array<Stage, 2>& stages = stages_[Index(direction)];
  for (uint32_t i = 0; i < stages.size(); ++i) {
    if (!std::exchange(stages[i].in_use, true)) {
      return i;
    }
  }
  return std::nullopt;
}

void Gathering::GiveBack(cuda::CopyDirection direction, uint32_t stage) {
  stages_[Index(direction)][stage].in_use = false;
}

cuda::Result Gathering::Enqueue(cuda::CopyDirection direction,
                                absl::Span<const cuda::CopyRange> copies,
                                uint32_t stage,
                                cuda::Stream stream,
                                uint64_t* gathered_bytes) const {
  const GatherPlan plan = PlanGather(copies, piece_bytes(direction));
  *gathered_bytes += plan.staged_bytes;
  return kernel_->Enqueue(direction, plan, *stages_[Index(direction)][stage].room, stream);
}

}  // namespace terrace
