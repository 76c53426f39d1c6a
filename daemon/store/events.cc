// What watchers are told: the places where blocks come to lie and leave, and each watcher's way
// through a snapshot and the journal.
//
// A block's events say where it is nearest, DRAM before the local tier. What the local tier holds
// is asked of it at each of these places and when it says that something changed; it is never
// remembered here, so that the last event of a block is right however late the tier's word comes.
#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

#include "daemon/store/part_view.h"
#include "daemon/store/store.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

constexpr std::string_view kDramName = "g2";
// Who loses its connection comes back within this and goes on where it was.
constexpr absl::Duration kRecordedAfterwards = absl::Seconds(60);
constexpr uint32_t kCollectedAtOnce = 4096;  // entries of the table of blocks, under one lock
constexpr uint32_t kLooksAtOnce = 1024;      // at blocks or events, likewise
constexpr size_t kLearntAtOnce = 256;        // changes of the local tier, likewise

StoreEvent EventOf(StoreEventKind kind, const BlockIdentity& identity, std::string_view tier) {
  StoreEvent event;
  event.kind = kind;
  event.namespace_digest = identity.namespace_digest;
  event.salt = std::string(identity.salt);
  event.key_bytes = static_cast<uint32_t>(identity.key.size());
  event.keys = std::string(identity.key);
  event.tier = std::string(tier);
  return event;
}

// A piece of the list of what the local tier holds. Shared by the watcher and the tier's callback.
struct Listing {
  absl::Mutex mutex;
  bool is_ready ABSL_GUARDED_BY(mutex) = false;
  ListPlace next ABSL_GUARDED_BY(mutex);
  std::vector<NamedBlock> blocks ABSL_GUARDED_BY(mutex);
};

}  // namespace

// ---------------------------------------------------------------- what happens

void Store::TellStoredLocked(PutOperation& put, uint32_t position) {
  const Namespace& ns = NamespaceOf(put.scope);
  EventJournal* journal = events_.JournalOf(ns.tenant);
  if (journal == nullptr) {
    return;
  }
  const StorePart& part = put.call.part;
  StoreEvent event = EventOf(StoreEventKind::kStored,
                             {ns.digest, ns.generation, part.salt, part.key(position)}, kDramName);
  if (position == 0) {
    event.parent = put.call.parent;
  } else if (part.rule == Rule::kPrefix) {
    event.parent = std::string(part.key(position - 1));
  }
  event.first_token = FirstToken(part, ns.record.block_tokens, position);
  event.block_tokens = ns.record.block_tokens;
  if (position < put.call.metadata.size()) {
    event.metadata.push_back(std::move(put.call.metadata[position]));
  }
  journal->Add(std::move(event));
}

void Store::TellReadUpLocked(const Block& block) {
  const Namespace& ns = NamespaceOf(block.scope);
  EventJournal* journal = events_.JournalOf(ns.tenant);
  if (journal == nullptr) {
    return;
  }
  const BlockIdentity identity = IdentityOfLocked(block);
  if (local_ != nullptr && local_->Holds(identity)) {
    journal->Add(EventOf(StoreEventKind::kMoved, identity, kDramName));
    return;
  }
  journal->Add(StoredInDramLocked(block));
}

StoreEvent Store::StoredInDramLocked(const Block& block) {
  StoreEvent event = EventOf(StoreEventKind::kStored, IdentityOfLocked(block), kDramName);
  if (block.parent != kNoBlock && blocks_.at(block.parent).serial == block.parent_serial) {
    event.parent = std::string(blocks_.at(block.parent).key());
  }
  event.first_token = block.first_token;
  event.block_tokens = NamespaceOf(block.scope).record.block_tokens;
  return event;
}

void Store::TellLeftDramLocked(const Block& block) {
  EventJournal* journal = events_.JournalOf(NamespaceOf(block.scope).tenant);
  if (journal == nullptr || !IsCurrentLocked(block)) {
    return;  // its namespace was cleared, which says it all
  }
  const BlockIdentity identity = IdentityOfLocked(block);
  const bool stays =
      local_ != nullptr && local_->Holds(identity) && !deleting_.contains(LocalName(identity));
  journal->Add(stays ? EventOf(StoreEventKind::kMoved, identity, local_->name())
                     : EventOf(StoreEventKind::kRemoved, identity, kDramName));
}

void Store::TellDeletedLocked(const BlockIdentity& identity) {
  const Namespace* ns = FindOpenedLocked(identity.namespace_digest);
  EventJournal* journal = ns == nullptr ? nullptr : events_.JournalOf(ns->tenant);
  if (journal != nullptr && local_ != nullptr && FindReadyLocked(identity) == nullptr &&
      local_->Holds(identity)) {
    journal->Add(EventOf(StoreEventKind::kRemoved, identity, local_->name()));
  }
}

void Store::TellClearedLocked(const Namespace& ns) {
  if (EventJournal* journal = events_.JournalOf(ns.tenant); journal != nullptr) {
    StoreEvent event;
    event.kind = StoreEventKind::kCleared;
    event.namespace_digest = ns.digest;
    journal->Add(std::move(event));
  }
}

bool Store::MayHoldOfEarlierLives() const {
  if (!watched_ || local_ == nullptr) {
    return false;
  }
  const SegmentTierFigures figures = local_->figures();
  return figures.recovered_by_index + figures.recovered_by_footer + figures.recovered_by_header > 0;
}

void Store::TellOpenedLocked(TenantId tenant) {
  if (EventJournal* journal = events_.JournalOf(tenant); journal != nullptr) {
    journal->Lose();
  }
}

const Block* Store::FindReadyLocked(const BlockIdentity& identity) {
  const auto ns = namespace_ids_.find(identity.namespace_digest);
  if (ns == namespace_ids_.end()) {
    return nullptr;
  }
  const auto scope =
      scope_ids_.find(ScopeName{ns->second, identity.generation, std::string(identity.salt)});
  const BlockId id =
      scope == scope_ids_.end() ? kNoBlock : index_.Find(scope->second, identity.key);
  return id == kNoBlock || blocks_.at(id).state != BlockState::kReady ? nullptr : &blocks_.at(id);
}

void Store::LearnLocalChanges(absl::Span<const NamedBlock> changed, SegmentTier::Unnamed unnamed) {
  for (size_t begin = 0; begin < changed.size(); begin += kLearntAtOnce) {
    Lock lock(&mutex_);
    for (const NamedBlock& block : changed.subspan(begin, kLearntAtOnce)) {
      const Namespace* ns = FindOpenedLocked(block.namespace_digest);
      EventJournal* journal = ns == nullptr ? nullptr : events_.JournalOf(ns->tenant);
      if (journal == nullptr || ns->generation != block.generation ||
          FindReadyLocked(block.identity()) != nullptr) {
        continue;
      }
      if (!local_->Holds(block.identity())) {
        journal->Add(EventOf(StoreEventKind::kRemoved, block.identity(), local_->name()));
      } else if (events_.tenants[static_cast<uint32_t>(ns->tenant)]->snapshots > 0) {
        // The list that a snapshot reads may have passed the place where it lies now.
        journal->Add(EventOf(StoreEventKind::kMoved, block.identity(), local_->name()));
      }
    }
  }
  if (unnamed == SegmentTier::Unnamed::kMore) {
    Lock lock(&mutex_);
    for (uint32_t i = 0; i < events_.tenants.size(); ++i) {
      if (EventJournal* journal = events_.JournalOf(TenantId{i}); journal != nullptr) {
        journal->Lose();
      }
    }
  }
}

void Store::TickEvents() {
  if (!watched_) {
    return;
  }
  absl::MutexLock switched(&watch_switch_);
  {
    Lock lock(&mutex_);
    events_.recording = false;
    for (const std::unique_ptr<EventBook::OfTenant>& tenant : events_.tenants) {
      if (tenant == nullptr || !tenant->journal.recording()) {
        continue;
      }
      if (tenant->watchers == 0 && clock_.Now() - tenant->left_at >= kRecordedAfterwards) {
        tenant->journal.Stop();
      } else {
        events_.recording = true;
      }
    }
    if (events_.recording) {
      return;
    }
  }
  watched_ = false;
  if (local_ != nullptr) {
    local_->WatchChanges(nullptr);
  }
}

// ---------------------------------------------------------------- one watcher

class Store::Watcher final : public StoreWatcher {
 public:
  // Under the store's lock, and counted already.
  Watcher(Store& store, TenantId tenant, WatchCall call)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store.mutex_);
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  ~Watcher() override;

  [[nodiscard]] uint64_t publisher_id() const override { return publisher_id_; }
  EventBatch Next() override;

 private:
  // A snapshot is told in this order; a block is looked at again when its turn comes.
  enum class Stage : uint8_t { kCollecting, kDram, kLocal, kLive };
  // As of when it was collected.
  struct Seen {
    BlockId id = kNoBlock;
    uint32_t serial = 0;
  };

  EventBook::OfTenant& BookLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_) {
    return *store_.events_.tenants[static_cast<uint32_t>(tenant_)];
  }
  void CollectLocked(EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellDramLocked(EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellLocalLocked(EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellNamedLocked(const NamedBlock& block, EventBatch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void EndSnapshotLocked(EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellNewsLocked(EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellGapLocked(uint64_t sequence, EventBatch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void TellLocked(StoreEvent event, EventBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(store_.mutex_);
  void AskForList();
  [[nodiscard]] bool IsWanted(const Digest128& ns) const {
    return namespaces_.empty() || namespaces_.contains(ns);
  }
  [[nodiscard]] bool IsFull(const EventBatch& batch) const {
    return batch.events.size() >= kMaxEventsPerBatch || batch_bytes_ >= kEventBatchBytes;
  }

  Store& store_;
  const TenantId tenant_;
  const uint64_t publisher_id_;
  absl::flat_hash_set<Digest128> namespaces_;  // none: all
  absl::flat_hash_set<Digest128> described_;
  Stage stage_ = Stage::kLive;
  uint64_t next_ = 0;  // the event to be told next
  std::optional<uint64_t> gap_;
  uint64_t batch_bytes_ = 0;

  // Of a snapshot.
  uint64_t as_of_ = 0;
  uint32_t began_ds_ = 0;
  uint32_t cursor_ = 0;                             // in the table of blocks
  std::map<uint32_t, std::vector<Seen>> by_token_;  // first token: parents before children
  std::shared_ptr<Listing> listing_;                // as Listing says; nullptr: none asked for
  ListPlace list_from_;
  std::deque<NamedBlock> named_;
};

Store::Watcher::Watcher(Store& store, TenantId tenant, WatchCall call)
    : store_(store),
      tenant_(tenant),
      publisher_id_(store.events_.publisher_id),
      namespaces_(call.namespaces.begin(), call.namespaces.end()) {
  EventJournal& journal = BookLocked().journal;
  const uint64_t newest = journal.See();
  next_ = newest + 1;
  if (call.snapshot) {
    stage_ = Stage::kCollecting;
    as_of_ = newest;
    began_ds_ = store_.NowDeciseconds();
  } else if (call.publisher_id == publisher_id_ && call.after_sequence <= newest) {
    next_ = call.after_sequence + 1;
  } else if (call.publisher_id != 0) {
    gap_ = newest;
  }
}

Store::Watcher::~Watcher() {
  Lock lock(&store_.mutex_);
  EventBook::OfTenant& book = BookLocked();
  book.snapshots -= stage_ == Stage::kLive ? 0 : 1;
  --book.watchers;
  book.left_at = store_.clock_.Now();
}

EventBatch Store::Watcher::Next() {
  EventBatch batch;
  batch_bytes_ = 0;
  {
    Lock lock(&store_.mutex_);
    batch.newest = as_of_;
    switch (stage_) {
      case Stage::kCollecting:
        CollectLocked(batch);
        break;
      case Stage::kDram:
        TellDramLocked(batch);
        break;
      case Stage::kLocal:
        TellLocalLocked(batch);
        break;
      case Stage::kLive:
        TellNewsLocked(batch);
        break;
    }
    store_.counters_.events += batch.events.size();
  }
  if (stage_ == Stage::kLocal && listing_ == nullptr && named_.empty()) {
    AskForList();
  }
  return batch;
}

void Store::Watcher::TellLocked(StoreEvent event, EventBatch& batch) {
  const Digest128 digest = event.namespace_digest;
  if (event.key_bytes > 0 || event.kind == StoreEventKind::kCleared) {
    const Namespace* ns = store_.FindNamespaceLocked(tenant_, digest);
    if (ns == nullptr && !described_.contains(digest)) {
      return;  // forgotten meanwhile, and nothing is left of what happened in it
    }
    if (ns == nullptr && event.kind == StoreEventKind::kCleared) {
      described_.erase(digest);
    } else if (ns != nullptr && described_.insert(digest).second) {
      batch.namespaces.push_back({ns->digest, ns->family, ns->record});
    }
  }
  batch_bytes_ += event.bytes();
  batch.events.push_back(std::move(event));
}

void Store::Watcher::TellGapLocked(uint64_t sequence, EventBatch& batch) {
  StoreEvent gap;
  gap.kind = StoreEventKind::kGap;
  gap.sequence = sequence;
  ++store_.counters_.event_gaps;
  TellLocked(std::move(gap), batch);
}

void Store::Watcher::TellNewsLocked(EventBatch& batch) {
  EventJournal& journal = BookLocked().journal;
  const uint64_t newest = journal.See();
  if (gap_.has_value()) {
    TellGapLocked(*gap_, batch);
    gap_.reset();
  }
  if (next_ < journal.oldest()) {
    TellGapLocked(journal.oldest() - 1, batch);
    next_ = journal.oldest();
  }
  for (uint32_t i = 0; i < kLooksAtOnce && next_ <= newest && !IsFull(batch); ++i) {
    const StoreEvent& event = journal.at(next_++);
    if (IsWanted(event.namespace_digest)) {
      TellLocked(event, batch);
    }
  }
  batch.newest = newest;
  batch.more = next_ <= newest;
}

// ---------------------------------------------------------------- a snapshot

void Store::Watcher::CollectLocked(EventBatch& batch) {
  batch.more = true;
  for (uint32_t i = 0; i < kCollectedAtOnce; ++i) {
    if (cursor_ >= store_.blocks_.end()) {
      stage_ = Stage::kDram;
      return;
    }
    const BlockId id{cursor_++};
    const Block& block = store_.blocks_.at(id);
    if (block.state == BlockState::kReady && store_.NamespaceOf(block.scope).tenant == tenant_) {
      by_token_[block.first_token].push_back({id, block.serial});
    }
  }
}

void Store::Watcher::TellDramLocked(EventBatch& batch) {
  batch.more = true;
  for (uint32_t i = 0; i < kLooksAtOnce && !IsFull(batch); ++i) {
    if (by_token_.empty()) {
      if (store_.local_ != nullptr) {
        stage_ = Stage::kLocal;
      } else {
        EndSnapshotLocked(batch);
      }
      return;
    }
    std::vector<Seen>& seen = by_token_.begin()->second;
    const Seen next = seen.back();
    seen.pop_back();
    if (seen.empty()) {
      by_token_.erase(by_token_.begin());
    }
    const Block& block = store_.blocks_.at(next.id);
    if (block.serial != next.serial || block.state != BlockState::kReady ||
        !store_.IsCurrentLocked(block) || !IsWanted(store_.NamespaceOf(block.scope).digest)) {
      continue;
    }
    StoreEvent event = store_.StoredInDramLocked(block);
    event.sequence = as_of_;
    TellLocked(std::move(event), batch);
  }
}

void Store::Watcher::AskForList() {
  listing_ = std::make_shared<Listing>();
  store_.local_->List(list_from_,
                      [listing = listing_](const ListPlace& next, std::vector<NamedBlock> blocks) {
                        absl::MutexLock lock(&listing->mutex);
                        listing->next = next;
                        listing->blocks = std::move(blocks);
                        listing->is_ready = true;
                      });
}

void Store::Watcher::TellLocalLocked(EventBatch& batch) {
  if (listing_ != nullptr) {
    absl::MutexLock lock(&listing_->mutex);
    if (!listing_->is_ready) {
      return;
    }
    list_from_ = listing_->next;
    named_.insert(named_.end(), std::make_move_iterator(listing_->blocks.begin()),
                  std::make_move_iterator(listing_->blocks.end()));
  }
  listing_ = nullptr;
  batch.more = true;
  while (!named_.empty() && !IsFull(batch)) {
    TellNamedLocked(named_.front(), batch);
    named_.pop_front();
  }
  if (named_.empty() && list_from_.over) {
    EndSnapshotLocked(batch);
  }
}

void Store::Watcher::TellNamedLocked(const NamedBlock& block, EventBatch& batch) {
  const Namespace* ns = store_.FindNamespaceLocked(tenant_, block.namespace_digest);
  const BlockIdentity identity = block.identity();
  if (ns == nullptr || ns->generation != block.generation || !IsWanted(ns->digest)) {
    return;
  }
  const Block* in_dram = store_.FindReadyLocked(identity);
  StoreEvent event;
  if (in_dram != nullptr) {
    if (in_dram->stored_ds < began_ds_) {
      return;  // told already
    }
    event = store_.StoredInDramLocked(*in_dram);
  } else if (store_.local_->Holds(identity) && !store_.deleting_.contains(LocalName(identity))) {
    event = EventOf(StoreEventKind::kStored, identity, store_.local_->name());
    event.parent = block.parent;
    event.first_token = block.first_token;
    event.block_tokens = ns->record.block_tokens;
  } else {
    return;
  }
  event.sequence = as_of_;
  TellLocked(std::move(event), batch);
}

void Store::Watcher::EndSnapshotLocked(EventBatch& batch) {
  StoreEvent end;
  end.kind = StoreEventKind::kSnapshotEnd;
  end.sequence = as_of_;
  TellLocked(std::move(end), batch);
  stage_ = Stage::kLive;
  --BookLocked().snapshots;
  batch.more = true;
}

absl::StatusOr<std::unique_ptr<StoreWatcher>> Store::Watch(TenantId tenant, WatchCall call) {
  absl::MutexLock switched(&watch_switch_);
  if (local_ != nullptr && !watched_) {
    // Before the first look, so that nothing is missed that changes from then on.
    local_->WatchChanges(
        [this](const std::vector<NamedBlock>& changed, SegmentTier::Unnamed unnamed) {
          LearnLocalChanges(changed, unnamed);
        });
  }
  Lock lock(&mutex_);
  const auto index = static_cast<uint32_t>(tenant);
  TERRACE_CHECK(index < tenants_.size());
  if (events_.tenants.size() <= index) {
    events_.tenants.resize(tenants_.size());
  }
  if (events_.tenants[index] == nullptr) {
    events_.tenants[index] = std::make_unique<EventBook::OfTenant>();
  }
  EventBook::OfTenant& book = *events_.tenants[index];
  if (book.watchers >= kMaxWatchersPerTenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("watchers: at most ", kMaxWatchersPerTenant, " a tenant"));
  }
  if (call.snapshot && book.snapshots >= kMaxSnapshotsPerTenant) {
    return absl::ResourceExhaustedError(
        absl::StrCat("snapshot: at most ", kMaxSnapshotsPerTenant, " a tenant at a time"));
  }
  ++book.watchers;
  book.snapshots += call.snapshot ? 1 : 0;
  book.journal.Start();
  events_.recording = true;
  watched_ = true;
  return std::make_unique<Watcher>(*this, tenant, std::move(call));
}

}  // namespace terrace
