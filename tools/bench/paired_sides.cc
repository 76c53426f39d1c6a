#include "tools/bench/paired_sides.h"

#include <vector>

namespace terrace::bench {

absl::Status MeasureSides(const PairedSides& sides, Report& report, Progress& progress) {
  progress.Begin(sides.text, sides.pairs);
  std::vector<Pair> pairs;
  for (uint32_t i = 0; i <= sides.pairs; ++i) {
    if (Interrupted()) {
      return absl::CancelledError("interrupted");
    }
    absl::StatusOr<double> ours = i % 2 == 0 ? sides.figure() : 0;
    const absl::StatusOr<double> plain = sides.limit();
    ours = ours.ok() && i % 2 != 0 ? sides.figure() : ours;
    if (!ours.ok() || !plain.ok()) {
      return ours.ok() ? plain.status() : ours.status();
    }
    if (i > 0) {  // the first pair warms up
      pairs.push_back({sides.rate(*ours), sides.rate(*plain)});
    }
    progress.Advance(i);
  }
  report.AddPairs(sides.name, sides.text, "GB/s", pairs);
  return absl::OkStatus();
}

}  // namespace terrace::bench
