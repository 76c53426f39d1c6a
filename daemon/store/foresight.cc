// What a policy that learns is told: which chains requests ask for, what they store, what they say
// of themselves, and how time passes. Nothing here happens where the policy does not learn.
#include <algorithm>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "daemon/store/part_view.h"
#include "daemon/store/store.h"

namespace terrace {
namespace {

uint32_t TokensUpTo(const StorePart& part, uint32_t block_tokens, uint32_t keys) {
  const uint64_t end = keys == 0 ? 0 : EndToken(part, block_tokens, keys - 1);
  return static_cast<uint32_t>(std::min<uint64_t>(end, UINT32_MAX));
}

bool TellsSomething(const RequestHints& hints) {
  return hints.output_tokens != 0 || hints.stop != StopReason::kUnknown || hints.session_end ||
         hints.expected_return > absl::ZeroDuration();
}

}  // namespace

EvictionPolicy* Store::LearningPolicyLocked(TenantId tenant, uint64_t payload_bytes) {
  if (!learns_) {
    return nullptr;
  }
  return pools_[PoolForLocked(tenant, SlotBytesFor(payload_bytes))]->policy.get();
}

// Names are the same in every life of the process: what is learnt names chains that many share.
uint64_t Store::NameSeedOf(const StorePart& part) {
  const Digest128& digest = part.namespace_digest;
  return XXH3_64bits_withSeed(part.salt.data(), part.salt.size(), digest.hi ^ digest.lo);
}

uint64_t Store::NameLocked(ScopeId scope, KeyView key) const {
  return XXH3_64bits_withSeed(key.data(), key.size(),
                              scopes_[static_cast<uint32_t>(scope)].name_seed);
}

void Store::NoteUseLocked(const Caller& caller, const ProbeCall& call) {
  if (!learns_ || (!call.request_id.empty() &&
                   recent_requests_.IsRepeat(
                       index_.Hash(ScopeId{static_cast<uint32_t>(caller.tenant)}, call.request_id),
                       clock_.Now()))) {
    return;
  }
  for (const StorePart& part : call.parts) {
    const Namespace* ns = FindNamespaceLocked(caller.tenant, part.namespace_digest);
    const std::optional<ScopeId> scope = FindScopeLocked(caller.tenant, part);
    if (part.rule != Rule::kPrefix || ns == nullptr || !scope.has_value() ||
        part.key_bytes < kMinKeyBytes || part.key_bytes > kMaxKeyBytes) {
      continue;
    }
    std::vector<BlockId> found(part.key_count(), kNoBlock);
    index_.FindMany(*scope, part.keys, part.key_bytes, ResidentIndex::OnMiss::kStop,
                    absl::MakeSpan(found));
    std::vector<uint64_t> names(part.key_count());
    for (uint32_t i = 0; i < part.key_count(); ++i) {
      names[i] = NameLocked(*scope, part.key(i));
    }
    size_t run = 0;
    while (run < found.size() && found[run] != kNoBlock &&
           blocks_.at(found[run]).state == BlockState::kReady &&
           blocks_.at(found[run]).pool == blocks_.at(found[0]).pool) {
      ++run;
    }
    const uint64_t bytes = run == 0 ? ns->record.block_bytes : blocks_.at(found[0]).payload_bytes;
    RequestHints hints;
    hints.input_tokens = TokensUpTo(part, ns->record.block_tokens, part.key_count());
    LearningPolicyLocked(caller.tenant, bytes)
        ->Use({clock_.Now() - began_, names, absl::MakeConstSpan(found).first(run), hints});
  }
}

// The new blocks of a chain have a place in the policy's books before any of them is copied. A put
// of what is here already may still say how the request ended.
void Store::NoteGrowthLocked(PutOperation& put) {
  const StorePart& part = put.call.part;
  const bool begins = put.call.parent.empty();
  const bool is_news = !put.targets.empty() || TellsSomething(put.call.hints);
  if (!learns_ || !is_news || part.rule != Rule::kPrefix) {
    return;
  }
  const uint64_t slot_bytes = SlotBytesFor(put.call.payload_bytes[0]);
  if (!begins && (put.parent == kNoBlock || blocks_.at(put.parent).state != BlockState::kReady ||
                  pools_[blocks_.at(put.parent).pool]->slot_bytes != slot_bytes)) {
    return;
  }
  std::vector<uint64_t> names(part.key_count());
  for (uint32_t i = 0; i < part.key_count(); ++i) {
    names[i] = NameLocked(put.scope, part.key(i));
  }
  put.growth =
      LearningPolicyLocked(put.caller.tenant, put.call.payload_bytes[0])
          ->Extend({clock_.Now() - began_, begins ? kNoBlock : put.parent, names, put.call.hints});
}

Newcomer Store::NewcomerLocked(BlockId id, const GrowthTicket& ticket) {
  const Block& block = blocks_.at(id);
  const bool parent_lives = block.parent != kNoBlock &&
                            blocks_.at(block.parent).serial == block.parent_serial &&
                            blocks_.at(block.parent).pool == block.pool &&
                            blocks_.at(block.parent).state == BlockState::kReady;
  return {parent_lives ? block.parent : kNoBlock,
          learns_ ? NameLocked(block.scope, block.key()) : 0, ticket};
}

void Store::TickPoliciesLocked() {
  if (learns_) {
    for (const std::unique_ptr<Pool>& pool : pools_) {
      pool->policy->Advance(clock_.Now() - began_);
    }
  }
}

std::optional<Lessons::Pupil> Store::BeginLesson(size_t pool) {
  Lock lock(&mutex_);
  if (pool >= pools_.size()) {
    return std::nullopt;
  }
  const Pool& of = *pools_[pool];  // it stays for as long as the store
  return Lessons::Pupil{of.policy.get(), of.policy->BeginLesson(), TenantOf(of.tenant).alias,
                        of.slot_bytes};
}

void Store::EndLesson(EvictionPolicy& policy) {
  Lock lock(&mutex_);
  policy.EndLesson();
}

void Store::StudyPolicies() {
  if (learns_) {
    lessons_.Study({[this](size_t pool) { return BeginLesson(pool); },
                    [this](EvictionPolicy& policy) { EndLesson(policy); }});
  }
}

std::vector<LearntPolicy> Store::SaveLearnt() {
  if (!learns_) {
    return {};
  }
  return lessons_.Save({[this](size_t pool) { return BeginLesson(pool); },
                        [this](EvictionPolicy& policy) { EndLesson(policy); }});
}

}  // namespace terrace
