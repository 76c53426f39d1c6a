#include "tiers/placement/hazard_lesson.h"

#include <utility>

namespace terrace {

void HazardLesson::Begin(std::vector<HazardOutcome>& seen, uint64_t instances) {
  seen_.swap(seen);
  instances_ = instances;
}

uint64_t HazardLesson::End(HazardModel& pricing) {
  model_.Teach(pricing);
  return std::exchange(loaded_, 0);
}

void HazardLesson::Study() {
  model_.CatchUp(pricing_);
  for (size_t i = 0; i < seen_.size(); ++i) {
    if (i + 1 < seen_.size()) {
      const HazardOutcome& next = seen_[i + 1];
      model_.Prefetch(next.Rows(), next.first, next.end);
    }
    const HazardOutcome& outcome = seen_[i];
    if (outcome.used) {
      model_.Used(outcome.Rows(), outcome.first, outcome.end, outcome.weight);
    } else {
      model_.Survived(outcome.Rows(), outcome.first, outcome.end, outcome.weight);
    }
  }
  seen_.clear();
}

std::string HazardLesson::Save() const {
  HazardState state = model_.State();
  state.instances = instances_ + loaded_;
  return EncodeHazardState(state);
}

absl::Status HazardLesson::Load(absl::string_view bytes) {
  const absl::StatusOr<HazardState> state = DecodeHazardState(bytes);
  if (!state.ok()) {
    return state.status();
  }
  model_.Restore(*state);
  loaded_ = state->instances;
  return absl::OkStatus();
}

}  // namespace terrace
