#include "daemon/store/store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "tiers/copy/one_pass.h"
#include "tiers/os/descriptor.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

uint64_t RandomSeed() {
  uint64_t seed = 0;
  FillRandom({reinterpret_cast<char*>(&seed), sizeof(seed)});
  return seed;
}

std::vector<LowerTier*> AllLowerTiers(const BlockStore::Parts& parts) {
  std::vector<LowerTier*> tiers;
  if (parts.local != nullptr) {
    tiers.push_back(parts.local);
  }
  tiers.insert(tiers.end(), parts.shared.begin(), parts.shared.end());
  tiers.insert(tiers.end(), parts.lower_tiers.begin(), parts.lower_tiers.end());
  TERRACE_CHECK(tiers.size() < kMaxTiers);
  return tiers;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlockStore>> BlockStore::Create(const BlockStoreOptions& options,
                                                               const Parts& parts) {
  if (parts.clock == nullptr || parts.executor == nullptr || parts.slabs == nullptr) {
    return absl::InvalidArgumentError("clock, executor and slabs are required");
  }
  if (options.dram_bytes < kMinSlabBytes) {
    return absl::InvalidArgumentError(absl::StrCat("dram_bytes must be at least ", kMinSlabBytes));
  }
  RecencySource recency;
  auto policy = MakeEvictionPolicy(options.policy, recency);
  if (!policy.ok()) {
    return policy.status();
  }
  auto store = std::make_unique<Store>(options, parts);
  absl::Status status = store->LoadGenerations();
  if (status.ok()) {
    store->RecoverKept();
    status = store->FillArena();
  }
  if (!status.ok()) {
    return status;
  }
  store->BeginKeeping();
  return std::unique_ptr<BlockStore>(std::move(store));
}

Store::Store(const BlockStoreOptions& options, const Parts& parts)
    : options_(options),
      clock_(*parts.clock),
      executor_(*parts.executor),
      slabs_(*parts.slabs),
      local_(parts.local),
      shared_(parts.shared),
      lower_tiers_(AllLowerTiers(parts)),
      observer_(parts.observer),
      keeper_(parts.keeper),
      began_(parts.clock->Now()),
      learns_(PolicyLearns(options.policy)),
      verify_one_in_(options.verify_one_in),
      costs_(clock_, lower_tiers_),
      lessons_(parts.learnt),
      arena_(Arena::Create(options.dram_bytes)),
      index_(blocks_, RandomSeed()),
      reads_(lower_tiers_.size()),
      outlets_(MakeOutlets(options, parts)),
      local_budget_(options, parts.local) {
  Lock lock(&mutex_);
  events_.publisher_id = RandomSeed() | 1;  // 0 is nobody's
}

Store::~Store() {
  ending_ = true;
  if (local_ != nullptr) {
    local_->WatchNotes(nullptr);
    local_->WatchChanges(nullptr);
  }
  for (SharedTier* tier : shared_) {
    tier->WatchGenerations(nullptr);
  }
  Lock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](Store* store)
           ABSL_EXCLUSIVE_LOCKS_REQUIRED(store->mutex_) { return store->in_flight_ == 0; },
      this));
}

// All memory is made and touched before the first call, so that no later fault can fail; reading
// some of it back gives the first measurement of the medium's speed.
absl::Status Store::FillArena() {
  uint64_t headroom = 0;
  {
    Lock lock(&mutex_);
    headroom = arena_->HeadroomBytes();
  }
  while (headroom >= kMinSlabBytes) {
    auto memory = slabs_.Make(kMinSlabBytes);
    if (!memory.ok()) {
      return memory.status();
    }
    Lock lock(&mutex_);
    page_kind_ = (*memory)->page_kind();
    arena_->InstallFree(std::move(*memory));
    headroom = arena_->HeadroomBytes();
  }
  std::vector<char> sample(size_t{4} << 20, 1);
  const absl::Duration begin = clock_.Now();
  static_cast<void>(HashPayload(sample));
  const absl::Duration took = clock_.Now() - begin;
  if (took > absl::ZeroDuration()) {
    Lock lock(&mutex_);
    read_rate_ = static_cast<double>(sample.size()) / absl::ToDoubleSeconds(took);
  }
  return absl::OkStatus();
}

uint32_t Store::NowDeciseconds() const {
  return static_cast<uint32_t>(absl::ToInt64Milliseconds(clock_.Now() - began_) / 100);
}

Digest128 Store::RandomId() {
  Digest128 id;
  FillRandom({reinterpret_cast<char*>(&id), sizeof(id)});
  return id;
}

void Store::JobStarted() {
  Lock lock(&mutex_);
  ++in_flight_;
}

void Store::RunJob(Priority priority, std::function<void()> job) {
  JobStarted();
  executor_.Run(priority, [this, job = std::move(job)] {
    job();
    Lock lock(&mutex_);
    JobEndedLocked();
  });
}

// ---------------------------------------------------------------- tenants and sessions

absl::StatusOr<TenantId> Store::OpenTenant(std::string_view alias) {
  Lock lock(&mutex_);
  if (const auto found = tenant_ids_.find(std::string(alias)); found != tenant_ids_.end()) {
    return found->second;
  }
  if (tenants_.size() >= options_.max_tenants) {
    return absl::ResourceExhaustedError(absl::StrCat("tenants: at most ", options_.max_tenants));
  }
  const TenantId id{static_cast<uint32_t>(tenants_.size())};
  tenants_.push_back(std::make_unique<Tenant>());
  tenants_.back()->alias = std::string(alias);
  tenant_ids_.emplace(alias, id);
  return id;
}

absl::Status Store::SetQuota(TenantId tenant, uint64_t guaranteed_bytes, uint64_t limit_bytes) {
  Lock lock(&mutex_);
  if (limit_bytes != 0 && limit_bytes < guaranteed_bytes) {
    return absl::InvalidArgumentError("limit_bytes: must be 0 or at least guaranteed_bytes");
  }
  uint64_t sum = guaranteed_bytes;
  for (size_t i = 0; i < tenants_.size(); ++i) {
    sum += i == static_cast<uint32_t>(tenant) ? 0 : tenants_[i]->guaranteed_bytes;
  }
  if (guaranteed_bytes > options_.dram_bytes || sum > options_.dram_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "guaranteed_bytes: the sum over tenants may be at most ", options_.dram_bytes));
  }
  TenantOf(tenant).guaranteed_bytes = guaranteed_bytes;
  TenantOf(tenant).limit_bytes = limit_bytes;
  return absl::OkStatus();
}

SessionId Store::OpenSession(TenantId tenant, LeaseRight leases) {
  Lock lock(&mutex_);
  const SessionId id{++last_session_};
  StoreSession& session = sessions_[id];
  session.tenant = tenant;
  session.lease_right = leases == LeaseRight::kProvenByPidfd;
  ++TenantOf(tenant).sessions;
  return id;
}

StoreSession* Store::FindSessionLocked(SessionId id) {
  const auto found = sessions_.find(id);
  return found == sessions_.end() ? nullptr : &found->second;
}

void Store::CloseSession(SessionId id, std::function<void()> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const StoreSession* session = FindSessionLocked(id);
  if (session == nullptr || session->memory_use->users == 0) {
    deferred.Add(std::move(done));
  } else {
    session->memory_use->when_idle.push_back(std::move(done));
  }
  EndSessionLocked(id, deferred);
}

void Store::ProcessGone(SessionId session) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  EndSessionLocked(session, deferred);
  StoreSession* found = FindSessionLocked(session);
  if (found == nullptr) {
    return;
  }
  const std::vector<Digest128> leases(found->leases.begin(), found->leases.end());
  for (const Digest128& lease : leases) {
    EndLeaseLocked(lease);
  }
  found->lease_right = false;
  ForgetSessionLocked(session, deferred);
}

void Store::EndSessionLocked(SessionId id, DeferredCalls& deferred) {
  StoreSession* session = FindSessionLocked(id);
  if (session == nullptr || session->closed) {
    return;
  }
  session->closed = true;
  --TenantOf(session->tenant).sessions;
  const std::vector<Digest128> holds(session->holds.begin(), session->holds.end());
  for (const Digest128& hold : holds) {
    EndHoldLocked(hold);
  }
  std::vector<std::shared_ptr<Operation>> operations;
  for (const auto& [call_id, operation] : session->operations) {
    operations.push_back(operation);
  }
  for (const std::shared_ptr<Operation>& operation : operations) {
    operation->cancelled = true;
    AbandonWaitsLocked(operation, GetOutcome::kCancelled, deferred);
  }
  if (!operations.empty()) {
    WakeRoomWaitersLocked(room_waiters_.size(), deferred);
  }
  session = FindSessionLocked(id);
  for (auto& [region_id, region] : session->regions) {
    region_bytes_ -= region->memory.size();
    --regions_;
  }
  session->regions.clear();
  for (auto& [ticket_id, ticket] : tickets_) {
    if (ticket.session == id && ticket.result.state == TicketState::kRunning) {
      EndTicketLocked(ticket_id, TicketState::kCancelled, deferred);
    }
  }
  CancelOrphanReadsLocked(deferred);
  if (!session->lease_right) {
    ForgetSessionLocked(id, deferred);
  }
}

// Slabs that the session may have mapped are free of it only now: its process is gone or never had
// the right to map.
void Store::ForgetSessionLocked(SessionId id, DeferredCalls& deferred) {
  StoreSession* session = FindSessionLocked(id);
  for (const SlabId slab : session->mapped) {
    --slab_mappings_[slab];
  }
  LeavePrivateLocked(*session);
  sessions_.erase(id);
  ReleaseRetiredLocked(deferred);
}

uint64_t Store::LeaseLimitBytes(SessionId session) const {
  Lock lock(&mutex_);
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) {
    return 0;
  }
  return static_cast<uint64_t>(
      static_cast<double>(DramOfLocked(*tenants_[static_cast<uint32_t>(found->second.tenant)])) *
      options_.lease_share);
}

// ---------------------------------------------------------------- namespaces and scopes

absl::StatusOr<OpenedNamespace> Store::OpenNamespace(const Caller& caller,
                                                     const NamespaceRecord& record) {
  if (const absl::Status status = ValidateRecord(record); !status.ok()) {
    return status;
  }
  const bool may_hold = MayHoldOfEarlierLives();
  const bool is_private = IsPrivate(record);
  Lock lock(&mutex_);
  Tenant& owner = TenantOf(caller.tenant);
  const Digest128 digest = DigestOf(record, owner.alias);
  auto known = owner.namespaces.find(digest);
  if (known == owner.namespaces.end()) {
    if (owner.namespaces.size() >= options_.max_namespaces_per_tenant) {
      TickPrivateLocked();
    }
    if (owner.namespaces.size() >= options_.max_namespaces_per_tenant) {
      return absl::ResourceExhaustedError(
          absl::StrCat("namespaces: at most ", options_.max_namespaces_per_tenant));
    }
    const bool held_before = is_private && private_.forgotten > 0 && local_ != nullptr;
    known = owner.namespaces.emplace(digest, MakeNamespaceLocked(caller.tenant, record)).first;
    if (may_hold || held_before) {
      TellOpenedLocked(caller.tenant);
    }
  }
  const Namespace& ns = *namespaces_[static_cast<uint32_t>(known->second)];
  if (const std::string_view field = FirstDifference(ns.record, record); !field.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("record.", std::string(field), ": differs from the namespace of this digest"));
  }
  if (is_private) {
    UsePrivateLocked(known->second, caller.session);
  }
  return OpenedNamespace{ns.digest, ns.family, ns.generation, IsClearPendingLocked(ns)};
}

NamespaceId Store::MakeNamespaceLocked(TenantId tenant, const NamespaceRecord& record) {
  const std::string& alias = TenantOf(tenant).alias;
  const Digest128 digest = DigestOf(record, alias);
  auto ns = std::make_unique<Namespace>();
  ns->tenant = tenant;
  ns->record = record;
  ns->digest = digest;
  ns->family = FamilyDigestOf(record, alias);
  ns->removed_from = private_.removed_from.erase(digest) > 0;
  if (const auto noted = generations_.noted.find(digest); noted != generations_.noted.end()) {
    ns->generation = noted->second;
  }
  RuleNamespaceLocked(*ns);
  NamespaceId id{static_cast<uint32_t>(namespaces_.size())};
  if (private_.free.empty()) {
    namespaces_.emplace_back();
  } else {
    id = private_.free.back();
    private_.free.pop_back();
  }
  families_[ns->family].push_back(id);
  namespace_ids_.emplace(digest, id);
  namespaces_[static_cast<uint32_t>(id)] = std::move(ns);
  return id;
}

Namespace* Store::FindNamespaceLocked(TenantId tenant, const Digest128& digest) {
  const Tenant& owner = TenantOf(tenant);
  const auto found = owner.namespaces.find(digest);
  return found == owner.namespaces.end() ? nullptr
                                         : namespaces_[static_cast<uint32_t>(found->second)].get();
}

Namespace& Store::NamespaceOf(ScopeId scope) {
  return *namespaces_[static_cast<uint32_t>(scopes_[static_cast<uint32_t>(scope)].ns)];
}

std::optional<ScopeId> Store::FindScopeLocked(TenantId tenant, const StorePart& part) {
  const Tenant& owner = TenantOf(tenant);
  const auto ns = owner.namespaces.find(part.namespace_digest);
  if (ns == owner.namespaces.end()) {
    return std::nullopt;
  }
  const uint64_t generation = namespaces_[static_cast<uint32_t>(ns->second)]->generation;
  const auto found = scope_ids_.find(ScopeName{ns->second, generation, part.salt});
  return found == scope_ids_.end() ? std::nullopt : std::optional<ScopeId>(found->second);
}

std::optional<ScopeId> Store::UseScopeLocked(TenantId tenant, const StorePart& part) {
  std::optional<ScopeId> id = FindScopeLocked(tenant, part);
  if (!id.has_value()) {
    const Tenant& owner = TenantOf(tenant);
    const auto ns = owner.namespaces.find(part.namespace_digest);
    if (ns == owner.namespaces.end() ||
        scope_ids_.size() >= size_t{options_.max_scopes_per_tenant} * tenants_.size()) {
      return std::nullopt;
    }
    if (free_scopes_.empty()) {
      id = ScopeId{static_cast<uint32_t>(scopes_.size())};
      scopes_.emplace_back();
    } else {
      id = free_scopes_.back();
      free_scopes_.pop_back();
    }
    const uint64_t generation = namespaces_[static_cast<uint32_t>(ns->second)]->generation;
    scopes_[static_cast<uint32_t>(*id)] =
        Scope{ns->second, generation, part.salt, 0, NameSeedOf(part)};
    scope_ids_.emplace(ScopeName{ns->second, generation, part.salt}, *id);
    ++NamespaceOf(*id).scopes;
  }
  ++scopes_[static_cast<uint32_t>(*id)].users;
  return id;
}

void Store::UnuseScopeLocked(ScopeId id) {
  Scope& scope = scopes_[static_cast<uint32_t>(id)];
  TERRACE_CHECK(scope.users > 0);
  if (--scope.users == 0) {
    --NamespaceOf(id).scopes;
    scope_ids_.erase(ScopeName{scope.ns, scope.generation, scope.salt});
    free_scopes_.push_back(id);
  }
}

// ---------------------------------------------------------------- operations and time

void Store::TrackLocked(const std::shared_ptr<Operation>& operation) {
  StoreSession* session = FindSessionLocked(operation->caller.session);
  if (session != nullptr && operation->call_id != 0) {
    session->operations.emplace(operation->call_id, operation);
  }
}

void Store::EndOperationLocked(Operation& operation, DeferredCalls& deferred) {
  operation.ended = true;
  StoreSession* session = FindSessionLocked(operation.caller.session);
  if (session != nullptr && operation.call_id != 0) {
    const auto found = session->operations.find(operation.call_id);
    if (found != session->operations.end() && found->second.get() == &operation) {
      session->operations.erase(found);
    }
  }
  for (const std::shared_ptr<Region>& region : operation.regions) {
    UnuseRegionLocked(*region, deferred);
  }
  operation.regions.clear();
  for (std::function<void(bool)>& on_end : operation.on_end) {
    deferred.Add([on_end = std::move(on_end)] { on_end(true); });
  }
  operation.on_end.clear();
}

void Store::CancelCall(const Caller& caller, uint64_t call_id, std::function<void(bool)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const StoreSession* session = FindSessionLocked(caller.session);
  if (session != nullptr) {
    const auto found = session->operations.find(call_id);
    if (found != session->operations.end()) {
      const std::shared_ptr<Operation> operation = found->second;
      operation->cancelled = true;
      operation->on_end.push_back(std::move(done));
      WakeRoomWaitersLocked(room_waiters_.size(), deferred);
      AbandonWaitsLocked(operation, GetOutcome::kCancelled, deferred);
      CancelOrphanReadsLocked(deferred);
      return;
    }
  }
  deferred.Add([done = std::move(done)] { done(false); });
}

void Store::Tick() {
  if (local_ != nullptr) {
    local_->Tick();
  }
  TickLocalBudget();
  TickEvents();
  const std::vector<PoolState> states = TickShared();
  StudyPolicies();
  FetchReturns();
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const absl::Duration now = clock_.Now();
  while (!hold_expiries_.empty() && hold_expiries_.begin()->first <= now) {
    const Digest128 id = hold_expiries_.begin()->second;
    hold_expiries_.erase(hold_expiries_.begin());
    EndHoldLocked(id);
  }
  while (!pin_expiries_.empty() && pin_expiries_.begin()->first <= now) {
    const auto [block, serial] = pin_expiries_.begin()->second;
    pin_expiries_.erase(pin_expiries_.begin());
    if (blocks_.at(block).serial == serial && blocks_.at(block).pinned) {
      UnpinLocked(block);
    }
  }
  const std::vector<std::shared_ptr<Operation>> waiting = waiting_;
  for (const std::shared_ptr<Operation>& operation : waiting) {
    if (operation->deadline <= now) {
      AbandonWaitsLocked(operation, GetOutcome::kDeadline, deferred);
    }
  }
  TickPoliciesLocked();
  TickTicketsLocked(deferred);
  CancelOrphanReadsLocked(deferred);
  PumpReadsLocked(deferred);
  TickPrivateLocked();
  SweepStaleLocked();
  TickOutletsLocked(states, deferred);
  TickLocalLocked(deferred);
  EndHeldLocked(deferred);
  RetireEmptiedLocked(deferred);
  if (!dying_memory_.empty()) {
    // shared_ptr only because std::function must be copyable; the callback is the one owner.
    const auto dying = std::make_shared<std::vector<DyingSlab>>();
    dying->swap(dying_memory_);
    deferred.Add([this, dying] { Bury(std::move(*dying)); });
  }
}

// Blocks of raised generations are misses at once; their room comes back here, a slice of the table
// a tick, and that of blocks of namespaces that are going.
void Store::SweepStaleLocked() {
  constexpr uint32_t kSlice = 4096;
  for (uint32_t i = 0; i < kSlice && stale_rounds_ > 0; ++i) {
    if (stale_cursor_ >= blocks_.end()) {
      stale_cursor_ = 0;
      --stale_rounds_;
      continue;
    }
    const BlockId id{stale_cursor_++};
    const Block& block = blocks_.at(id);
    if (block.state != BlockState::kReady) {
      continue;
    }
    const NamespaceId ns = scopes_[static_cast<uint32_t>(block.scope)].ns;
    if (!IsCurrentLocked(block) || (!private_.going.empty() && private_.going.contains(ns))) {
      HideLocked(id, PublishDrop::kCleared);
    }
  }
}

void Store::SetDraining(bool draining) {
  Lock lock(&mutex_);
  draining_ = draining;
}

}  // namespace terrace
