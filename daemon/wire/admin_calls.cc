#include "daemon/wire/admin_calls.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "daemon/wire/call_status.h"
#include "daemon/wire/part_checks.h"
#include "daemon/wire/pool_view.h"
#include "tiers/copy/one_pass.h"

namespace terrace {
namespace {

constexpr absl::string_view kDramTier = "g2";

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0;
  uint64_t resident = 0;
  statm >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t OpenDescriptors() {
  std::error_code error;
  uint64_t count = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; it != end && !error;
       it.increment(error)) {
    ++count;
  }
  return count == 0 ? 0 : count - 1;  // less the one that read the folder
}

absl::Status CheckTier(const std::string& tier) {
  return tier.empty() || tier == kDramTier ? absl::OkStatus()
                                           : absl::NotFoundError("tier: none of this name");
}

std::string_view StateName(TierState state) {
  switch (state) {
    case TierState::kRecovering:
      return "recovering";
    case TierState::kOnline:
      return "ready";
    case TierState::kReadOnly:
      return "read-only";
    case TierState::kFaulty:
      return "faulty";
    case TierState::kDetached:
      return "detached";
    case TierState::kClosed:
      break;
  }
  return "closed";
}

std::string LocalStateName(const SegmentTierFigures& figures) {
  return figures.reads_suspended ? "suspended" : std::string(StateName(figures.state));
}

void FillDrive(const DriveView& view, v1::DriveStatus* drive) {
  const SegmentTierFigures& figures = view.figures;
  drive->set_path(view.path);
  drive->set_state(view.open ? LocalStateName(figures) : "away");
  drive->set_problem(view.problem);
  drive->set_capacity_bytes(figures.capacity_bytes);
  drive->set_used_bytes(figures.live_bytes);
  drive->set_segment_bytes(figures.file_bytes);
  drive->set_blocks(figures.records);
  drive->set_read_faults(figures.read_faults);
  drive->set_write_faults(figures.write_faults);
  drive->set_sync_faults(figures.sync_faults);
  drive->set_corrupt(figures.corrupt_headers + figures.corrupt_payloads);
  drive->set_pending_deletes(view.pending_deletes);
  drive->set_direct(view.open && figures.transfers.caching == Caching::kDirect);
  if (view.open && !drive->direct()) {
    drive->set_not_direct_because(figures.transfers.reason);
  }
}

void FillBudget(const LocalBudgetUsage& budget, v1::TierStatus* tier) {
  tier->set_endurance_per_day(budget.bytes_per_day);
  tier->set_saved_up_bytes(static_cast<int64_t>(budget.saved_up_bytes));
  tier->set_price_us_per_mib(budget.price_seconds_per_byte * 1e6 * (uint64_t{1} << 20));
  tier->set_declined_blocks(budget.judged[static_cast<size_t>(Admission::kPriced)] +
                            budget.judged[static_cast<size_t>(Admission::kSpent)]);
}

void FillLocalTier(const LocalTierUsage& usage,
                   const StoreCounters& counters,
                   size_t index,
                   v1::TierStatus* tier) {
  const SegmentTierFigures& figures = usage.figures;
  tier->set_name(usage.name);
  tier->set_kind("local");
  tier->set_state(LocalStateName(figures));
  tier->set_capacity_bytes(figures.capacity_bytes);
  tier->set_used_bytes(figures.live_bytes);
  tier->set_blocks(figures.records);
  tier->set_hits(counters.tier_hits[index]);
  tier->set_segment_bytes(figures.file_bytes);
  tier->set_segments(figures.segments);
  tier->set_free_segments(figures.free_segments);
  tier->set_segments_to_recover(figures.segments_to_recover);
  tier->set_written_bytes(figures.payload_bytes_written);
  tier->set_device_written_bytes(figures.bytes_written);
  tier->set_corrupt(figures.corrupt_headers + figures.corrupt_payloads);
  tier->set_last_fault(figures.last_fault);
  tier->set_lost_blocks(
      std::accumulate(counters.local_losses.begin(), counters.local_losses.end(), uint64_t{0}));
  for (const DriveView& drive : usage.drives) {
    FillDrive(drive, tier->add_drives());
  }
}

void FillCounters(const StoreCounters& counters, v1::StatusReply* reply) {
  reply->set_hits(counters.get_outcomes[static_cast<size_t>(GetOutcome::kOk)]);
  reply->set_misses(counters.get_outcomes[static_cast<size_t>(GetOutcome::kMiss)]);
  reply->set_puts(counters.put_outcomes[static_cast<size_t>(PutOutcome::kStored)]);
  reply->set_evictions(counters.evictions);
  reply->set_corrupt(counters.corrupt);
  reply->set_bytes_in(counters.bytes_in);
  reply->set_bytes_out(counters.bytes_copied_out + counters.bytes_leased);
  reply->set_return_bytes(counters.return_bytes);
  reply->set_return_used_bytes(counters.return_bytes_used);
  reply->set_return_wasted_bytes(counters.return_bytes_wasted);
}

void FillKept(const KeptUsage& kept, v1::StatusReply* reply) {
  reply->set_recovered_blocks(kept.blocks);
  reply->set_recovered_bytes(kept.bytes);
  reply->set_unrecovered_blocks(kept.dropped_blocks);
  reply->set_held_bytes(kept.held_bytes);
}

void FillPublisher(const EventPublisherFigures& figures, v1::PublisherStatus* publisher) {
  publisher->set_tenant(figures.tenant);
  publisher->set_endpoint(figures.endpoint);
  publisher->set_replay_endpoint(figures.replay_endpoint);
  publisher->set_next_sequence(figures.next_sequence);
  publisher->set_batches(figures.batches);
  publisher->set_unsent(figures.unsent);
  publisher->set_snapshots(figures.snapshots);
  publisher->set_replays(figures.replays);
}

}  // namespace

AdminCalls::AdminCalls(std::shared_ptr<FrontShared> shared, AdminRoom room)
    : shared_(std::move(shared)), room_(std::move(room)), started_at_(shared_->clock.Now()) {}

void AdminCalls::Status(CallContext& /*context*/,
                        v1::StatusRequest& /*request*/,
                        const CallDone<v1::StatusReply>& done) {
  const StoreUsage usage = shared_->store.Usage();
  v1::StatusReply reply;
  reply.set_boot_id(shared_->boot_id);
  reply.set_version(shared_->version);
  reply.set_uptime_ms(
      static_cast<uint64_t>(absl::ToInt64Milliseconds(shared_->clock.Now() - started_at_)));
  reply.set_sessions(usage.sessions);
  reply.set_leases(usage.leased_blocks);
  reply.set_leased_bytes(usage.leased_bytes);
  reply.set_holds(usage.holds);
  reply.set_regions(usage.regions);
  reply.set_region_bytes(usage.region_bytes);
  reply.set_blocks(usage.blocks);
  reply.set_block_bytes(usage.payload_bytes);
  reply.set_tickets(usage.tickets);
  reply.set_quarantined_bytes(usage.quarantined_bytes);
  reply.set_draining(draining_);
  for (const v1::Feature feature : ServedFeatures(shared_->store, shared_->gpu != nullptr)) {
    reply.add_features(feature);
  }
  FillCounters(usage.counters, &reply);
  FillKept(usage.kept, &reply);
  reply.set_watchers(usage.watchers);
  if (room_.hooks.publishers) {
    for (const EventPublisherFigures& figures : room_.hooks.publishers()) {
      FillPublisher(figures, reply.add_publishers());
    }
  }
  reply.set_resident_bytes(ResidentBytes());
  reply.set_open_descriptors(OpenDescriptors());
  if (room_.hooks.metrics_address) {
    reply.set_metrics_address(room_.hooks.metrics_address());
  }
  reply.set_copy_kernel(std::string(CopyKernelName(ActiveCopyKernel())));
  done(absl::OkStatus(), reply);
}

void AdminCalls::Tiers(CallContext& /*context*/,
                       v1::TiersRequest& /*request*/,
                       const CallDone<v1::TiersReply>& done) {
  const StoreUsage usage = shared_->store.Usage();
  v1::TiersReply reply;
  reply.set_boot_id(shared_->boot_id);
  v1::TierStatus* tier = reply.add_tiers();
  tier->set_name(std::string(kDramTier));
  tier->set_kind("dram");
  tier->set_state(draining_ ? "draining" : "ready");
  tier->set_capacity_bytes(usage.capacity_bytes);
  tier->set_used_bytes(usage.used_slot_bytes);
  tier->set_blocks(usage.blocks);
  tier->set_slabs(usage.assigned_slabs);
  tier->set_free_slabs(usage.free_slabs);
  tier->set_page_kind(std::string(PageKindName(usage.page_kind)));
  tier->set_read_bytes_per_s(usage.read_bytes_per_s);
  tier->set_write_bytes_per_s(usage.write_bytes_per_s);
  tier->set_hits(usage.counters.tier_hits[0]);
  tier->set_corrupt(usage.counters.corrupt);
  for (size_t i = 0; i < usage.local_tiers.size(); ++i) {
    v1::TierStatus* local = reply.add_tiers();
    FillLocalTier(usage.local_tiers[i], usage.counters, i + 1, local);
    FillBudget(usage.local_budget, local);
  }
  for (const SharedTierUsage& shared : usage.shared_tiers) {
    FillSharedTier(shared, reply.add_tiers());
  }
  done(absl::OkStatus(), reply);
}

void AdminCalls::Pool(CallContext& /*context*/,
                      v1::PoolRequest& request,
                      const CallDone<v1::PoolReply>& done) {
  v1::PoolReply reply;
  reply.set_boot_id(shared_->boot_id);
  for (const SharedTierUsage& usage : shared_->store.Usage().shared_tiers) {
    if (request.tier().empty() || request.tier() == usage.name) {
      v1::PoolStatus* pool = reply.add_pools();
      FillPool(usage, pool);
      if (request.reclaim_bytes() > 0) {
        FillReclaim(shared_->store.ReclaimOrder(usage.name), request.reclaim_bytes(), pool);
      }
    }
  }
  if (!request.tier().empty() && reply.pools().empty()) {
    return Refuse(absl::NotFoundError("tier: no shared one of this name"), done);
  }
  done(absl::OkStatus(), reply);
}

void AdminCalls::Tenants(CallContext& /*context*/,
                         v1::TenantsRequest& /*request*/,
                         const CallDone<v1::TenantsReply>& done) {
  v1::TenantsReply reply;
  reply.set_boot_id(shared_->boot_id);
  for (const TenantUsage& usage : shared_->store.Tenants()) {
    v1::TenantStatus* tenant = reply.add_tenants();
    tenant->set_tenant(usage.alias);
    tenant->set_used_bytes(usage.used_bytes);
    tenant->set_guaranteed_bytes(usage.guaranteed_bytes);
    tenant->set_limit_bytes(usage.limit_bytes);
    tenant->set_blocks(usage.blocks);
    tenant->set_leased_bytes(usage.leased_bytes);
    tenant->set_pinned_bytes(usage.pinned_bytes);
    tenant->set_sessions(usage.sessions);
    tenant->set_hits(usage.hits);
    tenant->set_misses(usage.misses);
  }
  done(absl::OkStatus(), reply);
}

void AdminCalls::Namespaces(CallContext& /*context*/,
                            v1::NamespacesRequest& /*request*/,
                            const CallDone<v1::NamespacesReply>& done) {
  v1::NamespacesReply reply;
  reply.set_boot_id(shared_->boot_id);
  for (const NamespaceUsage& usage : shared_->store.Namespaces()) {
    v1::NamespaceStatus* out = reply.add_namespaces();
    out->set_tenant(usage.tenant);
    out->set_namespace_digest(usage.digest.ToBytes());
    out->set_family_digest(usage.family.ToBytes());
    FillRecord(usage.record, out->mutable_record());
    out->set_generation(usage.generation);
    out->set_blocks(usage.blocks);
    out->set_bytes(usage.bytes);
  }
  done(absl::OkStatus(), reply);
}

void AdminCalls::Explain(CallContext& context,
                         v1::ExplainRequest& request,
                         const CallDone<v1::ExplainReply>& done) {
  v1::Part part;
  part.set_namespace_digest(request.namespace_digest());
  part.set_salt(request.salt());
  part.set_key_bytes(static_cast<uint32_t>(std::max<size_t>(1, request.key().size())));
  part.set_keys(request.key());
  if (request.key().size() < kMinKeyBytes || request.key().size() > kMaxKeyBytes) {
    return Refuse(InvalidField("key", "16 to 64 bytes"), done);
  }
  if (absl::Status status = CheckPart(part, {""}); !status.ok()) {
    return Refuse(status, done);
  }
  std::string tenant = request.tenant();
  if (tenant.empty()) {
    const std::vector<TenantUsage> tenants = shared_->store.Tenants();
    if (tenants.size() != 1) {
      return Refuse(InvalidField("tenant", "required when there is not exactly one"), done);
    }
    tenant = tenants.front().alias;
  }
  context.keys = 1;
  const absl::StatusOr<Explanation> found = shared_->store.Explain(tenant, TakePart(part));
  if (!found.ok()) {
    return Refuse(found.status(), done);
  }
  v1::ExplainReply reply;
  reply.set_boot_id(shared_->boot_id);
  reply.set_state(static_cast<v1::KeyState>(found->state));
  reply.set_tier(found->tier);
  reply.set_payload_bytes(found->payload_bytes);
  reply.set_generation(found->generation);
  reply.set_slab_id(static_cast<uint32_t>(found->slab));
  reply.set_slab_offset(found->slab_offset);
  reply.set_leases(found->leases);
  reply.set_holds(found->holds);
  reply.set_pinned(found->pinned);
  reply.set_age_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(found->age)));
  reply.set_idle_ms(static_cast<uint64_t>(absl::ToInt64Milliseconds(found->idle)));
  reply.set_eviction_rank(found->eviction_rank);
  reply.set_first_token(found->first_token);
  reply.set_text(found->text);
  done(absl::OkStatus(), reply);
}

void AdminCalls::SetQuota(CallContext& /*context*/,
                          v1::SetQuotaRequest& request,
                          const CallDone<v1::SetQuotaReply>& done) {
  // OpenTenant would make one of a name that nobody has.
  const std::vector<TenantUsage> tenants = shared_->store.Tenants();
  const bool known = std::any_of(tenants.begin(), tenants.end(), [&](const TenantUsage& usage) {
    return usage.alias == request.tenant();
  });
  if (!known) {
    return Refuse(absl::NotFoundError("tenant: none of this name"), done);
  }
  const absl::StatusOr<TenantId> tenant = shared_->store.OpenTenant(request.tenant());
  absl::Status status = tenant.status();
  if (status.ok()) {
    status = shared_->store.SetQuota(*tenant, request.guaranteed_bytes(), request.limit_bytes());
  }
  v1::SetQuotaReply reply;
  reply.set_boot_id(shared_->boot_id);
  done(status, reply);
}

void AdminCalls::Evict(CallContext& /*context*/,
                       v1::EvictRequest& request,
                       CallDone<v1::EvictReply> done) {
  if (absl::Status status = CheckTier(request.tier()); !status.ok()) {
    return Refuse(status, done);
  }
  shared_->store.Evict(request.tenant(), request.target_used_bytes(),
                       [boot_id = shared_->boot_id,
                        done = std::move(done)](const absl::StatusOr<EvictResult>& result) {
                         if (!result.ok()) {
                           return Refuse(result.status(), done);
                         }
                         v1::EvictReply reply;
                         reply.set_boot_id(boot_id);
                         reply.set_evicted_blocks(result->blocks);
                         reply.set_evicted_bytes(result->bytes);
                         reply.set_used_bytes(result->used_bytes);
                         done(absl::OkStatus(), reply);
                       });
}

void AdminCalls::Drain(CallContext& /*context*/,
                       v1::DrainRequest& request,
                       const CallDone<v1::DrainReply>& done) {
  const bool draining = !request.resume();
  draining_ = draining;
  shared_->store.SetDraining(draining);
  if (room_.draining_changed) {
    room_.draining_changed(draining);
  }
  v1::DrainReply reply;
  reply.set_boot_id(shared_->boot_id);
  done(absl::OkStatus(), reply);
}

void AdminCalls::Scrub(CallContext& /*context*/,
                       v1::ScrubRequest& request,
                       CallDone<v1::ScrubReply> done) {
  if (!request.tier().empty() && !IsLocalTier(request.tier())) {
    return Refuse(absl::NotFoundError("tier: no local one of this name"), done);
  }
  shared_->store.ScrubLocal(
      ScrubPace::kBudget, [boot_id = shared_->boot_id,
                           done = std::move(done)](const absl::StatusOr<ScrubResult>& result) {
        if (!result.ok()) {
          return Refuse(result.status(), done);
        }
        if (!result->complete) {
          return Refuse(absl::CancelledError("the tier closed meanwhile"), done);
        }
        v1::ScrubReply reply;
        reply.set_boot_id(boot_id);
        reply.set_blocks(result->records);
        reply.set_corrupt(result->corrupt);
        reply.set_bytes(result->bytes);
        reply.set_unreadable(result->unreadable);
        done(absl::OkStatus(), reply);
      });
}

bool AdminCalls::IsLocalTier(const std::string& name) const {
  const StoreUsage usage = shared_->store.Usage();
  return std::any_of(usage.local_tiers.begin(), usage.local_tiers.end(),
                     [&name](const LocalTierUsage& tier) { return tier.name == name; });
}

void AdminCalls::VerifyLocal(CallDone<v1::VerifyReply> done) {
  shared_->store.ScrubLocal(ScrubPace::kFast, [boot_id = shared_->boot_id, done = std::move(done)](
                                                  const absl::StatusOr<ScrubResult>& result) {
    if (!result.ok()) {
      return Refuse(result.status(), done);
    }
    v1::VerifyReply reply;
    reply.set_boot_id(boot_id);
    reply.set_blocks(result->records);
    reply.set_bytes(result->bytes);
    reply.set_corrupt(result->corrupt);
    done(result->complete ? absl::OkStatus() : absl::CancelledError("the tier closed"), reply);
  });
}

void AdminCalls::Verify(CallContext& /*context*/,
                        v1::VerifyRequest& request,
                        CallDone<v1::VerifyReply> done) {
  if (IsLocalTier(request.tier())) {
    return VerifyLocal(std::move(done));
  }
  if (absl::Status status = CheckTier(request.tier()); !status.ok()) {
    return Refuse(status, done);
  }
  shared_->store.Verify([boot_id = shared_->boot_id, done = std::move(done)](VerifyResult result) {
    v1::VerifyReply reply;
    reply.set_boot_id(boot_id);
    reply.set_blocks(result.blocks);
    reply.set_bytes(result.bytes);
    reply.set_corrupt(result.corrupt);
    done(absl::OkStatus(), reply);
  });
}

void AdminCalls::Reload(CallContext& /*context*/,
                        v1::ReloadRequest& /*request*/,
                        const CallDone<v1::ReloadReply>& done) {
  if (!room_.hooks.reload) {
    return Refuse(absl::FailedPreconditionError("there is nothing to reload"), done);
  }
  const absl::StatusOr<AdminHooks::ReloadResult> result = room_.hooks.reload();
  if (!result.ok()) {
    return Refuse(result.status(), done);
  }
  v1::ReloadReply reply;
  reply.set_boot_id(shared_->boot_id);
  for (const std::string& name : result->changed) {
    reply.add_changed(name);
  }
  for (const std::string& name : result->needs_restart) {
    reply.add_needs_restart(name);
  }
  done(absl::OkStatus(), reply);
}

void AdminCalls::Checkpoint(CallContext& /*context*/,
                            v1::CheckpointRequest& /*request*/,
                            const CallDone<v1::CheckpointReply>& done) {
  Refuse(NotImplemented("Checkpoint"), done);
}

}  // namespace terrace
