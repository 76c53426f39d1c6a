// What a command line says of speeds and times, and what a simulation makes of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "tools/sim/request_timer.h"

namespace terrace::sim {

struct TimingLine {
  std::vector<std::string> bandwidths;  // "local=12": of a tier, in GB/s
  std::vector<std::string> latencies;   // "local=0.1": of a tier, in ms
  std::vector<std::string> prefill;     // "8192=0.6": of a prompt, tokens and seconds; one or two
  uint64_t token_bytes = 0;             // 0: of the declared model
  double lead_s = 0;
  double stray_percent = 0;
  uint64_t seed = 1;
};

// What is in force where the line says nothing, as the line would say it.
std::string DefaultBandwidths();
std::string DefaultLatencies();

// All but what is loaded and prefetched. Errors: INVALID_ARGUMENT: a tier that there is not, a
// number out of bounds, prompts through which no model passes (recompute_curve.h), or block_tokens
// 0, which the trace must tell.
absl::StatusOr<TimingOptions> TimingOf(const TimingLine& line, uint64_t block_tokens);

}  // namespace terrace::sim
