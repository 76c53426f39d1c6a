#include "tiers/placement/reclaim.h"

#include <algorithm>

#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr double kRecentShare = 0.5;

bool IsMostlyDead(double live_share) {
  return live_share <= kMaxRewrittenShare;
}

}  // namespace

double LiveShare(const LogSegment& segment) {
  return segment.used_bytes == 0
             ? 0
             : static_cast<double>(segment.live_bytes) / static_cast<double>(segment.used_bytes);
}

size_t SegmentToReclaim(absl::Span<const LogSegment> sealed) {
  TERRACE_CHECK(!sealed.empty());
  const auto goes_before = [](const LogSegment& a, const LogSegment& b) {
    const double a_share = LiveShare(a);
    const double b_share = LiveShare(b);
    if (IsMostlyDead(a_share) != IsMostlyDead(b_share)) {
      return IsMostlyDead(a_share);
    }
    return IsMostlyDead(a_share) && a_share != b_share ? a_share < b_share : a.epoch < b.epoch;
  };
  return static_cast<size_t>(std::min_element(sealed.begin(), sealed.end(), goes_before) -
                             sealed.begin());
}

bool IsWorthRewriting(const LogRecord& record) {
  return IsMostlyDead(record.live_share) || record.unused_share < kRecentShare;
}

}  // namespace terrace
