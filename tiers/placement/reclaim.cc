#include "tiers/placement/reclaim.h"

#include <algorithm>

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr double kRecentShare = 0.5;
// A segment with so little left in it costs next to nothing, wherever it stands: what was deleted
// or cleared is gone.
constexpr uint64_t kNearlyEmpty = 16;  // a share of one in so many

bool IsNearlyEmpty(const LogSegment& segment) {
  return segment.live_bytes * kNearlyEmpty <= segment.used_bytes;
}

}  // namespace

size_t SegmentToReclaim(absl::Span<const LogSegment> sealed) {
  TERRACE_CHECK(!sealed.empty());
  const auto first =
      std::min_element(sealed.begin(), sealed.end(), [](const LogSegment& a, const LogSegment& b) {
        const bool a_empty = IsNearlyEmpty(a);
        const bool b_empty = IsNearlyEmpty(b);
        return a_empty != b_empty ? a_empty : a.epoch < b.epoch;
      });
  return static_cast<size_t>(first - sealed.begin());
}

bool IsWorthRewriting(double unused_share) {
  return unused_share < kRecentShare;
}

}  // namespace terrace
