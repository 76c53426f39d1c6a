// The copy engine's way with blocks in small pieces: whether it has one, up to which size of a
// piece it pays, and the stages, two a direction, of which one is filled while the other is with
// the device.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/gpu/gather_kernel.h"

namespace terrace {

inline constexpr size_t kMaxPiecesOfStage = 8192;

struct GatheringOptions {
  absl::Span<const char> image;  // of the kernels; empty: nothing is gathered
  uint64_t stage_bytes = 0;      // of each stage; the device's memory is taken where there is use
  std::optional<uint64_t> piece_bytes;  // nullopt: measured
};

// Confined to the thread that copies, but for what is constant.
class Gathering {
 public:
  // Where the device, the driver or this build cannot, or there is no memory, nothing is gathered,
  // and reason() says why. Errors: those that end the context, as CudaDriver::StatusOf.
  static absl::StatusOr<Gathering> SetUp(const cuda::PrimaryContext& context,
                                         const GatheringOptions& options);

  // Of pieces that are gathered, the largest; 0: none is. Constant.
  [[nodiscard]] uint64_t piece_bytes(cuda::CopyDirection direction) const {
    return piece_bytes_[Index(direction)];
  }
  // Why nothing is gathered in either direction; "": something is. Constant.
  [[nodiscard]] const std::string& reason() const { return reason_; }

  // Whether enough of the pieces are small.
  [[nodiscard]] bool Suits(cuda::CopyDirection direction,
                           absl::Span<const cuda::CopyRange> pieces) const;
  // nullopt: both are in use.
  std::optional<uint32_t> TakeStage(cuda::CopyDirection direction);
  void GiveBack(cuda::CopyDirection direction, uint32_t stage);

  // Of a batch of at most stage_bytes and kMaxPiecesOfStage. The bytes that were gathered are added
  // to `gathered_bytes`. After an error any of it may run.
  [[nodiscard]] cuda::Result Enqueue(cuda::CopyDirection direction,
                                     absl::Span<const cuda::CopyRange> copies,
                                     uint32_t stage,
                                     cuda::Stream stream,
                                     uint64_t* gathered_bytes) const;

 private:
  struct Stage {
    std::optional<GatherStage> room;
    bool in_use = false;
  };
  static size_t Index(cuda::CopyDirection direction) {
    return direction == cuda::CopyDirection::kToDevice ? 0 : 1;
  }
  static void Release(std::array<Stage, 2>& stages);
  absl::Status TryToSetUp(const cuda::PrimaryContext& context, const GatheringOptions& options);

  std::optional<GatherKernel> kernel_;
  std::array<std::array<Stage, 2>, 2> stages_;
  std::array<uint64_t, 2> piece_bytes_{};
  std::string reason_;
};

}  // namespace terrace
