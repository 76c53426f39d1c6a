// Levels: puts that wait until their blocks are written or published, and Flush.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/store.h"

namespace terrace {
namespace {

constexpr uint32_t kFlushSlice = 4096;  // blocks looked at under one lock

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

}  // namespace

Level Store::HighestLevel() const {
  const Level highest = local_ == nullptr ? Level::kDram : Level::kLocalSynced;
  return shared_.empty() ? highest : Level::kPool;
}

void Store::TellWriteWaiterLocked(const WriteWaiter& waiter,
                                  PutStage stage,
                                  WriteOutcome outcome,
                                  DeferredCalls& deferred) {
  if (waiter.barrier != nullptr) {
    WriteBarrier& barrier = *waiter.barrier;
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
  if (put.stage != stage || put.ended || put.waiting == 0) {
    return;  // it gave up
  }
  const Level level = stage == PutStage::kPublishing ? Level::kPool : Level::kLocalWritten;
  if (outcome == WriteOutcome::kWritten) {
    put.result.levels[waiter.position] = static_cast<char>(level);
  } else {
    put.result.reasons[waiter.position] = static_cast<char>(ReasonFrom(outcome));
  }
  if (--put.waiting == 0) {
    std::erase(waiting_, waiter.put);
    MaybeFinishPutLocked(waiter.put, deferred);
  }
}

// ---------------------------------------------------------------- puts that wait

// Where there is no local tier, a pool has to do for its levels: what lies there outlives the node.
bool Store::WantsPool(Level level) const {
  return !shared_.empty() &&
         (level >= Level::kPool || (local_ == nullptr && level >= Level::kLocalWritten));
}

// What no pool took goes to the local tier, so that it comes as far as it can.
bool Store::AdvancePutLocked(const std::shared_ptr<PutOperation>& put, DeferredCalls& deferred) {
  if ((local_ == nullptr && shared_.empty()) || put->scope == ScopeId{UINT32_MAX}) {
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
    put->stage = PutStage::kPublishing;
    if (WantsPool(put->call.wait_for) && PublishPutLocked(put, deferred)) {
      return true;
    }
  }
  if (put->stage == PutStage::kPublishing) {
    put->stage = PutStage::kWriting;
    if (local_ != nullptr && WritePutLocked(put, deferred)) {
      return true;
    }
  }
  put->stage = PutStage::kSyncing;
  return local_ != nullptr && put->call.wait_for >= Level::kLocalSynced &&
         SyncPutLocked(put, deferred);
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
    if (id == kNoBlock || put->result.levels[i] == '\0' ||
        put->result.levels[i] >= static_cast<char>(Level::kPool)) {
      continue;
    }
    const Block& block = blocks_.at(id);
    if (block.state != BlockState::kReady) {
      put->result.reasons[i] = static_cast<char>(Reason::kCancelled);  // deleted meanwhile
    } else if (!LocalTakesLocked(block)) {
      // A pool may have said already why it did not take it.
      put->result.reasons[i] = put->result.reasons[i] == static_cast<char>(Reason::kNone)
                                   ? static_cast<char>(Reason::kAdmission)
                                   : put->result.reasons[i];
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
  const bool to_pool = WantsPool(level) && (PublishesLocked(tenant, PublishWhen::kOnCommit) ||
                                            PublishesLocked(tenant, PublishWhen::kOnReuse) ||
                                            PublishesLocked(tenant, PublishWhen::kOnEviction));
  if ((local_ == nullptr && !to_pool) || level < Level::kLocalWritten) {
    // What a put reported as stored is in DRAM already.
    deferred.Add([done = std::move(done)] { done(absl::OkStatus()); });
    return;
  }
  auto flush = std::make_shared<FlushOperation>();
  flush->tenant = tenant;
  flush->level = level;
  flush->to_pool = to_pool;
  flush->deadline = deadline;
  flush->done = std::move(done);
  flush->writes = std::make_shared<WriteBarrier>();
  flushes_.push_back(flush);
  ++in_flight_;  // until EndFlushLocked
  AdvanceFlushLocked(flush, deferred);
}

// False: not now, as many are under way as may be.
bool Store::FlushOneLocked(const std::shared_ptr<FlushOperation>& flush,
                           BlockId id,
                           DeferredCalls& deferred) {
  const Block& block = blocks_.at(id);
  if (block.state != BlockState::kReady || NamespaceOf(block.scope).tenant != flush->tenant) {
    return true;
  }
  if (flush->to_pool) {
    return FlushToPoolLocked(flush, id, deferred);
  }
  if (!LocalTakesLocked(block) || LocalHoldsLocked(block)) {
    return true;
  }
  if (local_writes_.size() >= kMaxWritesRunning) {
    return false;
  }
  ++flush->writes->left;
  RequestLocalWriteLocked(id, {nullptr, 0, flush->writes}, deferred);
  return true;
}

void Store::AdvanceFlushLocked(const std::shared_ptr<FlushOperation>& flush,
                               DeferredCalls& deferred) {
  if (flush->ended || flush->syncing) {
    return;
  }
  for (uint32_t i = 0; i < kFlushSlice && !flush->scanned; ++i) {
    flush->scanned = flush->cursor >= blocks_.end();
    if (flush->scanned || !FlushOneLocked(flush, BlockId{flush->cursor}, deferred)) {
      break;
    }
    ++flush->cursor;
  }
  if (!flush->scanned || flush->writes->left > 0) {
    return;
  }
  const WriteBarrier& writes = *flush->writes;
  if (writes.failed > 0) {
    const std::string text = absl::StrCat(
        writes.failed, " blocks are not written: ", std::string(NameOf(writes.failure)));
    return EndFlushLocked(flush, absl::UnavailableError(text), deferred);
  }
  if (flush->to_pool || flush->level < Level::kLocalSynced) {
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
