// Placement code run alone over a trace: hit ratio of one pool of `capacity_blocks` equal blocks.
// What the daemon must reach on the same trace, and the seed of terrace-sim.
//
// A request is a chain of block names. Per request: hits = leading run that is resident; those are
// touched; then the rest is inserted in order, evicting as needed but never a block of this very
// request; when nothing can be evicted the remaining blocks are not stored.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {

struct ReplayCounts {
  uint64_t requests = 0;
  uint64_t blocks = 0;  // asked for
  uint64_t hits = 0;    // in the leading resident run
  uint64_t stored = 0;
  uint64_t evicted = 0;
  uint64_t declined = 0;
};

class PlacementReplay {
 public:
  // policy: a name that MakeEvictionPolicy knows (checked). capacity_blocks: from 1.
  static std::unique_ptr<PlacementReplay> Create(std::string_view policy, uint64_t capacity_blocks);
  virtual ~PlacementReplay() = default;
  // Returns the hits of this request.
  virtual uint64_t Request(absl::Span<const uint64_t> chain) = 0;
  [[nodiscard]] virtual const ReplayCounts& counts() const = 0;
};

}  // namespace terrace
