// Room: slots, eviction, and slabs that move between block sizes and tenants.
#include <algorithm>
#include <limits>
#include <utility>

#include "daemon/store/store.h"
#include "tiers/copy/one_pass.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kAcquireTries = 64;
constexpr uint32_t kStealEvery = 64;    // evictions between looks at other pools
constexpr uint32_t kValueSamples = 32;  // slots sampled for the value of a slab
constexpr uint32_t kMovedShare = 4;     // at most one in so many slots of an emptied slab moves

}  // namespace

absl::Span<char> Store::PayloadLocked(const Block& block) const {
  return arena_->Payload({block.slab, block.slot});
}

uint16_t Store::PoolForLocked(TenantId tenant, uint64_t slot_bytes) {
  Tenant& owner = TenantOf(tenant);
  if (const auto found = owner.pools.find(slot_bytes); found != owner.pools.end()) {
    return found->second;
  }
  auto policy = MakeEvictionPolicy(options_.policy, recency_);
  TERRACE_CHECK(policy.ok());  // the name was checked at creation
  auto pool = std::make_unique<Pool>();
  pool->tenant = tenant;
  pool->slot_bytes = slot_bytes;
  pool->policy = std::move(*policy);
  const auto index = static_cast<uint16_t>(pools_.size());
  pools_.push_back(std::move(pool));
  owner.pools.emplace(slot_bytes, index);
  return index;
}

void Store::AttachSlotLocked(BlockId id, SlotRef ref) {
  Block& block = blocks_.at(id);
  block.slab = ref.slab;
  block.slot = ref.slot;
  block.has_slot = true;
  std::vector<BlockId>& residents = slab_blocks_[ref.slab];
  if (residents.size() <= ref.slot) {
    residents.resize(arena_->View(ref.slab)->slot_count, kNoBlock);
  }
  residents[ref.slot] = id;
  KeepSlabLocked(ref.slab);
  TenantOf(NamespaceOf(block.scope).tenant).used_bytes += arena_->SlotBytes(ref);
}

void Store::DetachSlotLocked(BlockId id) {
  Block& block = blocks_.at(id);
  const SlotRef ref{block.slab, block.slot};
  TenantOf(NamespaceOf(block.scope).tenant).used_bytes -= arena_->SlotBytes(ref);
  slab_blocks_[ref.slab][ref.slot] = kNoBlock;
  arena_->Free(ref);
  block.has_slot = false;
  if (IsKeptLocked(block) && arena_->View(ref.slab)->used_slots == 0) {
    keep_.emptied.insert(ref.slab);
  }
}

void Store::FreeBlockLocked(BlockId id) {
  Block& block = blocks_.at(id);
  const ScopeId scope = block.scope;
  counters_.return_bytes_wasted += block.fetched_ahead * uint64_t{block.payload_bytes};
  if (block.has_slot) {
    DetachSlotLocked(id);
  }
  blocks_.Remove(id);
  UnuseScopeLocked(scope);
}

std::optional<Reason> Store::AcquireSlot(BlockId id,
                                         uint64_t payload_bytes,
                                         const GrowthTicket& ticket,
                                         const RoomRequest& request) {
  const uint64_t slot_bytes = SlotBytesFor(payload_bytes);
  for (uint32_t attempt = 0; attempt < kAcquireTries; ++attempt) {
    TenantId tenant{0};
    uint16_t pool = 0;
    Room room = Room::kNone;
    double bar = std::numeric_limits<double>::infinity();
    {
      DeferredCalls deferred;
      Lock lock(&mutex_);
      tenant = NamespaceOf(blocks_.at(id).scope).tenant;
      pool = PoolForLocked(tenant, slot_bytes);
      blocks_.at(id).pool = pool;
      SlotRef ref;
      room =
          TryAllocateLocked(tenant, slot_bytes, learns_ ? NewcomerLocked(id, ticket) : Newcomer{},
                            request.give_up, &ref, deferred);
      if (room == Room::kSlot) {
        AttachSlotLocked(id, ref);
        return Reason::kNone;
      }
      if (room == Room::kWait) {
        ++counters_.room_waits;
        room_waiters_.push_back(request);
        return std::nullopt;
      }
      const BlockId victim = pools_[blocks_.at(id).pool]->policy->Victim();
      if (victim != kNoBlock) {
        bar = pools_[blocks_.at(id).pool]->policy->Value(victim);
      }
    }
    switch (room) {
      case Room::kRenewSlab:
        if (const auto done = RenewSlab(pool, request); done != Reason::kNone) {
          return done;
        }
        break;
      case Room::kSlot:
      case Room::kQuota:
        return Reason::kQuota;
      case Room::kDeclined:
        return Reason::kAdmission;
      case Room::kWait:
      case Room::kNone:
        return Reason::kNoSpace;
      case Room::kMakeMemory:
      case Room::kTakeSlab:
        if (room == Room::kMakeMemory && MakeMemory(slot_bytes)) {
          break;
        }
        const Taking taking = TakeSlab(tenant, slot_bytes, bar, request, Whose::kAnyones);
        if (taking == Taking::kWait) {
          return std::nullopt;
        }
        // With victims of its own the pool can go on without another slab.
        if (taking == Taking::kNone &&
            (room == Room::kMakeMemory || bar == std::numeric_limits<double>::infinity())) {
          return Reason::kNoSpace;
        }
        break;
    }
  }
  return Reason::kNoSpace;
}

Room Store::TryAllocateLocked(TenantId tenant,
                              uint64_t slot_bytes,
                              const Newcomer& newcomer,
                              absl::Duration give_up,
                              SlotRef* out,
                              DeferredCalls& deferred) {
  Tenant& owner = TenantOf(tenant);
  while (owner.limit_bytes != 0 && owner.used_bytes + slot_bytes > owner.limit_bytes) {
    const BlockId victim = OldestOfTenantLocked(tenant);
    if (victim == kNoBlock) {
      return !SlotsAreKeptLocked() || clock_.Now() >= give_up ? Room::kQuota : Room::kWait;
    }
    if (!ReadyToEvictLocked(victim, give_up, deferred)) {
      return Room::kWait;
    }
    EvictFamilyLocked(victim, give_up, deferred);
  }
  const auto take = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const std::optional<SlotRef> ref = arena_->Allocate(tenant, slot_bytes);
    if (ref.has_value()) {
      *out = *ref;
    }
    return ref.has_value();
  };
  if (take()) {
    return Room::kSlot;
  }
  RetireEmptiedLocked(deferred);
  const uint64_t slab_bytes = SlabBytesFor(slot_bytes);
  if (FreeSlabAllowedLocked(tenant, slab_bytes)) {
    if (arena_->TakeFreeSlab(tenant, slot_bytes) && take()) {
      return Room::kSlot;
    }
    if (arena_->HeadroomBytes() + arena_->FreeSlabs() * kMinSlabBytes >= slab_bytes) {
      return Room::kMakeMemory;
    }
  }
  Pool& pool = *pools_[PoolForLocked(tenant, slot_bytes)];
  EvictionPolicy& policy = *pool.policy;
  const BlockId victim = policy.Victim();
  // With room of its own to turn over, a pool looks at the others only now and then.
  if (victim == kNoBlock) {
    return Room::kTakeSlab;
  }
  // Looked at before the decision to evict, so that the victims behind it are on their way too.
  if (clock_.Now() < give_up) {
    WriteAheadLocked(pool, deferred);
  }
  if (pools_.size() > 1 && ++steal_turn_ % kStealEvery == 0 &&
      CheapestSlabLocked(tenant, slot_bytes, policy.Value(victim)).has_value()) {
    return Room::kTakeSlab;
  }
  // What is worth less than all of DRAM may be worth its place below, and goes there through DRAM;
  // what comes from there was asked for.
  if (lower_tiers_.empty() && !policy.Admits(newcomer)) {
    return Room::kDeclined;
  }
  // Its slot could not be given to anything else.
  if (IsKeptLocked(blocks_.at(victim))) {
    return Room::kRenewSlab;
  }
  // It may be among those whose writes have just begun, whatever the time is by now.
  if (blocks_.at(victim).locks > 0 || !ReadyToEvictLocked(victim, give_up, deferred)) {
    return Room::kWait;
  }
  returns_.NoteEvicted(absl::Milliseconds(100) *
                       (NowDeciseconds() - blocks_.at(victim).touched_ds));
  EvictFamilyLocked(victim, give_up, deferred);
  return take() ? Room::kSlot : Room::kTakeSlab;
}

// A tenant below its guarantee may always have a free slab; one above it only if what is left
// covers the guarantees of the others.
bool Store::FreeSlabAllowedLocked(TenantId tenant, uint64_t slab_bytes) {
  const uint64_t mine = arena_->assigned_bytes(tenant) + slab_bytes;
  if (mine <= TenantOf(tenant).guaranteed_bytes) {
    return true;
  }
  uint64_t owed = 0;
  for (uint32_t i = 0; i < tenants_.size(); ++i) {
    const uint64_t has = arena_->assigned_bytes(TenantId{i});
    const uint64_t due = tenants_[i]->guaranteed_bytes;
    owed += TenantId{i} != tenant && due > has ? due - has : 0;
  }
  const uint64_t left = arena_->HeadroomBytes() + arena_->FreeSlabs() * kMinSlabBytes;
  return owed == 0 || left >= owed + slab_bytes;
}

BlockId Store::OldestOfTenantLocked(TenantId tenant) {
  BlockId oldest = kNoBlock;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [slot_bytes, pool] : TenantOf(tenant).pools) {
    const BlockId victim = pools_[pool]->policy->Victim();
    if (victim != kNoBlock && pools_[pool]->policy->Value(victim) < least) {
      least = pools_[pool]->policy->Value(victim);
      oldest = victim;
    }
  }
  return oldest;
}

// ---------------------------------------------------------------- eviction

void Store::EvictLocked(BlockId id) {
  const Block& block = blocks_.at(id);
  TERRACE_CHECK(block.locks == 0 && block.state == BlockState::kReady);
  ++counters_.evictions;
  counters_.evicted_bytes += block.payload_bytes;
  const uint32_t idle_s = (NowDeciseconds() - block.touched_ds) / 10;
  size_t bucket = 0;
  while (bucket + 1 < counters_.eviction_age_log2_s.size() && idle_s >= (uint32_t{1} << bucket)) {
    ++bucket;
  }
  ++counters_.eviction_age_log2_s[bucket];
  TellLocalOfEvictionLocked(block);
  TellOutletsOfEvictionLocked(block);
  HideLocked(id, PublishDrop::kEvicted);
}

// Shards and groups of one prefix are of use only together, so they go together; but for those that
// are not written yet.
void Store::EvictFamilyLocked(BlockId id, absl::Duration give_up, DeferredCalls& deferred) {
  const std::vector<BlockId> siblings = SiblingsLocked(id);
  EvictLocked(id);
  for (const BlockId block : siblings) {
    if (blocks_.at(block).locks == 0 && ReadyToEvictLocked(block, give_up, deferred)) {
      EvictLocked(block);
    }
  }
}

std::vector<BlockId> Store::SiblingsLocked(BlockId id) {
  std::vector<BlockId> siblings;
  const Scope& scope = scopes_[static_cast<uint32_t>(blocks_.at(id).scope)];
  const Namespace& ns = *namespaces_[static_cast<uint32_t>(scope.ns)];
  const std::vector<NamespaceId>& family = families_.at(ns.family);
  if (family.size() == 1) {
    return siblings;
  }
  std::string stem(blocks_.at(id).key());
  const bool has_suffix =
      stem.size() > ns.record.key_suffix.size() && stem.ends_with(ns.record.key_suffix);
  stem.resize(has_suffix ? stem.size() - ns.record.key_suffix.size() : stem.size());
  for (const NamespaceId member : family) {
    const Namespace& sibling = *namespaces_[static_cast<uint32_t>(member)];
    const auto found = scope_ids_.find(ScopeName{member, sibling.generation, scope.salt});
    if (member == scope.ns || found == scope_ids_.end()) {
      continue;
    }
    const BlockId block = index_.Find(found->second, stem + sibling.record.key_suffix);
    if (block != kNoBlock && blocks_.at(block).state == BlockState::kReady) {
      siblings.push_back(block);
    }
  }
  return siblings;
}

// ---------------------------------------------------------------- slabs

// Makes a slab of the size that this class needs, giving up free slabs of the usual size for it.
// True: it is worth looking again, for what was made here, or by another thread of the same room.
bool Store::MakeMemory(uint64_t slot_bytes) {
  const uint64_t bytes = SlabBytesFor(slot_bytes);
  std::vector<std::unique_ptr<SlabMemory>> given_up;
  {
    Lock lock(&mutex_);
    while (arena_->HeadroomBytes() < bytes) {
      std::unique_ptr<SlabMemory> memory = arena_->RemoveFree();
      if (memory == nullptr) {
        break;
      }
      given_up.push_back(std::move(memory));
    }
  }
  given_up.clear();
  absl::StatusOr<std::unique_ptr<SlabMemory>> memory = slabs_.Make(bytes);
  Lock lock(&mutex_);
  if (memory.ok() && arena_->HeadroomBytes() >= bytes) {
    arena_->InstallFree(std::move(*memory));
  }
  return memory.ok();
}

double Store::SlabValueLocked(const SlabView& slab) {
  const std::vector<BlockId>& residents = slab_blocks_[slab.id];
  const size_t step = std::max<size_t>(1, residents.size() / kValueSamples);
  double sum = 0;
  uint32_t samples = 0;
  for (size_t i = 0; i < residents.size(); i += step) {
    ++samples;
    if (residents[i] != kNoBlock && blocks_.at(residents[i]).state == BlockState::kReady) {
      sum += pools_[blocks_.at(residents[i]).pool]->policy->Value(residents[i]);
    }
  }
  return samples == 0 ? 0 : sum / samples;
}

bool Store::IsBusyLocked(SlabId slab) {
  const std::vector<BlockId>& residents = slab_blocks_[slab];
  return std::any_of(residents.begin(), residents.end(),
                     [this](BlockId block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                       return block != kNoBlock && (blocks_.at(block).locks > 0 ||
                                                    blocks_.at(block).state != BlockState::kReady);
                     });
}

std::optional<SlabView> Store::CheapestSlabLocked(TenantId tenant,
                                                  uint64_t slot_bytes,
                                                  double bar) {
  std::optional<SlabView> cheapest;
  double least = bar;
  for (const SlabView& slab : arena_->Slabs()) {
    const bool own = slab.tenant == tenant;
    if (slab.retired || keep_.held.contains(slab.id) ||
        (own && (slab.slot_bytes == slot_bytes || slab.bytes < slot_bytes))) {
      continue;
    }
    const Tenant& owner = TenantOf(slab.tenant);
    if (!own && arena_->assigned_bytes(slab.tenant) < owner.guaranteed_bytes + slab.bytes) {
      continue;
    }
    const double value = SlabValueLocked(slab);
    if (value >= least) {
      continue;
    }
    if (!IsBusyLocked(slab.id)) {
      least = value;
      cheapest = slab;
    }
  }
  return cheapest;
}

// Takes the slab worth least away from another block size or tenant.
Taking Store::TakeSlab(
    TenantId tenant, uint64_t slot_bytes, double bar, const RoomRequest& request, Whose whose) {
  DeferredCalls deferred;
  bool retired = false;
  {
    Lock lock(&mutex_);
    const bool renew = whose == Whose::kOwnKept;
    const bool renewing = renew && IsRenewingLocked(tenant);
    if (renewing && clock_.Now() >= request.give_up) {
      return Taking::kNone;
    }
    const std::optional<SlabView> slab =
        renew ? KeptSlabToRenewLocked(tenant) : CheapestSlabLocked(tenant, slot_bytes, bar);
    // Slabs whose blocks are being written cannot be taken yet.
    const bool wait =
        renewing || (slab.has_value() ? !SlabIsReadyToGoLocked(*slab, request.give_up, deferred)
                                      : SlotsAreKeptLocked() && clock_.Now() < request.give_up &&
                                            bar == std::numeric_limits<double>::infinity());
    if (wait) {
      ++counters_.room_waits;
      room_waiters_.push_back(request);
      return Taking::kWait;
    }
    if (!slab.has_value()) {
      return Taking::kNone;
    }
    if (!renew) {
      MoveOutLocked(*slab, request.give_up, deferred);
    }
    if (!EmptySlabLocked(*slab)) {
      return Taking::kNone;
    }
    slab_blocks_.erase(slab->id);
    if (slab->kept) {
      keep_.last_renewal = clock_.Now();
    }
    if (slab->tenant == tenant && !slab->kept) {
      ++counters_.slabs_recut;
      if (const uint32_t index = KeptIndexLocked(slab->id); index != SlabDirectory::kNone) {
        keep_.directory->SetSlotBytes(index, slot_bytes);
      }
      return arena_->Recut(slab->id, slot_bytes) ? Taking::kTaken : Taking::kNone;
    }
    RetireSlabLocked(*slab, deferred);
    retired = true;
  }
  deferred.Run();
  std::vector<DyingSlab> dying;
  {
    Lock lock(&mutex_);
    dying.swap(dying_memory_);
  }
  Bury(std::move(dying));  // before new memory is made, so that the capacity holds
  return retired && MakeMemory(slot_bytes) ? Taking::kTaken : Taking::kNone;
}

bool Store::SlabIsReadyToGoLocked(const SlabView& slab,
                                  absl::Duration give_up,
                                  DeferredCalls& deferred) {
  bool ready = true;
  const std::vector<BlockId> residents = slab_blocks_[slab.id];
  for (const BlockId id : residents) {
    if (id != kNoBlock && blocks_.at(id).state == BlockState::kReady) {
      ready = ReadyToEvictLocked(id, give_up, deferred) && ready;
    }
  }
  return ready;
}

// What is worth more than the coldest blocks elsewhere in its pool takes their slots. A slab's
// blocks are all of one pool.
void Store::MoveOutLocked(const SlabView& slab, absl::Duration give_up, DeferredCalls& deferred) {
  std::vector<BlockId> best;  // by value, the most valuable last
  for (const BlockId id : slab_blocks_[slab.id]) {
    if (id != kNoBlock && blocks_.at(id).state == BlockState::kReady && blocks_.at(id).locks == 0) {
      best.push_back(id);
    }
  }
  if (best.empty()) {
    return;
  }
  EvictionPolicy& policy = *pools_[blocks_.at(best.front()).pool]->policy;
  std::sort(best.begin(), best.end(),
            [&policy](BlockId a, BlockId b) { return policy.Value(a) < policy.Value(b); });
  uint32_t budget = slab.slot_count / kMovedShare;
  std::vector<SlotRef> inside;  // free slots of this very slab: kept busy until the end
  size_t cold = 0;              // best[0, cold) has been evicted
  while (cold < best.size() && budget > 0) {
    const BlockId victim = policy.Victim();
    if (victim == kNoBlock) {
      break;
    }
    if (blocks_.at(victim).slab == slab.id) {
      if (victim != best[cold]) {
        break;  // no longer in the order seen above
      }
      EvictLocked(victim);
      ++cold;
      continue;
    }
    const BlockId kept = best.back();
    if (policy.Value(victim) >= policy.Value(kept) ||
        !ReadyToEvictLocked(victim, give_up, deferred)) {
      break;
    }
    EvictLocked(victim);
    if (!MoveBlockLocked(kept, slab, inside)) {
      break;
    }
    best.pop_back();
    --budget;
  }
  for (const SlotRef& ref : inside) {
    arena_->Free(ref);
  }
}

bool Store::MoveBlockLocked(BlockId id, const SlabView& from, std::vector<SlotRef>& inside) {
  std::optional<SlotRef> target = arena_->Allocate(from.tenant, from.slot_bytes);
  while (target.has_value() && target->slab == from.id) {
    inside.push_back(*target);
    target = arena_->Allocate(from.tenant, from.slot_bytes);
  }
  if (!target.has_value()) {
    return false;
  }
  const Block& block = blocks_.at(id);
  const Piece to{arena_->Payload(*target).data(), block.payload_bytes};
  CopyOut(PayloadLocked(block).first(block.payload_bytes), {&to, 1});
  const uint64_t sequence = UnkeepLocked(block);
  DetachSlotLocked(id);
  AttachSlotLocked(id, *target);
  KeepLocked(id, sequence);
  return true;
}

bool Store::EmptySlabLocked(const SlabView& slab) {
  const std::vector<BlockId> residents = slab_blocks_[slab.id];
  for (const BlockId id : residents) {
    if (id != kNoBlock && blocks_.at(id).state == BlockState::kReady && blocks_.at(id).locks == 0) {
      EvictLocked(id);
    }
  }
  return arena_->View(slab.id)->used_slots == 0;
}

void Store::RetireSlabLocked(const SlabView& slab, DeferredCalls& deferred) {
  ++counters_.slabs_retired;
  arena_->Retire(slab.id);
  if (observer_ != nullptr) {
    for (const auto& [id, session] : sessions_) {
      if (session.mapped.contains(slab.id) && !session.closed) {
        deferred.Add([observer = observer_, session_id = id, slab_id = slab.id] {
          observer->SlabRetired(session_id, slab_id);
        });
      }
    }
  }
  ReleaseRetiredLocked(deferred);
}

// Retired slabs that no session of their tenant can still map are given back to the system.
void Store::ReleaseRetiredLocked(DeferredCalls& deferred) {
  for (const SlabView& slab : arena_->Slabs()) {
    const auto mappings = slab_mappings_.find(slab.id);
    if (slab.retired && (mappings == slab_mappings_.end() || mappings->second == 0)) {
      slab_mappings_.erase(slab.id);
      dying_memory_.push_back(DropSlabLocked(slab.id));
      if (slab.kept) {
        WakeRoomWaitersLocked(room_waiters_.size(), deferred);
      }
    }
  }
}

}  // namespace terrace
