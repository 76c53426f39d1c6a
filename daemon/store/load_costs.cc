#include "daemon/store/load_costs.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"

namespace terrace {
namespace {

constexpr double kMostLoading = 1.0 / 8;

// The block behind the one of that name, whichever it is.
uint64_t NameOfNext(uint64_t name) {
  return name ^ 0x9e3779b97f4a7c15U;
}

}  // namespace

LoadCosts::LoadCosts(const Clock& clock, std::vector<LowerTier*> lower_tiers)
    : clock_(clock),
      lower_tiers_(std::move(lower_tiers)),
      loads_(lower_tiers_.size()),
      open_(kOpenSpans) {}

// ---------------------------------------------------------------- loading

TierLoad::Mark LoadCosts::ReadBegan(size_t tier) {
  const absl::Duration now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  return loads_[tier].Began(now);
}

void LoadCosts::ReadEnded(size_t tier, const TierLoad::Mark& mark, uint64_t bytes) {
  const absl::Duration now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  loads_[tier].Ended(mark, bytes, now);
}

double LoadCosts::LoadSeconds(size_t tier, const LoadDemand& demand) const {
  if (demand.blocks == 0 && demand.queued_bytes == 0) {
    return 0;
  }
  const absl::Duration now = clock_.Now();
  std::optional<double> measured;
  {
    absl::MutexLock lock(&mutex_);
    measured = loads_[tier].Seconds(demand, now);
  }
  // The tier counts what it is reading; of what waits it knows nothing.
  return measured ? *measured
                  : absl::ToDoubleSeconds(lower_tiers_[tier]->EstimateRead(demand.bytes));
}

// ---------------------------------------------------------------- recomputing

void LoadCosts::Declare(const Digest128& ns, std::optional<RecomputeModel> model) {
  absl::MutexLock lock(&mutex_);
  if (model.has_value()) {
    declared_[ns] = *model;
  } else {
    declared_.erase(ns);
  }
}

RecomputeCost LoadCosts::CostOf(const Digest128& ns) const {
  absl::MutexLock lock(&mutex_);
  if (const auto declared = declared_.find(ns); declared != declared_.end()) {
    return {CostSource::kDeclared, declared->second};
  }
  const auto found = curves_.find(ns);
  if (found == curves_.end()) {
    return {};
  }
  const Curve& curve = found->second;
  if (curve.told.Model().has_value()) {
    return {CostSource::kTold, *curve.told.Model()};
  }
  return curve.learnt.Model().has_value()
             ? RecomputeCost{CostSource::kMeasured, *curve.learnt.Model()}
             : RecomputeCost{};
}

uint64_t LoadCosts::NameOf(const Digest128& ns, std::string_view salt, KeyView key) {
  return absl::HashOf(ns, salt, key) | 1U;
}

void LoadCosts::NoteMiss(const Miss& miss) {
  const absl::Duration now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  OpenSpan& place = PlaceLocked(miss.block);
  if (place.name != miss.block || now - place.at > kLongestSpan) {
    place = {miss.block, miss, now};
  }
}

void LoadCosts::NotePut(const Growth& growth) {
  absl::MutexLock lock(&mutex_);
  OpenSpan* place = &PlaceLocked(growth.block);
  if (place->name != growth.block) {
    const uint64_t name = NameOfNext(growth.parent);
    place = &PlaceLocked(name);
    if (growth.parent == 0 || place->name != name) {
      return;
    }
  }
  const OpenSpan span = std::exchange(*place, {});
  if (growth.end_token < span.miss.end_token) {
    const uint64_t name = NameOfNext(growth.last);
    PlaceLocked(name) = {name, span.miss, span.at};
  } else if (growth.end_token == span.miss.end_token) {
    LearnLocked(span, growth.at);
  } else {
    ++counts_.refused;
  }
}

void LoadCosts::LearnLocked(const OpenSpan& span, absl::Duration now) {
  const absl::Duration took = now - span.at;
  const Miss& miss = span.miss;
  const bool taken = miss.end_token > miss.first_token && miss.load_time <= kMostLoading * took &&
                     CurveLocked(miss.ns, now)
                         .learnt.Learn(miss.first_token, miss.end_token - miss.first_token, took);
  ++(taken ? counts_.taken : counts_.refused);
}

void LoadCosts::NoteTold(const Digest128& ns,
                         uint64_t first_token,
                         uint64_t end_token,
                         absl::Duration took) {
  const absl::Duration now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  const bool taken = end_token > first_token &&
                     CurveLocked(ns, now).told.Learn(first_token, end_token - first_token, took);
  ++(taken ? counts_.taken : counts_.refused);
}

LoadCosts::Curve& LoadCosts::CurveLocked(const Digest128& ns, absl::Duration now) {
  if (!curves_.contains(ns) && curves_.size() >= kMaxCurves) {
    curves_.erase(
        std::min_element(curves_.begin(), curves_.end(),
                         [](const auto& a, const auto& b) { return a.second.fed < b.second.fed; }));
  }
  Curve& curve = curves_[ns];
  curve.fed = now;
  return curve;
}

LoadCosts::Counts LoadCosts::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

// ---------------------------------------------------------------- both

std::optional<uint64_t> LoadCosts::BreakEven(const RecomputeModel& model,
                                             size_t tier,
                                             uint64_t block_tokens,
                                             const LoadDemand& block) const {
  // From the first block to the second the line of the tier shows.
  const double one = LoadSeconds(tier, block);
  const double two = LoadSeconds(tier, {2, 2 * block.bytes, block.queued_bytes});
  const LoadLine line{std::max(0.0, 2 * one - two),
                      std::max(0.0, two - one) / static_cast<double>(block_tokens)};
  return BreakEvenTokens(model, line);
}

}  // namespace terrace
