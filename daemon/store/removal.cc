// What takes blocks away for good: delete and clear, in DRAM and, durably, on the local tier.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/generation_format.h"
#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr absl::Duration kNoteRetry = absl::Seconds(1);
constexpr uint32_t kDeleteSlice = 256;  // keys under one lock

absl::Status NotDurable(std::string_view what) {
  return absl::UnavailableError(absl::StrCat(
      std::string(what), ", but the local tier could not record it: a restart may undo it"));
}

}  // namespace

absl::Status Store::LoadGenerations() {
  if (local_ == nullptr) {
    return absl::OkStatus();
  }
  local_->WatchNotes(
      [this](const std::vector<SegmentTier::Note>& news) { return LearnGenerations(news); });
  return LearnGenerations(local_->Notes());
}

absl::Status Store::LearnGenerations(const std::vector<SegmentTier::Note>& notes) {
  std::vector<std::pair<Digest128, uint64_t>> noted;
  for (const SegmentTier::Note& note : notes) {
    Digest128 digest;
    if (!Digest128::FromBytes(note.name, &digest)) {
      continue;  // another kind of note
    }
    const std::optional<uint64_t> generation = DecodeGeneration(note.value);
    if (!generation.has_value()) {
      // Without it, blocks of a cleared namespace might be served.
      return absl::FailedPreconditionError(absl::StrCat("the local tier's note of namespace ",
                                                        digest.ToHex(), " is of a newer version"));
    }
    noted.emplace_back(digest, *generation);
  }
  Lock lock(&mutex_);
  for (const auto& [digest, generation] : noted) {
    LearnGenerationLocked(digest, generation);
  }
  return absl::OkStatus();
}

void Store::LearnGenerationLocked(const Digest128& digest, uint64_t noted) {
  uint64_t& known = generations_.try_emplace(digest, 1).first->second;
  Namespace* opened = nullptr;
  for (const std::unique_ptr<Namespace>& ns : namespaces_) {
    opened = ns->digest == digest ? ns.get() : opened;
  }
  if (opened == nullptr) {
    known = std::max(known, noted);
  } else {
    // What was removed in this life was removed from what had been noted, too, and it is not known
    // which blocks of that generation these were.
    known = std::max(opened->generation, noted + (opened->removed_from ? 1 : 0));
    if (known != opened->generation) {
      opened->generation = known;
      stale_rounds_ = 2;
    }
  }
  if (known != noted) {
    unnoted_[digest] = known;
  }
}

// ---------------------------------------------------------------- clear

void Store::ClearNamespace(TenantId tenant,
                           const Digest128& digest,
                           std::function<void(absl::StatusOr<uint64_t>)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  Namespace* ns = FindNamespaceLocked(tenant, digest);
  if (ns == nullptr) {
    deferred.Add([done = std::move(done)] {
      done(absl::NotFoundError("namespace_digest: not opened by this tenant"));
    });
    return;
  }
  const uint64_t generation = ++ns->generation;
  ns->removed_from = true;
  stale_rounds_ = 2;  // the round under way may have passed some blocks already
  if (local_ == nullptr) {
    deferred.Add([done = std::move(done), generation] { done(generation); });
    return;
  }
  ++in_flight_;  // until ClearEnded
  clears_.push_back({digest, generation, std::move(done)});
  if (clears_.size() == 1) {
    BeginClearLocked(deferred);
  }
}

// What the tier could not record is offered again: its medium may have come back.
void Store::RetryNotesLocked(DeferredCalls& deferred) {
  if (unnoted_.empty() || !clears_.empty() || clock_.Now() < retry_notes_at_) {
    return;
  }
  const auto [digest, generation] = *unnoted_.begin();
  ++in_flight_;  // until ClearEnded
  clears_.push_back({digest, generation, [](const absl::StatusOr<uint64_t>&) {}});
  BeginClearLocked(deferred);
}

// One at a time: a note of an older generation must not come behind that of a newer one.
void Store::BeginClearLocked(DeferredCalls& deferred) {
  const ClearOperation& clear = clears_.front();
  deferred.Add([this, name = clear.digest.ToBytes(), value = EncodeGeneration(clear.generation)] {
    local_->PutNote(name, value, [this](WriteOutcome outcome) {
      executor_.Run(Priority::kHigh, [this, outcome] {
        if (outcome == WriteOutcome::kWritten) {
          SyncLocal([this](const absl::Status& status) { ClearEnded(status.ok()); });
        } else {
          ClearEnded(false);
        }
      });
    });
  });
}

void Store::ClearEnded(bool is_durable) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const ClearOperation clear = std::move(clears_.front());
  clears_.pop_front();
  // A note that came with a drive meanwhile may have raised it further.
  const auto unnoted = unnoted_.find(clear.digest);
  const bool overtaken = unnoted != unnoted_.end() && unnoted->second > clear.generation;
  if (!is_durable) {
    unnoted_[clear.digest] = overtaken ? unnoted->second : clear.generation;
    retry_notes_at_ = clock_.Now() + kNoteRetry;
  } else if (!overtaken) {
    unnoted_.erase(clear.digest);
  }
  deferred.Add([this, clear, is_durable] {
    if (is_durable) {
      clear.done(clear.generation);
    } else {
      clear.done(NotDurable("cleared"));
    }
    Lock relock(&mutex_);
    JobEndedLocked();
  });
  if (!clears_.empty()) {
    BeginClearLocked(deferred);
  }
}

// ---------------------------------------------------------------- delete

std::string Store::LocalName(const BlockIdentity& identity) {
  return absl::StrCat(identity.namespace_digest.ToBytes(), identity.generation, "/",
                      identity.salt.size(), "/", std::string(identity.salt),
                      std::string(identity.key));
}

void Store::Delete(const Caller& caller,
                   const StorePart& part,
                   std::function<void(absl::StatusOr<DeleteResult>)> done) {
  auto deletion = std::make_shared<DeleteOperation>();
  deletion->part = part;
  deletion->part.rule = Rule::kIndependent;
  deletion->done = std::move(done);
  deletion->writes = std::make_shared<LocalBarrier>();
  const uint32_t keys = part.key_count();
  for (uint32_t begin = 0; begin == 0 || begin < keys; begin += kDeleteSlice) {
    DeferredCalls deferred;
    Lock lock(&mutex_);
    Namespace* ns = FindNamespaceLocked(caller.tenant, part.namespace_digest);
    if (ns == nullptr) {
      deferred.Add([deletion] {
        deletion->done(absl::NotFoundError("part.namespace_digest: not opened by this tenant"));
      });
      return;
    }
    if (begin == 0) {
      deletion->generation = ns->generation;
      ns->removed_from = true;
      ++in_flight_;  // until the answer has been given
    }
    HideForDeleteLocked(*deletion, *ns, begin, std::min(keys, begin + kDeleteSlice));
  }
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const auto go_on = [this, deletion](DeferredCalls& later) {
    later.Add([this, deletion] {
      deletion->names.empty() ? AnswerDelete(deletion, absl::OkStatus()) : DeleteLocally(deletion);
    });
  };
  if (deletion->writes->left == 0) {
    go_on(deferred);
  } else {
    deletion->writes->all_ended = go_on;
  }
}

// Keys [begin, end): a slice, so that the lock is never held for long.
void Store::HideForDeleteLocked(DeleteOperation& deletion,
                                const Namespace& ns,
                                uint32_t begin,
                                uint32_t end) {
  const StorePart& part = deletion.part;
  if (part.key_bytes < kMinKeyBytes || part.key_bytes > kMaxKeyBytes ||
      ns.generation != deletion.generation) {  // cleared meanwhile: there is nothing left of it
    deletion.result.not_found += end - begin;
    return;
  }
  for (uint32_t i = begin; i < end; ++i) {
    // Looked up again each time: the scope goes with its last block.
    const std::optional<ScopeId> scope = FindScopeLocked(ns.tenant, part);
    const BlockId block = scope.has_value() ? index_.Find(*scope, part.key(i)) : kNoBlock;
    bool held = block != kNoBlock;
    if (local_ != nullptr) {
      const BlockIdentity identity{ns.digest, ns.generation, part.salt, part.key(i)};
      std::string name = LocalName(identity);
      LowerBlock lower;
      held = held || (!deleting_.contains(name) && local_->Lookup(identity, &lower));
      ++deleting_[name];
      deletion.names.push_back(std::move(name));
    }
    if (block != kNoBlock) {
      // A write under way would bring the block back behind the deletion.
      if (const auto write = local_writes_.find(block); write != local_writes_.end()) {
        ++deletion.writes->left;
        write->second.waiters.push_back({nullptr, 0, deletion.writes});
      }
      HideLocked(block);
    }
    ++(held ? deletion.result.deleted : deletion.result.not_found);
  }
}

void Store::AnswerDelete(const std::shared_ptr<DeleteOperation>& deletion,
                         const absl::Status& durable) {
  if (durable.ok()) {
    deletion->done(deletion->result);
  } else {
    deletion->done(NotDurable("deleted"));
  }
  Lock lock(&mutex_);
  JobEndedLocked();
}

void Store::DeleteLocally(const std::shared_ptr<DeleteOperation>& deletion) {
  const uint32_t keys = deletion->part.key_count();
  std::vector<std::vector<BlockIdentity>> calls;
  for (uint32_t i = 0; i < keys; ++i) {
    if (i % SegmentTier::kMaxDeletes == 0) {
      calls.emplace_back();
    }
    calls.back().push_back({deletion->part.namespace_digest, deletion->generation,
                            deletion->part.salt, deletion->part.key(i)});
  }
  deletion->left = static_cast<uint32_t>(calls.size());
  for (const std::vector<BlockIdentity>& identities : calls) {
    local_->Delete(identities, [this, deletion](WriteOutcome outcome, uint32_t /*deleted*/) {
      executor_.Run(Priority::kHigh,
                    [this, deletion, outcome] { DeletedLocally(deletion, outcome); });
    });
  }
}

void Store::DeletedLocally(const std::shared_ptr<DeleteOperation>& deletion, WriteOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (outcome != WriteOutcome::kWritten) {
    deletion->failure = outcome;
  }
  if (--deletion->left > 0) {
    return;
  }
  for (const std::string& name : deletion->names) {
    const auto found = deleting_.find(name);
    if (--found->second == 0) {
      deleting_.erase(found);
    }
  }
  deferred.Add([this, deletion] {
    if (deletion->failure == WriteOutcome::kWritten) {
      SyncLocal([this, deletion](const absl::Status& status) { AnswerDelete(deletion, status); });
    } else {
      AnswerDelete(deletion, absl::UnavailableError("not written"));
    }
  });
}

}  // namespace terrace
