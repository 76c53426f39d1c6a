// A fleet of nodes on one pool, in virtual time: the code of tiers/shared as it runs in daemons,
// over a file system in memory that counts calls.
//
// Every node publishes blocks of its own at random times and reads a few of others. Nodes begin one
// after the other; in the middle one is killed, and another adopts what it published. The pool is
// so small that segments are reclaimed all the time. What is counted begins after a quarter of the
// time, when all nodes know each other.
//
// A plan and its seed say everything: two runs give the same figures.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/sim/simulated_pool_files.h"

namespace terrace::sim {

struct PoolPlan {
  uint32_t nodes = 0;
  // Of all that follows, 0: what FilledIn says.
  double seconds = 0;
  double blocks_per_second = 0;  // of a node
  uint64_t block_bytes = 0;
  uint64_t segment_bytes = 0;
  uint64_t capacity_bytes = 0;
  double grace_seconds = 0;
  double dead_after_seconds = 0;
  uint32_t bulletins_from = 0;
  uint64_t seed = 1;
};

// With the defaults: 240 s; 4 blocks a second, or as many as make 512 of all nodes, so that the
// catalogues of 1,000 nodes fit into 8 GiB; blocks of 16 KiB; segments that last for 16 s; seven of
// them a node; 10 s of grace; 60 s until a silent node is dead; bulletins from where the tier has
// them.
PoolPlan FilledIn(PoolPlan plan);

struct Spread {
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};

struct PoolFigures {
  PoolPlan plan;
  // A second, of a node: medians over nodes, and the highest.
  double calls_median = 0;
  double calls_max = 0;
  std::array<double, kCallPurposes> calls_by_purpose{};
  std::array<double, kFileCalls> calls_by_kind{};
  double report_bytes_per_second = 0;
  // From a put on one node until a lookup on another finds the block.
  Spread visible_seconds;
  uint64_t samples = 0;
  uint64_t unseen = 0;  // among them: not found until the end, which is what was then measured
  double catalogue_bytes_per_record = 0;
  uint64_t catalogue_bytes = 0;  // the largest node's
  uint64_t records = 0;          // known: median
  uint64_t published = 0;        // blocks, by all nodes
  uint64_t refused = 0;          // puts that were not published while their node ran
  uint64_t reads = 0;            // of others' blocks, verified
  uint64_t reads_gone = 0;       // of blocks that were found, and reclaimed meanwhile
  uint64_t reads_failed = 0;     // that ended otherwise
  double highest_fill = 0;       // of the pool, over its capacity
  uint64_t reclaimed_segments = 0;
  double adopted_seconds = 0;   // from the kill until another node lists its blocks; 0: never
  uint64_t killed_blocks = 0;   // that the killed node found itself
  uint64_t lost_blocks = 0;     // of those: not found by the node that adopted them
  uint64_t living_adopted = 0;  // nodes that were held to be dead, and were not
  double wall_seconds = 0;
};

// `advance` is told what part of the time is over, now and then, and whether to go on: false ends
// the simulation as CANCELLED. INVALID_ARGUMENT: the plan, naming what is wrong.
absl::StatusOr<PoolFigures> SimulatePool(const PoolPlan& plan,
                                         const std::function<bool(double part)>& advance);

}  // namespace terrace::sim
