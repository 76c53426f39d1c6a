// Regions: clients' memory with its geometry; and slabs handed to clients.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/store.h"

namespace terrace {

absl::StatusOr<uint64_t> Store::RegisterRegion(SessionId id, RegionSpec spec) {
  const absl::StatusOr<uint64_t> payload = ValidateGeometry(spec.geometry, spec.memory.size());
  if (!payload.ok()) {
    return payload.status();
  }
  if (spec.region_id == 0) {
    return absl::InvalidArgumentError("region_id: must be at least 1");
  }
  auto region = std::make_shared<Region>();
  region->id = spec.region_id;
  region->memory = std::move(spec.memory);
  region->geometry = std::move(spec.geometry);
  region->payload_bytes = *payload;
  region->read_only = spec.read_only;
  Lock lock(&mutex_);
  StoreSession* session = FindSessionLocked(id);
  if (session == nullptr || session->closed) {
    return absl::FailedPreconditionError("regions need a session");
  }
  if (session->regions.size() >= options_.max_regions_per_session) {
    return absl::ResourceExhaustedError(
        absl::StrCat("regions: at most ", options_.max_regions_per_session));
  }
  region->session_use = session->memory_use;
  const uint64_t bytes = region->memory.size();
  if (!session->regions.emplace(spec.region_id, std::move(region)).second) {
    return absl::AlreadyExistsError("region_id: in use in this session");
  }
  ++regions_;
  region_bytes_ += bytes;
  return *payload;
}

std::shared_ptr<Region> Store::UseRegionLocked(SessionId id, uint32_t region_id) {
  StoreSession* session = FindSessionLocked(id);
  const auto found = session->regions.find(region_id);
  if (found == session->regions.end()) {
    return nullptr;
  }
  ++found->second->use.users;
  ++found->second->session_use->users;
  return found->second;
}

void Store::UnuseRegionLocked(Region& region, DeferredCalls& deferred) {
  for (MemoryUse* use : {&region.use, region.session_use.get()}) {
    if (--use->users == 0) {
      for (std::function<void()>& done : std::exchange(use->when_idle, {})) {
        deferred.Add(std::move(done));
      }
    }
  }
}

void Store::UnregisterRegion(SessionId id, uint32_t region_id, std::function<void()> done) {
  // Declared first: the last reference may unmap, which must not happen under the lock.
  std::shared_ptr<Region> region;
  DeferredCalls deferred;
  Lock lock(&mutex_);
  StoreSession* session = FindSessionLocked(id);
  const auto found =
      session == nullptr ? decltype(session->regions.end()){} : session->regions.find(region_id);
  if (session == nullptr || found == session->regions.end()) {
    deferred.Add(std::move(done));
    return;
  }
  region = std::move(found->second);
  session->regions.erase(found);
  --regions_;
  region_bytes_ -= region->memory.size();
  if (region->use.users == 0) {
    deferred.Add([region, done = std::move(done)]() mutable {
      region.reset();
      done();
    });
  } else {
    region->use.when_idle.push_back(std::move(done));
  }
}

absl::StatusOr<BlockStore::SlabGrant> Store::MapSlab(SessionId id, SlabId slab) {
  Lock lock(&mutex_);
  StoreSession* session = FindSessionLocked(id);
  if (session == nullptr || session->closed || !session->lease_right) {
    return absl::FailedPreconditionError("slabs are mapped by sessions with a pidfd");
  }
  const std::optional<SlabView> view = arena_->View(slab);
  const SlabMemory* memory = arena_->Find(slab);
  if (!view.has_value() || memory == nullptr || view->tenant != session->tenant) {
    return absl::NotFoundError("slab_id: not a slab of this tenant");
  }
  absl::StatusOr<Descriptor> descriptor = memory->descriptor().Duplicate();
  if (!descriptor.ok()) {
    return descriptor.status();
  }
  if (session->mapped.insert(slab).second) {
    ++slab_mappings_[slab];
  }
  return SlabGrant{std::move(*descriptor), view->bytes};
}

void Store::UnmapSlab(SessionId id, SlabId slab) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  StoreSession* session = FindSessionLocked(id);
  if (session != nullptr && session->mapped.erase(slab) != 0) {
    --slab_mappings_[slab];
    ReleaseRetiredLocked(deferred);
  }
}

}  // namespace terrace
