// Blocks on their way into DRAM: who waits for them, reads from lower tiers, prefetch tickets.
#include <algorithm>
#include <utility>

#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kMaxReadsRunning = 32;  // of one tier
constexpr absl::Duration kReadCap = absl::Seconds(30);
constexpr absl::Duration kTicketMemory = absl::Seconds(60);

}  // namespace

Flight& Store::OpenFlightLocked(BlockId block) {
  const auto [at, inserted] = flights_.try_emplace(block);
  TERRACE_CHECK(inserted);
  return at->second;
}

void Store::CloseFlightLocked(BlockId block, GetOutcome outcome, DeferredCalls& deferred) {
  const auto found = flights_.find(block);
  TERRACE_CHECK(found != flights_.end());
  const Flight flight = std::move(found->second);
  flights_.erase(found);
  const bool ok = outcome == GetOutcome::kOk;
  if (!ok) {
    HideLocked(block);
  }
  for (const FlightWaiter& waiter : flight.waiters) {
    if (waiter.get != nullptr) {
      GetTarget& target = waiter.get->targets[waiter.index];
      if (ok) {
        LockBlockLocked(block);
        target.locked = true;
      } else {
        target.outcome = outcome;
        target.block = kNoBlock;
      }
      if (--waiter.get->waiting == 0 && !waiter.get->dispatched) {
        std::erase(waiting_, waiter.get);
        DeliverLocked(waiter.get, deferred);
      }
    } else if (waiter.put != nullptr) {
      if (ok) {
        LockBlockLocked(block);
        SetPutResult(*waiter.put, waiter.index, PutOutcome::kDuplicate, Reason::kNone);
      } else {
        waiter.put->chain[waiter.index] = kNoBlock;
        SetPutResult(*waiter.put, waiter.index, PutOutcome::kDeclined, Reason::kTooLate);
      }
      if (--waiter.put->waiting == 0) {
        std::erase(waiting_, waiter.put);
        MaybeFinishPutLocked(waiter.put, deferred);
      }
    } else if (const auto ticket = tickets_.find(waiter.ticket); ticket != tickets_.end()) {
      TicketResult& result = ticket->second.result;
      if (ok) {
        ++result.keys_arrived;
        result.bytes_arrived += blocks_.at(block).payload_bytes;
        AddToHoldLocked(ticket->second.hold_id, block);
      } else {
        ++result.keys_failed;
      }
      if (--ticket->second.waiting == 0) {
        EndTicketLocked(waiter.ticket, TicketState::kDone, deferred);
      }
    }
  }
}

// ---------------------------------------------------------------- giving up

void Store::DropWaiterLocked(BlockId block, const Operation* operation, uint64_t ticket) {
  const auto found = flights_.find(block);
  if (found == flights_.end()) {
    return;
  }
  std::erase_if(found->second.waiters, [&](const FlightWaiter& waiter) {
    return operation != nullptr ? waiter.get.get() == operation || waiter.put.get() == operation
                                : ticket != 0 && waiter.ticket == ticket;
  });
}

// The operation stops waiting for the flights of others; what it has goes on to delivery.
void Store::AbandonWaitsLocked(const std::shared_ptr<Operation>& operation,
                               GetOutcome outcome,
                               DeferredCalls& deferred) {
  if (operation->waiting == 0) {
    return;
  }
  operation->waiting = 0;
  std::erase(waiting_, operation);
  if (operation->kind == Operation::Kind::kGet) {
    const auto get = std::static_pointer_cast<GetOperation>(operation);
    for (GetTarget& target : get->targets) {
      if (target.block != kNoBlock && !target.locked) {
        DropWaiterLocked(target.block, get.get(), 0);
        target.block = kNoBlock;
        target.outcome = outcome;
      }
    }
    DeliverLocked(get, deferred);
    return;
  }
  const auto put = std::static_pointer_cast<PutOperation>(operation);
  const Reason reason = outcome == GetOutcome::kDeadline ? Reason::kDeadline : Reason::kCancelled;
  if (put->stage != PutStage::kStoring) {
    EndPutWaits(*put, reason);
    MaybeFinishPutLocked(put, deferred);
    return;
  }
  for (uint32_t i = 0; i < put->chain.size(); ++i) {
    if (put->chain[i] == kNoBlock || !flights_.contains(put->chain[i])) {
      continue;
    }
    const bool own = std::any_of(put->targets.begin(), put->targets.end(),
                                 [&](const PutTarget& target) { return target.position == i; });
    if (!own) {
      DropWaiterLocked(put->chain[i], put.get(), 0);
      put->chain[i] = kNoBlock;
      SetPutResult(*put, i, PutOutcome::kFailed, reason);
    }
  }
  MaybeFinishPutLocked(put, deferred);
}

void Store::CancelOrphanReadsLocked(DeferredCalls& deferred) {
  std::vector<BlockId> orphans;
  for (const auto& [block, flight] : flights_) {
    if (flight.is_read && flight.waiters.empty() && !flight.cancel_wanted) {
      orphans.push_back(block);
    }
  }
  for (const BlockId block : orphans) {
    Flight& flight = flights_.at(block);
    flight.cancel_wanted = true;
    std::vector<std::pair<Priority, BlockId>>& waiting = reads_[flight.tier].waiting;
    const auto queued = std::find_if(waiting.begin(), waiting.end(),
                                     [block](const auto& entry) { return entry.second == block; });
    if (queued != waiting.end()) {
      waiting.erase(queued);
      reads_[flight.tier].bytes -= flight.lower.payload_bytes;
      CloseFlightLocked(block, GetOutcome::kCancelled, deferred);
      UnlockBlockLocked(block);
    } else if (flight.reading && flight.read_token != 0) {
      deferred.Add(
          [tier = lower_tiers_[flight.tier], token = flight.read_token] { tier->Cancel(token); });
    }
  }
}

// ---------------------------------------------------------------- reads from lower tiers

bool Store::LookupLowerLocked(
    TenantId tenant, const StorePart& part, uint32_t key, LowerBlock* out, uint32_t* tier) {
  const Namespace* ns = FindNamespaceLocked(tenant, part.namespace_digest);
  if (ns == nullptr || part.key_bytes < kMinKeyBytes || part.key_bytes > kMaxKeyBytes) {
    return false;
  }
  const BlockIdentity identity{ns->digest, ns->generation, part.salt, part.key(key)};
  if (!deleting_.empty() && deleting_.contains(LocalName(identity))) {
    return false;
  }
  for (uint32_t i = 0; i < lower_tiers_.size(); ++i) {
    if (lower_tiers_[i]->Lookup(identity, out)) {
      *tier = i;
      return out->payload_bytes > 0 && out->payload_bytes <= ns->record.block_bytes;
    }
  }
  return false;
}

BlockId Store::BeginReadLocked(
    TenantId tenant, const StorePart& part, uint32_t key, Priority priority, uint32_t* tier) {
  LowerBlock lower;
  if (lower_tiers_.empty() || !LookupLowerLocked(tenant, part, key, &lower, tier)) {
    return kNoBlock;
  }
  const std::optional<ScopeId> scope = UseScopeLocked(tenant, part);
  if (!scope.has_value()) {
    return kNoBlock;
  }
  const BlockId block = blocks_.Add(*scope, part.key(key));
  Block& fresh = blocks_.at(block);
  fresh.payload_bytes = lower.payload_bytes;
  const uint64_t first = FirstToken(part, NamespaceOf(*scope).record.block_tokens, key);
  fresh.first_token = static_cast<uint32_t>(std::min<uint64_t>(first, UINT32_MAX));
  if (part.rule == Rule::kPrefix && key > 0) {
    fresh.parent = index_.Find(*scope, part.key(key - 1));
    fresh.parent_serial = fresh.parent == kNoBlock ? 0 : blocks_.at(fresh.parent).serial;
  }
  index_.Insert(block);
  LockBlockLocked(block);
  Flight& flight = OpenFlightLocked(block);
  flight.is_read = true;
  flight.tier = *tier;
  flight.lower = lower;
  flight.priority = priority;
  QueueReadLocked(block);
  return block;
}

void Store::QueueReadLocked(BlockId block) {
  const Flight& flight = flights_.at(block);
  reads_[flight.tier].Add(block, flight.priority);
  reads_[flight.tier].bytes += flight.lower.payload_bytes;
}

bool Store::IsShared(size_t tier) const {
  const size_t first = local_ == nullptr ? 0 : 1;
  return tier >= first && tier - first < shared_.size();
}

void Store::PumpReadsLocked(DeferredCalls& deferred) {
  for (ReadQueue& reads : reads_) {
    while (reads.running < kMaxReadsRunning && !reads.waiting.empty()) {
      const BlockId block = reads.waiting.back().second;
      reads.waiting.pop_back();
      ++reads.running;
      ++in_flight_;  // until ReadEnded
      deferred.Add([this, block, priority = flights_.at(block).priority] {
        RunJob(priority, [this, block] { StartRead(block); });
      });
    }
  }
}

void Store::StartRead(BlockId block) {
  LowerTier::ReadRequest request;
  std::string salt;
  std::string key;
  uint32_t tier = 0;
  bool wanted = false;
  bool has_slot = false;
  uint64_t payload_bytes = 0;
  absl::Duration give_up;
  {
    Lock lock(&mutex_);
    Flight& flight = flights_.at(block);
    wanted = !flight.cancel_wanted;
    has_slot = blocks_.at(block).has_slot;  // of a read from a nearer tier
    flight.give_up = std::min(flight.give_up, clock_.Now() + options_.max_wait_for_room);
    give_up = flight.give_up;
    tier = flight.tier;
    request.block = flight.lower;
    request.priority = flight.priority;
    payload_bytes = flight.lower.payload_bytes;
    const Scope& scope = scopes_[static_cast<uint32_t>(blocks_.at(block).scope)];
    salt = scope.salt;
    key = std::string(blocks_.at(block).key());
    request.identity.namespace_digest = NamespaceOf(blocks_.at(block).scope).digest;
    request.identity.generation = scope.generation;
  }
  request.identity.salt = salt;
  request.identity.key = key;
  request.deadline = clock_.Now() + kReadCap;
  const std::optional<Reason> refused =
      !wanted ? Reason::kCancelled
      : has_slot
          ? Reason::kNone
          : AcquireSlot(block, payload_bytes, {}, {give_up, [this, block] { StartRead(block); }});
  if (!refused.has_value()) {
    return;  // it goes on when there is room
  }
  if (*refused != Reason::kNone) {
    ReadEnded(block, ReadOutcome::kCancelled);
    return;
  }
  {
    Lock lock(&mutex_);
    flights_.at(block).reading = true;
    request.destination = PayloadLocked(blocks_.at(block));
    request.header_page_in_front = true;
  }
  const TierLoad::Mark mark = costs_.ReadBegan(tier);
  const auto ended = [this, block, tier, mark, payload_bytes](ReadOutcome outcome) {
    costs_.ReadEnded(tier, mark, outcome == ReadOutcome::kVerified ? payload_bytes : 0);
    RunJob(Priority::kHigh, [this, block, outcome] { ReadEnded(block, outcome); });
  };
  const uint64_t token = lower_tiers_[tier]->Read(request, ended);
  bool cancel = false;
  {
    Lock lock(&mutex_);
    const auto found = flights_.find(block);
    if (found != flights_.end() && found->second.reading && found->second.read_token == 0) {
      found->second.read_token = token;
      cancel = found->second.cancel_wanted;
    }
  }
  if (cancel) {
    lower_tiers_[tier]->Cancel(token);
  }
}

void Store::ReadEnded(BlockId block, ReadOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  JobEndedLocked();
  Block& entry = blocks_.at(block);
  const Flight& flight = flights_.at(block);
  --reads_[flight.tier].running;
  reads_[flight.tier].bytes -= flight.lower.payload_bytes;
  const bool current =
      scopes_[static_cast<uint32_t>(entry.scope)].generation == NamespaceOf(entry.scope).generation;
  if (outcome == ReadOutcome::kVerified && entry.state == BlockState::kFilling && current) {
    entry.checksum = flight.lower.checksum;
    entry.from_pool = IsShared(flight.tier);
    EnterReadyLocked(block, {});
    if (events_.recording) {
      TellReadUpLocked(entry);
    }
    ++counters_.prefetch_arrived;
    if (flight.for_return) {
      NoteFetchedLocked(block);
    }
    CloseFlightLocked(block, GetOutcome::kOk, deferred);
  } else if (outcome != ReadOutcome::kVerified && outcome != ReadOutcome::kCancelled && current &&
             ReadFromNextLocked(block)) {
    counters_.corrupt += outcome == ReadOutcome::kCorrupt ? 1 : 0;
    return PumpReadsLocked(deferred);
  } else {
    ++counters_.prefetch_failed;
    counters_.corrupt += outcome == ReadOutcome::kCorrupt ? 1 : 0;
    CloseFlightLocked(block,
                      outcome == ReadOutcome::kCorrupt ? GetOutcome::kCorrupt : GetOutcome::kMiss,
                      deferred);
  }
  UnlockBlockLocked(block);
  PumpReadsLocked(deferred);
}

bool Store::ReadFromNextLocked(BlockId block) {
  Flight& flight = flights_.at(block);
  const Block& entry = blocks_.at(block);
  if (entry.state != BlockState::kFilling || flight.cancel_wanted) {
    return false;
  }
  const BlockIdentity identity = IdentityOfLocked(entry);
  if (deleting_.contains(LocalName(identity))) {
    return false;
  }
  for (uint32_t tier = flight.tier + 1; tier < lower_tiers_.size(); ++tier) {
    LowerBlock lower;
    // The slot is of this size.
    if (!lower_tiers_[tier]->Lookup(identity, &lower) ||
        lower.payload_bytes != entry.payload_bytes) {
      continue;
    }
    flight.tier = tier;
    flight.lower = lower;
    flight.reading = false;
    flight.read_token = 0;
    for (const FlightWaiter& waiter : flight.waiters) {
      if (waiter.get != nullptr) {
        waiter.get->targets[waiter.index].tier = static_cast<uint8_t>(tier + 1);
      }
    }
    QueueReadLocked(block);
    return true;
  }
  return false;
}

// ---------------------------------------------------------------- prefetch tickets

void Store::Prefetch(const Caller& caller,
                     PrefetchCall call,
                     std::function<void(absl::StatusOr<PrefetchResult>)> done) {
  DeferredCalls deferred;
  absl::StatusOr<PrefetchResult> result;
  {
    Lock lock(&mutex_);
    if (TenantOf(caller.tenant).tickets >= options_.max_tickets_per_tenant) {
      result = absl::ResourceExhaustedError("tickets: too many are running");
    } else {
      result = BeginPrefetchLocked(caller, call, deferred);
    }
  }
  deferred.Run();
  done(std::move(result));
}

// Not counted up, which would tell a tenant how much the others prefetch; exact in a double, for
// those who print it as JSON.
uint64_t Store::NewTicketLocked() {
  uint64_t id = 0;
  while (id == 0 || tickets_.contains(id)) {
    FillRandom({reinterpret_cast<char*>(&id), sizeof(id)});
    id >>= 11;
  }
  return id;
}

PrefetchResult Store::BeginPrefetchLocked(const Caller& caller,
                                          const PrefetchCall& call,
                                          DeferredCalls& deferred) {
  PrefetchResult result;
  uint64_t id = 0;
  std::vector<BlockId> ready;
  for (const StorePart& part : call.parts) {
    std::vector<BlockId> found;
    FindPartLocked(caller.tenant, part, found);
    for (uint32_t i = 0; i < part.key_count(); ++i) {
      if (found[i] != kNoBlock && blocks_.at(found[i]).state == BlockState::kReady) {
        ++result.keys_ready;
        ready.push_back(found[i]);
        continue;
      }
      uint32_t tier = 0;
      const BlockId block = found[i] != kNoBlock
                                ? found[i]
                                : BeginReadLocked(caller.tenant, part, i, call.priority, &tier);
      if (block != kNoBlock) {
        counters_.single_flight_joined += found[i] != kNoBlock ? 1 : 0;
        id = id == 0 ? NewTicketLocked() : id;
        flights_.at(block).waiters.push_back(FlightWaiter{nullptr, nullptr, id, 0});
        ++result.keys_moving;
      } else if (part.rule == Rule::kPrefix) {
        result.keys_missing += part.key_count() - i;
        break;
      } else {
        ++result.keys_missing;
      }
    }
  }
  TouchLocked(ready);
  NoteReuseLocked(ready);
  if (call.hold > absl::ZeroDuration() && result.keys_ready + result.keys_moving > 0) {
    result.hold_id = GrantHoldLocked(caller, clock_.Now() + std::min(call.hold, kMaxHold), ready);
  }
  if (result.keys_moving == 0) {
    return result;
  }
  result.ticket = id;
  Ticket& ticket = tickets_[id];
  ticket.tenant = caller.tenant;
  ticket.session = caller.session;
  ticket.result.keys_total = result.keys_moving;
  ticket.waiting = result.keys_moving;
  ticket.deadline = call.deadline;
  ticket.hold_id = result.hold_id;
  ++TenantOf(caller.tenant).tickets;
  PumpReadsLocked(deferred);
  return result;
}

void Store::EndTicketLocked(uint64_t id, TicketState state, DeferredCalls& deferred) {
  Ticket& ticket = tickets_.at(id);
  if (ticket.result.state != TicketState::kRunning) {
    return;
  }
  ticket.result.state = state;
  ticket.ended_at = clock_.Now();
  --TenantOf(ticket.tenant).tickets;
  if (state != TicketState::kDone) {
    for (auto& [block, flight] : flights_) {
      std::erase_if(flight.waiters,
                    [id](const FlightWaiter& waiter) { return waiter.ticket == id; });
    }
  }
  for (Ticket::Waiter& waiter : ticket.waiters) {
    deferred.Add([done = std::move(waiter.done), result = ticket.result] { done(result); });
  }
  ticket.waiters.clear();
}

void Store::WaitTicket(const Caller& caller,
                       uint64_t ticket,
                       absl::Duration until,
                       std::function<void(absl::StatusOr<TicketResult>)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const auto found = tickets_.find(ticket);
  if (found == tickets_.end() || found->second.tenant != caller.tenant) {
    deferred.Add([done = std::move(done)] {
      done(absl::NotFoundError("ticket: unknown, foreign or long ended"));
    });
    return;
  }
  if (found->second.result.state != TicketState::kRunning || until <= clock_.Now() ||
      found->second.waiters.size() >= kMaxPartsPerCall) {
    deferred.Add([done = std::move(done), result = found->second.result] { done(result); });
    return;
  }
  found->second.waiters.push_back({until, std::move(done)});
}

void Store::CancelTicket(const Caller& caller, uint64_t ticket, std::function<void(bool)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const auto found = tickets_.find(ticket);
  const bool running = found != tickets_.end() && found->second.tenant == caller.tenant &&
                       found->second.result.state == TicketState::kRunning;
  if (running) {
    EndTicketLocked(ticket, TicketState::kCancelled, deferred);
    CancelOrphanReadsLocked(deferred);
  }
  deferred.Add([done = std::move(done), running] { done(running); });
}

void Store::TickTicketsLocked(DeferredCalls& deferred) {
  const absl::Duration now = clock_.Now();
  for (auto at = tickets_.begin(); at != tickets_.end();) {
    Ticket& ticket = at->second;
    if (ticket.result.state != TicketState::kRunning) {
      at = ticket.ended_at + kTicketMemory <= now ? tickets_.erase(at) : std::next(at);
      continue;
    }
    if (ticket.deadline <= now) {
      EndTicketLocked(at->first, TicketState::kExpired, deferred);
    } else {
      for (Ticket::Waiter& waiter : ticket.waiters) {
        if (waiter.until <= now) {
          deferred.Add([done = std::move(waiter.done), result = ticket.result] { done(result); });
        }
      }
      std::erase_if(ticket.waiters,
                    [now](const Ticket::Waiter& waiter) { return waiter.until <= now; });
    }
    ++at;
  }
}

}  // namespace terrace
