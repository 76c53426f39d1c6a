// Placement code run alone over a trace: hit ratio of one pool of `capacity_blocks` equal blocks.
// What the daemon must reach on the same trace, and the heart of terrace-sim.
//
// A request is a chain of block names. Per request: hits = leading run that is resident; those are
// touched; then the rest is inserted in order, evicting as needed but never a block of this very
// request; when nothing can be evicted, or the policy would rather keep what it would have to
// evict, the remaining blocks are not stored.
//
// Over a local tier: what is evicted is written to it unless it lies there already, as far as the
// rule of writes lets it, and stays there when it comes back. A block that lies there counts as
// resident in the leading run; it is inserted before the run is touched.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

#include "tiers/placement/eviction_policy.h"
#include "tiers/placement/local_admission.h"
#include "tiers/placement/local_contents.h"
#include "tiers/placement/segment_log.h"
#include "tiers/placement/textbook.h"

namespace terrace {

struct ReplayCounts {
  uint64_t requests = 0;
  uint64_t blocks = 0;  // asked for
  uint64_t hits = 0;    // in the leading resident run
  uint64_t local_hits = 0;  // of them, from the local tier
  uint64_t stored = 0;
  uint64_t evicted = 0;
  uint64_t declined = 0;
};

// What is written to the local tier.
enum class LocalRule : uint8_t {
  kOnEviction = 0,   // all that is evicted
  kOnCommit = 1,     // all that is stored, at once
  kSecondTouch = 2,  // what is evicted and was asked for twice since it was first stored
  kPriced = 3,       // what is evicted and is worth its price (local_admission.h)
  kOracle = 4,       // what is evicted and will be asked for again
  kThreshold = 5,    // what is evicted and is likely enough to be asked for again, by the same
                     // forecast as kPriced, or completes what was written
};

// How much of a request's leading run is loaded at all.
class LoadGate {
 public:
  virtual ~LoadGate() = default;
  // Before anything is read from below. `resident`: of the blocks of `run`, kNoBlock where one lies
  // below DRAM. Returns how many are hits; those behind are computed and stored as if they lay
  // nowhere.
  virtual size_t Reach(absl::Span<const uint64_t> run, absl::Span<const BlockId> resident) = 0;
};

struct LocalReplay {
  std::unique_ptr<LocalContents> contents;
  LocalRule rule = LocalRule::kOnEviction;
  WriteBudget::Options budget;  // of kPriced; kThreshold only has its horizon from it
  double least_chance = 0;      // of kThreshold
  uint64_t blocks = 0;          // that the tier holds, about
  uint64_t block_bytes = 1;     // that a write takes off the budget
  // By a use of a block that so many stand before in its chain; nullptr: a second.
  std::function<double(uint32_t depth)> seconds_saved = nullptr;
  LoadGate* gate = nullptr;  // outlives the replay; nullptr: all is loaded
};

struct ReplayRequest {
  absl::Duration now;
  absl::Span<const uint64_t> chain;
  RequestHints hints;
  // What is known only when the rest of the chain is stored: of a request that stores nothing it
  // never is. nullopt: all is known at once.
  std::optional<RequestHints> hints_when_stored = std::nullopt;
};

class PlacementReplay {
 public:
  // policy: a name that MakeEvictionPolicy knows (checked). capacity_blocks: from 1 (checked).
  static std::unique_ptr<PlacementReplay> Create(std::string_view policy, uint64_t capacity_blocks);
  // Over a local tier of this log, which starts empty.
  static std::unique_ptr<PlacementReplay> CreateOverLog(std::string_view policy,
                                                        uint64_t capacity_blocks,
                                                        const SegmentLog::Options& log);
  // Takes textbook policies too. Errors: INVALID_ARGUMENT: an unknown policy, or min or kOracle
  // without a future.
  static absl::StatusOr<std::unique_ptr<PlacementReplay>> CreateAny(std::string_view policy,
                                                                    const TextbookOptions& options);
  static absl::StatusOr<std::unique_ptr<PlacementReplay>> CreateAnyOver(
      std::string_view policy, const TextbookOptions& options, LocalReplay local);
  virtual ~PlacementReplay() = default;
  // Returns the hits of this request.
  virtual uint64_t Request(const ReplayRequest& request) = 0;
  uint64_t Request(absl::Span<const uint64_t> chain) {
    return Request(ReplayRequest{absl::ZeroDuration(), chain, {}});
  }
  // The process ends and is started again: nothing is resident any more, of the local tier it is
  // not known what was of use, and of its writes not what they were worth. What the policy has
  // learnt is there again, as the daemon keeps it, or is not. Counts go on.
  enum class Learnt : uint8_t { kKept, kForgotten };
  virtual void Restart(Learnt learnt) = 0;
  [[nodiscard]] virtual const ReplayCounts& counts() const = 0;
  // nullptr: there is no local tier.
  [[nodiscard]] virtual const LocalContents* local() const = 0;
  // nullptr: nothing is judged.
  [[nodiscard]] virtual const WriteBudget* budget() const = 0;
  [[nodiscard]] virtual const EvictionPolicy& policy() const = 0;
};

// Every policy that CreateAny takes; "min" last.
std::vector<std::string_view> ReplayPolicyNames();

}  // namespace terrace
