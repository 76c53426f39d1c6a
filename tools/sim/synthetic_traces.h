// Traces made to hurt a policy. The same seed gives the same trace everywhere.
//
//   cyclic   chains asked for in turn, for ever: larger than any cache below its footprint
//   flip     a Zipf-like popularity over chains that is reversed at half time
//   random   chains picked evenly, no history of any use
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "tools/trace/request_trace.h"

namespace terrace::sim {

std::vector<std::string_view> SyntheticTraceNames();
// Errors: INVALID_ARGUMENT naming those that exist.
absl::StatusOr<RequestTrace> MakeSyntheticTrace(std::string_view name, uint64_t seed);

}  // namespace terrace::sim
