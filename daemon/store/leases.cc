// What keeps blocks where they are: locks, leases, holds, pins; and what takes them out of sight.
#include <algorithm>
#include <utility>

#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {

// ---------------------------------------------------------------- locks

void Store::LockBlockLocked(BlockId id) {
  Block& block = blocks_.at(id);
  if (++block.locks == 1 && block.state == BlockState::kReady) {
    pools_[block.pool]->policy->Lock(id);
  }
}

void Store::UnlockBlockLocked(BlockId id) {
  Block& block = blocks_.at(id);
  TERRACE_CHECK(block.locks > 0);
  if (--block.locks > 0) {
    return;
  }
  if (block.state == BlockState::kReady) {
    pools_[block.pool]->policy->Unlock(id);
  } else if (block.state == BlockState::kHidden && !flights_.contains(id)) {
    FreeBlockLocked(id);
  }
}

void Store::EnterReadyLocked(BlockId id, const GrowthTicket& ticket) {
  Block& block = blocks_.at(id);
  EvictionPolicy& policy = *pools_[block.pool]->policy;
  policy.Insert(id, NewcomerLocked(id, ticket));
  if (block.locks > 0) {
    policy.Lock(id);
  }
  block.state = BlockState::kReady;
  block.stored_ds = NowDeciseconds();
  block.touched_ds = block.stored_ds;
  KeepLocked(id, 0);
  if (local_budget_.limited() && !learns_) {
    local_budget_.Entered(index_.Hash(block.scope, block.key()));
  }
  Namespace& ns = NamespaceOf(block.scope);
  ++ns.blocks;
  ns.bytes += block.payload_bytes;
  payload_bytes_ += block.payload_bytes;
  ++TenantOf(ns.tenant).blocks;
}

void Store::HideLocked(BlockId id, PublishDrop why) {
  Block& block = blocks_.at(id);
  UnqueueLocked(block, why);
  if (block.state == BlockState::kHidden) {
    if (block.locks == 0 && !flights_.contains(id)) {
      FreeBlockLocked(id);
    }
    return;
  }
  if (block.pinned) {
    UnpinLocked(id);
  }
  index_.Erase(id);
  if (block.state == BlockState::kReady) {
    UnkeepLocked(block);
    if (events_.recording) {
      TellLeftDramLocked(block);
    }
    pools_[block.pool]->policy->Remove(id);
    Namespace& ns = NamespaceOf(block.scope);
    --ns.blocks;
    ns.bytes -= block.payload_bytes;
    payload_bytes_ -= block.payload_bytes;
    --TenantOf(ns.tenant).blocks;
  }
  block.state = BlockState::kHidden;
  if (block.locks == 0 && !flights_.contains(id)) {
    FreeBlockLocked(id);
  }
}

uint64_t Store::DramOfLocked(const Tenant& tenant) const {
  return tenant.limit_bytes == 0 ? options_.dram_bytes
                                 : std::min(tenant.limit_bytes, options_.dram_bytes);
}

// ---------------------------------------------------------------- leases

// Takes over the transfer locks' place: the blocks are locked once more each.
Digest128 Store::GrantLeaseLocked(const Caller& caller, std::vector<BlockId> blocks) {
  const Digest128 id = RandomId();
  Lease& lease = leases_[id];
  lease.session = caller.session;
  lease.tenant = caller.tenant;
  StoreSession& session = *FindSessionLocked(caller.session);
  for (const BlockId block : blocks) {
    if (block == kNoBlock) {
      continue;
    }
    LockBlockLocked(block);
    Block& entry = blocks_.at(block);
    ++entry.leases;
    ++lease.live;
    NoteLeaseLocked(entry, 1);
    const uint64_t bytes = pools_[entry.pool]->slot_bytes;
    session.leased_bytes += bytes;
    TenantOf(caller.tenant).leased_bytes += bytes;
    leased_bytes_ += bytes;
    ++leased_blocks_;
    if (session.mapped.insert(entry.slab).second) {
      ++slab_mappings_[entry.slab];
    }
  }
  lease.blocks = std::move(blocks);
  session.leases.insert(id);
  return id;
}

void Store::DropLeasedBlockLocked(Lease& lease, size_t position) {
  const BlockId block = std::exchange(lease.blocks[position], kNoBlock);
  if (block == kNoBlock) {
    return;
  }
  Block& entry = blocks_.at(block);
  --entry.leases;
  --lease.live;
  NoteLeaseLocked(entry, -1);
  const uint64_t bytes = pools_[entry.pool]->slot_bytes;
  FindSessionLocked(lease.session)->leased_bytes -= bytes;
  TenantOf(lease.tenant).leased_bytes -= bytes;
  leased_bytes_ -= bytes;
  --leased_blocks_;
  UnlockBlockLocked(block);
}

void Store::EndLeaseLocked(const Digest128& id) {
  const auto found = leases_.find(id);
  TERRACE_CHECK(found != leases_.end());
  for (size_t i = 0; i < found->second.blocks.size(); ++i) {
    DropLeasedBlockLocked(found->second, i);
  }
  FindSessionLocked(found->second.session)->leases.erase(id);
  leases_.erase(found);
}

// ---------------------------------------------------------------- holds

Digest128 Store::GrantHoldLocked(const Caller& caller,
                                 absl::Duration expiry,
                                 std::vector<BlockId> blocks) {
  Tenant& tenant = TenantOf(caller.tenant);
  StoreSession* session = FindSessionLocked(caller.session);
  if (tenant.holds >= options_.max_holds_per_tenant || (session != nullptr && session->closed)) {
    return {};
  }
  const Digest128 id = RandomId();
  for (const BlockId block : blocks) {
    LockBlockLocked(block);
    ++blocks_.at(block).holds;
  }
  holds_.emplace(id, Hold{caller.session, caller.tenant, expiry, std::move(blocks)});
  hold_expiries_.emplace(expiry, id);
  ++tenant.holds;
  if (session != nullptr) {
    session->holds.insert(id);
  }
  return id;
}

void Store::AddToHoldLocked(const Digest128& id, BlockId block) {
  const auto found = holds_.find(id);
  if (found == holds_.end()) {
    return;
  }
  LockBlockLocked(block);
  ++blocks_.at(block).holds;
  found->second.blocks.push_back(block);
}

void Store::EndHoldLocked(const Digest128& id) {
  const auto found = holds_.find(id);
  if (found == holds_.end()) {
    return;
  }
  for (const BlockId block : found->second.blocks) {
    --blocks_.at(block).holds;
    UnlockBlockLocked(block);
  }
  --TenantOf(found->second.tenant).holds;
  if (StoreSession* session = FindSessionLocked(found->second.session); session != nullptr) {
    session->holds.erase(id);
  }
  const auto [begin, end] = hold_expiries_.equal_range(found->second.expiry);
  for (auto at = begin; at != end; ++at) {
    if (at->second == id) {
      hold_expiries_.erase(at);
      break;
    }
  }
  holds_.erase(found);
}

ReleaseResult Store::Release(const Caller& caller,
                             absl::Span<const LeaseRelease> leases,
                             absl::Span<const Digest128> holds) {
  ReleaseResult result;
  Lock lock(&mutex_);
  for (const LeaseRelease& release : leases) {
    const auto found = leases_.find(release.lease_id);
    if (found == leases_.end() || found->second.session != caller.session ||
        caller.session == kNoSession) {
      ++result.not_found;
      continue;
    }
    for (const uint32_t position : release.key_positions) {
      if (position < found->second.blocks.size()) {
        DropLeasedBlockLocked(found->second, position);
      }
    }
    if (release.key_positions.empty() || found->second.live == 0) {
      EndLeaseLocked(release.lease_id);
    }
    ++result.released;
  }
  for (const Digest128& hold : holds) {
    const auto found = holds_.find(hold);
    if (found == holds_.end() || found->second.tenant != caller.tenant) {
      ++result.not_found;
      continue;
    }
    EndHoldLocked(hold);
    ++result.released;
  }
  return result;
}

// ---------------------------------------------------------------- pins

absl::StatusOr<PinResult> Store::Pin(const Caller& caller,
                                     const StorePart& part,
                                     absl::Duration ttl) {
  Lock lock(&mutex_);
  if (FindNamespaceLocked(caller.tenant, part.namespace_digest) == nullptr) {
    return absl::NotFoundError("part.namespace_digest: not opened by this tenant");
  }
  Tenant& tenant = TenantOf(caller.tenant);
  PinResult result;
  result.budget_bytes =
      static_cast<uint64_t>(static_cast<double>(DramOfLocked(tenant)) * options_.pin_share);
  StorePart every = part;
  every.rule = Rule::kIndependent;
  std::vector<BlockId> found;
  FindPartLocked(caller.tenant, every, found);
  for (const BlockId block : found) {
    Reason reason = Reason::kNone;
    if (block == kNoBlock || blocks_.at(block).state != BlockState::kReady) {
      reason = Reason::kNotPresent;
    } else if (Block& entry = blocks_.at(block); !entry.pinned) {
      const uint64_t bytes = pools_[entry.pool]->slot_bytes;
      if (tenant.pinned_bytes + bytes > result.budget_bytes) {
        reason = Reason::kQuota;
      } else {
        entry.pinned = true;
        tenant.pinned_bytes += bytes;
        LockBlockLocked(block);
        if (ttl > absl::ZeroDuration()) {
          pin_expiries_.emplace(clock_.Now() + ttl, std::make_pair(block, entry.serial));
        }
      }
    }
    result.reasons.push_back(static_cast<char>(reason));
  }
  result.pinned_bytes = tenant.pinned_bytes;
  return result;
}

void Store::UnpinLocked(BlockId id) {
  Block& block = blocks_.at(id);
  block.pinned = false;
  TenantOf(NamespaceOf(block.scope).tenant).pinned_bytes -= pools_[block.pool]->slot_bytes;
  UnlockBlockLocked(id);
}

absl::StatusOr<uint32_t> Store::Unpin(const Caller& caller, const StorePart& part) {
  Lock lock(&mutex_);
  if (FindNamespaceLocked(caller.tenant, part.namespace_digest) == nullptr) {
    return absl::NotFoundError("part.namespace_digest: not opened by this tenant");
  }
  StorePart every = part;
  every.rule = Rule::kIndependent;
  std::vector<BlockId> found;
  FindPartLocked(caller.tenant, every, found);
  uint32_t unpinned = 0;
  for (const BlockId block : found) {
    if (block != kNoBlock && blocks_.at(block).pinned) {
      UnpinLocked(block);
      ++unpinned;
    }
  }
  return unpinned;
}

}  // namespace terrace
