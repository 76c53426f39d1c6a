#include "tools/bench/lease_times.h"

#include <vector>

#include "tools/bench/report.h"
#include "tools/bench/stopwatch.h"

namespace terrace::bench {

absl::StatusOr<double> LeaseP99(BlockSet& hot) {
  ClientSession& session = hot.session();
  std::vector<double> times;
  uint32_t displaced = 0;
  for (uint32_t i = 0; times.size() < kLeaseSamples; ++i) {
    const Stopwatch watch;
    absl::StatusOr<Completion> got = session.GetLease(hot.Chain(i % hot.count(), 1), {});
    times.push_back(watch.microseconds());
    if (!got.ok()) {
      return got.status();
    }
    if (CountOutcomes(**got, TERRACE_GET_OK) != 1) {
      // The load has displaced it, because this thread did not run for long enough. All of them
      // come back together, or the load would displace one while another is read.
      times.pop_back();
      got = session.GetLease(hot.Chain(0, hot.count()), {}, ClientSession::Pending::kWait);
      if (!got.ok() || ++displaced > kLeaseSamples) {
        return got.ok() ? absl::UnavailableError("blocks do not stay in DRAM") : got.status();
      }
    }
    if (absl::Status status = session.Release((*got)->lease, {}); !status.ok()) {
      return status;
    }
  }
  return Percentile(times, 0.99);
}

}  // namespace terrace::bench
