// Durability: rounds of syncs over whatever was written since the last one.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "tiers/segment/tier.h"

namespace terrace {
namespace {

bool Dirty(const Segment& segment) {
  return (segment.stage == Stage::kOpen || segment.stage == Stage::kSealing) &&
         segment.end_page > segment.synced_page;
}

}  // namespace

bool Tier::AnyDirtyLocked() const {
  for (const auto& [number, segment] : segments_) {
    if (Dirty(*segment)) {
      return true;
    }
  }
  return false;
}

void Tier::Sync(std::function<void(absl::Status)> done) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  sync_waiting_.push_back(std::move(done));
  StartSyncLocked(deferred);
}

void Tier::StartSyncLocked(DeferredCalls& deferred) {
  // Who comes while a round runs may have written what it does not cover, and gets the next one.
  if (sync_round_ != nullptr || sync_waiting_.empty()) {
    return;
  }
  auto round = std::make_shared<SyncRound>();
  round->done.swap(sync_waiting_);
  last_sync_ = parts_.clock->Now();
  for (const auto& [number, segment] : segments_) {
    if (Dirty(*segment)) {
      ++round->left;
      ++transfers_;
      deferred.Add([this, dirty = segment.get(), end_page = segment->end_page, round] {
        SubmitSync(*dirty, end_page, round);
      });
    }
  }
  if (round->left > 0) {
    sync_round_ = round;
    return;
  }
  for (std::function<void(absl::Status)>& done : round->done) {
    deferred.Add([callback = std::move(done)] { callback(absl::OkStatus()); });
  }
}

void Tier::SubmitSync(Segment& segment,
                      uint32_t end_page,
                      const std::shared_ptr<SyncRound>& round) {
  IoRequest request;
  request.kind = IoKind::kSync;
  request.file = segment.file.get();
  const absl::StatusOr<uint64_t> token = parts_.io->Submit(
      std::move(request), [this, &segment, end_page, round](IoCompletion completion) {
        SyncEnded(segment, end_page, round, std::move(completion.status));
      });
  if (!token.ok()) {
    SyncEnded(segment, end_page, round, token.status());
  }
}

void Tier::SyncEnded(Segment& segment,
                     uint32_t end_page,
                     const std::shared_ptr<SyncRound>& round,
                     absl::Status status) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (status.ok()) {
    segment.synced_page = std::max(segment.synced_page, end_page);
  } else {
    // Nobody knows which of it is durable, and asking again would not tell.
    ++figures_.sync_faults;
    NoteFaultLocked(status);
    BackOffLocked(status);
    DropUnsyncedLocked(segment);
    AdvanceLocked(segment, deferred);
    round->status = std::move(status);
  }
  if (--round->left == 0) {
    for (std::function<void(absl::Status)>& done : round->done) {
      deferred.Add([callback = std::move(done), result = round->status] { callback(result); });
    }
    sync_round_ = nullptr;
    StartSyncLocked(deferred);
  }
  PumpAllLocked(deferred);
  --transfers_;
}

void Tier::DropUnsyncedLocked(Segment& segment) {
  segment.failed = true;
  std::vector<IndexedRecord> kept;
  for (const IndexedRecord& entry : segment.entries) {
    const bool dropped =
        entry.page >= segment.synced_page && entry.kind == static_cast<uint8_t>(RecordKind::kBlock);
    if (!dropped) {
      // Tombstones and notes stay listed: they are looked at again by a recovery, and what they say
      // is said by nothing else.
      kept.push_back(entry);
      continue;
    }
    DoubtLocked(entry.fingerprint);
    const std::optional<RecordPlace> place = table_.Find(entry.fingerprint);
    if (place.has_value() && place->segment == segment.number && place->page == entry.page &&
        table_.RemoveIf(entry.fingerprint, *place)) {
      ForgetPlaceLocked(*place);
      ++figures_.records_dropped_by_sync_faults;
      NoteUnnamedLocked();
    }
  }
  // The index may know what was dropped: it is told anew.
  segment.indexed_entries = 0;
  forgotten_.push_back(segment.number);
  segment.entries = std::move(kept);
  segment.synced_page = segment.end_page;
}

}  // namespace terrace
