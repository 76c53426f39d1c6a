// Brings the quotas of a store, and what its tenants publish, from one configuration to another, as
// a whole or not at all.
#pragma once

#include <vector>

#include "absl/status/status.h"

#include "daemon/block_store.h"
#include "daemon/config.h"

namespace terrace {

// Opens the tenants of `wanted` and sets the quotas that differ; tenants that are gone lose
// guarantee and limit, and keep their blocks. On failure the quotas are those of `running` again.
// Errors: those of BlockStore::OpenTenant and SetQuota, with the tenant's alias.
absl::Status ApplyQuotas(BlockStore& store,
                         const std::vector<TenantConfig>& running,
                         const std::vector<TenantConfig>& wanted);

}  // namespace terrace
