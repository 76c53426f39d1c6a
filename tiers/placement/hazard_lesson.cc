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
  for (const HazardOutcome& outcome : seen_) {
    const absl::Span<const HazardModel::Row> rows(outcome.rows.data(), outcome.rows_used);
    if (outcome.used) {
      model_.Used(rows, outcome.first, outcome.end, outcome.weight);
    } else {
      model_.Survived(rows, outcome.first, outcome.end, outcome.weight);
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
