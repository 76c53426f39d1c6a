// Probe: what could be delivered, and up to which token position the whole request would be legal.
#include <algorithm>
#include <limits>
#include <utility>

#include "daemon/store/part_view.h"
#include "daemon/store/probe_load.h"
#include "daemon/store/store.h"

namespace terrace {
namespace {

// How long a prefetch that a probe begins may take.
constexpr absl::Duration kProbesPrefetch = absl::Seconds(10);

uint64_t LegalBoundary(const std::vector<PartView>& views) {
  uint64_t furthest = 0;
  for (const PartView& view : views) {
    const uint32_t count = view.part->key_count();
    if (view.part->rule != Rule::kIndependent && count > 0) {
      furthest = std::max(furthest, view.End(count - 1));
    }
  }
  return LargestLegalOf(views, furthest);
}

}  // namespace

void Store::Probe(const Caller& caller, ProbeCall call, std::function<void(ProbeResult)> done) {
  ProbeResult result;
  ProbeView view;
  {
    Lock lock(&mutex_);
    result = ProbeLocked(caller, call, view);
    counters_.probe_keys += result.states.size();
    counters_.probe_hits += view.hits;
  }
  JudgeLoad(view, costs_, result);
  if (call.prefetch) {
    const PrefetchCall prefetch{PartsWorthLoading(view, result.worth_tokens), call.priority,
                                clock_.Now() + kProbesPrefetch, absl::ZeroDuration()};
    DeferredCalls deferred;
    Lock lock(&mutex_);
    result.ticket = BeginPrefetchLocked(caller, prefetch, deferred).ticket;
  }
  const std::vector<LoadCosts::Miss> misses = MissesOf(view, result);
  done(std::move(result));
  // After the answer, which does not depend on it: the touch is a third of a probe's work.
  for (const LoadCosts::Miss& miss : misses) {
    costs_.NoteMiss(miss);
  }
  Lock lock(&mutex_);
  NoteUseLocked(caller, call);
  TouchSeenLocked(view.seen);
}

void Store::FindPartLocked(TenantId tenant, const StorePart& part, std::vector<BlockId>& out) {
  out.assign(part.key_count(), kNoBlock);
  const std::optional<ScopeId> scope = FindScopeLocked(tenant, part);
  if (!scope.has_value() || part.key_bytes < kMinKeyBytes || part.key_bytes > kMaxKeyBytes) {
    return;
  }
  const bool stop = part.rule == Rule::kPrefix && lower_tiers_.empty();
  index_.FindMany(*scope, part.keys, part.key_bytes,
                  stop ? ResidentIndex::OnMiss::kStop : ResidentIndex::OnMiss::kGoOn,
                  absl::MakeSpan(out));
}

// One part's states, in the order of its keys; `all.seen` grows by its ready blocks, `all.lower` by
// what lies or is read below. A probe spends its time in this loop, which therefore looks at each
// block once.
void Store::ProbePartLocked(TenantId tenant,
                            const StorePart& part,
                            ProbeView& all,
                            ProbeResult& result) {
  PartView& view = all.parts.emplace_back();
  std::vector<SeenBlock>& seen = all.seen;
  view.part = &part;
  const Namespace* ns = FindNamespaceLocked(tenant, part.namespace_digest);
  view.block_tokens = ns == nullptr ? 0 : ns->record.block_tokens;
  std::vector<BlockId> found;
  FindPartLocked(tenant, part, found);
  const uint32_t count = part.key_count();
  view.usable.assign(count, 0);
  const size_t first_state = result.states.size();
  result.states.resize(first_state + count, static_cast<char>(KeyState::kMiss));
  char* const states = result.states.data() + first_state;
  const bool has_lower = !lower_tiers_.empty();
  const bool is_prefix = part.rule == Rule::kPrefix;
  seen.reserve(seen.size() + count);
  uint32_t hits = 0;
  bool broken = false;
  for (uint32_t i = 0; i < count; ++i) {
    KeyState state = KeyState::kMiss;
    uint32_t tier = 0;
    LowerBlock lower;
    if (found[i] != kNoBlock) {
      const Block& block = blocks_.at(found[i]);
      state = KeyState::kPending;
      if (block.state == BlockState::kReady) {
        state = KeyState::kReady;
        seen.push_back({found[i], block.serial, block.payload_bytes, i});
      } else if (const auto flight = flights_.find(found[i]);
                 flight != flights_.end() && flight->second.is_read) {
        all.lower.push_back({i, flight->second.tier, block.payload_bytes, true});
      }
    } else if (has_lower && LookupLowerLocked(tenant, part, i, &lower, &tier)) {
      state = KeyState::kLower;
      all.lower.push_back({i, tier, lower.payload_bytes, false});
      ++tier;  // 0 is DRAM
    }
    if (state == KeyState::kMiss) {
      broken = true;
      if (is_prefix) {
        break;  // what follows could not be used, and reads MISS
      }
      continue;
    }
    view.usable[i] = 1;
    ++hits;
    view.run += broken ? 0 : 1;
    states[i] = static_cast<char>(static_cast<uint32_t>(state) | (tier << 4U));
  }
  all.seen_end.push_back(seen.size());
  all.lower_end.push_back(all.lower.size());
  result.part_hits.push_back(is_prefix ? view.run : hits);
  all.hits += hits;
}

ProbeResult Store::ProbeLocked(const Caller& caller, const ProbeCall& call, ProbeView& view) {
  ProbeResult result;
  view.parts.reserve(call.parts.size());
  for (const StorePart& part : call.parts) {
    ProbePartLocked(caller.tenant, part, view, result);
  }
  view.dram_bytes_per_second = read_rate_;
  for (size_t tier = 0; tier < reads_.size(); ++tier) {
    view.queued_bytes[tier] = reads_[tier].bytes;
  }
  result.boundary_tokens = LegalBoundary(view.parts);
  std::vector<BlockId> held;
  size_t at = 0;
  size_t lower_at = 0;
  for (size_t p = 0; p < view.parts.size(); ++p) {
    const bool independent = call.parts[p].rule == Rule::kIndependent;
    const uint32_t under =
        independent ? call.parts[p].key_count() : view.parts[p].KeysUpTo(result.boundary_tokens);
    result.part_boundary_keys.push_back(under);
    for (; at < view.seen_end[p] && view.seen[at].key < under; ++at) {
      result.hit_bytes += view.seen[at].payload_bytes;
      if (call.hold > absl::ZeroDuration()) {
        held.push_back(view.seen[at].id);
      }
    }
    at = view.seen_end[p];
    for (; lower_at < view.lower_end[p] && view.lower[lower_at].key < under; ++lower_at) {
      result.hit_bytes += view.lower[lower_at].payload_bytes;
    }
    lower_at = view.lower_end[p];
  }
  if (!held.empty()) {
    result.hold = std::min(call.hold, kMaxHold);
    result.hold_id = GrantHoldLocked(caller, clock_.Now() + result.hold, std::move(held));
  }
  return result;
}

// Touches what is still the block that the probe saw.
void Store::TouchSeenLocked(absl::Span<const SeenBlock> seen) {
  std::vector<BlockId> chain;
  chain.reserve(seen.size());
  for (const SeenBlock& block : seen) {
    const Block& entry = blocks_.at(block.id);
    if (entry.serial == block.serial && entry.state == BlockState::kReady) {
      chain.push_back(block.id);
    }
  }
  TouchLocked(chain);
  NoteReuseLocked(chain);
}

// Pools are touched in runs, so that a chain whose blocks share a slot size is one call to the
// policy.
void Store::TouchLocked(absl::Span<const BlockId> chain) {
  const uint32_t now = NowDeciseconds();
  for (size_t begin = 0; begin < chain.size();) {
    const uint16_t pool = blocks_.at(chain[begin]).pool;
    size_t end = begin;
    while (end < chain.size() && blocks_.at(chain[end]).pool == pool) {
      Block& block = blocks_.at(chain[end]);
      block.touched_ds = now;
      counters_.return_bytes_used += block.fetched_ahead * uint64_t{block.payload_bytes};
      block.fetched_ahead = 0;
      ++end;
    }
    pools_[pool]->policy->Touch(chain.subspan(begin, end - begin));
    begin = end;
  }
}

}  // namespace terrace
