// What loading the hits of a probe would take, and how far that is worth it. Filled under the
// store's lock, judged without it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "daemon/block_store.h"
#include "daemon/store/load_costs.h"
#include "daemon/store/part_view.h"
#include "daemon/store/records.h"

namespace terrace {

// A hit below DRAM.
struct LowerHit {
  uint32_t key = 0;   // its position in the part
  uint32_t tier = 0;  // of the lower ones
  uint32_t payload_bytes = 0;
  bool is_queued = false;  // its read is under way or waits already
};

// Thread-compatible.
struct ProbeView {
  std::vector<PartView> parts;
  std::vector<SeenBlock> seen;   // in DRAM; part after part, by their keys
  std::vector<size_t> seen_end;  // of each part's blocks in `seen`
  std::vector<LowerHit> lower;   // likewise
  std::vector<size_t> lower_end;
  uint64_t hits = 0;
  std::array<uint64_t, kMaxTiers> queued_bytes{};  // of reads, by lower tier
  double dram_bytes_per_second = 0;                // 0: not measured
};

// Sets load_time, recompute_time and worth_tokens; the boundary must be known.
void JudgeLoad(const ProbeView& view, const LoadCosts& costs, ProbeResult& result);

// What is worth loading of what was probed: no more is fetched ahead.
std::vector<StorePart> PartsWorthLoading(const ProbeView& view, uint64_t worth_tokens);

// What the one who probes will have to compute. Nothing where loading less than all is worth it: it
// may do either, and nobody could tell which from how long it takes.
std::vector<LoadCosts::Miss> MissesOf(const ProbeView& view, const ProbeResult& result);

}  // namespace terrace
