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

constexpr uint32_t kMaxWritesRunning = 64;
constexpr uint32_t kWriteAhead = 32;     // victims of a pool
constexpr uint32_t kFlushSlice = 4096;   // blocks looked at under one lock
constexpr uint32_t kCommitSlice = 4096;  // entries of committed_, likewise
// Of committed_; the oldest one beyond is written when it is evicted.
constexpr size_t kMaxCommitted = size_t{1} << 20;
// What has not got its place in the tier by then is refused.
constexpr absl::Duration kWriteCap = absl::Seconds(30);
// How long a tier that has just refused is not offered more for eviction's sake.
constexpr absl::Duration kRefusalMemory = absl::Milliseconds(100);

bool IsRefusal(WriteOutcome outcome) {
  return outcome == WriteOutcome::kNoSpace || outcome == WriteOutcome::kReadOnly ||
         outcome == WriteOutcome::kFault || outcome == WriteOutcome::kClosed;
}

Reason ReasonFrom(WriteOutcome outcome) {
  switch (outcome) {
    case WriteOutcome::kNoSpace:
      return Reason::kNoSpace;
    case WriteOutcome::kBusy:
    case WriteOutcome::kHeld:
      return Reason::kBusy;
    case WriteOutcome::kDeadline:
      return Reason::kDeadline;
    case WriteOutcome::kDeleted:
      return Reason::kCancelled;
    case WriteOutcome::kClosed:
      return Reason::kDraining;
    case WriteOutcome::kReadOnly:
    case WriteOutcome::kFault:
      return Reason::kTierFault;
    case WriteOutcome::kWritten:
      break;
  }
  return Reason::kNone;
}

std::string_view NameOf(WriteOutcome outcome) {
  switch (outcome) {
    case WriteOutcome::kNoSpace:
      return "no space";
    case WriteOutcome::kReadOnly:
      return "the file system is read-only";
    case WriteOutcome::kFault:
      return "the medium failed";
    case WriteOutcome::kClosed:
      return "the tier is closed";
    default:
      return "busy";
  }
}

// A request and the text that it borrows.
struct OwnedWrite {
  WriteRequest request;
  std::string salt;
  std::string key;
  std::string parent;
};

}  // namespace

// ---------------------------------------------------------------- what the tier holds

BlockIdentity Store::IdentityOfLocked(const Block& block) {
  const Scope& scope = scopes_[static_cast<uint32_t>(block.scope)];
  return {NamespaceOf(block.scope).digest, scope.generation, scope.salt, block.key()};
}

bool Store::IsTooLargeForLocal(const Block& block) const {
  return options_.local_max_payload_bytes > 0 &&
         block.payload_bytes > options_.local_max_payload_bytes;
}

bool Store::LocalTakesLocked(const Block& block) {
  return local_ != nullptr && block.state == BlockState::kReady && !IsTooLargeForLocal(block) &&
         scopes_[static_cast<uint32_t>(block.scope)].generation ==
             NamespaceOf(block.scope).generation;
}

bool Store::LocalHoldsLocked(const Block& block) {
  return local_->Holds(IdentityOfLocked(block));
}

// ---------------------------------------------------------------- one write

void Store::RequestLocalWriteLocked(BlockId id, LocalWaiter waiter, DeferredCalls& deferred) {
  const auto [at, inserted] = local_writes_.try_emplace(id);
  if (waiter.put != nullptr || waiter.barrier != nullptr) {
    at->second.waiters.push_back(std::move(waiter));
  }
  if (!inserted) {
    return;
  }
  LockBlockLocked(id);
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
    if (block.serial == serial && LocalTakesLocked(block) && !LocalHoldsLocked(block)) {
      RequestLocalWriteLocked(id, {}, deferred);
    }
  }
}

void Store::BeginLocalWriteLocked(BlockId id, DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  const Scope& scope = scopes_[static_cast<uint32_t>(block.scope)];
  const Namespace& ns = NamespaceOf(block.scope);
  auto write = std::make_shared<OwnedWrite>();  // shared only because std::function is copied
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
  request.deadline = clock_.Now() + kWriteCap;
  request.heat = block.touched_ds > block.stored_ds ? Heat::kWarm : Heat::kCold;
  local_writes_.at(id).running = true;
  ++local_running_;
  ++in_flight_;  // until LocalWriteEnded
  deferred.Add([this, id, write] {
    write->request.identity.salt = write->salt;
    write->request.identity.key = write->key;
    write->request.parent = write->parent;
    local_->Write(write->request, [this, id](WriteOutcome outcome, const LowerBlock& /*block*/) {
      executor_.Run(Priority::kHigh, [this, id, outcome] { LocalWriteEnded(id, outcome); });
    });
  });
}

void Store::LocalWriteEnded(BlockId id, WriteOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  --local_running_;
  EndLocalWriteLocked(id, outcome, deferred);
  PumpLocalWritesLocked(deferred);
  // Each end may have made room for one; when nothing is left to end, all must look again.
  WakeRoomWaitersLocked(local_running_ > 0 ? 1 : room_waiters_.size(), deferred);
  const std::vector<std::shared_ptr<FlushOperation>> flushes = flushes_;
  for (const std::shared_ptr<FlushOperation>& flush : flushes) {
    AdvanceFlushLocked(flush, deferred);
  }
  const std::vector<std::shared_ptr<EvictOperation>> evicts = evicts_;
  for (const std::shared_ptr<EvictOperation>& evict : evicts) {
    AdvanceEvictLocked(evict, deferred);
  }
  JobEndedLocked();
}

void Store::EndLocalWriteLocked(BlockId id, WriteOutcome outcome, DeferredCalls& deferred) {
  const auto found = local_writes_.find(id);
  TERRACE_CHECK(found != local_writes_.end());
  const LocalWrite write = std::move(found->second);
  local_writes_.erase(found);
  const Block& block = blocks_.at(id);
  if (outcome == WriteOutcome::kWritten) {
    ++counters_.local_writes;
    counters_.local_write_bytes += block.payload_bytes;
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
  for (const LocalWaiter& waiter : write.waiters) {
    TellLocalWaiterLocked(waiter, outcome, deferred);
  }
  UnlockBlockLocked(id);
}

void Store::TellLocalWaiterLocked(const LocalWaiter& waiter,
                                  WriteOutcome outcome,
                                  DeferredCalls& deferred) {
  if (waiter.barrier != nullptr) {
    LocalBarrier& barrier = *waiter.barrier;
    if (outcome != WriteOutcome::kWritten) {
      ++barrier.failed;
      barrier.failure = outcome;
    }
    if (--barrier.left == 0 && barrier.all_ended != nullptr) {
      // Its captures may own the barrier.
      std::exchange(barrier.all_ended, nullptr)(deferred);
    }
    return;
  }
  PutOperation& put = *waiter.put;
  if (put.stage != PutStage::kWriting || put.ended || put.waiting == 0) {
    return;  // it gave up
  }
  if (outcome == WriteOutcome::kWritten) {
    put.result.levels[waiter.position] = static_cast<char>(Level::kLocalWritten);
  } else {
    put.result.reasons[waiter.position] = static_cast<char>(ReasonFrom(outcome));
  }
  if (--put.waiting == 0) {
    std::erase(waiting_, waiter.put);
    MaybeFinishPutLocked(waiter.put, deferred);
  }
}

// ---------------------------------------------------------------- before an eviction

bool Store::ReadyToEvictLocked(BlockId id, absl::Duration give_up, DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  const absl::Duration now = clock_.Now();
  if (!LocalTakesLocked(block) || LocalHoldsLocked(block) || now < refused_until_ ||
      now >= give_up) {
    return true;
  }
  // With so many under way one of them ends soon, and another look is taken then.
  if (local_writes_.size() < kMaxWritesRunning) {
    RequestLocalWriteLocked(id, {}, deferred);
  }
  return false;
}

void Store::TellLocalOfEvictionLocked(const Block& block) {
  if (local_ == nullptr) {
    return;
  }
  if (IsTooLargeForLocal(block)) {
    ++counters_.local_losses[0];
  } else if (LocalTakesLocked(block) && !local_->NoteUse(IdentityOfLocked(block))) {
    const WriteOutcome why = clock_.Now() < refused_until_ ? refusal_ : WriteOutcome::kBusy;
    ++counters_.local_losses[static_cast<size_t>(why)];
  }
}

void Store::WriteAheadLocked(Pool& pool, DeferredCalls& deferred) {
  if (local_ == nullptr) {
    return;
  }
  if (pool.written_ahead > 0) {
    --pool.written_ahead;
    return;
  }
  pool.written_ahead = kWriteAhead / 2;
  if (clock_.Now() < refused_until_) {
    return;
  }
  // Locked victims are passed over, and keep their place: so the ones behind them come to light.
  std::vector<BlockId> passed;
  for (uint32_t i = 0; i < kWriteAhead && local_running_ < kMaxWritesRunning; ++i) {
    const BlockId victim = pool.policy->Victim();
    if (victim == kNoBlock) {
      break;
    }
    const Block& block = blocks_.at(victim);
    if (LocalTakesLocked(block) && !LocalHoldsLocked(block)) {
      RequestLocalWriteLocked(victim, {}, deferred);
    } else {
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

// ---------------------------------------------------------------- puts that wait

bool Store::AdvancePutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred) {
  if (local_ == nullptr || put->scope == ScopeId{UINT32_MAX}) {
    return false;
  }
  if (put->call.wait_for < Level::kLocalWritten || put->stage == PutStage::kSyncing) {
    return false;
  }
  if (put->cancelled || clock_.Now() >= put->deadline) {
    EndPutWaits(*put, put->cancelled ? Reason::kCancelled : Reason::kDeadline);
    return false;
  }
  if (put->stage == PutStage::kStoring) {
    put->stage = PutStage::kWriting;
    if (WritePutLocked(put, deferred)) {
      return true;
    }
  }
  put->stage = PutStage::kSyncing;
  return put->call.wait_for >= Level::kLocalSynced && SyncPutLocked(put, deferred);
}

// What is stored stays stored; the level says how far it came, and the reason why no further.
void Store::EndPutWaits(PutOperation& put, Reason reason) {
  const auto wanted = static_cast<char>(put.call.wait_for);
  for (uint32_t i = 0; i < put.result.levels.size(); ++i) {
    const bool short_of_it = put.result.levels[i] != '\0' && put.result.levels[i] < wanted;
    if (short_of_it && put.result.reasons[i] == static_cast<char>(Reason::kNone)) {
      put.result.reasons[i] = static_cast<char>(reason);
    }
  }
  put.stage = PutStage::kSyncing;  // nothing more is waited for
}

bool Store::WritePutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred) {
  for (uint32_t i = 0; i < put->chain.size(); ++i) {
    const BlockId id = put->chain[i];
    if (id == kNoBlock || put->result.levels[i] == '\0') {
      continue;
    }
    const Block& block = blocks_.at(id);
    if (block.state != BlockState::kReady) {
      put->result.reasons[i] = static_cast<char>(Reason::kCancelled);  // deleted meanwhile
    } else if (!LocalTakesLocked(block)) {
      put->result.reasons[i] = static_cast<char>(Reason::kAdmission);
    } else if (LocalHoldsLocked(block)) {
      put->result.levels[i] = static_cast<char>(Level::kLocalWritten);
    } else {
      ++put->waiting;
      RequestLocalWriteLocked(id, {put, i, nullptr}, deferred);
    }
  }
  if (put->waiting > 0) {
    waiting_.push_back(put);
  }
  return put->waiting > 0;
}

bool Store::SyncPutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred) {
  const bool any =
      std::any_of(put->result.levels.begin(), put->result.levels.end(),
                  [](char level) { return level == static_cast<char>(Level::kLocalWritten); });
  if (!any) {
    return false;
  }
  put->waiting = 1;
  waiting_.push_back(put);
  ++in_flight_;  // until PutSynced
  deferred.Add([this, put] {
    SyncLocal([this, put](const absl::Status& status) { PutSynced(put, status); });
  });
  return true;
}

void Store::PutSynced(const std::shared_ptr<PutOperation>& put, const absl::Status& status) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  JobEndedLocked();
  if (put->ended || put->waiting == 0) {
    return;  // it gave up
  }
  for (uint32_t i = 0; i < put->result.levels.size(); ++i) {
    if (put->result.levels[i] != static_cast<char>(Level::kLocalWritten)) {
      continue;
    }
    if (status.ok()) {
      put->result.levels[i] = static_cast<char>(Level::kLocalSynced);
    } else {
      // After a failed sync nobody knows which blocks are still in the tier.
      put->result.levels[i] = static_cast<char>(Level::kDram);
      put->result.reasons[i] = static_cast<char>(Reason::kTierFault);
    }
  }
  put->waiting = 0;
  std::erase(waiting_, put);
  MaybeFinishPutLocked(put, deferred);
}

void Store::SyncLocal(std::function<void(absl::Status)> done) {
  local_->Sync([this, done = std::move(done)](const absl::Status& status) {
    executor_.Run(Priority::kHigh, [done, status] { done(status); });
  });
}

// ---------------------------------------------------------------- flush

void Store::Flush(TenantId tenant,
                  Level level,
                  absl::Duration deadline,
                  std::function<void(absl::Status)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (local_ == nullptr || level < Level::kLocalWritten) {
    // What a put reported as stored is in DRAM already.
    deferred.Add([done = std::move(done)] { done(absl::OkStatus()); });
    return;
  }
  auto flush = std::make_shared<FlushOperation>();
  flush->tenant = tenant;
  flush->level = level;
  flush->deadline = deadline;
  flush->done = std::move(done);
  flush->writes = std::make_shared<LocalBarrier>();
  flushes_.push_back(flush);
  ++in_flight_;  // until EndFlushLocked
  AdvanceFlushLocked(flush, deferred);
}

void Store::AdvanceFlushLocked(const std::shared_ptr<FlushOperation>& flush,
                               DeferredCalls& deferred) {
  if (flush->ended || flush->syncing) {
    return;
  }
  for (uint32_t i = 0; i < kFlushSlice && local_writes_.size() < kMaxWritesRunning; ++i) {
    flush->scanned = flush->scanned || flush->cursor >= blocks_.end();
    if (flush->scanned) {
      break;
    }
    const BlockId id{flush->cursor++};
    const Block& block = blocks_.at(id);
    if (block.state == BlockState::kReady && NamespaceOf(block.scope).tenant == flush->tenant &&
        LocalTakesLocked(block) && !LocalHoldsLocked(block)) {
      ++flush->writes->left;
      RequestLocalWriteLocked(id, {nullptr, 0, flush->writes}, deferred);
    }
  }
  if (!flush->scanned || flush->writes->left > 0) {
    return;
  }
  const LocalBarrier& writes = *flush->writes;
  if (writes.failed > 0) {
    const std::string text = absl::StrCat(
        writes.failed, " blocks are not written: ", std::string(NameOf(writes.failure)));
    return EndFlushLocked(flush, absl::UnavailableError(text), deferred);
  }
  if (flush->level < Level::kLocalSynced) {
    return EndFlushLocked(flush, absl::OkStatus(), deferred);
  }
  flush->syncing = true;
  ++in_flight_;  // until the sync has ended
  deferred.Add([this, flush] {
    SyncLocal([this, flush](const absl::Status& status) {
      DeferredCalls later;
      Lock lock(&mutex_);
      EndFlushLocked(flush, status.ok() ? status : absl::UnavailableError(status.message()), later);
      JobEndedLocked();
    });
  });
}

void Store::EndFlushLocked(const std::shared_ptr<FlushOperation>& flush,
                           absl::Status status,
                           DeferredCalls& deferred) {
  if (std::exchange(flush->ended, true)) {
    return;
  }
  std::erase(flushes_, flush);
  deferred.Add([this, flush, status = std::move(status)] {
    flush->done(status);
    Lock lock(&mutex_);
    JobEndedLocked();
  });
}

}  // namespace terrace
