#include "tools/sim/simulation.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace terrace::sim {
namespace {

double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

void KnownFuture::Reach(const PreparedTrace::Request& request) {
  for (size_t i = request.first; i < request.first + request.count; ++i) {
    const uint32_t next = trace_.next_use[i];
    next_[trace_.chains[i]] = next == UINT32_MAX ? UINT64_MAX : next;
  }
}

PreparedTrace Prepare(const RequestTrace& trace, uint32_t block_tokens) {
  PreparedTrace out;
  out.name = trace.name;
  const uint32_t tokens = block_tokens != 0 ? block_tokens : GuessBlockTokens(trace);
  out.block_tokens = tokens;
  absl::flat_hash_map<uint64_t, uint64_t> names;
  absl::Duration now = absl::ZeroDuration();
  for (const TraceRequest& request : trace.requests) {
    size_t count = request.block_ids.size();
    if (tokens != 0 && request.input_tokens != 0) {
      count = std::min<size_t>(count, request.input_tokens / tokens);
    }
    now = std::max(now, absl::Milliseconds(request.timestamp_ms));
    out.requests.push_back({now,
                            out.chains.size(),
                            count,
                            {.input_tokens = request.input_tokens,
                             .output_tokens = request.output_tokens,
                             .stop = StopReasonFrom(request.stop)}});
    for (size_t i = 0; i < count; ++i) {
      out.chains.push_back(names.emplace(request.block_ids[i], names.size()).first->second);
    }
  }
  out.distinct_blocks = names.size();
  out.next_use.resize(out.chains.size());
  std::vector<uint32_t> seen(names.size(), UINT32_MAX);
  for (size_t r = out.requests.size(); r > 0; --r) {
    const PreparedTrace::Request& request = out.requests[r - 1];
    for (size_t i = request.first; i < request.first + request.count; ++i) {
      out.next_use[i] = seen[out.chains[i]];
    }
    for (const uint64_t name : out.Chain(request)) {
      seen[name] = static_cast<uint32_t>(r - 1);
    }
  }
  return out;
}

uint64_t CapacityBlocks(const PreparedTrace& trace, double capacity_percent) {
  const double blocks = static_cast<double>(trace.distinct_blocks) * capacity_percent / 100;
  return std::max<uint64_t>(1, static_cast<uint64_t>(blocks + 1e-6));
}

absl::StatusOr<CellResult> Simulate(const Cell& cell) {
  CellResult result;
  result.trace = cell.trace->name;
  result.policy = cell.policy;
  result.capacity_percent = cell.capacity_percent;
  result.capacity_blocks = CapacityBlocks(*cell.trace, cell.capacity_percent);
  KnownFuture future(*cell.trace);
  absl::StatusOr<std::unique_ptr<PlacementReplay>> replay = PlacementReplay::CreateAny(
      cell.policy, {.capacity_blocks = result.capacity_blocks, .future = &future});
  if (!replay.ok()) {
    return replay.status();
  }
  const auto restart_before = static_cast<uint64_t>(
      static_cast<double>(cell.trace->requests.size()) * cell.restart_percent / 100);
  const double began = ThreadSeconds();
  for (const PreparedTrace::Request& request : cell.trace->requests) {
    if ((*replay)->counts().requests == restart_before) {
      (*replay)->Restart(cell.learnt);
    }
    if (cell.policy == "min") {
      future.Reach(request);
    }
    (*replay)->Request({request.now, cell.trace->Chain(request), request.hints});
  }
  const double seconds = ThreadSeconds() - began;
  result.counts = (*replay)->counts();
  result.memory_bytes = (*replay)->policy().memory_bytes();
  const auto blocks = static_cast<double>(result.counts.blocks);
  const auto requests = static_cast<double>(result.counts.requests);
  result.prefix_hit_percent =
      blocks == 0 ? 0 : 100 * static_cast<double>(result.counts.hits) / blocks;
  result.cpu_us_per_request = requests == 0 ? 0 : seconds * 1e6 / requests;
  return result;
}

double MeanGapClosed(const std::vector<CellResult>& results, std::string_view policy) {
  const auto find = [&](const CellResult& like, std::string_view name) -> const CellResult* {
    for (const CellResult& each : results) {
      if (each.trace == like.trace && each.capacity_percent == like.capacity_percent &&
          each.policy == name) {
        return &each;
      }
    }
    return nullptr;
  };
  double sum = 0;
  int cells = 0;
  for (const CellResult& each : results) {
    const CellResult* lru = find(each, "lru");
    const CellResult* min = find(each, "min");
    if (each.policy != policy || lru == nullptr || min == nullptr ||
        min->prefix_hit_percent - lru->prefix_hit_percent < 0.5) {
      continue;
    }
    const double gap = min->prefix_hit_percent - lru->prefix_hit_percent;
    sum += 100 * (each.prefix_hit_percent - lru->prefix_hit_percent) / gap;
    ++cells;
  }
  return cells == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / cells;
}

}  // namespace terrace::sim
