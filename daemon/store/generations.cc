// Generations: what is cleared here, what others cleared, and who has to be told of it.
//
// The local tier keeps them as notes, for this node; each pool carries them to the others. What
// comes from one of them is handed on to the rest, so that a namespace that is cleared anywhere is
// cleared everywhere, also where the node that cleared it died in between.
#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/generation_format.h"
#include "daemon/store/store.h"
#include "tiers/vocab/check.h"
#include "tiers/vocab/clear_order.h"

namespace terrace {
namespace {

constexpr absl::Duration kNoteRetry = absl::Seconds(1);
constexpr absl::Duration kRaiseRetry = absl::Seconds(1);
constexpr uint32_t kMaxRaises = 256;  // under way, to one pool
// How long a clear waits for pools: they can be told later, and the answer says so.
constexpr absl::Duration kPoolPatience = absl::Seconds(2);

// The pool is told when its turn comes, unless it knows.
void QueueRaise(Outlet& outlet, const Digest128& digest, uint64_t generation) {
  const auto recorded = outlet.recorded.find(digest);
  if (generation == 1 || (recorded != outlet.recorded.end() && recorded->second >= generation)) {
    return;
  }
  const auto [at, inserted] = outlet.unraised.try_emplace(digest, generation);
  if (inserted || at->second < generation) {
    at->second = generation;
    outlet.raise_queue.push_back(digest);
  }
}

}  // namespace

absl::Status Store::LoadGenerations() {
  if (local_ != nullptr) {
    local_->WatchNotes(
        [this](const std::vector<SegmentTier::Note>& news) { return LearnGenerations(news); });
    if (absl::Status status = LearnGenerations(local_->Notes()); !status.ok()) {
      return status;
    }
  }
  for (size_t i = 0; i < shared_.size(); ++i) {
    shared_[i]->WatchGenerations(
        [this, i](const std::vector<RaisedGeneration>& news) { LearnRaised(i, news); });
  }
  return absl::OkStatus();
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
    // What was removed in this life was removed from what had been noted, too, and it is not known
    // which blocks of that generation these were.
    const Namespace* opened = FindOpenedLocked(digest);
    const bool removed =
        opened != nullptr ? opened->removed_from : private_.removed_from.contains(digest);
    const uint64_t known = RaiseHereLocked(digest, generation + (removed ? 1 : 0));
    if (known != generation) {
      generations_.unnoted[digest] = known;
    }
  }
  return absl::OkStatus();
}

void Store::LearnRaised(size_t index, const std::vector<RaisedGeneration>& news) {
  Lock lock(&mutex_);
  for (const RaisedGeneration& raised : news) {
    const Digest128& digest = raised.namespace_digest;
    uint64_t& recorded = outlets_[index].recorded[digest];
    recorded = std::max(recorded, raised.generation);
    Namespace* opened = FindOpenedLocked(digest);
    const uint64_t before = KnownGenerationLocked(digest);
    uint64_t generation = raised.generation;
    // A clear that knew nothing of this generation was meant for its blocks as well.
    const bool blind = opened != nullptr && opened->cleared_blindly && generation >= before;
    const bool concurrent =
        opened != nullptr && opened->own_clear == before &&
        AreConcurrent(before, generation,
                      generation > before ? WhenFarApart::kConcurrent : WhenFarApart::kOrdered);
    if (blind || concurrent) {
      generation = EndOfBoth(before, generation);
      opened->own_clear = generation;
    }
    const uint64_t known = RaiseHereLocked(digest, generation);
    if (known != before && local_ != nullptr) {
      generations_.unnoted[digest] = known;
    }
  }
}

Namespace* Store::FindOpenedLocked(const Digest128& digest) {
  const auto found = namespace_ids_.find(digest);
  return found == namespace_ids_.end() ? nullptr
                                       : namespaces_[static_cast<uint32_t>(found->second)].get();
}

uint64_t Store::KnownGenerationLocked(const Digest128& digest) {
  const Namespace* opened = FindOpenedLocked(digest);
  if (opened != nullptr) {
    return opened->generation;
  }
  const auto found = generations_.noted.find(digest);
  return found == generations_.noted.end() ? 1 : found->second;
}

uint64_t Store::RaiseHereLocked(const Digest128& digest, uint64_t generation) {
  Namespace* opened = FindOpenedLocked(digest);
  uint64_t& known = generations_.noted.try_emplace(digest, 1).first->second;
  known = std::max({known, generation, opened == nullptr ? 1 : opened->generation});
  if (opened != nullptr && known != opened->generation) {
    opened->generation = known;
    if (opened->noted && keep_.directory != nullptr) {
      keep_.directory->RaiseNamespace(static_cast<uint32_t>(namespace_ids_.at(digest)), known);
    }
    if (events_.recording) {
      TellClearedLocked(*opened);
    }
    stale_rounds_ = 2;  // the round under way may have passed some blocks already
  }
  for (Outlet& outlet : outlets_) {
    QueueRaise(outlet, digest, known);
  }
  return known;
}

// ---------------------------------------------------------------- clear

void Store::ClearNamespace(TenantId tenant,
                           const Digest128& digest,
                           std::function<void(absl::StatusOr<ClearedNamespace>)> done) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  Namespace* ns = FindNamespaceLocked(tenant, digest);
  if (ns == nullptr) {
    deferred.Add([done = std::move(done)] {
      done(absl::NotFoundError("namespace_digest: not opened by this tenant"));
    });
    return;
  }
  ns->removed_from = true;
  ns->cleared_blindly = ns->cleared_blindly ||
                        std::any_of(outlets_.begin(), outlets_.end(),
                                    [](const Outlet& outlet) { return !outlet.has_caught_up; });
  auto clear = std::make_shared<ClearProgress>();
  clear->tenant = tenant;
  clear->digest = digest;
  clear->generation = RaiseHereLocked(
      digest, outlets_.empty() ? ns->generation + 1
                               : ClearedAfter(ns->generation, std::random_device{}()));
  ns->own_clear = clear->generation;
  clear->local_left = local_ != nullptr;
  clear->give_up = clock_.Now() + kPoolPatience;
  clear->done = std::move(done);
  generations_.clearing.push_back(clear);
  ++in_flight_;  // until the answer has been given
  for (size_t i = 0; i < outlets_.size(); ++i) {
    Outlet& outlet = outlets_[i];
    const uint32_t bit = Serves(outlet.state) ? 1U << i : 0U;
    clear->outlets_left = static_cast<uint8_t>(clear->outlets_left | bit);
    // Ahead of what nobody waits for.
    std::erase(outlet.raise_queue, digest);
    outlet.raise_queue.push_front(digest);
    outlet.retry_raises_at = clock_.Now();
    PumpRaisesLocked(outlet, deferred);
  }
  if (local_ != nullptr) {
    NoteGenerationLocked({digest, clear->generation, clear}, deferred);
  }
  AnswerClearsLocked(deferred);
}

void Store::AnswerClearsLocked(DeferredCalls& deferred) {
  const std::vector<std::shared_ptr<ClearProgress>> all = generations_.clearing;
  for (const std::shared_ptr<ClearProgress>& clear : all) {
    if (clear->local_left || (clear->outlets_left != 0 && clock_.Now() < clear->give_up)) {
      continue;
    }
    std::erase(generations_.clearing, clear);
    const Namespace& ns = *FindNamespaceLocked(clear->tenant, clear->digest);
    const bool forgets = local_ == nullptr &&
                         std::any_of(outlets_.begin(), outlets_.end(), [&](const Outlet& outlet) {
                           return outlet.unraised.contains(clear->digest);
                         });
    absl::StatusOr<ClearedNamespace> answer =
        ClearedNamespace{clear->generation, IsClearPendingLocked(ns)};
    if (clear->local_failed) {
      answer = NotDurable("cleared", local_->name());
    } else if (forgets) {
      answer = NotDurable("cleared", "a shared tier");
    }
    deferred.Add([this, clear, answer] {
      clear->done(answer);
      Lock lock(&mutex_);
      JobEndedLocked();
    });
  }
}

bool Store::IsClearPendingLocked(const Namespace& ns) const {
  if (ns.generation == 1) {
    return false;
  }
  return std::any_of(outlets_.begin(), outlets_.end(), [&ns](const Outlet& outlet) {
    return outlet.unraised.contains(ns.digest) ||
           !outlet.tier->SeenByAll({ns.digest, ns.generation});
  });
}

absl::Status Store::NotDurable(std::string_view what, std::string_view tier) {
  return absl::UnavailableError(absl::StrCat(std::string(what), ", but ", std::string(tier),
                                             " could not record it: a restart may undo it"));
}

// ---------------------------------------------------------------- to the local tier

// One at a time: a note of an older generation must not come behind that of a newer one.
void Store::NoteGenerationLocked(GenerationNote note, DeferredCalls& deferred) {
  generations_.notes.push_back(std::move(note));
  if (generations_.notes.size() == 1) {
    BeginNoteLocked(deferred);
  }
}

// What the tier could not record is offered again: its medium may have come back.
void Store::RetryNotesLocked(DeferredCalls& deferred) {
  if (generations_.unnoted.empty() || !generations_.notes.empty() ||
      clock_.Now() < generations_.retry_at) {
    return;
  }
  const auto [digest, generation] = *generations_.unnoted.begin();
  NoteGenerationLocked({digest, generation, nullptr}, deferred);
}

void Store::BeginNoteLocked(DeferredCalls& deferred) {
  const GenerationNote& note = generations_.notes.front();
  ++in_flight_;  // until NoteEnded
  deferred.Add([this, name = note.digest.ToBytes(), value = EncodeGeneration(note.generation)] {
    local_->PutNote(name, value, [this](WriteOutcome outcome) {
      executor_.Run(Priority::kHigh, [this, outcome] {
        if (outcome == WriteOutcome::kWritten) {
          SyncLocal([this](const absl::Status& status) { NoteEnded(status.ok()); });
        } else {
          NoteEnded(false);
        }
      });
    });
  });
}

void Store::NoteEnded(bool is_durable) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  const GenerationNote note = std::move(generations_.notes.front());
  generations_.notes.pop_front();
  // What came from a drive or a pool meanwhile may have raised it further.
  const auto unnoted = generations_.unnoted.find(note.digest);
  const bool overtaken = unnoted != generations_.unnoted.end() && unnoted->second > note.generation;
  if (!is_durable) {
    generations_.unnoted[note.digest] = overtaken ? unnoted->second : note.generation;
    generations_.retry_at = clock_.Now() + kNoteRetry;
  } else if (!overtaken) {
    generations_.unnoted.erase(note.digest);
  }
  if (note.clear != nullptr) {
    note.clear->local_left = false;
    note.clear->local_failed = !is_durable;
    AnswerClearsLocked(deferred);
  }
  if (!generations_.notes.empty()) {
    BeginNoteLocked(deferred);
  }
  JobEndedLocked();
}

// ---------------------------------------------------------------- to the pools

// Not while the pool is away: what it would remember of this node's until it has been looked at
// could not be told from what other nodes raised.
void Store::PumpRaisesLocked(Outlet& outlet, DeferredCalls& deferred) {
  if (!Serves(outlet.state)) {
    return;
  }
  while (outlet.raises_running < kMaxRaises && !outlet.raise_queue.empty() &&
         clock_.Now() >= outlet.retry_raises_at) {
    const Digest128 digest = outlet.raise_queue.front();
    outlet.raise_queue.pop_front();
    const auto found = outlet.unraised.find(digest);
    if (found == outlet.unraised.end()) {
      continue;
    }
    ++outlet.raises_running;
    ++in_flight_;  // until RaiseEnded
    const RaisedGeneration raised{digest, found->second};
    const size_t index = static_cast<size_t>(&outlet - outlets_.data());
    deferred.Add([this, tier = outlet.tier, index, raised] {
      tier->RaiseGeneration(raised, [this, index, raised](const absl::Status& status) {
        executor_.Run(Priority::kHigh, [this, index, raised, is_recorded = status.ok()] {
          RaiseEnded(index, raised, is_recorded);
        });
      });
    });
  }
}

void Store::RaiseEnded(size_t index, const RaisedGeneration& raised, bool is_recorded) {
  DeferredCalls deferred;
  Lock lock(&mutex_);
  Outlet& outlet = outlets_[index];
  --outlet.raises_running;
  const auto unraised = outlet.unraised.find(raised.namespace_digest);
  if (is_recorded) {
    uint64_t& recorded = outlet.recorded[raised.namespace_digest];
    recorded = std::max(recorded, raised.generation);
    if (unraised != outlet.unraised.end() && unraised->second <= recorded) {
      outlet.unraised.erase(unraised);
    }
  } else {
    outlet.retry_raises_at = clock_.Now() + kRaiseRetry;
    outlet.raise_queue.push_back(raised.namespace_digest);
  }
  for (const std::shared_ptr<ClearProgress>& clear : generations_.clearing) {
    if (clear->digest == raised.namespace_digest && clear->generation <= raised.generation) {
      clear->outlets_left = static_cast<uint8_t>(clear->outlets_left & ~(1U << index));
    }
  }
  AnswerClearsLocked(deferred);
  PumpRaisesLocked(outlet, deferred);
  JobEndedLocked();
}

void Store::TickGenerationsLocked(DeferredCalls& deferred) {
  const bool sees = std::all_of(outlets_.begin(), outlets_.end(),
                                [](const Outlet& outlet) { return outlet.has_caught_up; });
  for (const std::unique_ptr<Namespace>& ns : namespaces_) {
    if (ns != nullptr) {
      ns->cleared_blindly = ns->cleared_blindly && !sees;
    }
  }
  for (Outlet& outlet : outlets_) {
    PumpRaisesLocked(outlet, deferred);
  }
  AnswerClearsLocked(deferred);
}

}  // namespace terrace
