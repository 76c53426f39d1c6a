// Probe: what could be delivered, and up to which token position the whole request would be legal.
#include <algorithm>
#include <limits>
#include <utility>

#include "daemon/store/part_view.h"
#include "daemon/store/store.h"

namespace terrace {
namespace {

// Boundaries shrink until every part agrees; each round lowers at least one part's end or stops.
uint64_t LegalBoundary(const std::vector<PartView>& views) {
  uint64_t boundary = 0;
  for (const PartView& view : views) {
    const uint32_t count = view.part->key_count();
    if (view.part->rule != Rule::kIndependent && count > 0) {
      boundary = std::max(boundary, view.End(count - 1));
    }
  }
  for (bool agreed = false; !agreed && boundary > 0;) {
    agreed = true;
    for (const PartView& view : views) {
      const uint64_t legal = view.LargestLegal(boundary);
      if (legal < boundary) {
        boundary = legal;
        agreed = false;
      }
    }
  }
  return boundary;
}

}  // namespace

void Store::Probe(const Caller& caller, ProbeCall call, std::function<void(ProbeResult)> done) {
  DeferredCalls deferred;
  ProbeResult result;
  std::vector<SeenBlock> seen;
  {
    Lock lock(&mutex_);
    result = ProbeLocked(caller, call, seen);
    if (call.prefetch) {
      PrefetchCall prefetch{call.parts, call.priority, clock_.Now() + absl::Seconds(10),
                            absl::ZeroDuration()};
      result.ticket = BeginPrefetchLocked(caller, prefetch, deferred).ticket;
    }
  }
  deferred.Run();
  done(std::move(result));
  // After the answer, which does not depend on it: the touch is a third of a probe's work.
  Lock lock(&mutex_);
  NoteUseLocked(caller, call);
  TouchSeenLocked(seen);
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

// One part's states, in the order of its keys; `seen` grows by its ready blocks. A probe spends its
// time in this loop, which therefore looks at each block once.
void Store::ProbePartLocked(TenantId tenant,
                            const StorePart& part,
                            PartView& view,
                            std::vector<SeenBlock>& seen,
                            ProbeResult& result) {
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
      }
    } else if (has_lower && LookupLowerLocked(tenant, part, i, &lower, &tier)) {
      state = KeyState::kLower;
      result.load_time += lower_tiers_[tier]->EstimateRead(lower.payload_bytes);
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
  result.part_hits.push_back(is_prefix ? view.run : hits);
  counters_.probe_keys += count;
  counters_.probe_hits += hits;
}

ProbeResult Store::ProbeLocked(const Caller& caller,
                               const ProbeCall& call,
                               std::vector<SeenBlock>& seen) {
  ProbeResult result;
  std::vector<PartView> views(call.parts.size());
  std::vector<size_t> ends;  // of each part's blocks in `seen`
  for (size_t p = 0; p < call.parts.size(); ++p) {
    ProbePartLocked(caller.tenant, call.parts[p], views[p], seen, result);
    ends.push_back(seen.size());
  }
  result.boundary_tokens = LegalBoundary(views);
  std::vector<BlockId> held;
  size_t at = 0;
  for (size_t p = 0; p < views.size(); ++p) {
    const bool independent = call.parts[p].rule == Rule::kIndependent;
    const uint32_t under =
        independent ? call.parts[p].key_count() : views[p].KeysUpTo(result.boundary_tokens);
    result.part_boundary_keys.push_back(under);
    for (; at < ends[p] && seen[at].key < under; ++at) {
      result.hit_bytes += seen[at].payload_bytes;
      if (call.hold > absl::ZeroDuration()) {
        held.push_back(seen[at].id);
      }
    }
    at = ends[p];
  }
  if (read_rate_ > 0) {
    result.load_time += absl::Seconds(static_cast<double>(result.hit_bytes) / read_rate_);
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
      blocks_.at(chain[end]).touched_ds = now;
      ++end;
    }
    pools_[pool]->policy->Touch(chain.subspan(begin, end - begin));
    begin = end;
  }
}

}  // namespace terrace
