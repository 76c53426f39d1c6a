#include "daemon/gpu/tenant_slabs.h"

#include <utility>

#include "absl/status/status.h"

namespace terrace {

void TenantSlabs::RegionOpened(TenantId id) {
  const absl::MutexLock lock(&mutex_);
  Tenant& tenant = tenants_[id];
  ++tenant.regions;
  if (tenant.mapped.session == kNoSession) {
    tenant.mapped.session = store_.OpenSession(id, BlockStore::LeaseRight::kProvenByPidfd);
  }
}

bool TenantSlabs::IsLastRegion(TenantId id) {
  const absl::MutexLock lock(&mutex_);
  const auto tenant = tenants_.find(id);
  return tenant != tenants_.end() && --tenant->second.regions == 0;
}

absl::StatusOr<BlockStore::SlabGrant> TenantSlabs::Map(TenantId id, SlabId slab) {
  SessionId session = kNoSession;
  {
    const absl::MutexLock lock(&mutex_);
    const auto tenant = tenants_.find(id);
    if (tenant == tenants_.end()) {
      return absl::CancelledError("the tenant has no regions any more");
    }
    session = tenant->second.mapped.session;
    tenant->second.mapped.slabs.insert(slab);
  }
  return store_.MapSlab(session, slab);
}

bool TenantSlabs::Forget(SessionId session, SlabId slab) {
  const absl::MutexLock lock(&mutex_);
  for (auto& [id, tenant] : tenants_) {
    if (tenant.mapped.session == session) {
      tenant.mapped.slabs.erase(slab);
      return true;
    }
  }
  return false;
}

TenantSlabs::Mapped TenantSlabs::Take(TenantId id) {
  const absl::MutexLock lock(&mutex_);
  const auto tenant = tenants_.find(id);
  if (tenant == tenants_.end() || tenant->second.regions > 0) {
    return {};  // another region came meanwhile, and keeps them
  }
  Mapped mapped = std::move(tenant->second.mapped);
  tenants_.erase(tenant);
  return mapped;
}

void TenantSlabs::CloseAll() {
  std::map<TenantId, Tenant> tenants;
  {
    const absl::MutexLock lock(&mutex_);
    tenants.swap(tenants_);
  }
  for (const auto& [id, tenant] : tenants) {
    store_.ProcessGone(tenant.mapped.session);
  }
}

}  // namespace terrace
