// What metrics say of the shared tiers. Hides nothing; cut off from metrics.cc for its length.
#pragma once

#include "daemon/block_store.h"
#include "daemon/metric_families.h"

namespace terrace {

void AddSharedTiers(const StoreUsage& usage, Families* out);

}  // namespace terrace
