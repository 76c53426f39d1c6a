#include "daemon/recency_judge.h"

#include <vector>

#include "tiers/placement/reclaim.h"

namespace terrace {

size_t RecencyJudge::ChooseVictim(absl::Span<const SegmentView> sealed) {
  std::vector<LogSegment> log;
  log.reserve(sealed.size());
  for (const SegmentView& segment : sealed) {
    log.push_back({segment.epoch, segment.live_bytes, segment.used_bytes});
  }
  return SegmentToReclaim(log);
}

bool RecencyJudge::Keep(const JudgedRecord& record) {
  return IsWorthRewriting({record.unused_share, record.segment_live_share});
}

}  // namespace terrace
