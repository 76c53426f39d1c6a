#include "tiers/gpu/gather_choice.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace terrace {
namespace {

constexpr uint64_t kSmallest = uint64_t{4} << 10;
constexpr uint64_t kLargest = uint64_t{256} << 10;
constexpr uint64_t kMovedBytes = uint64_t{4} << 20;
// The first one warms up what the driver makes on first use; the best counts, as what else the
// device does can only make it longer.
constexpr int kRounds = 4;

// Pieces twice as far from each other in the device as in host memory.
std::vector<cuda::CopyRange> Pieces(uint64_t piece_bytes,
                                    uint64_t bytes,
                                    cuda::DevicePointer device,
                                    char* host) {
  std::vector<cuda::CopyRange> pieces;
  for (uint64_t done = 0; done < bytes; done += piece_bytes) {
    pieces.push_back({device + 2 * done, host + done, piece_bytes});
  }
  return pieces;
}

class Contest {
 public:
  Contest(const cuda::PrimaryContext& context,
          const GatherKernel& kernel,
          const GatherStage& stage,
          cuda::CopyDirection direction,
          cuda::Stream stream)
      : driver_(context.driver()),
        kernel_(kernel),
        stage_(stage),
        direction_(direction),
        stream_(stream) {}

  absl::StatusOr<GatherSample> Run(absl::Span<const cuda::CopyRange> pieces) const {
    const uint64_t piece_bytes = pieces.front().bytes;
    const GatherPlan plan = PlanGather(pieces, piece_bytes);
    GatherSample sample{piece_bytes, absl::InfiniteDuration(), absl::InfiniteDuration()};
    for (int round = 0; round < kRounds; ++round) {
      for (const bool gathers : {false, true}) {
        const auto begin = std::chrono::steady_clock::now();
        cuda::Result result = gathers ? kernel_.Enqueue(direction_, plan, stage_, stream_)
                                      : driver_.EnqueueCopies(direction_, pieces, stream_);
        if (result == cuda::kSuccess) {
          result = driver_->StreamSynchronize(stream_);
        }
        if (result != cuda::kSuccess) {
          driver_->StreamSynchronize(stream_);  // nothing of it may be on its way any more
          return driver_.StatusOf(result, "measuring small copies");
        }
        absl::Duration& best = gathers ? sample.gathered : sample.one_by_one;
        best = std::min(best, absl::FromChrono(std::chrono::steady_clock::now() - begin));
      }
    }
    return sample;
  }

 private:
  const cuda::CudaDriver& driver_;
  const GatherKernel& kernel_;
  const GatherStage& stage_;
  const cuda::CopyDirection direction_;
  const cuda::Stream stream_;
};

}  // namespace

uint64_t LargestWorthGathering(absl::Span<const GatherSample> samples) {
  uint64_t largest = 0;
  for (const GatherSample& sample : samples) {
    if (sample.gathered > 0.9 * sample.one_by_one) {
      break;
    }
    largest = sample.piece_bytes;
  }
  return largest;
}

absl::StatusOr<uint64_t> MeasureGather(const cuda::PrimaryContext& context,
                                       const GatherKernel& kernel,
                                       const GatherStage& stage,
                                       uint64_t stage_bytes,
                                       cuda::CopyDirection direction) {
  const uint64_t bytes = std::min(kMovedBytes, stage_bytes) / kSmallest * kSmallest;
  if (bytes < kMinGatheredPieces * kSmallest) {
    return 0;
  }
  const auto stream = cuda::OwnedStream::Create(context, cuda::OwnedStream::Urgency::kLast);
  const auto device = cuda::OwnedMemory::Allocate(context, 2 * bytes);
  const AlignedBuffer host(bytes);
  if (!stream.ok() || !device.ok() || host.bytes() == nullptr) {
    return !stream.ok()   ? stream.status()
           : !device.ok() ? device.status()
                          : absl::ResourceExhaustedError("no memory to measure small copies with");
  }
  const auto pinned =
      cuda::PinnedMemory::Register(context, host.span(), cuda::PinnedMemory::Access::kReadWrite);
  if (!pinned.ok()) {
    return pinned.status();
  }
  const Contest contest(context, kernel, stage, direction, stream->get());
  std::vector<GatherSample> samples;
  for (uint64_t size = kSmallest; size <= kLargest; size *= 2) {
    const uint64_t moved = bytes / size * size;
    if (moved / size < kMinGatheredPieces) {
      break;
    }
    const absl::StatusOr<GatherSample> sample =
        contest.Run(Pieces(size, moved, device->address(), host.bytes()));
    if (!sample.ok()) {
      return sample.status();
    }
    samples.push_back(*sample);
    if (LargestWorthGathering(samples) != size) {
      break;
    }
  }
  return LargestWorthGathering(samples);
}

}  // namespace terrace
