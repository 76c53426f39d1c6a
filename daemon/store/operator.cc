// What operators ask: usage, explain, evict, verify.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/store.h"
#include "tiers/copy/one_pass.h"

namespace terrace {
namespace {

constexpr uint32_t kVerifySlice = 64;  // blocks a job
constexpr uint32_t kEvictSlice = 256;  // blocks under one lock

std::string_view SourceText(CostSource source) {
  return source == CostSource::kDeclared ? " (declared)"
         : source == CostSource::kTold   ? " (as the engine says)"
                                         : " (measured)";
}

// What computing a block takes of which the namespace's blocks have so many tokens.
std::string RecomputeText(const RecomputeCost& cost, uint64_t first_token, uint32_t block_tokens) {
  if (!cost.known() || block_tokens == 0) {
    return " What it takes to compute is not known.";
  }
  const absl::Duration took =
      absl::Seconds(cost.model.Seconds(first_token, first_token + block_tokens));
  return absl::StrCat(" To compute it at token ", first_token, " takes about ",
                      absl::FormatDuration(absl::Trunc(took, absl::Microseconds(1))),
                      std::string(SourceText(cost.source)), ".");
}

// From which prefix on a load from the tier pays, of blocks like this one.
std::string BreakEvenText(const LoadCosts& costs,
                          const RecomputeCost& cost,
                          size_t tier,
                          uint32_t block_tokens,
                          const LoadDemand& block) {
  if (!cost.known() || block_tokens == 0) {
    return " What it takes to compute is not known: every load counts as worth it.";
  }
  const std::optional<uint64_t> tokens = costs.BreakEven(cost.model, tier, block_tokens, block);
  if (!tokens.has_value()) {
    return absl::StrCat(" Computing", std::string(SourceText(cost.source)),
                        " is always faster than loading from there.");
  }
  return absl::StrCat(" Loading from there is faster than computing",
                      std::string(SourceText(cost.source)), " from ", *tokens,
                      " tokens of prefix on.");
}

// By Admission + 1, which is not 0.
absl::string_view VerdictText(uint32_t verdict) {
  constexpr std::array<absl::string_view, kAdmissions> kTexts = {
      "There is budget enough to write it to", "It is worth being written to",
      "It completes a chain that was written to", "It is not worth its price on",
      "The budget of writes is spent, so it does not go to"};
  return kTexts[verdict - 1];
}

}  // namespace

void Store::CountSlabsLocked(StoreUsage& usage) const {
  usage.kept.blocks = keep_.recovered_blocks;
  usage.kept.bytes = keep_.recovered_bytes;
  usage.kept.dropped_blocks = keep_.dropped_blocks;
  for (const SlabView& slab : arena_->Slabs()) {
    usage.assigned_slabs += slab.retired ? 0 : 1;
    usage.kept.slabs += slab.kept ? 1 : 0;
    usage.kept.held_bytes += keep_.held.contains(slab.id) ? slab.bytes : 0;
  }
}

StoreUsage Store::Usage() const {
  StoreUsage usage;
  if (local_ != nullptr) {
    usage.local_tiers.push_back({std::string(local_->name()), local_->figures(),
                                 local_->scrub_progress(), local_->Drives()});
  }
  for (const SharedTier* tier : shared_) {
    usage.shared_tiers.emplace_back();
    usage.shared_tiers.back().name = std::string(tier->name());
    usage.shared_tiers.back().figures = tier->figures();
    usage.shared_tiers.back().nodes = tier->Nodes();
  }
  usage.costs = TierCosts();
  usage.recompute_spans = costs_.counts().taken;
  usage.recompute_spans_refused = costs_.counts().refused;
  Lock lock(&mutex_);
  for (size_t i = 0; i < outlets_.size(); ++i) {
    const Outlet& outlet = outlets_[i];
    SharedTierUsage& shared = usage.shared_tiers[i];
    shared.queued = outlet.queued + outlet.urgent.size();
    shared.publishing = outlet.running;
    shared.published = outlet.published;
    shared.already_there = outlet.already_there;
    shared.drops = outlet.drops;
    shared.unraised_generations = outlet.unraised.size();
    shared.hits = counters_.tier_hits[outlet.hits_index];
  }
  usage.local_budget = local_budget_.usage();
  for (const std::unique_ptr<Namespace>& ns : namespaces_) {
    usage.blocks += ns == nullptr ? 0 : ns->blocks;
  }
  usage.payload_bytes = payload_bytes_;
  usage.used_slot_bytes = arena_->used_slot_bytes();
  usage.capacity_bytes = arena_->capacity_bytes();
  CountSlabsLocked(usage);
  usage.free_slabs = arena_->FreeSlabs();
  usage.page_kind = page_kind_;
  for (const auto& [id, session] : sessions_) {
    usage.sessions += session.closed ? 0 : 1;
    usage.quarantined_bytes += session.closed ? session.leased_bytes : 0;
  }
  usage.leased_blocks = leased_blocks_;
  usage.leased_bytes = leased_bytes_;
  usage.holds = holds_.size();
  usage.regions = regions_;
  usage.region_bytes = region_bytes_;
  for (const auto& [id, ticket] : tickets_) {
    usage.tickets += ticket.result.state == TicketState::kRunning ? 1 : 0;
  }
  for (const std::unique_ptr<EventBook::OfTenant>& tenant : events_.tenants) {
    usage.watchers += tenant == nullptr ? 0 : tenant->watchers;
    usage.event_bytes += tenant == nullptr ? 0 : tenant->journal.bytes();
  }
  usage.calls_in_flight = in_flight_;
  usage.read_bytes_per_s = static_cast<uint64_t>(read_rate_);
  usage.write_bytes_per_s = static_cast<uint64_t>(write_rate_);
  usage.metadata_bytes = blocks_.memory_bytes() + index_.memory_bytes();
  for (const std::unique_ptr<Pool>& pool : pools_) {
    usage.metadata_bytes += pool->policy->memory_bytes();
  }
  for (const auto& [slab, residents] : slab_blocks_) {
    usage.metadata_bytes += residents.capacity() * sizeof(BlockId);
  }
  usage.local_writes_in_flight = local_writes_.size();
  usage.waiting_for_room = room_waiters_.size();
  usage.counters = counters_;
  return usage;
}

std::vector<TierCost> Store::TierCosts() const {
  struct Shape {
    Digest128 ns;
    uint64_t block_bytes = 0;
    uint32_t block_tokens = 0;
  };
  std::vector<Shape> shapes;
  std::vector<uint64_t> queued;
  {
    Lock lock(&mutex_);
    for (const std::unique_ptr<Namespace>& ns : namespaces_) {
      if (ns != nullptr) {
        shapes.push_back({ns->digest, ns->record.block_bytes, ns->record.block_tokens});
      }
    }
    for (const ReadQueue& reads : reads_) {
      queued.push_back(reads.bytes);
    }
  }
  std::vector<TierCost> result(lower_tiers_.size());
  for (size_t tier = 0; tier < result.size(); ++tier) {
    result[tier].name = std::string(lower_tiers_[tier]->name());
  }
  for (const Shape& shape : shapes) {
    const RecomputeCost cost = costs_.CostOf(shape.ns);
    for (size_t tier = 0; cost.known() && shape.block_tokens > 0 && tier < result.size(); ++tier) {
      const std::optional<uint64_t> tokens = costs_.BreakEven(cost.model, tier, shape.block_tokens,
                                                              {1, shape.block_bytes, queued[tier]});
      TierCost& worst = result[tier];
      worst.never_pays = worst.never_pays || !tokens.has_value();
      worst.break_even_tokens =
          std::max(worst.break_even_tokens.value_or(0), tokens.value_or(kMostPromptTokens));
    }
  }
  return result;
}

std::vector<PoolSegmentView> Store::ReclaimOrder(std::string_view tier) const {
  const auto found = std::find_if(shared_.begin(), shared_.end(), [tier](const SharedTier* shared) {
    return shared->name() == tier;
  });
  return found == shared_.end() ? std::vector<PoolSegmentView>{} : (*found)->ReclaimOrder();
}

std::vector<TenantUsage> Store::Tenants() const {
  Lock lock(&mutex_);
  std::vector<TenantUsage> result;
  for (const std::unique_ptr<Tenant>& tenant : tenants_) {
    result.push_back({tenant->alias, tenant->used_bytes, tenant->guaranteed_bytes,
                      tenant->limit_bytes, tenant->blocks, tenant->leased_bytes,
                      tenant->pinned_bytes, tenant->sessions, tenant->hits, tenant->misses});
  }
  return result;
}

std::vector<NamespaceUsage> Store::Namespaces() const {
  Lock lock(&mutex_);
  std::vector<NamespaceUsage> result;
  for (const std::unique_ptr<Namespace>& ns : namespaces_) {
    if (ns == nullptr) {
      continue;
    }
    result.push_back({tenants_[static_cast<uint32_t>(ns->tenant)]->alias, ns->record, ns->digest,
                      ns->family, ns->generation, ns->blocks, ns->bytes});
  }
  return result;
}

absl::StatusOr<Explanation> Store::Explain(std::string_view tenant, const StorePart& part) {
  Lock lock(&mutex_);
  TenantId id{0};
  if (tenant.empty()) {
    if (tenants_.size() != 1) {
      return absl::InvalidArgumentError("tenant: must be named when there is not exactly one");
    }
  } else if (const auto found = tenant_ids_.find(std::string(tenant)); found != tenant_ids_.end()) {
    id = found->second;
  } else {
    return absl::NotFoundError("tenant: unknown");
  }
  if (FindNamespaceLocked(id, part.namespace_digest) == nullptr) {
    return absl::NotFoundError("namespace_digest: not opened by this tenant");
  }
  Explanation out;
  out.generation = FindNamespaceLocked(id, part.namespace_digest)->generation;
  const std::optional<ScopeId> scope = FindScopeLocked(id, part);
  const BlockId block =
      !scope.has_value() || part.key_bytes < kMinKeyBytes || part.key_bytes > kMaxKeyBytes
          ? kNoBlock
          : index_.Find(*scope, part.key(0));
  LowerBlock lower;
  uint32_t tier = 0;
  if (block == kNoBlock && LookupLowerLocked(id, part, 0, &lower, &tier)) {
    out.state = KeyState::kLower;
    out.tier = std::string(lower_tiers_[tier]->name());
    out.payload_bytes = lower.payload_bytes;
    const Namespace& ns = *FindNamespaceLocked(id, part.namespace_digest);
    const LoadDemand demand{1, lower.payload_bytes, reads_[tier].bytes};
    const absl::Duration takes = absl::Seconds(costs_.LoadSeconds(tier, demand));
    out.text = absl::StrCat(
        "On tier ", out.tier, ", not in DRAM; a get that waits, or a prefetch, ",
        "reads it in about ", absl::FormatDuration(absl::Trunc(takes, absl::Microseconds(1))), ".",
        BreakEvenText(costs_, costs_.CostOf(ns.digest), tier, ns.record.block_tokens, demand));
    return out;
  }
  if (block == kNoBlock) {
    out.text =
        scope.has_value()
            ? "Not held: never stored, evicted, deleted, or stored under an older generation."
            : "Nothing is held under this namespace, generation and salt.";
    return out;
  }
  ExplainBlockLocked(block, out);
  return out;
}

void Store::ExplainBlockLocked(BlockId id, Explanation& out) {
  const Block& block = blocks_.at(id);
  out.payload_bytes = block.payload_bytes;
  out.first_token = block.first_token;
  if (block.state != BlockState::kReady) {
    out.state = KeyState::kPending;
    out.text = "On its way into DRAM; not readable yet.";
    return;
  }
  out.state = KeyState::kReady;
  out.tier = "g2";
  out.slab = block.slab;
  out.slab_offset = arena_->PayloadOffset({block.slab, block.slot});
  out.leases = block.leases;
  out.holds = block.holds;
  out.pinned = block.pinned;
  const uint32_t now = NowDeciseconds();
  out.age = absl::Milliseconds(int64_t{now - block.stored_ds} * 100);
  out.idle = absl::Milliseconds(int64_t{now - block.touched_ds} * 100);
  const EvictionPolicy& policy = *pools_[block.pool]->policy;
  out.eviction_rank = policy.Rank(id);
  out.text = absl::StrCat("In DRAM, slab ", static_cast<uint32_t>(block.slab), ". ");
  if (block.locks > 0) {
    absl::StrAppend(&out.text, "Cannot be evicted now: ", block.leases, " leases, ", block.holds,
                    " holds", block.pinned ? ", pinned" : "", ".");
  } else {
    absl::StrAppend(&out.text, "Policy ", std::string(policy.name()), " would evict ",
                    out.eviction_rank, " of ", policy.resident(), " blocks of its size before it.");
  }
  const Namespace& ns = NamespaceOf(block.scope);
  absl::StrAppend(&out.text, RecomputeText(costs_.CostOf(ns.digest), block.first_token,
                                           ns.record.block_tokens));
  if (local_budget_.limited() && block.local_verdict != 0) {
    absl::StrAppend(&out.text, " ", VerdictText(block.local_verdict), " the local tier.");
  }
  ExplainPublishingLocked(block, out);
}

void Store::ExplainPublishingLocked(const Block& block, Explanation& out) {
  if (outlets_.empty()) {
    return;
  }
  const BlockIdentity identity = IdentityOfLocked(block);
  for (size_t i = 0; i < outlets_.size(); ++i) {
    const Outlet& outlet = outlets_[i];
    const bool queued = (block.queued_to >> i & 1U) != 0;
    const bool running = outlet.publications.contains(LocalName(identity));
    const std::string_view where = outlet.tier->Holds(identity) ? "Published to "
                                   : running                    ? "Being published to "
                                   : queued                     ? "Waits to be published to "
                                                                : "Not published to ";
    absl::StrAppend(&out.text, " ", std::string(where), std::string(outlet.tier->name()), ".");
  }
}

void Store::Evict(std::string_view tenant,
                  uint64_t target_used_bytes,
                  std::function<void(absl::StatusOr<EvictResult>)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  auto evict = std::make_shared<EvictOperation>();
  evict->target_used_bytes = target_used_bytes;
  evict->done = std::move(done);
  if (!tenant.empty()) {
    const auto found = tenant_ids_.find(std::string(tenant));
    if (found == tenant_ids_.end()) {
      deferred.Add([evict] { evict->done(absl::NotFoundError("tenant: unknown")); });
      return;
    }
    evict->only = found->second;
  }
  evicts_.push_back(evict);
  ++in_flight_;  // until the answer has been given
  AdvanceEvictLocked(evict, deferred);
}

BlockId Store::NextVictimLocked(std::optional<TenantId> only) {
  BlockId victim = kNoBlock;
  double least = std::numeric_limits<double>::infinity();
  for (uint32_t t = 0; t < tenants_.size(); ++t) {
    if (only.has_value() && TenantId{t} != *only) {
      continue;
    }
    const BlockId oldest = OldestOfTenantLocked(TenantId{t});
    if (oldest != kNoBlock && pools_[blocks_.at(oldest).pool]->policy->Value(oldest) < least) {
      least = pools_[blocks_.at(oldest).pool]->policy->Value(oldest);
      victim = oldest;
    }
  }
  return victim;
}

// Goes on when a write has ended, where blocks have to be written first.
void Store::AdvanceEvictLocked(const std::shared_ptr<EvictOperation>& evict,
                               DeferredCalls& deferred) {
  if (evict->ended || evict->slice_queued) {
    return;
  }
  const auto used = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return evict->only.has_value() ? TenantOf(*evict->only).used_bytes : arena_->used_slot_bytes();
  };
  bool more = true;
  for (uint32_t i = 0; i < kEvictSlice && more; ++i) {
    const BlockId victim = NextVictimLocked(evict->only);
    more = victim != kNoBlock && used() > evict->target_used_bytes;
    if (!more) {
      break;
    }
    if (!ReadyToEvictLocked(victim, absl::InfiniteDuration(), deferred)) {
      more = blocks_.at(victim).locks > 0;  // else as many are written as may be at a time
    } else {
      const uint64_t blocks = counters_.evictions;
      const uint64_t bytes = counters_.evicted_bytes;
      EvictFamilyLocked(victim, absl::InfiniteDuration(), deferred);
      evict->result.blocks += counters_.evictions - blocks;
      evict->result.bytes += counters_.evicted_bytes - bytes;
    }
  }
  if (more) {  // in slices, so that the lock is never held for long
    evict->slice_queued = true;
    deferred.Add([this, evict] {
      RunJob(Priority::kNormal, [this, evict] {
        DeferredCalls later;
        Lock relock(&mutex_);
        evict->slice_queued = false;
        AdvanceEvictLocked(evict, later);
      });
    });
    return;
  }
  if (used() > evict->target_used_bytes && (!local_writes_.empty() || IsPublishingLocked())) {
    return;
  }
  evict->ended = true;
  evict->result.used_bytes = used();
  std::erase(evicts_, evict);
  deferred.Add([this, evict] {
    evict->done(evict->result);
    Lock relock(&mutex_);
    JobEndedLocked();
  });
}

void Store::Verify(std::function<void(VerifyResult)> done) {
  RunJob(Priority::kLow, [this, done = std::move(done)] { RunVerify(0, {}, done); });
}

void Store::ScrubLocal(ScrubPace pace, std::function<void(absl::StatusOr<ScrubResult>)> done) {
  if (local_ == nullptr) {
    return done(absl::FailedPreconditionError("there is no local tier"));
  }
  JobStarted();  // until the answer has been given
  local_->Scrub(pace, [this, done = std::move(done)](const ScrubResult& result) {
    executor_.Run(Priority::kNormal, [this, done, result] {
      done(result);
      Lock lock(&mutex_);
      JobEndedLocked();
    });
  });
}

// Without `done`: only what is from an earlier life and not verified yet.
void Store::RunVerify(uint32_t begin, VerifyResult sum, std::function<void(VerifyResult)> done) {
  uint32_t next = begin;
  bool more = true;
  for (uint32_t i = 0; i < kVerifySlice && more; ++i, ++next) {
    const BlockId id{next};
    absl::Span<const char> payload;
    Digest128 expected;
    {
      Lock lock(&mutex_);
      more = next < blocks_.end();
      if (!more || blocks_.at(id).state != BlockState::kReady ||
          (done == nullptr && blocks_.at(id).unverified == 0)) {
        continue;
      }
      LockBlockLocked(id);
      payload = PayloadLocked(blocks_.at(id)).first(blocks_.at(id).payload_bytes);
      expected = blocks_.at(id).checksum;
    }
    const bool right = HashPayload(payload) == expected;
    Lock lock(&mutex_);
    ++sum.blocks;
    sum.bytes += payload.size();
    if (!right) {
      ++sum.corrupt;
      ++counters_.corrupt;
      HideLocked(id);
    } else {
      blocks_.at(id).unverified = 0;
    }
    UnlockBlockLocked(id);
  }
  if (done == nullptr && (!more || ending_)) {
    return;
  }
  if (more) {
    RunJob(Priority::kLow,
           [this, next, sum, done = std::move(done)] { RunVerify(next, sum, done); });
  } else {
    done(sum);
  }
}

}  // namespace terrace
