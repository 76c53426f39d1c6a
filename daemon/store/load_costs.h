// What the store knows of costs: how long each lower tier takes to load, and how long engines take
// to compute what they did not find. What either means is decided in tiers/placement.
//
// An engine's time is what a rule declares, else what the engine says of its puts, else what is
// learnt from when it probes and puts: a probe ends at its first miss, from which on the engine
// computes as far as the probe asked. The put that begins with that very block, and those that go
// on where it ended, end the span once they have come as far: engines store in one piece or in
// many, while they compute or when they have. In between may lie more than computing, and the curve
// allows for that (recompute_curve.h). Not taken are spans before which the engine had to load for
// more than an eighth of the time, and those of which a put goes beyond what the probe named,
// because it holds what was decoded as well.
//
// Thread-safe: a lock of its own, held for a few microseconds at most and taken last; no other lock
// is taken under it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "daemon/block_store.h"
#include "tiers/placement/load_advice.h"
#include "tiers/placement/recompute_curve.h"
#include "tiers/placement/tier_load.h"
#include "tiers/vocab/clock.h"
#include "tiers/vocab/lower_tier.h"

namespace terrace {

enum class CostSource : uint8_t { kUnknown = 0, kMeasured = 1, kTold = 2, kDeclared = 3 };

struct RecomputeCost {
  CostSource source = CostSource::kUnknown;
  RecomputeModel model;
  [[nodiscard]] bool known() const { return source != CostSource::kUnknown; }
};

class LoadCosts {
 public:
  static constexpr size_t kOpenSpans = 4096;  // two that fall on one place forget each other
  static constexpr size_t kMaxCurves = 1024;  // of namespaces; the one fed longest ago goes
  static constexpr absl::Duration kLongestSpan = absl::Minutes(10);

  // `lower_tiers` outlive this.
  LoadCosts(const Clock& clock, std::vector<LowerTier*> lower_tiers);

  // ---- what tiers take; `tier` counts the lower ones from 0
  TierLoad::Mark ReadBegan(size_t tier) ABSL_LOCKS_EXCLUDED(mutex_);
  // `bytes` 0: it brought nothing.
  void ReadEnded(size_t tier, const TierLoad::Mark& mark, uint64_t bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // As the store measured it, else as the tier estimates; 0: neither knows.
  [[nodiscard]] double LoadSeconds(size_t tier, const LoadDemand& demand) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- what engines take
  // Wins over all else, until it is nullopt again.
  void Declare(const Digest128& ns, std::optional<RecomputeModel> model)
      ABSL_LOCKS_EXCLUDED(mutex_);
  [[nodiscard]] RecomputeCost CostOf(const Digest128& ns) const ABSL_LOCKS_EXCLUDED(mutex_);

  // A probe's first miss: from `first_token` on the engine computes, as far as `end_token` for
  // itself, once it has loaded for `load_time`.
  struct Miss {
    Digest128 ns;
    uint64_t block = 0;  // NameOf
    uint64_t first_token = 0;
    uint64_t end_token = 0;
    absl::Duration load_time;
  };
  static uint64_t NameOf(const Digest128& ns, std::string_view salt, KeyView key);
  // An earlier probe of the same block, whose engine may be computing already, keeps its time.
  void NoteMiss(const Miss& miss) ABSL_LOCKS_EXCLUDED(mutex_);

  // A put that began at `at`.
  struct Growth {
    uint64_t block = 0;   // NameOf its first block that was new
    uint64_t parent = 0;  // of the one before that; 0: none
    uint64_t last = 0;    // of its last block
    uint64_t end_token = 0;
    absl::Duration at;
  };
  void NotePut(const Growth& growth) ABSL_LOCKS_EXCLUDED(mutex_);
  // What the engine says of a put that begins at `first_token`. Wins over what is learnt.
  void NoteTold(const Digest128& ns, uint64_t first_token, uint64_t end_token, absl::Duration took)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Spans that the curves took and refused.
  struct Counts {
    uint64_t taken = 0;
    uint64_t refused = 0;
  };
  [[nodiscard]] Counts counts() const ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- both together
  // From how many tokens on a prefix of blocks like `block` (one of them, and what is queued) is
  // loaded from the tier faster than computed. nullopt: never.
  [[nodiscard]] std::optional<uint64_t> BreakEven(const RecomputeModel& model,
                                                  size_t tier,
                                                  uint64_t block_tokens,
                                                  const LoadDemand& block) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct OpenSpan {
    uint64_t name = 0;  // of the block that it goes on with; 0: free
    Miss miss;
    absl::Duration at;
  };
  struct Curve {
    RecomputeCurve learnt;
    RecomputeCurve told;
    absl::Duration fed;
  };
  OpenSpan& PlaceLocked(uint64_t name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return open_[(name >> 1U) % open_.size()];  // the lowest bit is always set
  }
  void LearnLocked(const OpenSpan& span, absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Curve& CurveLocked(const Digest128& ns, absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock& clock_;
  const std::vector<LowerTier*> lower_tiers_;
  mutable absl::Mutex mutex_;
  std::vector<TierLoad> loads_ ABSL_GUARDED_BY(mutex_);  // one a lower tier
  std::vector<OpenSpan> open_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest128, RecomputeModel> declared_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<Digest128, Curve> curves_ ABSL_GUARDED_BY(mutex_);
  Counts counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
