// What goes to the shared tiers, by policy or because somebody waits for it.
//
// What waits for its turn by policy is not locked, and is dropped when it is evicted first; a block
// is locked while the tier copies it, and outlives its publication or not. A pool that is sick is
// not waited for: nothing is offered for a while to one that refused, that does not get on, or that
// is not there.
#include <algorithm>
#include <atomic>
#include <utility>

#include <fnmatch.h>

#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kMaxPublishing = 64;  // to one tier, whose slots it has not copied yet
// Copied or not. What is copied only waits to be named, which happens for many at a time.
constexpr uint32_t kMaxUnnamed = 4096;
// Blocks being copied by one tier keep at most this share of DRAM from eviction, or one block.
constexpr uint64_t kKeptShare = 8;
constexpr uint32_t kQueueSlice = 4096;  // entries of a queue looked at under one lock
// Of a block that a busy tier refuses; the second where somebody waits for it.
constexpr uint32_t kMaxTries = 8;
constexpr uint32_t kMaxAwaitedTries = 64;
constexpr absl::Duration kPublishCap = absl::Seconds(30);
constexpr absl::Duration kBusyMemory = absl::Milliseconds(100);
constexpr absl::Duration kFaultMemory = absl::Seconds(1);
// A tier that keeps slots and has given none back for so long is not offered more.
constexpr absl::Duration kStall = absl::Seconds(1);
constexpr absl::Duration kLookInterval = absl::Milliseconds(50);  // at the tiers' states

bool IsTooLargeFor(const Outlet& outlet, const Block& block) {
  return outlet.policy.max_payload_bytes > 0 &&
         block.payload_bytes > outlet.policy.max_payload_bytes;
}

PublishDrop DropFrom(WriteOutcome outcome) {
  switch (outcome) {
    case WriteOutcome::kBusy:
      return PublishDrop::kBusy;
    case WriteOutcome::kNoSpace:
      return PublishDrop::kNoSpace;
    case WriteOutcome::kDeadline:
      return PublishDrop::kDeadline;
    case WriteOutcome::kDeleted:
      return PublishDrop::kDeleted;
    case WriteOutcome::kClosed:
      return PublishDrop::kClosed;
    default:
      return PublishDrop::kFault;
  }
}

// How long the tier is left alone after the outcome; zero: it is not.
absl::Duration MemoryOf(WriteOutcome outcome) {
  switch (outcome) {
    case WriteOutcome::kBusy:
      return kBusyMemory;
    case WriteOutcome::kNoSpace:
    case WriteOutcome::kReadOnly:
    case WriteOutcome::kFault:
    case WriteOutcome::kDeadline:
    case WriteOutcome::kClosed:
      return kFaultMemory;
    default:
      return absl::ZeroDuration();
  }
}

uint8_t BitOf(PublishWhen when) {
  return static_cast<uint8_t>(1U << static_cast<uint8_t>(when));
}

// A bit an outlet. `wanted`: nullopt: as each of them says.
uint8_t OutletsThatPublish(const std::vector<Outlet>& outlets,
                           std::optional<PublishWhen> wanted,
                           PublishWhen when) {
  uint32_t mask = 0;
  for (size_t i = 0; i < outlets.size(); ++i) {
    mask |= wanted.value_or(outlets[i].policy.publish) == when ? 1U << i : 0U;
  }
  return static_cast<uint8_t>(mask);
}

bool HasRoom(const Outlet& outlet) {
  return outlet.kept_slots + outlet.urgent.size() < kMaxPublishing;
}

}  // namespace

std::vector<Outlet> MakeOutlets(const BlockStoreOptions& options, const BlockStore::Parts& parts) {
  TERRACE_CHECK(parts.shared.size() <= kMaxSharedTiers);
  std::vector<Outlet> outlets(parts.shared.size());
  for (size_t i = 0; i < outlets.size(); ++i) {
    outlets[i].tier = parts.shared[i];
    outlets[i].policy = i < options.shared.size() ? options.shared[i] : SharedTierPolicy{};
    outlets[i].hits_index = static_cast<uint32_t>(i + (parts.local == nullptr ? 1 : 2));
    outlets[i].state = parts.shared[i]->figures().state;
  }
  return outlets;
}

// ---------------------------------------------------------------- policy

void Store::SetPublishing(TenantId tenant, std::optional<PublishWhen> publish) {
  Lock lock(&mutex_);
  TenantOf(tenant).publish = publish;
}

void Store::SetNamespaceRules(std::vector<NamespaceRule> rules) {
  Lock lock(&mutex_);
  namespace_rules_ = std::move(rules);
  for (const std::unique_ptr<Namespace>& ns : namespaces_) {
    if (ns != nullptr) {
      RuleNamespaceLocked(*ns);
    }
  }
}

void Store::RuleNamespaceLocked(Namespace& ns) {
  Tenant& tenant = TenantOf(ns.tenant);
  ns.publish.reset();
  std::optional<RecomputeModel> recompute;
  for (const NamespaceRule& rule : namespace_rules_) {
    if ((rule.tenant.empty() || rule.tenant == tenant.alias) &&
        fnmatch(rule.model.c_str(), ns.record.model.c_str(), 0) == 0) {
      if (!ns.publish.has_value() && rule.publish.has_value()) {
        ns.publish = rule.publish;
        tenant.ruled |= BitOf(*rule.publish);
      }
      recompute = recompute.has_value() ? recompute : rule.recompute;
    }
  }
  costs_.Declare(ns.digest, recompute);
}

uint8_t Store::OutletsWithLocked(const Namespace& ns, PublishWhen when) {
  return OutletsThatPublish(outlets_, ns.publish ? ns.publish : TenantOf(ns.tenant).publish, when);
}

Outlet* Store::LevelOutletLocked(const Block& block) {
  const uint8_t never = OutletsWithLocked(NamespaceOf(block.scope), PublishWhen::kNever);
  for (size_t i = 0; i < outlets_.size(); ++i) {
    if ((never >> i & 1U) == 0 && !IsTooLargeFor(outlets_[i], block)) {
      return &outlets_[i];
    }
  }
  return nullptr;
}

bool Store::PublishesLocked(TenantId tenant, PublishWhen when) {
  const Tenant& its = TenantOf(tenant);
  return !outlets_.empty() &&
         ((its.ruled & BitOf(when)) != 0 || OutletsThatPublish(outlets_, its.publish, when) != 0);
}

bool Store::PoolHasLocked(const Block& block) {
  if (outlets_.empty()) {
    return false;
  }
  const BlockIdentity identity = IdentityOfLocked(block);
  return std::any_of(outlets_.begin(), outlets_.end(), [&](const Outlet& outlet) {
    return outlet.tier->Holds(identity) || outlet.publications.contains(LocalName(identity));
  });
}

void Store::OfferLocked(BlockId id, uint8_t mask) {
  Block& block = blocks_.at(id);
  for (size_t i = 0; i < outlets_.size(); ++i) {
    const auto bit = static_cast<uint8_t>(1U << i);
    if ((mask & bit) == 0 || (block.offered_to & bit) != 0 || block.from_pool) {
      continue;
    }
    block.offered_to |= bit;
    Outlet& outlet = outlets_[i];
    if (IsTooLargeFor(outlet, block)) {
      ++outlet.drops[static_cast<size_t>(PublishDrop::kTooLarge)];
      continue;
    }
    if (outlet.queue.size() >= outlet.policy.max_queue &&
        outlet.queued <= outlet.policy.max_queue / 2) {
      std::erase_if(outlet.queue,
                    [this, bit](const auto& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
                      const Block& queued = blocks_.at(entry.first);
                      return queued.serial != entry.second || (queued.queued_to & bit) == 0;
                    });
    }
    if (outlet.queue.size() >= outlet.policy.max_queue) {
      ++outlet.drops[static_cast<size_t>(PublishDrop::kQueueFull)];
      continue;
    }
    block.queued_to |= bit;
    ++outlet.queued;
    outlet.queue.emplace_back(id, block.serial);
  }
}

void Store::NoteReuseLocked(absl::Span<const BlockId> blocks) {
  for (size_t i = 0; !outlets_.empty() && i < blocks.size(); ++i) {
    const Namespace& ns = NamespaceOf(blocks_.at(blocks[i]).scope);
    if (const uint8_t mask = OutletsWithLocked(ns, PublishWhen::kOnReuse); mask != 0) {
      OfferLocked(blocks[i], mask);
    }
  }
}

void Store::UnqueueLocked(Block& block, PublishDrop why) {
  for (size_t i = 0; block.queued_to != 0 && i < outlets_.size(); ++i) {
    const auto bit = static_cast<uint8_t>(1U << i);
    if ((block.queued_to & bit) == 0) {
      continue;
    }
    Outlet& outlet = outlets_[i];
    block.queued_to = static_cast<uint8_t>(block.queued_to & ~bit);
    --outlet.queued;
    const bool away = why == PublishDrop::kEvicted && !Serves(outlet.state);
    ++outlet.drops[static_cast<size_t>(away ? PublishDrop::kSuspended : why)];
  }
}

// ---------------------------------------------------------------- one publication

bool Store::CanPublishLocked(const Outlet& outlet) const {
  return Serves(outlet.state) && clock_.Now() >= outlet.refused_until &&
         outlet.kept_slots < kMaxPublishing && outlet.running < kMaxUnnamed &&
         (outlet.kept_slot_bytes == 0 || outlet.kept_slot_bytes < options_.dram_bytes / kKeptShare);
}

void Store::RequestPublishLocked(Outlet& outlet,
                                 BlockId id,
                                 WriteWaiter waiter,
                                 DeferredCalls& deferred) {
  Block& block = blocks_.at(id);
  const auto bit = static_cast<uint8_t>(1U << static_cast<size_t>(&outlet - outlets_.data()));
  if ((block.queued_to & bit) != 0) {
    block.queued_to = static_cast<uint8_t>(block.queued_to & ~bit);
    --outlet.queued;
  }
  const std::string name = LocalName(IdentityOfLocked(block));
  const auto [at, inserted] = outlet.publications.try_emplace(name);
  Publication& publication = at->second;
  const bool told = waiter.put != nullptr || waiter.barrier != nullptr;
  if (told || waiter.awaited == Awaited::kYes) {
    publication.awaited = Awaited::kYes;
  }
  if (told) {
    publication.waiters.push_back(std::move(waiter));
  }
  if (publication.running) {
    return;
  }
  publication.block = id;
  publication.serial = block.serial;
  publication.deleted = false;
  if (inserted) {
    publication.id = ++outlet.last_publication;
    outlet.urgent.push_back(name);
    PumpUrgentLocked(outlet, deferred);
  }
}

void Store::PumpUrgentLocked(Outlet& outlet, DeferredCalls& deferred) {
  while (!outlet.urgent.empty() && CanPublishLocked(outlet)) {
    const std::string name = std::move(outlet.urgent.front());
    outlet.urgent.pop_front();
    BeginPublishLocked(outlet, name, deferred);
  }
}

void Store::PumpOutletLocked(Outlet& outlet, DeferredCalls& deferred) {
  PumpUrgentLocked(outlet, deferred);
  const auto bit = static_cast<uint8_t>(1U << static_cast<size_t>(&outlet - outlets_.data()));
  // The other half of the depth is for those who wait.
  for (uint32_t i = 0; i < kQueueSlice && !outlet.queue.empty() &&
                       outlet.kept_slots < kMaxPublishing / 2 && CanPublishLocked(outlet);
       ++i) {
    const auto [id, serial] = outlet.queue.front();
    outlet.queue.pop_front();
    Block& block = blocks_.at(id);
    if (block.serial != serial || (block.queued_to & bit) == 0) {
      continue;
    }
    if (!IsCurrentLocked(block)) {
      block.queued_to = static_cast<uint8_t>(block.queued_to & ~bit);
      --outlet.queued;
      ++outlet.drops[static_cast<size_t>(PublishDrop::kCleared)];
      continue;
    }
    RequestPublishLocked(outlet, id, {}, deferred);
  }
}

void Store::BeginPublishLocked(Outlet& outlet, const std::string& name, DeferredCalls& deferred) {
  const auto found = outlet.publications.find(name);
  if (found == outlet.publications.end() || found->second.running) {
    return;
  }
  Publication& publication = found->second;
  const BlockId id = publication.block;
  const Block& block = blocks_.at(id);
  if (publication.deleted) {
    return EndPublicationLocked(outlet, name, WriteOutcome::kDeleted, PublishDrop::kDeleted,
                                deferred);
  }
  if (block.serial != publication.serial || block.state != BlockState::kReady) {
    return EndPublicationLocked(outlet, name, WriteOutcome::kDeleted, PublishDrop::kEvicted,
                                deferred);
  }
  if (!IsCurrentLocked(block)) {
    return EndPublicationLocked(outlet, name, WriteOutcome::kDeleted, PublishDrop::kCleared,
                                deferred);
  }
  if (outlet.tier->Holds(IdentityOfLocked(block))) {
    return EndPublicationLocked(outlet, name, WriteOutcome::kHeld, PublishDrop::kFault, deferred);
  }
  LockBlockLocked(id);
  publication.running = true;
  publication.keeps_slot = true;
  publication.slot_bytes = pools_[block.pool]->slot_bytes;
  outlet.last_progress = outlet.kept_slot_bytes == 0 ? clock_.Now() : outlet.last_progress;
  outlet.kept_slot_bytes += publication.slot_bytes;
  ++outlet.running;
  ++outlet.kept_slots;
  ++in_flight_;  // until PublishEnded
  const std::shared_ptr<OwnedWrite> write = MakeWriteLocked(id, kPublishCap);
  write->request.awaited = publication.awaited;
  const size_t index = static_cast<size_t>(&outlet - outlets_.data());
  const auto end = std::make_shared<PublicationEnd>(PublicationEnd{index, name, publication.id});
  const auto begin = [this, tier = outlet.tier, write, end] {
    write->Borrow();
    tier->Publish(
        write->request,
        [this, end] { RunJob(Priority::kHigh, [this, end] { PublishReleased(*end); }); },
        [this, end, write](WriteOutcome outcome) {
          executor_.Run(Priority::kHigh, [this, end, outcome] { PublishEnded(*end, outcome); });
        });
  };
  if (!NeedsCopyLocked(block)) {
    deferred.Add(begin);
    return;
  }
  deferred.Add([this, id, end, write, begin] {
    RunJob(Priority::kNormal, [this, id, end, write, begin] {
      if (write->CopyVerified()) {
        return begin();
      }
      HideCorrupt(id);
      PublishEnded(*end, WriteOutcome::kDeleted);
    });
  });
}

void Store::GiveSlotBackLocked(Outlet& outlet, Publication& publication) {
  if (std::exchange(publication.keeps_slot, false)) {
    outlet.kept_slot_bytes -= publication.slot_bytes;
    --outlet.kept_slots;
    outlet.last_progress = clock_.Now();
    UnlockBlockLocked(publication.block);
  }
}

void Store::PublishReleased(const PublicationEnd& end) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  Outlet& outlet = outlets_[end.outlet];
  const auto found = outlet.publications.find(end.name);
  if (found == outlet.publications.end() || found->second.id != end.publication) {
    return;  // it has ended, and its end gave the slot back
  }
  GiveSlotBackLocked(outlet, found->second);
  PumpOutletLocked(outlet, deferred);
  AdvanceWaitersLocked(deferred);
}

void Store::PublishEnded(const PublicationEnd& end, WriteOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  Outlet& outlet = outlets_[end.outlet];
  Publication& publication = outlet.publications.at(end.name);
  TERRACE_CHECK(publication.id == end.publication && publication.running);
  --outlet.running;
  publication.running = false;
  GiveSlotBackLocked(outlet, publication);
  if (const absl::Duration memory = MemoryOf(outcome); memory > absl::ZeroDuration()) {
    outlet.refused_until = clock_.Now() + memory;
    outlet.refusal = DropFrom(outcome);
  } else if (outlet.refusal == PublishDrop::kBusy) {
    outlet.refused_until = absl::ZeroDuration();
  }
  const Block& block = blocks_.at(publication.block);
  const bool there = block.serial == publication.serial && block.state == BlockState::kReady;
  const uint32_t tries = publication.waiters.empty() ? kMaxTries : kMaxAwaitedTries;
  if (outcome == WriteOutcome::kBusy && there && ++publication.tries < tries) {
    outlet.urgent.push_front(end.name);
  } else {
    EndPublicationLocked(outlet, end.name, outcome, DropFrom(outcome), deferred);
  }
  PumpOutletLocked(outlet, deferred);
  AdvanceWaitersLocked(deferred);
  JobEndedLocked();
}

void Store::EndPublicationLocked(Outlet& outlet,
                                 const std::string& name,
                                 WriteOutcome outcome,
                                 PublishDrop why,
                                 DeferredCalls& deferred) {
  const auto found = outlet.publications.find(name);
  const Publication publication = std::move(found->second);
  outlet.publications.erase(found);
  if (outcome == WriteOutcome::kWritten) {
    ++outlet.published;
  } else if (outcome == WriteOutcome::kHeld) {
    ++outlet.already_there;
    outcome = WriteOutcome::kWritten;
  } else {
    ++outlet.drops[static_cast<size_t>(why)];
  }
  for (const WriteWaiter& waiter : publication.waiters) {
    TellWriteWaiterLocked(waiter, PutStage::kPublishing, outcome, deferred);
  }
}

// ---------------------------------------------------------------- before an eviction

bool Store::IsPublishedForEvictionLocked(BlockId id,
                                         absl::Duration give_up,
                                         DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  if (outlets_.empty() || block.from_pool || !IsCurrentLocked(block) || clock_.Now() >= give_up) {
    return true;
  }
  const uint8_t mask = OutletsWithLocked(NamespaceOf(block.scope), PublishWhen::kOnEviction);
  bool ready = true;
  for (size_t i = 0; i < outlets_.size(); ++i) {
    Outlet& outlet = outlets_[i];
    if ((mask >> i & 1U) == 0 || IsTooLargeFor(outlet, block) || !Serves(outlet.state) ||
        clock_.Now() < outlet.refused_until) {
      continue;
    }
    const BlockIdentity identity = IdentityOfLocked(block);
    const auto under_way = outlet.publications.find(LocalName(identity));
    if (under_way != outlet.publications.end()) {
      ready = ready && under_way->second.running && !under_way->second.keeps_slot;
    } else if (!outlet.tier->Holds(identity)) {
      ready = false;
      if (HasRoom(outlet)) {
        RequestPublishLocked(outlet, id, {}, deferred);
      }
    }
  }
  return ready;
}

void Store::TellOutletsOfEvictionLocked(const Block& block) {
  if (outlets_.empty() || block.from_pool || !IsCurrentLocked(block)) {
    return;
  }
  const uint8_t mask = OutletsWithLocked(NamespaceOf(block.scope), PublishWhen::kOnEviction);
  for (size_t i = 0; i < outlets_.size(); ++i) {
    Outlet& outlet = outlets_[i];
    if ((mask >> i & 1U) == 0) {
      continue;
    }
    const BlockIdentity identity = IdentityOfLocked(block);
    if (outlet.publications.contains(LocalName(identity)) || outlet.tier->Holds(identity)) {
      continue;
    }
    PublishDrop why = PublishDrop::kEvicted;
    if (IsTooLargeFor(outlet, block)) {
      why = PublishDrop::kTooLarge;
    } else if (!Serves(outlet.state)) {
      why = PublishDrop::kSuspended;
    } else if (clock_.Now() < outlet.refused_until) {
      why = outlet.refusal;
    }
    ++outlet.drops[static_cast<size_t>(why)];
  }
}

bool Store::SlotsAreKeptLocked() const {
  return !local_writes_.empty() ||
         std::any_of(outlets_.begin(), outlets_.end(),
                     [](const Outlet& outlet) { return outlet.kept_slot_bytes > 0; });
}

// Whether an end of some publication is worth waiting for.
bool Store::IsPublishingLocked() const {
  const absl::Duration now = clock_.Now();
  return std::any_of(outlets_.begin(), outlets_.end(), [now](const Outlet& outlet) {
    return !outlet.publications.empty() && now >= outlet.refused_until;
  });
}

// ---------------------------------------------------------------- time, and what waits

bool Store::PublishPutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred) {
  ++put->waiting;  // for the rest of this: a request may end at once
  for (uint32_t i = 0; i < put->chain.size(); ++i) {
    const BlockId id = put->chain[i];
    if (id == kNoBlock || put->result.levels[i] == '\0') {
      continue;
    }
    const Block& block = blocks_.at(id);
    if (block.state != BlockState::kReady || !IsCurrentLocked(block)) {
      put->result.reasons[i] = static_cast<char>(Reason::kCancelled);  // deleted meanwhile
      continue;
    }
    Outlet* outlet = LevelOutletLocked(block);
    if (outlet == nullptr) {
      put->result.reasons[i] = static_cast<char>(Reason::kAdmission);
    } else if (outlet->tier->Holds(IdentityOfLocked(block)) && Serves(outlet->state)) {
      put->result.levels[i] = static_cast<char>(Level::kPool);
    } else {
      ++put->waiting;
      RequestPublishLocked(*outlet, id, {put, i, nullptr}, deferred);
    }
  }
  if (--put->waiting > 0) {
    waiting_.push_back(put);
  }
  return put->waiting > 0;
}

bool Store::FlushToPoolLocked(const std::shared_ptr<FlushOperation>& flush,
                              BlockId id,
                              DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  Outlet* outlet = IsCurrentLocked(block) ? LevelOutletLocked(block) : nullptr;
  if (outlet == nullptr || outlet->tier->Holds(IdentityOfLocked(block))) {
    return true;
  }
  if (!HasRoom(*outlet)) {
    return false;
  }
  ++flush->writes->left;
  RequestPublishLocked(*outlet, id, {nullptr, 0, flush->writes}, deferred);
  return true;
}

// Nothing: not looked at this time.
std::vector<PoolState> Store::TickShared() {
  bool looks = false;
  {
    Lock lock(&mutex_);
    looks = !shared_.empty() && clock_.Now() >= look_at_;
    look_at_ = looks ? clock_.Now() + kLookInterval : look_at_;
  }
  std::vector<PoolState> states;
  for (SharedTier* tier : shared_) {
    tier->Tick();
    if (looks) {
      states.push_back(tier->figures().state);
    }
  }
  return states;
}

void Store::TickOutletsLocked(absl::Span<const PoolState> states, DeferredCalls& deferred) {
  const absl::Duration now = clock_.Now();
  for (size_t i = 0; i < outlets_.size(); ++i) {
    Outlet& outlet = outlets_[i];
    const PoolState state = states.empty() ? outlet.state : states[i];
    if (!Serves(outlet.state) && Serves(state)) {  // what it refused before says nothing
      outlet.refused_until = absl::ZeroDuration();
      outlet.retry_raises_at = absl::ZeroDuration();
    }
    outlet.state = state;
    outlet.has_caught_up = outlet.has_caught_up || outlet.state == PoolState::kOnline;
    const bool stalls = outlet.kept_slot_bytes > 0 && outlet.last_progress + kStall <= now;
    if (stalls) {
      outlet.refused_until = now + kBusyMemory;
      outlet.refusal = PublishDrop::kBusy;
    }
    // Who waits for a pool that does not open yet may go on waiting.
    while (!Serves(outlet.state) && outlet.state != PoolState::kOpening && !outlet.urgent.empty()) {
      const std::string name = std::move(outlet.urgent.front());
      outlet.urgent.pop_front();
      const auto found = outlet.publications.find(name);
      if (found != outlet.publications.end() && !found->second.running) {
        EndPublicationLocked(outlet, name, WriteOutcome::kFault, PublishDrop::kSuspended, deferred);
      }
    }
    PumpOutletLocked(outlet, deferred);
  }
  TickGenerationsLocked(deferred);
  const std::vector<std::shared_ptr<EvictOperation>> evicts =
      outlets_.empty() ? std::vector<std::shared_ptr<EvictOperation>>{} : evicts_;
  for (const std::shared_ptr<EvictOperation>& evict : evicts) {
    AdvanceEvictLocked(evict, deferred);
  }
}

}  // namespace terrace
