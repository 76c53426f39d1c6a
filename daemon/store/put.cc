// Put: admit per key, copy and hash in one pass, commit, and answer when all keys are decided.
#include <algorithm>
#include <utility>

#include "daemon/store/region_pieces.h"
#include "daemon/store/store.h"
#include "tiers/copy/one_pass.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr uint64_t kBytesPerTurn = uint64_t{16} << 20;
constexpr uint64_t kBytesPerJob = uint64_t{4} << 20;

GrowthTicket TicketOf(const PutOperation& put, const PutTarget& target) {
  GrowthTicket ticket = put.growth;
  ticket.depth += target.position;
  return ticket;
}

// Of a put of which the blocks from `first` on are new.
LoadCosts::Growth GrowthOf(const PutCall& call,
                           uint32_t first,
                           uint32_t block_tokens,
                           absl::Duration now) {
  const StorePart& part = call.part;
  const auto name = [&part](KeyView key) {
    return LoadCosts::NameOf(part.namespace_digest, part.salt, key);
  };
  const KeyView parent = first > 0 ? part.key(first - 1) : KeyView(call.parent);
  const uint32_t last = part.key_count() - 1;
  return {name(part.key(first)), parent.empty() ? 0 : name(parent), name(part.key(last)),
          EndToken(part, block_tokens, last), now};
}

}  // namespace

void Store::Put(const Caller& caller,
                PutCall call,
                std::function<void(absl::StatusOr<PutResult>)> done) {
  auto put = std::make_shared<PutOperation>();
  put->caller = caller;
  put->call_id = call.call_id;
  put->deadline = call.deadline;
  put->call = std::move(call);
  put->done = std::move(done);
  const size_t keys = put->call.part.key_count();
  put->result.outcomes.assign(keys, static_cast<char>(PutOutcome::kFailed));
  put->result.reasons.assign(keys, static_cast<char>(Reason::kNone));
  put->result.levels.assign(keys, '\0');
  put->chain.assign(keys, kNoBlock);

  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (const absl::Status status = AdmitPutLocked(*put); !status.ok()) {
    for (const std::shared_ptr<Region>& region : put->regions) {
      UnuseRegionLocked(*region, deferred);
    }
    deferred.Add([put, status] { put->done(status); });
    return;
  }
  ++in_flight_;
  TrackLocked(put);
  PlanPutLocked(put);
  if (!put->targets.empty() && put->call.part.rule == Rule::kPrefix) {
    deferred.Add([this, put, first = put->targets.front().position, now = clock_.Now(),
                  block_tokens = NamespaceOf(put->scope).record.block_tokens] {
      const StorePart& part = put->call.part;
      costs_.NotePut(GrowthOf(put->call, first, block_tokens, now));
      if (put->call.compute_time > absl::ZeroDuration()) {
        costs_.NoteTold(part.namespace_digest, part.first_token,
                        EndToken(part, block_tokens, part.key_count() - 1), put->call.compute_time);
      }
    });
  }
  uint64_t bytes = 0;
  for (const PutTarget& target : put->targets) {
    bytes += target.payload_bytes;
  }
  const auto parallel = static_cast<uint64_t>(executor_.parallelism());
  const uint64_t jobs =
      put->targets.empty()
          ? 0
          : std::clamp<uint64_t>((bytes + kBytesPerJob - 1) / kBytesPerJob, 1, parallel);
  put->jobs = static_cast<uint32_t>(jobs);
  put->dispatched = true;
  put->copy_began = clock_.Now();
  if (jobs == 0) {
    MaybeFinishPutLocked(put, deferred);
  }
  if (!put->ended && put->stage == PutStage::kStoring && put->waiting > 0) {
    waiting_.push_back(put);
  }
  if (jobs == 1 && bytes <= CopiedByCaller(options_, put->call.alone)) {
    deferred.Add([this, put] { RunPutJob(put); });
    return;
  }
  for (uint64_t i = 0; i < jobs; ++i) {
    deferred.Add([this, put] { RunJob(Priority::kNormal, [this, put] { RunPutJob(put); }); });
  }
}

std::string Store::InDram(TenantId tenant, const StorePart& part) {
  std::string held(part.key_count(), '\0');
  std::vector<BlockId> blocks;
  Lock lock(&mutex_);
  FindPartLocked(tenant, part, blocks);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const bool is_there =
        blocks[i] != kNoBlock && blocks_.at(blocks[i]).state == BlockState::kReady;
    held[i] = is_there ? '\1' : '\0';
  }
  return held;
}

absl::Status Store::AdmitPutLocked(PutOperation& put) {
  const StoreSession* session = FindSessionLocked(put.caller.session);
  if (session != nullptr && session->closed) {
    return absl::CancelledError("the session has ended");
  }
  const StorePart& part = put.call.part;
  if (FindNamespaceLocked(put.caller.tenant, part.namespace_digest) == nullptr) {
    return absl::NotFoundError("part.namespace_digest: not opened by this tenant");
  }
  if (put.call.payload_bytes.size() != part.key_count()) {
    return absl::InvalidArgumentError("payload_bytes: one a key is needed");
  }
  if (!put.call.in_place.empty() && put.call.in_place.size() != part.key_count()) {
    return absl::InvalidArgumentError("in_place: one a key is needed");
  }
  if (put.call.region.region_id == 0) {
    return absl::OkStatus();
  }
  if (session == nullptr) {
    return absl::FailedPreconditionError("region: regions need a session");
  }
  if (put.call.region.block_indexes.size() != part.key_count()) {
    return absl::InvalidArgumentError("region.block_indexes: one a key is needed");
  }
  std::shared_ptr<Region> region = UseRegionLocked(put.caller.session, put.call.region.region_id);
  if (region == nullptr) {
    return absl::NotFoundError("region.region_id: not registered in this session");
  }
  put.region = region.get();
  put.regions.push_back(std::move(region));
  return absl::OkStatus();
}

void Store::SetPutResult(PutOperation& put, uint32_t position, PutOutcome outcome, Reason reason) {
  put.result.outcomes[position] = static_cast<char>(outcome);
  put.result.reasons[position] = static_cast<char>(reason);
  const bool held = outcome == PutOutcome::kStored || outcome == PutOutcome::kDuplicate;
  put.result.levels[position] = held ? static_cast<char>(Level::kDram) : '\0';
}

Reason Store::CheckPutKey(const PutOperation& put,
                          uint32_t position,
                          uint64_t inline_end,
                          uint64_t block_bytes) const {
  const uint32_t payload_bytes = put.call.payload_bytes[position];
  const uint32_t key_bytes = put.call.part.key_bytes;
  if (key_bytes < kMinKeyBytes || key_bytes > kMaxKeyBytes || payload_bytes == 0 ||
      payload_bytes > block_bytes) {
    return Reason::kInvalid;
  }
  if (!put.call.in_place.empty()) {
    return Reason::kNone;
  }
  if (put.region == nullptr) {
    return inline_end <= put.call.payload.size() ? Reason::kNone : Reason::kInvalid;
  }
  if (put.call.region.block_indexes[position] >= put.region->geometry.block_count ||
      payload_bytes > put.region->payload_bytes) {
    return Reason::kInvalid;
  }
  return Reason::kNone;
}

// Decides per key: duplicate, joined to another put of it, declined, or to be copied by this one.
void Store::PlanPutLocked(const std::shared_ptr<PutOperation>& put) {
  const StorePart& part = put->call.part;
  const uint32_t keys = part.key_count();
  const std::optional<ScopeId> scope = UseScopeLocked(put->caller.tenant, part);
  if (!scope.has_value()) {
    for (uint32_t i = 0; i < keys; ++i) {
      SetPutResult(*put, i, PutOutcome::kDeclined, Reason::kQuota);
    }
    put->scope = ScopeId{UINT32_MAX};
    return;
  }
  put->scope = *scope;
  const Namespace& ns = NamespaceOf(put->scope);
  if (!put->call.parent.empty() && put->call.parent.size() >= kMinKeyBytes &&
      put->call.parent.size() <= kMaxKeyBytes) {
    put->parent = index_.Find(put->scope, put->call.parent);
  }
  BlockId parent = put->parent;
  uint64_t inline_end = 0;
  for (uint32_t i = 0; i < keys; ++i) {
    const uint64_t inline_begin = inline_end;
    inline_end += put->call.payload_bytes[i];
    if (const Reason reason = CheckPutKey(*put, i, inline_end, ns.record.block_bytes);
        reason != Reason::kNone) {
      SetPutResult(*put, i, PutOutcome::kFailed, reason);
      continue;
    }
    BlockId block = index_.Find(put->scope, part.key(i));
    if (block != kNoBlock) {
      put->chain[i] = block;
      if (blocks_.at(block).state == BlockState::kReady) {
        SetPutResult(*put, i, PutOutcome::kDuplicate, Reason::kNone);
        LockBlockLocked(block);
      } else {
        ++put->waiting;
        ++counters_.single_flight_joined;
        flights_.at(block).waiters.push_back(FlightWaiter{nullptr, put, 0, i});
      }
    } else if (!put->call.in_place.empty() && put->call.in_place[i] == nullptr) {
      SetPutResult(*put, i, PutOutcome::kFailed, Reason::kInvalid);
      parent = kNoBlock;
      continue;
    } else if (draining_) {
      SetPutResult(*put, i, PutOutcome::kDeclined, Reason::kDraining);
      continue;
    } else {
      block = blocks_.Add(put->scope, part.key(i));
      ++scopes_[static_cast<uint32_t>(put->scope)].users;
      Block& fresh = blocks_.at(block);
      fresh.payload_bytes = put->call.payload_bytes[i];
      const uint64_t first = FirstToken(part, ns.record.block_tokens, i);
      fresh.first_token = static_cast<uint32_t>(std::min<uint64_t>(first, UINT32_MAX));
      fresh.parent = parent;
      fresh.parent_serial = parent == kNoBlock ? 0 : blocks_.at(parent).serial;
      index_.Insert(block);
      OpenFlightLocked(block);
      LockBlockLocked(block);
      put->chain[i] = block;
      const char* const inline_source = put->call.in_place.empty()
                                            ? put->call.payload.data() + inline_begin
                                            : put->call.in_place[i];
      put->targets.push_back(
          PutTarget{block, i, fresh.payload_bytes, put->region == nullptr ? inline_source : nullptr,
                    put->region == nullptr ? 0 : put->call.region.block_indexes[i], false});
    }
    parent = part.rule == Rule::kPrefix ? block : kNoBlock;
  }
  NoteGrowthLocked(*put);
}

void Store::RunPutJob(const std::shared_ptr<PutOperation>& put, uint32_t resumed) {
  uint64_t turn = 0;
  for (;;) {
    const uint32_t index =
        resumed != kNoTarget ? std::exchange(resumed, kNoTarget) : put->next.fetch_add(1);
    if (index >= put->targets.size()) {
      break;
    }
    const PutTarget& target = put->targets[index];
    const std::optional<Reason> reason = StoreTarget(put, index);
    if (!reason.has_value()) {
      return;  // this job goes on when there is room
    }
    if (*reason != Reason::kNone) {
      RefuseTarget(*put, target, *reason);
    }
    turn += target.payload_bytes;
    if (turn >= kBytesPerTurn) {
      RunJob(Priority::kNormal, [this, put] { RunPutJob(put); });
      return;
    }
  }
  if (put->jobs.fetch_sub(1) == 1) {
    DeferredCalls deferred;
    Lock lock(&mutex_);
    MaybeFinishPutLocked(put, deferred);
  }
}

void Store::RefuseTarget(PutOperation& put, const PutTarget& target, Reason reason) {
  const bool declined = reason == Reason::kNoSpace || reason == Reason::kQuota ||
                        reason == Reason::kAdmission || reason == Reason::kBusy;
  DeferredCalls deferred;
  Lock lock(&mutex_);
  SetPutResult(put, target.position, declined ? PutOutcome::kDeclined : PutOutcome::kFailed,
               reason);
  put.chain[target.position] = kNoBlock;
  CloseFlightLocked(target.block, GetOutcome::kMiss, deferred);
  UnlockBlockLocked(target.block);
}

// Takes a slot, copies and hashes, commits. The block stays locked until the whole put is over, so
// that a put never evicts its own blocks.
std::optional<Reason> Store::StoreTarget(const std::shared_ptr<PutOperation>& operation,
                                         uint32_t index) {
  PutOperation& put = *operation;
  PutTarget& target = put.targets[index];
  if (put.cancelled) {
    return Reason::kCancelled;
  }
  const absl::Duration now = clock_.Now();
  if (now > put.deadline) {
    return Reason::kDeadline;
  }
  target.give_up = std::min({target.give_up, put.deadline, now + options_.max_wait_for_room});
  // What follows a block that was not let in could never be used.
  const bool useless =
      put.call.part.rule == Rule::kPrefix && target.position > put.declined_from.load();
  const std::optional<Reason> reason =
      useless ? Reason::kAdmission
              : AcquireSlot(
                    target.block, target.payload_bytes, TicketOf(put, target),
                    {target.give_up, [this, operation, index] { RunPutJob(operation, index); }});
  if (reason == Reason::kAdmission) {
    put.declined_from = std::min(put.declined_from.load(), target.position);
  }
  if (reason != Reason::kNone) {
    return reason;
  }
  char* slot = nullptr;
  {
    Lock lock(&mutex_);
    slot = PayloadLocked(blocks_.at(target.block)).data();
  }
  std::vector<ConstPiece> pieces;
  if (put.region != nullptr) {
    PiecesOf(*put.region, target.region_block, 0, target.payload_bytes, pieces);
  } else {
    pieces.push_back({target.inline_source, target.payload_bytes});
  }
  const Digest128 checksum = CopyAndHash(pieces, slot);
  if (put.region != nullptr && put.region->memory.failed()) {
    return Reason::kRegionFailed;
  }
  put.copied_bytes += target.payload_bytes;
  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (scopes_[static_cast<uint32_t>(put.scope)].generation != NamespaceOf(put.scope).generation) {
    return Reason::kCleared;
  }
  if (blocks_.at(target.block).state != BlockState::kFilling) {
    return Reason::kCancelled;  // deleted while it was on its way
  }
  CommitLocked(put, target, checksum, deferred);
  return Reason::kNone;
}

void Store::CommitLocked(PutOperation& put,
                         PutTarget& target,
                         const Digest128& checksum,
                         DeferredCalls& deferred) {
  Block& block = blocks_.at(target.block);
  block.checksum = checksum;
  EnterReadyLocked(target.block, TicketOf(put, target));
  target.committed = true;
  counters_.bytes_in += block.payload_bytes;
  SetPutResult(put, target.position, PutOutcome::kStored, Reason::kNone);
  if (events_.recording) {
    TellStoredLocked(put, target.position);
  }
  if (local_ != nullptr && options_.local_writes == LocalWrites::kOnCommit) {
    NoteCommittedLocked(target.block);
  }
  OfferLocked(target.block, OutletsWithLocked(NamespaceOf(put.scope), PublishWhen::kOnCommit));
  // While the put's other blocks are still copied; it asks for the level when all are stored.
  if (WantsPool(put.call.wait_for)) {
    if (Outlet* outlet = LevelOutletLocked(block); outlet != nullptr) {
      RequestPublishLocked(*outlet, target.block, {nullptr, 0, nullptr, Awaited::kYes}, deferred);
    }
  } else if (put.call.wait_for >= Level::kLocalWritten && LocalTakesLocked(block) &&
             !LocalHoldsLocked(block)) {
    RequestLocalWriteLocked(target.block, {}, deferred);
  }
  for (Outlet& outlet : outlets_) {
    PumpOutletLocked(outlet, deferred);
  }
  CloseFlightLocked(target.block, GetOutcome::kOk, deferred);
}

// Ancestors first, then the new blocks, in chain order: the policy makes the suffix older than the
// prefix.
void Store::TouchPutLocked(const PutOperation& put) {
  std::vector<BlockId> chain;
  BlockId at = put.parent;
  for (uint32_t steps = 0; at != kNoBlock && steps < kMaxKeysPerCall; ++steps) {
    const Block& block = blocks_.at(at);
    if (block.state != BlockState::kReady || block.scope != put.scope) {
      break;
    }
    chain.push_back(at);
    const BlockId parent = block.parent;
    at = parent != kNoBlock && blocks_.at(parent).serial == block.parent_serial ? parent : kNoBlock;
  }
  std::reverse(chain.begin(), chain.end());
  for (const BlockId block : put.chain) {
    if (block != kNoBlock && blocks_.at(block).state == BlockState::kReady) {
      chain.push_back(block);
    }
  }
  TouchLocked(chain);
  NoteReturnLocked(put, chain);
}

// Runs when the last job ended and when the last joined flight ended; the later of the two
// finishes.
void Store::MaybeFinishPutLocked(const std::shared_ptr<PutOperation>& operation,
                                 DeferredCalls& deferred) {
  PutOperation& put = *operation;
  if (put.ended || put.waiting > 0 || put.jobs.load() > 0 ||
      AdvancePutLocked(operation, deferred)) {
    return;
  }
  if (put.scope != ScopeId{UINT32_MAX}) {
    if (put.call.part.rule == Rule::kPrefix) {
      TouchPutLocked(put);
    }
    for (const PutTarget& target : put.targets) {
      if (target.committed) {
        UnlockBlockLocked(target.block);
      }
    }
    for (uint32_t i = 0; i < put.chain.size(); ++i) {
      if (put.result.outcomes[i] == static_cast<char>(PutOutcome::kDuplicate) &&
          put.chain[i] != kNoBlock) {
        UnlockBlockLocked(put.chain[i]);
      }
    }
    UnuseScopeLocked(put.scope);
  }
  for (uint32_t i = 0; i < put.result.outcomes.size(); ++i) {
    ++counters_.put_outcomes[static_cast<uint8_t>(put.result.outcomes[i])];
    ++counters_.put_reasons[static_cast<uint8_t>(put.result.reasons[i])];
  }
  const uint64_t copied = put.copied_bytes.load();
  const double seconds = absl::ToDoubleSeconds(clock_.Now() - put.copy_began);
  if (copied >= (uint64_t{1} << 20) && seconds > 0) {
    const double rate = static_cast<double>(copied) / seconds;
    write_rate_ = write_rate_ == 0 ? rate : 0.9 * write_rate_ + 0.1 * rate;
  }
  EndOperationLocked(put, deferred);
  auto result = std::make_shared<PutResult>(std::move(put.result));
  deferred.Add([this, done = std::move(put.done), result] {
    done(std::move(*result));
    Lock lock(&mutex_);
    JobEndedLocked();
  });
}

}  // namespace terrace
