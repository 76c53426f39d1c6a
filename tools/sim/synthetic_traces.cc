#include "tools/sim/synthetic_traces.h"

#include <cmath>
#include <random>
#include <string>

namespace terrace::sim {
namespace {

constexpr uint32_t kRequests = 12'000;
constexpr uint32_t kChains = 1'000;
constexpr uint32_t kBlocksAChain = 8;
constexpr uint32_t kBlockTokens = 512;
constexpr double kMillisecondsApart = 300;

// [0, 1), the same on every platform, which std's distributions are not.
double Uniform(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11U) * 0x1p-53;
}

uint32_t PickChain(std::string_view name, uint32_t turn, std::mt19937_64& random) {
  if (name == "cyclic") {
    return turn % kChains;
  }
  const double u = Uniform(random);
  if (name == "random") {
    return static_cast<uint32_t>(u * kChains);
  }
  // P(rank <= r) = log(1 + r) / log(1 + n): about 1 / rank.
  const auto rank = static_cast<uint32_t>(std::pow(kChains + 1.0, u) - 1);
  return turn < kRequests / 2 ? rank : kChains - 1 - rank;
}

}  // namespace

std::vector<std::string_view> SyntheticTraceNames() {
  return {"cyclic", "flip", "random"};
}

absl::StatusOr<RequestTrace> MakeSyntheticTrace(std::string_view name, uint64_t seed) {
  bool known = false;
  for (const std::string_view each : SyntheticTraceNames()) {
    known = known || each == name;
  }
  if (!known) {
    return absl::InvalidArgumentError("unknown; there is: cyclic, flip, random");
  }
  RequestTrace trace;
  trace.name = std::string(name);
  std::mt19937_64 random(seed);
  std::vector<bool> used(kChains);
  for (uint32_t turn = 0; turn < kRequests; ++turn) {
    TraceRequest request;
    request.timestamp_ms = turn * kMillisecondsApart;
    request.input_tokens = kBlocksAChain * kBlockTokens + 100;
    request.output_tokens = 100;
    const uint32_t chain = PickChain(name, turn, random);
    used[chain] = true;
    for (uint64_t i = 0; i < kBlocksAChain; ++i) {
      request.block_ids.push_back(uint64_t{chain} * kBlocksAChain + i);
    }
    trace.total_blocks += kBlocksAChain;
    trace.requests.push_back(std::move(request));
  }
  for (const bool each : used) {
    trace.distinct_blocks += each ? kBlocksAChain : 0;
  }
  return trace;
}

}  // namespace terrace::sim
