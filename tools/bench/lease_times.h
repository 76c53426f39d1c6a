// How long a lease of one block takes that lies in DRAM.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "tools/bench/block_set.h"

namespace terrace::bench {

inline constexpr uint32_t kLeaseSamples = 2000;

// The 99th percentile, microseconds, over the set's blocks in turn; each lease is released at once.
// What has been displaced meanwhile is no hit and not counted; all blocks then come back together.
// UNAVAILABLE: they do not stay.
absl::StatusOr<double> LeaseP99(BlockSet& hot);

}  // namespace terrace::bench
