// What Admin says of shared tiers: usage as messages. Pure.
#pragma once

#include "terrace/v1/admin.pb.h"

#include "daemon/block_store.h"

namespace terrace {

void FillSharedTier(const SharedTierUsage& usage, v1::TierStatus* tier);
void FillPool(const SharedTierUsage& usage, v1::PoolStatus* pool);

}  // namespace terrace
