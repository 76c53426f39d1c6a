#include "tools/trace/returns.h"

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"

namespace terrace {

std::vector<double> ReturnsOf(const RequestTrace& trace) {
  std::vector<double> returns(trace.requests.size(), 0);
  // A block names its whole prefix, so that whoever asks for it asks for all before it.
  absl::flat_hash_map<uint64_t, size_t> next;  // the request that asks for a block next
  for (size_t i = trace.requests.size(); i-- > 0;) {
    const TraceRequest& request = trace.requests[i];
    const size_t count = request.block_ids.size();
    if (count > 0) {
      const auto found = next.find(request.block_ids[(count - 1) / 2]);
      if (found != next.end()) {
        returns[i] = trace.requests[found->second].timestamp_ms - request.timestamp_ms;
      }
    }
    for (const uint64_t block : request.block_ids) {
      next[block] = i;
    }
  }
  return returns;
}

}  // namespace terrace
