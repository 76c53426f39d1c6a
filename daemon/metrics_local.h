// What metrics say of the local tiers. Hides nothing; cut off from metrics.cc for its length.
#pragma once

#include <optional>

#include "daemon/block_store.h"
#include "daemon/metric_families.h"
#include "tiers/os/async_io.h"

namespace terrace {

void AddLocalTiers(const StoreUsage& usage, const std::optional<IoFacts>& io, Families* out);

}  // namespace terrace
