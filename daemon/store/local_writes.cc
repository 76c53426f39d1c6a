// Writes to the local tier: what is about to be evicted, what puts and Flush wait for; and the
// blocks that wait for a slot meanwhile.
//
// A block is locked while it is written, so that its bytes stay; afterwards its eviction costs
// nothing. Whether the tier holds a block is asked of the tier each time: reclaim may have let it
// go.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint32_t kWriteAhead = 32;     // victims of a pool
constexpr uint32_t kCommitSlice = 4096;  // entries of committed_, likewise
// Of committed_; the oldest one beyond is written when it is evicted.
constexpr size_t kMaxCommitted = size_t{1} << 20;
// What has not got its place in the tier by then is refused.
constexpr absl::Duration kWriteCap = absl::Seconds(30);
// How long a tier that has just refused is not offered more for eviction's sake.
constexpr absl::Duration kRefusalMemory = absl::Milliseconds(100);

// A put touches its chain when all of it is stored, which is no use of it.
constexpr uint32_t kOwnTouch_ds = 10;
// Where it is not known what computing takes.
constexpr double kUnknownSecondsPerToken = 1e-4;

bool IsRefusal(WriteOutcome outcome) {
  return outcome == WriteOutcome::kNoSpace || outcome == WriteOutcome::kReadOnly ||
         outcome == WriteOutcome::kFault || outcome == WriteOutcome::kClosed;
}

bool IsDeclinedBelow(const Block& block) {
  return block.local_verdict != 0 && !IsLetIn(static_cast<Admission>(block.local_verdict - 1));
}

bool IsTooLarge(const BlockStoreOptions& options, const Block& block) {
  return options.local_max_payload_bytes > 0 &&
         block.payload_bytes > options.local_max_payload_bytes;
}

}  // namespace

// ---------------------------------------------------------------- what the tier holds

BlockIdentity Store::IdentityOfLocked(const Block& block) {
  const Scope& scope = scopes_[static_cast<uint32_t>(block.scope)];
  return {NamespaceOf(block.scope).digest, scope.generation, scope.salt, block.key()};
}

bool Store::IsCurrentLocked(const Block& block) {
  return scopes_[static_cast<uint32_t>(block.scope)].generation ==
         NamespaceOf(block.scope).generation;
}

bool Store::LocalTakesLocked(const Block& block) {
  return local_ != nullptr && block.state == BlockState::kReady && !IsTooLarge(options_, block) &&
         IsCurrentLocked(block);
}

bool Store::LocalHoldsLocked(const Block& block) {
  return local_->Holds(IdentityOfLocked(block));
}

// ---------------------------------------------------------------- one write

void Store::RequestLocalWriteLocked(BlockId id, WriteWaiter waiter, DeferredCalls& deferred) {
  const auto [at, inserted] = local_writes_.try_emplace(id);
  if (waiter.put != nullptr || waiter.barrier != nullptr) {
    at->second.waiters.push_back(std::move(waiter));
  }
  if (!inserted) {
    return;
  }
  LockBlockLocked(id);
  local_budget_.WriteBegan(SlotBytesFor(blocks_.at(id).payload_bytes));
  if (local_running_ < kMaxWritesRunning) {
    BeginLocalWriteLocked(id, deferred);
  } else {
    local_queue_.push_back(id);
  }
}

void Store::NoteCommittedLocked(BlockId id) {
  committed_.emplace_back(id, blocks_.at(id).serial);
  if (committed_.size() > kMaxCommitted) {
    committed_.pop_front();
  }
}

void Store::PumpLocalWritesLocked(DeferredCalls& deferred) {
  while (local_running_ < kMaxWritesRunning && !local_queue_.empty()) {
    const BlockId id = local_queue_.front();
    local_queue_.pop_front();
    if (blocks_.at(id).state == BlockState::kReady) {
      BeginLocalWriteLocked(id, deferred);
    } else {
      EndLocalWriteLocked(id, WriteOutcome::kDeleted, deferred);
    }
  }
  // The other half of the depth is for those who wait.
  for (uint32_t i = 0;
       i < kCommitSlice && local_running_ < kMaxWritesRunning / 2 && !committed_.empty(); ++i) {
    const auto [id, serial] = committed_.front();
    committed_.pop_front();
    const Block& block = blocks_.at(id);
    if (block.serial == serial && LocalTakesLocked(block) && !LocalHoldsLocked(block) &&
        IsWorthWritingLocked(id)) {
      RequestLocalWriteLocked(id, {}, deferred);
    }
  }
}

std::shared_ptr<OwnedWrite> Store::MakeWriteLocked(BlockId id, absl::Duration cap) {
  const Block& block = blocks_.at(id);
  const Scope& scope = scopes_[static_cast<uint32_t>(block.scope)];
  const Namespace& ns = NamespaceOf(block.scope);
  auto write = std::make_shared<OwnedWrite>();
  write->salt = scope.salt;
  write->key = std::string(block.key());
  if (block.parent != kNoBlock && blocks_.at(block.parent).serial == block.parent_serial) {
    write->parent = std::string(blocks_.at(block.parent).key());
  }
  WriteRequest& request = write->request;
  request.identity.namespace_digest = ns.digest;
  request.identity.generation = scope.generation;
  const absl::Span<char> payload = PayloadLocked(block);
  request.slot = {payload.data() - kSlotAlignment, payload.size() + kSlotAlignment};
  request.payload_bytes = block.payload_bytes;
  request.checksum = block.checksum;
  request.first_token = block.first_token;
  request.tokens = ns.record.block_tokens;
  request.deadline = clock_.Now() + cap;
  request.heat = block.touched_ds > block.stored_ds ? Heat::kWarm : Heat::kCold;
  return write;
}

void Store::BeginLocalWriteLocked(BlockId id, DeferredCalls& deferred) {
  const std::shared_ptr<OwnedWrite> write = MakeWriteLocked(id, kWriteCap);
  const bool copied = NeedsCopyLocked(blocks_.at(id));
  local_writes_.at(id).running = true;
  ++local_running_;
  ++in_flight_;  // until LocalWriteEnded
  const auto begin = [this, id, write] {
    write->Borrow();
    // The write owns what it is written from.
    local_->Write(write->request, [this, id, write](WriteOutcome outcome, const LowerBlock&) {
      executor_.Run(Priority::kHigh, [this, id, outcome] { LocalWriteEnded(id, outcome); });
    });
  };
  if (!copied) {
    deferred.Add(begin);
    return;
  }
  deferred.Add([this, id, write, begin] {
    RunJob(Priority::kNormal, [this, id, write, begin] {
      if (write->CopyVerified()) {
        return begin();
      }
      HideCorrupt(id);
      LocalWriteEnded(id, WriteOutcome::kDeleted);
    });
  });
}

void Store::LocalWriteEnded(BlockId id, WriteOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  --local_running_;
  EndLocalWriteLocked(id, outcome, deferred);
  PumpLocalWritesLocked(deferred);
  AdvanceWaitersLocked(deferred);
  JobEndedLocked();
}

void Store::AdvanceWaitersLocked(DeferredCalls& deferred) {
  // Each end may have made room for one; when nothing is left to end, all must look again.
  WakeRoomWaitersLocked(SlotsAreKeptLocked() ? 1 : room_waiters_.size(), deferred);
  const std::vector<std::shared_ptr<FlushOperation>> flushes = flushes_;
  for (const std::shared_ptr<FlushOperation>& flush : flushes) {
    AdvanceFlushLocked(flush, deferred);
  }
  const std::vector<std::shared_ptr<EvictOperation>> evicts = evicts_;
  for (const std::shared_ptr<EvictOperation>& evict : evicts) {
    AdvanceEvictLocked(evict, deferred);
  }
}

void Store::EndLocalWriteLocked(BlockId id, WriteOutcome outcome, DeferredCalls& deferred) {
  const auto found = local_writes_.find(id);
  TERRACE_CHECK(found != local_writes_.end());
  const LocalWrite write = std::move(found->second);
  local_writes_.erase(found);
  Block& block = blocks_.at(id);
  block.local_verdict = 0;
  local_budget_.WriteEnded(SlotBytesFor(block.payload_bytes));
  if (outcome == WriteOutcome::kWritten) {
    ++counters_.local_writes;
    counters_.local_write_bytes += block.payload_bytes;
    if (block.parent != kNoBlock && blocks_.at(block.parent).serial == block.parent_serial) {
      blocks_.at(block.parent).completes_below = 1;
    }
  } else if (outcome == WriteOutcome::kHeld && block.state == BlockState::kReady &&
             LocalHoldsLocked(block)) {
    outcome = WriteOutcome::kWritten;
  } else {
    ++counters_.local_refusals[static_cast<size_t>(outcome)];
  }
  if (IsRefusal(outcome)) {
    refusal_ = outcome;
    refused_until_ = clock_.Now() + kRefusalMemory;
  }
  for (const WriteWaiter& waiter : write.waiters) {
    TellWriteWaiterLocked(waiter, PutStage::kWriting, outcome, deferred);
  }
  UnlockBlockLocked(id);
}

// ---------------------------------------------------------------- what is worth it

ReuseRecord::Facts Store::FactsOfLocked(const Block& block) {
  const uint32_t block_tokens = std::max(1U, NamespaceOf(block.scope).record.block_tokens);
  return {index_.Hash(block.scope, block.key()), block.first_token / block_tokens,
          block.touched_ds > block.stored_ds + kOwnTouch_ds};
}

// The seconds that reading it there spares whoever asks for it.
double Store::LocalSavingLocked(const Block& block) {
  const Namespace& ns = NamespaceOf(block.scope);
  const double tokens = std::max(1U, ns.record.block_tokens);
  const RecomputeCost cost = costs_.CostOf(ns.digest);
  if (!cost.known()) {
    return tokens * kUnknownSecondsPerToken;
  }
  const double compute =
      cost.model.Seconds(block.first_token, uint64_t{block.first_token} + ns.record.block_tokens);
  return std::max(0.0, compute - costs_.LoadSeconds(0, {1, block.payload_bytes, 0}));
}

// Without the others of its family the block would be written in vain.
void Store::CompleteBelowLocked(BlockId id) {
  for (const BlockId sibling : SiblingsLocked(id)) {
    Block& block = blocks_.at(sibling);
    block.completes_below = 1;
    block.local_verdict = IsDeclinedBelow(block) ? 0 : block.local_verdict;
  }
}

bool Store::IsWorthWritingLocked(BlockId id) {
  if (!local_budget_.limited()) {
    return true;
  }
  Block& block = blocks_.at(id);
  if (block.local_verdict == 0 || block.touched_ds > block.judged_ds) {
    LocalAdmission::Candidate candidate;
    candidate.facts = FactsOfLocked(block);
    candidate.forecast = pools_[block.pool]->policy->ReuseChance(id, local_budget_.horizon());
    candidate.seconds_saved = LocalSavingLocked(block);
    candidate.bytes = SlotBytesFor(block.payload_bytes);
    candidate.completes = block.completes_below != 0;
    const Admission admission = local_budget_.Judge(clock_.Now(), candidate);
    block.local_verdict = static_cast<uint8_t>(static_cast<uint32_t>(admission) + 1) & 0xfU;
    block.judged_ds = NowDeciseconds();
    if (IsLetIn(admission)) {
      CompleteBelowLocked(id);
    }
  }
  return !IsDeclinedBelow(block);
}

void Store::TickLocalBudget() {
  {
    Lock lock(&mutex_);
    if (!local_budget_.IsSettlingDue(clock_.Now())) {
      return;
    }
  }
  const uint64_t written = local_->figures().bytes_written;
  std::string note;
  {
    Lock lock(&mutex_);
    local_budget_.Settle(clock_.Now(), written);
    note = local_budget_.TakeNote(clock_.Now());
    in_flight_ += note.empty() ? 0 : 1;  // until it has been written
  }
  if (note.empty()) {
    return;
  }
  // One that cannot be written is written with the next value.
  local_->PutNote(LocalBudget::kNoteName, note, [this](WriteOutcome /*outcome*/) {
    executor_.Run(Priority::kLow, [this] {
      Lock lock(&mutex_);
      JobEndedLocked();
    });
  });
}

// ---------------------------------------------------------------- before an eviction

bool Store::IsWrittenForEvictionLocked(BlockId id,
                                       absl::Duration give_up,
                                       DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  const absl::Duration now = clock_.Now();
  if (!LocalTakesLocked(block) || LocalHoldsLocked(block) || now < refused_until_ ||
      now >= give_up || !IsWorthWritingLocked(id)) {
    return true;
  }
  // With so many under way one of them ends soon, and another look is taken then.
  if (local_writes_.size() < kMaxWritesRunning) {
    RequestLocalWriteLocked(id, {}, deferred);
  }
  return false;
}

bool Store::ReadyToEvictLocked(BlockId id, absl::Duration give_up, DeferredCalls& deferred) {
  const bool written = IsWrittenForEvictionLocked(id, give_up, deferred);
  return IsPublishedForEvictionLocked(id, give_up, deferred) && written;
}

void Store::TellLocalOfEvictionLocked(const Block& block) {
  if (local_ == nullptr) {
    return;
  }
  if (local_budget_.limited() && !learns_) {
    local_budget_.Left(FactsOfLocked(block));
  }
  if (IsTooLarge(options_, block)) {
    counters_.local_losses[0] += PoolHasLocked(block) ? 0 : 1;
  } else if (LocalTakesLocked(block) && !local_->NoteUse(IdentityOfLocked(block)) &&
             !IsDeclinedBelow(block) && !PoolHasLocked(block)) {
    const WriteOutcome why = clock_.Now() < refused_until_ ? refusal_ : WriteOutcome::kBusy;
    ++counters_.local_losses[static_cast<size_t>(why)];
  }
}

bool Store::WriteAheadOneLocked(BlockId id, DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  if (clock_.Now() >= refused_until_ && local_running_ < kMaxWritesRunning &&
      LocalTakesLocked(block) && !LocalHoldsLocked(block) && IsWorthWritingLocked(id)) {
    RequestLocalWriteLocked(id, {}, deferred);
  }
  static_cast<void>(IsPublishedForEvictionLocked(id, absl::InfiniteDuration(), deferred));
  return block.locks > 0;
}

void Store::WriteAheadLocked(Pool& pool, DeferredCalls& deferred) {
  const bool publishes = PublishesLocked(pool.tenant, PublishWhen::kOnEviction);
  if (local_ == nullptr && !publishes) {
    return;
  }
  if (pool.written_ahead > 0) {
    --pool.written_ahead;
    return;
  }
  pool.written_ahead = kWriteAhead / 2;
  if (clock_.Now() < refused_until_ && !publishes) {
    return;
  }
  // Locked victims are passed over, and keep their place: so the ones behind them come to light.
  std::vector<BlockId> passed;
  for (uint32_t i = 0; i < kWriteAhead && (local_running_ < kMaxWritesRunning || publishes); ++i) {
    const BlockId victim = pool.policy->Victim();
    if (victim == kNoBlock) {
      break;
    }
    if (!WriteAheadOneLocked(victim, deferred)) {
      pool.policy->Lock(victim);
      passed.push_back(victim);
    }
  }
  for (const BlockId victim : passed) {
    pool.policy->Unlock(victim);
  }
}

void Store::WakeRoomWaitersLocked(size_t count, DeferredCalls& deferred) {
  for (; count > 0 && !room_waiters_.empty(); --count) {
    deferred.Add([this, resume = std::move(room_waiters_.front().resume)] {
      RunJob(Priority::kNormal, resume);
    });
    room_waiters_.pop_front();
  }
}

void Store::TickLocalLocked(DeferredCalls& deferred) {
  const absl::Duration now = clock_.Now();
  const auto late = static_cast<size_t>(
      std::count_if(room_waiters_.begin(), room_waiters_.end(),
                    [now](const RoomRequest& waiter) { return waiter.give_up <= now; }));
  // Room may have come otherwise than by a write.
  WakeRoomWaitersLocked(late > 0 ? room_waiters_.size() : 1, deferred);
  PumpLocalWritesLocked(deferred);
  RetryNotesLocked(deferred);
  const std::vector<std::shared_ptr<FlushOperation>> flushes = flushes_;
  for (const std::shared_ptr<FlushOperation>& flush : flushes) {
    if (flush->deadline <= now) {
      EndFlushLocked(flush, absl::DeadlineExceededError("not all blocks are written yet"),
                     deferred);
    } else {
      AdvanceFlushLocked(flush, deferred);
    }
  }
}

}  // namespace terrace
