// Reads request traces: one JSON object a line, plain or gzip. Used by the bench and the simulator,
// never by the daemon.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace terrace {

struct TraceRequest {
  double timestamp_ms = 0;
  uint32_t input_tokens = 0;
  uint32_t output_tokens = 0;
  std::string stop;  // "" when the trace does not say
  std::vector<uint64_t>
      block_ids;  // "hash_ids"; each names the whole prefix up to and including that block
};

struct RequestTrace {
  std::string name;  // file name without folder and endings
  std::vector<TraceRequest> requests;
  uint64_t distinct_blocks = 0;
  uint64_t total_blocks = 0;
};

struct TraceReadOptions {
  uint64_t max_requests = 0;  // 0: all
};

// Errors: NOT_FOUND, INVALID_ARGUMENT naming the line that cannot be parsed, RESOURCE_EXHAUSTED
// over 10 M requests or lines over 16 MiB.
absl::StatusOr<RequestTrace> ReadRequestTrace(const std::string& path,
                                              const TraceReadOptions& options);

// Tokens of a block: the power of two nearest to input_tokens / blocks of the longer half of the
// requests, where partial last blocks weigh least. 0: the trace does not say.
uint32_t GuessBlockTokens(const RequestTrace& trace);

}  // namespace terrace
