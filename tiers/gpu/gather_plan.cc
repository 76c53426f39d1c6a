#include "tiers/gpu/gather_plan.h"

#include <algorithm>

namespace terrace {
namespace {

// The widest load of a kernel. A stretch of the stage begins as far from its multiples as the
// memory of its first piece does, so that both can be read and written in such words.
constexpr uint64_t kWidestWord = 16;

uint64_t RoundUp(uint64_t value) {
  return (value + kWidestWord - 1) / kWidestWord * kWidestWord;
}

class StageLayout {
 public:
  explicit StageLayout(GatherPlan& plan) : plan_(plan) {}

  // In the order of host memory.
  void Add(const cuda::CopyRange& piece) {
    std::vector<StagedCopy>& staged = plan_.staged;
    if (staged.empty() || staged.back().host + staged.back().bytes != piece.host) {
      end_ = RoundUp(end_) + piece.device % kWidestWord;
      staged.push_back({end_, piece.host, 0});
    }
    staged.back().bytes += piece.bytes;
    plan_.staged_bytes += piece.bytes;
    for (uint64_t done = 0; done < piece.bytes; done += kMaxMoveBytes) {
      plan_.moves.push_back(
          {piece.device + done, end_ + done, std::min(kMaxMoveBytes, piece.bytes - done)});
    }
    end_ += piece.bytes;
  }

 private:
  GatherPlan& plan_;
  uint64_t end_ = 0;
};

}  // namespace

GatherPlan PlanGather(absl::Span<const cuda::CopyRange> copies, uint64_t piece_bytes) {
  GatherPlan plan;
  std::vector<cuda::CopyRange> small;
  for (const cuda::CopyRange& copy : copies) {
    (copy.bytes <= piece_bytes ? small : plan.plain).push_back(copy);
  }
  std::sort(small.begin(), small.end(),
            [](const cuda::CopyRange& a, const cuda::CopyRange& b) { return a.host < b.host; });
  StageLayout layout(plan);
  for (const cuda::CopyRange& piece : small) {
    layout.Add(piece);
  }
  if (small.size() < kMinGatheredPieces ||
      small.size() < kMinPiecesOfStagedCopy * plan.staged.size()) {
    plan = GatherPlan{};
    plan.plain.assign(copies.begin(), copies.end());
  }
  return plan;
}

uint64_t StageBytesFor(uint64_t bytes, size_t pieces) {
  return bytes + 2 * kWidestWord * (pieces / kMinPiecesOfStagedCopy + 1);
}

size_t MovesFor(uint64_t bytes, size_t pieces) {
  return pieces + bytes / kMaxMoveBytes;
}

}  // namespace terrace
