// What outlives the process: slabs that somebody else keeps, and the directory of their blocks.
//
// Every block is in the directory exactly while it is ready: KeepLocked when it becomes so or
// moves, UnkeepLocked before it is hidden, whatever hides it. A slab of an earlier life cannot be
// written to any more (AdoptSealedSlab): its blocks are served from where they lie, its free slots
// stay free, and it is emptied as a whole when room is needed. So nothing that a client of an
// earlier life still reads in place can change, whatever happens here.
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "daemon/store/store.h"
#include "tiers/copy/one_pass.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr absl::Duration kRenewalPatience = absl::Seconds(1);
// No get reads in place for so long. Who does still reads what it should: nothing is written there,
// and only its memory counts for nobody until it is unmapped.
constexpr absl::Duration kHeldFor = absl::Minutes(10);

}  // namespace

bool OwnedWrite::CopyVerified() {
  copy = AlignedBuffer(request.slot.size());
  const Piece to{copy.bytes() + kSlotHeaderBytes, request.payload_bytes};
  const Digest128 found = CopyOutAndHash(
      request.slot.subspan(kSlotHeaderBytes, request.payload_bytes), absl::MakeSpan(&to, 1));
  request.slot = copy.span();
  return found == request.checksum;
}

// ---------------------------------------------------------------- the directory

bool Store::NoteScopeLocked(ScopeId id) {
  Scope& scope = scopes_[static_cast<uint32_t>(id)];
  if (scope.noted) {
    return true;
  }
  Namespace& ns = *namespaces_[static_cast<uint32_t>(scope.ns)];
  if (IsPrivate(ns.record)) {
    return false;
  }
  const auto number = static_cast<uint32_t>(scope.ns);
  ns.noted =
      ns.noted || keep_.directory->NoteNamespace(
                      number, {EncodeRecord(ns.record, TenantOf(ns.tenant).alias), ns.generation});
  scope.noted = ns.noted && keep_.directory->NoteScope(static_cast<uint32_t>(id),
                                                       {number, scope.generation, scope.salt});
  return scope.noted;
}

void Store::KeepSlabLocked(SlabId id) {
  if (keep_.directory == nullptr || keep_.slabs.contains(id)) {
    return;
  }
  const SlabView view = *arena_->View(id);
  const Descriptor& descriptor = arena_->Find(id)->descriptor();
  struct stat facts {};
  uint32_t& index = keep_.slabs.emplace(id, SlabDirectory::kNone).first->second;
  if (!descriptor.valid() || fstat(descriptor.get(), &facts) != 0) {
    return;
  }
  DirectorySlab slab{.inode = facts.st_ino,
                     .bytes = view.bytes,
                     .slot_bytes = view.slot_bytes,
                     .tenant = TenantOf(view.tenant).alias};
  index = keep_.directory->AddSlab(slab);
  if (index != SlabDirectory::kNone) {
    keeper_->SlabInUse(slab.serial, descriptor);
  }
}

uint32_t Store::KeptIndexLocked(SlabId slab) const {
  const auto found = keep_.slabs.find(slab);
  return found == keep_.slabs.end() ? SlabDirectory::kNone : found->second;
}

void Store::KeepLocked(BlockId id, uint64_t sequence) {
  const Block& block = blocks_.at(id);
  const uint32_t index = KeptIndexLocked(block.slab);
  if (index == SlabDirectory::kNone || !NoteScopeLocked(block.scope)) {
    return;
  }
  DirectoryEntry entry{.scope = static_cast<uint32_t>(block.scope),
                       .payload_bytes = block.payload_bytes,
                       .first_token = block.first_token,
                       .sequence = sequence,
                       .checksum = block.checksum,
                       .key = std::string(block.key())};
  if (block.parent != kNoBlock && blocks_.at(block.parent).serial == block.parent_serial) {
    const Block& parent = blocks_.at(block.parent);
    const uint32_t at =
        parent.state == BlockState::kReady ? KeptIndexLocked(parent.slab) : SlabDirectory::kNone;
    entry.parent_sequence =
        at == SlabDirectory::kNone ? 0 : keep_.directory->SequenceAt(at, parent.slot);
  }
  keep_.directory->Publish(index, block.slot, entry);
}

uint64_t Store::UnkeepLocked(const Block& block) {
  const uint32_t index = KeptIndexLocked(block.slab);
  if (index == SlabDirectory::kNone) {
    return 0;
  }
  const uint64_t sequence = keep_.directory->SequenceAt(index, block.slot);
  keep_.directory->Invalidate(index, block.slot);
  return sequence;
}

void Store::NoteLeaseLocked(const Block& block, int change) {
  const uint32_t index = KeptIndexLocked(block.slab);
  if (index != SlabDirectory::kNone) {
    keep_.directory->AddLease(index, change);
  }
}

// ---------------------------------------------------------------- slabs

bool Store::NeedsCopyLocked(const Block& block) const {
  return block.unverified != 0 || IsKeptLocked(block);
}

bool Store::IsKeptLocked(const Block& block) const {
  return keep_.recovered_slabs > 0 && arena_->View(block.slab)->kept;
}

DyingSlab Store::DropSlabLocked(SlabId id) {
  DyingSlab dying;
  if (const uint32_t index = KeptIndexLocked(id); index != SlabDirectory::kNone) {
    dying.serial = keep_.directory->SerialOf(index);
    keep_.directory->RemoveSlab(index);
  }
  keep_.slabs.erase(id);
  dying.memory = arena_->DropRetired(id);
  return dying;
}

void Store::Bury(std::vector<DyingSlab> dying) {
  for (DyingSlab& slab : dying) {
    if (slab.serial != 0) {
      keeper_->SlabGivenUp(slab.serial);
    }
    slab.memory.reset();
  }
}

void Store::EndHeldLocked(DeferredCalls& deferred) {
  if (keep_.held.empty() || clock_.Now() < began_ + kHeldFor) {
    return;
  }
  for (const SlabId id : std::exchange(keep_.held, {})) {
    --slab_mappings_[id];
  }
  ReleaseRetiredLocked(deferred);
}

void Store::RetireEmptiedLocked(DeferredCalls& deferred) {
  for (const SlabId id : std::exchange(keep_.emptied, {})) {
    const std::optional<SlabView> slab = arena_->View(id);
    if (slab.has_value() && !slab->retired && slab->used_slots == 0) {
      slab_blocks_.erase(id);
      RetireSlabLocked(*slab, deferred);
    }
  }
}

std::optional<SlabView> Store::KeptSlabToRenewLocked(TenantId tenant) {
  std::optional<SlabView> cheapest;
  double least = 0;
  for (const SlabView& slab : arena_->Slabs()) {
    if (!slab.kept || slab.retired || slab.tenant != tenant || keep_.held.contains(slab.id) ||
        IsBusyLocked(slab.id)) {
      continue;
    }
    const double value = SlabValueLocked(slab);
    if (!cheapest.has_value() || value < least) {
      least = value;
      cheapest = slab;
    }
  }
  return cheapest;
}

bool Store::IsRenewingLocked(TenantId tenant) {
  if (clock_.Now() >= keep_.last_renewal + kRenewalPatience) {
    return false;
  }
  const std::vector<SlabView> slabs = arena_->Slabs();
  return std::any_of(
      slabs.begin(), slabs.end(), [&](const SlabView& slab) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return slab.kept && slab.retired && slab.tenant == tenant && !keep_.held.contains(slab.id);
      });
}

// kNone: it is worth looking again; nullopt: the request waits.
std::optional<Reason> Store::RenewSlab(uint16_t pool, const RoomRequest& request) {
  TenantId tenant{0};
  uint64_t slot_bytes = 0;
  {
    Lock lock(&mutex_);
    tenant = pools_[pool]->tenant;
    slot_bytes = pools_[pool]->slot_bytes;
  }
  switch (TakeSlab(tenant, slot_bytes, 0, request, Whose::kOwnKept)) {
    case Taking::kTaken:
      break;
    case Taking::kWait:
      return std::nullopt;
    case Taking::kNone:
      if (clock_.Now() >= request.give_up) {
        return Reason::kNoSpace;
      }
      EvictFromKept(pool, request.give_up);
  }
  return Reason::kNone;
}

// Nothing is gained by it at once, but that others lie where room can be made.
void Store::EvictFromKept(uint16_t pool, absl::Duration give_up) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const BlockId victim = pools_[pool]->policy->Victim();
  if (victim != kNoBlock && IsKeptLocked(blocks_.at(victim)) &&
      ReadyToEvictLocked(victim, give_up, deferred)) {
    EvictFamilyLocked(victim, give_up, deferred);
  }
}

// ---------------------------------------------------------------- a life begins

void Store::BeginKeeping() {
  bool verify = false;
  {
    Lock lock(&mutex_);
    if (keep_.directory == nullptr) {
      return;
    }
    keep_.directory->MarkComplete();
    verify = keep_.recovered_blocks > 0;
  }
  if (!keeper_->Begin().ok()) {
    Lock lock(&mutex_);
    keep_.directory = nullptr;
    keep_.slabs.clear();
  }
  if (verify) {
    RunJob(Priority::kLow, [this] { RunVerify(0, {}, nullptr); });
  }
}

// ---------------------------------------------------------------- verified before it is delivered

void Store::HideCorrupt(BlockId id) {
  Lock lock(&mutex_);
  ++counters_.corrupt;
  HideLocked(id);
}

bool Store::CheckKeptLocked(const std::shared_ptr<GetOperation>& get, DeferredCalls& deferred) {
  if (keep_.recovered_slabs == 0 || std::exchange(get->checked, true)) {
    return false;
  }
  for (uint32_t i = 0; i < get->targets.size(); ++i) {
    const GetTarget& target = get->targets[i];
    if (!target.locked || blocks_.at(target.block).state != BlockState::kReady ||
        blocks_.at(target.block).unverified == 0) {
      continue;
    }
    const Block& block = blocks_.at(target.block);
    get->checks.push_back({i, PayloadLocked(block).first(block.payload_bytes), block.checksum});
  }
  if (get->checks.empty()) {
    return false;
  }
  get->checks_left = static_cast<uint32_t>(get->checks.size());
  const size_t jobs =
      std::min(get->checks.size(), static_cast<size_t>(std::max(1, executor_.parallelism())));
  for (size_t i = 0; i < jobs; ++i) {
    deferred.Add([this, get] { RunJob(Priority::kHigh, [this, get] { RunCheckJob(get); }); });
  }
  return true;
}

void Store::RunCheckJob(const std::shared_ptr<GetOperation>& get) {
  const uint32_t index = get->next_check.fetch_add(1);
  if (index >= get->checks.size()) {
    return;
  }
  GetCheck& check = get->checks[index];
  check.right = HashPayload(check.payload) == check.checksum;
  if (get->checks_left.fetch_sub(1) == 1) {
    DeferredCalls deferred;
    Lock lock(&mutex_);
    EndChecksLocked(*get);
    DeliverLocked(get, deferred);
    return;
  }
  RunJob(Priority::kHigh, [this, get] { RunCheckJob(get); });
}

void Store::EndChecksLocked(GetOperation& get) {
  for (const GetCheck& check : get.checks) {
    GetTarget& target = get.targets[check.target];
    Block& block = blocks_.at(target.block);
    if (check.right) {
      block.unverified = 0;
      continue;
    }
    ++counters_.corrupt;
    HideLocked(target.block);
    UnlockBlockLocked(target.block);
    target.block = kNoBlock;
    target.locked = false;
    target.outcome = GetOutcome::kCorrupt;
  }
}

}  // namespace terrace
