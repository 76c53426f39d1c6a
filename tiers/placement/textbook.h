// The policies that the simulator compares with, beside those a daemon may be configured with. They
// are written for clarity, not speed: a few hundred nanoseconds a block.
//
//   fifo       first in, first out
//   lfu        least frequently used while resident; ties: least recently
//   2q         Johnson and Shasha, VLDB 1994: A1in 25 %, A1out 50 % of capacity
//   arc        Megiddo and Modha, FAST 2003
//   s3fifo     Yang et al., SOSP 2023: small queue 10 %, a ghost queue as large as the main one
//   sieve      Zhang et al., NSDI 2024
//   wtinylfu   Einziger et al., TOS 2017: window 1 %, main segmented 20/80, sketch aged by halving
//   gdsf       Cherkasova, 1998: cost of a block by its depth, sizes equal
//   lru2       O'Neil et al., SIGMOD 1993, history kept of all blocks
//   ttl        lru, but chains of requests that stopped for a tool call stay for five minutes
//   min        Belady's optimum with bypass; ties go deepest first, which makes it exact for prefix
//              hits, as in a chain the next use of a parent is never after its child's
//
// All see a request's suffix before its prefix. Blocks that a request adds stand outside of every
// queue until its last Touch.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "tiers/placement/eviction_policy.h"

namespace terrace {

// Knows the trace's future, for min.
class FutureUse {
 public:
  virtual ~FutureUse() = default;
  // Index of the first request after the present one that uses the block; UINT64_MAX: none.
  [[nodiscard]] virtual uint64_t NextUse(uint64_t name) const = 0;
};

struct TextbookOptions {
  uint64_t capacity_blocks = 1;       // from 1
  const FutureUse* future = nullptr;  // min only; outlives the policy
};

// Errors: INVALID_ARGUMENT: unknown name, or min without a future.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeTextbookPolicy(std::string_view name,
                                                                   const TextbookOptions& options);

std::vector<std::string_view> TextbookPolicyNames();

}  // namespace terrace
