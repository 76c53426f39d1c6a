// PHL: prefix hit-density with a learned hazard.
//
// Every request leaves an instance per run of blocks that it used; what is known of request and run
// gives, through the hazard model, the worth of keeping those blocks at each age (hazard_model.h).
// The leaf of the tree whose worth is smallest at its age goes first, the older of equals; a new
// block that is worth less than the one that would have to go is not admitted. Nothing known, all
// ages have the same hazard and this is LRU, suffix first.
//
// A guard counts what an LRU of the same size would have hit, and lets LRU rule for a while where
// it would do better (lru_guard.h).
//
// The hazard is learnt from all instances, resident or not: names of evicted blocks stay as ghosts.
#pragma once

#include <cstdint>
#include <memory>

#include "tiers/placement/eviction_policy.h"

namespace terrace {

struct PhlOptions {
  // Names remembered beside the resident ones: so many for each four resident blocks, or this many
  // if that is more.
  uint32_t ghosts_per_four_blocks = 1;
  uint64_t least_ghosts = 262'144;
  // So many instances are all learnt from.
  uint64_t learn_all = 50'000;
  bool guarded = true;  // false: for experiments

  // The share that is learnt from when so many have been seen: the more, the less another one says.
  [[nodiscard]] uint64_t LearnOneIn(uint64_t instances) const {
    if (instances <= learn_all) {
      return 1;
    }
    return instances <= 2 * learn_all ? 4 : 8;
  }
};

std::unique_ptr<EvictionPolicy> MakePhlPolicy(const PhlOptions& options);

}  // namespace terrace
