#include "tiers/placement/load_advice.h"

#include <cmath>

namespace terrace {
namespace {

bool Pays(const RecomputeModel& recompute, const LoadLine& load, uint64_t tokens) {
  return load.seconds_at_all + load.seconds_per_token * static_cast<double>(tokens) <=
         recompute.Seconds(0, tokens);
}

}  // namespace

std::optional<size_t> LongestWorthLoading(absl::Span<const LoadStep> steps) {
  std::optional<size_t> best;
  double saved = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const double here = steps[i].recompute_seconds - steps[i].load_seconds;
    if (here >= saved) {
      saved = here;
      best = i;
    }
  }
  return best;
}

// What is saved falls at first, where it does, and rises from then on: once positive, it stays so.
// A search by halves is exact where the root of a quadratic would be a rounding off.
std::optional<uint64_t> BreakEvenTokens(const RecomputeModel& recompute, const LoadLine& load) {
  if (Pays(recompute, load, 1)) {
    return 1;
  }
  if (!Pays(recompute, load, kMostPromptTokens)) {
    return std::nullopt;
  }
  uint64_t not_yet = 1;
  uint64_t pays = kMostPromptTokens;
  while (pays - not_yet > 1) {
    const uint64_t middle = not_yet + (pays - not_yet) / 2;
    (Pays(recompute, load, middle) ? pays : not_yet) = middle;
  }
  return pays;
}

}  // namespace terrace
