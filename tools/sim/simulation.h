// terrace-sim's heart: the placement code over a trace, one policy and capacity at a time.
//
// Counting: prefix hits, in % of all blocks asked for, cold start included; a partial last block is
// dropped, as engines do not cache it; capacity is in % of the trace's distinct blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "tiers/placement/replay.h"
#include "tools/trace/request_trace.h"

namespace terrace::sim {

// A trace ready to be replayed many times. Immutable, so that threads may share it.
struct PreparedTrace {
  struct Request {
    absl::Duration now;
    size_t first = 0;  // of its chain, in `chains`
    size_t count = 0;
    RequestHints hints;
  };

  [[nodiscard]] absl::Span<const uint64_t> Chain(const Request& request) const {
    return absl::MakeConstSpan(chains).subspan(request.first, request.count);
  }

  std::string name;
  std::vector<Request> requests;
  std::vector<uint64_t> chains;  // block names, 0 .. distinct_blocks - 1, end to end
  std::vector<uint32_t>
      next_use;  // beside `chains`: the next request that uses it; UINT32_MAX: none
  uint64_t distinct_blocks = 0;
  uint32_t block_tokens = 0;  // 0: neither told nor found out
};

// block_tokens 0: found out from the trace. Requests that go back in time are moved to the latest
// time seen.
PreparedTrace Prepare(const RequestTrace& trace, uint32_t block_tokens);

// A trace's future as seen from one of its requests.
class KnownFuture final : public FutureUse {
 public:
  // `trace` outlives this.
  explicit KnownFuture(const PreparedTrace& trace) : trace_(trace), next_(trace.distinct_blocks) {}
  void Reach(const PreparedTrace::Request& request);
  [[nodiscard]] uint64_t NextUse(uint64_t name) const override { return next_[name]; }

 private:
  const PreparedTrace& trace_;
  std::vector<uint64_t> next_;
};

struct Cell {
  const PreparedTrace* trace = nullptr;
  std::string policy;
  double capacity_percent = 0;
  // The process is started again after this share of the requests; 100: never.
  double restart_percent = 100;
  PlacementReplay::Learnt learnt = PlacementReplay::Learnt::kKept;
};

struct CellResult {
  std::string trace;
  std::string policy;
  double capacity_percent = 0;
  uint64_t capacity_blocks = 0;
  ReplayCounts counts;
  double prefix_hit_percent = 0;
  // What it cost; differs from run to run.
  double cpu_us_per_request = 0;  // of the whole replay
  uint64_t memory_bytes = 0;      // of the policy, at the end
};

// Rounded down; at least one block.
uint64_t CapacityBlocks(const PreparedTrace& trace, double capacity_percent);

// Errors: INVALID_ARGUMENT: unknown policy.
absl::StatusOr<CellResult> Simulate(const Cell& cell);

// Share of the gap between lru and min that the policy closes, in %, over the cells in which that
// gap is at least half a point and all three were simulated. NaN: there is no such cell.
double MeanGapClosed(const std::vector<CellResult>& results, std::string_view policy);

}  // namespace terrace::sim
