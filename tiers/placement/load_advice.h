// Whether to load a prefix or to compute it again. Pure: seconds in, decision out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/types/span.h"

#include "tiers/placement/recompute_curve.h"

namespace terrace {

// A boundary up to which a request could load.
struct LoadStep {
  uint64_t end_token = 0;
  double load_seconds = 0;       // of all up to here
  double recompute_seconds = 0;  // likewise
};

// The position in `steps`, whose tokens rise, of the boundary at which most time is saved: up to
// there it is loaded, and computed from there. The longest where several save as much; nullopt:
// each would take longer than computing. A prefix of which the end lies on a slow tier is thus cut
// where the rest is computed faster, even where loading all of it were faster than computing all.
std::optional<size_t> LongestWorthLoading(absl::Span<const LoadStep> steps);

// A load as a straight line over tokens; neither is below 0.
struct LoadLine {
  double seconds_at_all = 0;
  double seconds_per_token = 0;
};

// The length from which on a prompt's prefix is loaded faster than computed, in tokens, exactly: 1
// where it always is. nullopt: not within kMostPromptTokens.
std::optional<uint64_t> BreakEvenTokens(const RecomputeModel& recompute, const LoadLine& load);

// The break-even of a tier, over several namespaces the longest.
struct TierCost {
  std::string name;
  std::optional<uint64_t> break_even_tokens;  // nullopt: of none it is known what computing takes
  bool never_pays = false;                    // of one of them there is no break-even
};

}  // namespace terrace
