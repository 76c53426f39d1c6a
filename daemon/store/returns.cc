// Conversations that come back: their engine said when (RequestHints::expected_return), and what
// has left DRAM of their chains by then is read again shortly before, while the tiers below have
// nothing else to do. What it displaces is what the policy would evict for any other read.
#include <algorithm>
#include <utility>
#include <vector>

#include "daemon/store/part_view.h"
#include "daemon/store/probe_load.h"
#include "daemon/store/store.h"

namespace terrace {
namespace {

constexpr uint32_t kReturnsATick = 16;
// A return that needs more of its tenant's DRAM is read when it is asked for.
constexpr uint64_t kDramParts = 4;
// More is not under way on a tier that has nothing to do.
constexpr uint64_t kIdleBytes = uint64_t{64} << 20;

uint64_t BytesBelow(const ProbeView& view, uint32_t keys) {
  uint64_t bytes = 0;
  for (const LowerHit& hit : view.lower) {
    bytes += hit.key < keys ? hit.payload_bytes : 0;
  }
  return bytes;
}

bool AreIdle(absl::Span<const ReadQueue> tiers) {
  return std::all_of(tiers.begin(), tiers.end(), [](const ReadQueue& reads) {
    return reads.waiting.empty() && reads.bytes <= kIdleBytes;
  });
}

void Count(StoreCounters& counters, ReturnEnd end, uint64_t returns = 1) {
  counters.returns[static_cast<size_t>(end)] += returns;
}

}  // namespace

// `chain`: all of the put's chain that is in DRAM, prefix first.
void Store::NoteReturnLocked(const PutOperation& put, absl::Span<const BlockId> chain) {
  const StorePart& part = put.call.part;
  const RequestHints& hints = put.call.hints;
  const auto name = [&part](KeyView key) {
    return LoadCosts::NameOf(part.namespace_digest, part.salt, key);
  };
  if (!returns_.empty() && !put.call.parent.empty() && returns_.Forget(name(put.call.parent))) {
    Count(counters_, ReturnEnd::kOvertaken);
  }
  const bool is_whole = !chain.empty() && blocks_.at(chain.front()).first_token == 0;
  if (!options_.fetch_returns || lower_tiers_.empty() || hints.session_end || !is_whole ||
      hints.expected_return <= absl::ZeroDuration()) {
    return;
  }
  StorePart whole = part;
  whole.rule = Rule::kPrefix;
  whole.first_token = 0;
  whole.end_tokens.clear();
  whole.keys.clear();
  whole.keys.reserve(chain.size() * part.key_bytes);
  for (const BlockId block : chain) {
    const KeyView key = blocks_.at(block).key();
    if (key.size() != part.key_bytes) {
      return;
    }
    whole.keys.append(key);
  }
  const uint64_t last = name(whole.key(whole.key_count() - 1));
  if (!returns_.Expect(last, put.caller.tenant, std::move(whole), clock_.Now(),
                       hints.expected_return)) {
    Count(counters_, ReturnEnd::kRefused);
  }
}

void Store::FetchReturns() {
  for (uint32_t i = 0; i < kReturnsATick; ++i) {
    ProbeCall call;
    ProbeView view;
    ProbeResult result;
    Caller caller;
    absl::Duration deadline;
    {
      Lock lock(&mutex_);
      const absl::Duration now = clock_.Now();
      Count(counters_, ReturnEnd::kLate, returns_.DropLate(now));
      if (draining_ || !AreIdle(reads_)) {
        return;
      }
      std::optional<ExpectedReturns::Return> due = returns_.TakeDue(now);
      if (!due.has_value()) {
        return;
      }
      caller.tenant = due->tenant;
      deadline = due->at + due->lead;
      call.parts.push_back(std::move(due->chain));
      result = ProbeLocked(caller, call, view);
    }
    JudgeLoad(view, costs_, result);
    FetchReturn(caller,
                {PartsWorthLoading(view, result.worth_tokens), Priority::kLow, deadline, {}}, view);
  }
}

void Store::FetchReturn(const Caller& caller, const PrefetchCall& fetch, const ProbeView& view) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const uint32_t keys = fetch.parts.empty() ? 0 : fetch.parts.front().key_count();
  const uint64_t bytes = BytesBelow(view, keys);
  Tenant& tenant = TenantOf(caller.tenant);
  if (bytes == 0 || bytes > DramOfLocked(tenant) / kDramParts) {
    Count(counters_, bytes == 0 ? ReturnEnd::kResident : ReturnEnd::kRefused);
    return;
  }
  if (tenant.tickets >= options_.max_tickets_per_tenant) {
    Count(counters_, ReturnEnd::kRefused);
    return;
  }
  const StorePart& chain = fetch.parts.front();
  std::vector<BlockId> before;
  FindPartLocked(caller.tenant, chain, before);
  BeginPrefetchLocked(caller, fetch, deferred);
  std::vector<BlockId> after;
  FindPartLocked(caller.tenant, chain, after);
  for (size_t i = 0; i < after.size(); ++i) {
    if (before[i] == kNoBlock && after[i] != kNoBlock) {
      flights_.at(after[i]).for_return = true;
    }
  }
  Count(counters_, ReturnEnd::kFetched);
}

// Its read for a return has ended well.
void Store::NoteFetchedLocked(BlockId id) {
  const std::vector<FlightWaiter>& waiters = flights_.at(id).waiters;
  const bool is_awaited =
      std::any_of(waiters.begin(), waiters.end(),
                  [](const FlightWaiter& waiter) { return waiter.ticket == 0; });
  Block& block = blocks_.at(id);
  counters_.return_bytes += block.payload_bytes;
  counters_.return_bytes_used += is_awaited ? block.payload_bytes : 0;
  block.fetched_ahead = is_awaited ? 0 : 1;
}

}  // namespace terrace
