// Delete: in DRAM at once, and durably on every tier below it.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/store.h"

namespace terrace {
namespace {

constexpr uint32_t kDeleteSlice = 256;  // keys under one lock

}  // namespace

std::string LocalName(const BlockIdentity& identity) {
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
  deletion->writes = std::make_shared<WriteBarrier>();
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
      ++ns->deletes;
      ++in_flight_;  // until the answer has been given
    }
    HideForDeleteLocked(*deletion, *ns, begin, std::min(keys, begin + kDeleteSlice));
  }
  DeferredCalls deferred;
  Lock lock(&mutex_);
  --FindNamespaceLocked(caller.tenant, part.namespace_digest)->deletes;
  const auto go_on = [this, deletion](DeferredCalls& later) {
    later.Add([this, deletion] {
      deletion->names.empty() ? AnswerDelete(deletion) : DeleteBelow(deletion);
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
    if (local_ != nullptr || !shared_.empty()) {
      const BlockIdentity identity{ns.digest, ns.generation, part.salt, part.key(i)};
      if (events_.recording) {
        TellDeletedLocked(identity);
      }
      std::string name = LocalName(identity);
      held = held || (!deleting_.contains(name) && IsHeldBelowLocked(identity));
      HidePublicationsLocked(deletion, name);
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

bool Store::IsHeldBelowLocked(const BlockIdentity& identity) {
  LowerBlock lower;
  return (local_ != nullptr && local_->Lookup(identity, &lower)) ||
         std::any_of(shared_.begin(), shared_.end(),
                     [&identity](const SharedTier* tier) { return tier->Holds(identity); });
}

// What waits to be published does not any more, and what is being published is waited for.
void Store::HidePublicationsLocked(DeleteOperation& deletion, const std::string& name) {
  for (Outlet& outlet : outlets_) {
    const auto found = outlet.publications.find(name);
    if (found == outlet.publications.end()) {
      continue;
    }
    if (found->second.running) {
      ++deletion.writes->left;
      found->second.waiters.push_back({nullptr, 0, deletion.writes});
    } else {
      found->second.deleted = true;
    }
  }
}

void Store::AnswerDelete(const std::shared_ptr<DeleteOperation>& deletion) {
  if (deletion->failed_tier.empty()) {
    deletion->done(deletion->result);
  } else {
    deletion->done(NotDurable("deleted", deletion->failed_tier));
  }
  Lock lock(&mutex_);
  JobEndedLocked();
}

void Store::DeleteBelow(const std::shared_ptr<DeleteOperation>& deletion) {
  const uint32_t keys = deletion->part.key_count();
  std::vector<std::vector<BlockIdentity>> calls;
  for (uint32_t i = 0; i < keys; ++i) {
    if (i % SegmentTier::kMaxDeletes == 0) {
      calls.emplace_back();
    }
    calls.back().push_back({deletion->part.namespace_digest, deletion->generation,
                            deletion->part.salt, deletion->part.key(i)});
  }
  const size_t tiers = shared_.size() + (local_ == nullptr ? 0 : 1);
  deletion->left = static_cast<uint32_t>(calls.size() * tiers);
  for (const std::vector<BlockIdentity>& identities : calls) {
    for (SharedTier* tier : shared_) {
      tier->Delete(identities, [this, deletion, tier](WriteOutcome outcome) {
        executor_.Run(Priority::kHigh, [this, deletion, tier, outcome] {
          DeletedBelow(deletion, tier->name(), outcome);
        });
      });
    }
    if (local_ != nullptr) {
      local_->Delete(identities, [this, deletion](WriteOutcome outcome, uint32_t /*deleted*/) {
        executor_.Run(Priority::kHigh, [this, deletion, outcome] {
          DeletedBelow(deletion, local_->name(), outcome);
        });
      });
    }
  }
}

void Store::DeletedBelow(const std::shared_ptr<DeleteOperation>& deletion,
                         std::string_view tier,
                         WriteOutcome outcome) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  if (outcome != WriteOutcome::kWritten) {
    deletion->failed_tier = std::string(tier);
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
    if (local_ == nullptr) {
      return AnswerDelete(deletion);
    }
    SyncLocal([this, deletion](const absl::Status& status) {
      if (!status.ok()) {
        deletion->failed_tier = std::string(local_->name());
      }
      AnswerDelete(deletion);
    });
  });
}

}  // namespace terrace
