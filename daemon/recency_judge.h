// What a local tier's reclaims give up, by the rules of tiers/placement/reclaim.h.
//
// Threads: thread-safe, and without state.
#pragma once

#include "tiers/segment/segment_tier.h"

namespace terrace {

class RecencyJudge final : public ReclaimJudge {
 public:
  size_t ChooseVictim(absl::Span<const SegmentView> sealed) override;
  bool Keep(const JudgedRecord& record) override;
};

}  // namespace terrace
