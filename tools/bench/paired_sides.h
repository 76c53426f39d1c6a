// Figure and limit in turn, as every ratio is measured.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/progress.h"
#include "tools/bench/report.h"

namespace terrace::bench {

// Seconds of one pass.
using Side = std::function<absl::StatusOr<double>()>;

struct PairedSides {
  const char* name = nullptr;
  const char* text = nullptr;
  uint32_t pairs = 0;
  Side figure;
  Side limit;
  std::function<double(double seconds)> rate;  // GB/s
};

// One pair more, which warms up, goes first. Errors: a side's; CANCELLED.
absl::Status MeasureSides(const PairedSides& sides, Report& report, Progress& progress);

}  // namespace terrace::bench
