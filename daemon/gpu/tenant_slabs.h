// Which slabs the workers of GPUs have mapped, tenant by tenant, in the name of a session of their
// own: a slab that its tenant gives up is kept as long as one of them may look into it.
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "daemon/block_store.h"

namespace terrace {

// Thread-safe.
class TenantSlabs {
 public:
  explicit TenantSlabs(BlockStore& store) : store_(store) {}

  // Regions of the tenant's are counted; the session lives as long as there are any.
  void RegionOpened(TenantId tenant);
  // True: it was the last one, and Take is due.
  bool IsLastRegion(TenantId tenant);

  // For a worker to map. CANCELLED: the tenant has no regions any more. Else as
  // BlockStore::MapSlab.
  absl::StatusOr<BlockStore::SlabGrant> Map(TenantId tenant, SlabId slab);
  // False: the session is none of these.
  bool Forget(SessionId session, SlabId slab);

  struct Mapped {
    SessionId session = kNoSession;  // to be ended when the slabs are unmapped
    std::set<SlabId> slabs;
  };
  Mapped Take(TenantId tenant);
  // Nobody maps anything any more.
  void CloseAll();

 private:
  struct Tenant {
    Mapped mapped;
    uint64_t regions = 0;
  };

  BlockStore& store_;
  absl::Mutex mutex_;
  std::map<TenantId, Tenant> tenants_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace terrace
