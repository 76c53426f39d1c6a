// What PHL saw of instances, and the model that learns from it: the twin of the one that PHL prices
// by, which takes over what was learnt when a lesson ends (HazardModel::Teach).
//
// PHL notes under its owner's lock; the rest is as lesson.h says.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

#include "tiers/placement/hazard_model.h"
#include "tiers/placement/lesson.h"
#include "tiers/placement/phl_features.h"

namespace terrace {

// What an instance lived to see: buckets first to end - 1 unused, and where it was used, that in
// bucket `end`.
struct HazardOutcome {
  std::array<HazardModel::Row, kFeatures> rows{};
  uint8_t rows_used = 0;
  uint8_t first = 0;
  uint8_t end = 0;
  bool used = false;
  float weight = 1;  // it counts so many times

  [[nodiscard]] absl::Span<const HazardModel::Row> Rows() const { return {rows.data(), rows_used}; }
};

class HazardLesson final : public Lesson {
 public:
  // More in one lesson is not learnt from.
  static constexpr size_t kMaxOutcomes = 32'768;

  // `pricing`: the twin.
  explicit HazardLesson(const HazardModel& pricing) : pricing_(pricing) {}

  // Takes what was seen; leaves an empty vector with room.
  void Begin(std::vector<HazardOutcome>& seen, uint64_t instances);
  // Returns by how many instances more are known than had been seen.
  uint64_t End(HazardModel& pricing);

  void Study() override;
  [[nodiscard]] std::string Save() const override;
  absl::Status Load(absl::string_view bytes) override;

  [[nodiscard]] uint64_t memory_bytes() const {
    return sizeof(*this) + model_.memory_bytes() + seen_.capacity() * sizeof(HazardOutcome);
  }

 private:
  const HazardModel& pricing_;
  HazardModel model_;
  std::vector<HazardOutcome> seen_;
  uint64_t instances_ = 0;  // at the beginning of the lesson
  uint64_t loaded_ = 0;     // instances of an earlier life
};

}  // namespace terrace
