// Figure and limit in turn, as every ratio is measured.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/bench/progress.h"
#include "tools/bench/report.h"

namespace terrace::bench {

// Seconds of one pass.
using Side = std::function<absl::StatusOr<double>()>;

struct PairedSides {
  std::string name;
  std::string text;
  uint32_t pairs = 0;
  Side figure;
  Side limit;
  std::function<double(double seconds)> rate;  // GB/s
};

// One pair more, which warms up, goes first. Errors: a side's; CANCELLED.
absl::Status MeasureSides(const PairedSides& sides, Report& report, Progress& progress);

}  // namespace terrace::bench
