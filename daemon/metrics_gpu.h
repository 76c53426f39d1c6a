// What metrics say of GPUs. Hides nothing; cut off from metrics.cc for its length.
#pragma once

#include "daemon/gpu_handoff.h"
#include "daemon/metric_families.h"

namespace terrace {

void AddGpus(const GpuFigures& figures, Families* out);

}  // namespace terrace
