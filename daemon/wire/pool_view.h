// What Admin says of shared tiers: usage as messages. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "terrace/v1/admin.pb.h"

#include "daemon/block_store.h"

namespace terrace {

void FillSharedTier(const SharedTierUsage& usage, v1::TierStatus* tier);
void FillPool(const SharedTierUsage& usage, v1::PoolStatus* pool);
// The first of them that make up so many bytes together.
void FillReclaim(const std::vector<PoolSegmentView>& order, uint64_t bytes, v1::PoolStatus* pool);

}  // namespace terrace
