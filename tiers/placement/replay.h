// Placement code run alone over a trace: hit ratio of one pool of `capacity_blocks` equal blocks.
// What the daemon must reach on the same trace, and the heart of terrace-sim.
//
// A request is a chain of block names. Per request: hits = leading run that is resident; those are
// touched; then the rest is inserted in order, evicting as needed but never a block of this very
// request; when nothing can be evicted, or the policy would rather keep what it would have to
// evict, the remaining blocks are not stored.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/textbook.h"

namespace terrace {

struct ReplayCounts {
  uint64_t requests = 0;
  uint64_t blocks = 0;  // asked for
  uint64_t hits = 0;    // in the leading resident run
  uint64_t stored = 0;
  uint64_t evicted = 0;
  uint64_t declined = 0;
};

struct ReplayRequest {
  absl::Duration now;
  absl::Span<const uint64_t> chain;
  RequestHints hints;
};

class PlacementReplay {
 public:
  // policy: a name that MakeEvictionPolicy knows (checked). capacity_blocks: from 1 (checked).
  static std::unique_ptr<PlacementReplay> Create(std::string_view policy, uint64_t capacity_blocks);
  // Takes textbook policies too. Errors: INVALID_ARGUMENT: an unknown policy, or min without a
  // future.
  static absl::StatusOr<std::unique_ptr<PlacementReplay>> CreateAny(std::string_view policy,
                                                                    const TextbookOptions& options);
  virtual ~PlacementReplay() = default;
  // Returns the hits of this request.
  virtual uint64_t Request(const ReplayRequest& request) = 0;
  uint64_t Request(absl::Span<const uint64_t> chain) {
    return Request(ReplayRequest{absl::ZeroDuration(), chain, {}});
  }
  [[nodiscard]] virtual const ReplayCounts& counts() const = 0;
  [[nodiscard]] virtual const EvictionPolicy& policy() const = 0;
};

// Every policy that CreateAny takes; "min" last.
std::vector<std::string_view> ReplayPolicyNames();

}  // namespace terrace
