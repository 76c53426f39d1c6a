// Reclaim: a sealed segment is emptied, and its file is used again.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/tier.h"

namespace terrace {
namespace {

// Writers need two segments that can be opened (StartOpenLocked). A tier of many begins to make
// room before it runs out, so that writes need not wait, and what is kept has a segment to go to;
// in a small one that would cost too much of it.
constexpr uint32_t WantedAvailable(bool large) {
  return large ? 4 : 2;
}
constexpr uint32_t kMaxRewritesInFlight = 4;

}  // namespace

std::vector<SegmentView> Tier::SealedLocked() const {
  // Of all uses of segments the two that began first: tombstones stay until every segment that was
  // begun before them has been used again.
  uint64_t first = UINT64_MAX;
  uint64_t second = UINT64_MAX;
  for (const auto& [number, segment] : segments_) {
    if (segment->epoch != 0) {
      second = std::min(second, std::max(first, segment->epoch));
      first = std::min(first, segment->epoch);
    }
  }
  std::vector<SegmentView> views;
  for (const auto& [number, segment] : segments_) {
    if (segment->stage == Stage::kSealed) {
      const uint64_t oldest_other = segment->epoch == first ? second : first;
      const uint64_t kept_pages =
          oldest_other < segment->newest_tombstone ? segment->tombstone_pages : 0;
      views.push_back({number, segment->epoch, (segment->live_pages + kept_pages) * kPageBytes,
                       uint64_t{segment->end_page} * kPageBytes, segment->live_records,
                       segment->corrupt_records});
    }
  }
  return views;
}

std::vector<SegmentView> Tier::Sealed() const {
  absl::MutexLock lock(&mutex_);
  return SealedLocked();
}

std::vector<SegmentView> Tier::CandidatesLocked() const {
  std::vector<SegmentView> candidates;
  for (const SegmentView& view : SealedLocked()) {
    if (!segments_.at(view.number)->reclaim_failed) {
      candidates.push_back(view);
    }
  }
  return candidates;
}

bool Tier::ReclaimWaitsLocked() const {
  return reclaim_ != nullptr && reclaim_->in_flight > 0;
}

void Tier::ForgetReclaimFailuresLocked() {
  for (const auto& [number, segment] : segments_) {
    segment->reclaim_failed = false;
  }
}

Segment* Tier::ToRetireLocked() const {
  for (const auto& [number, segment] : segments_) {
    if (segment->stage == Stage::kSealed && segment->corrupt_records >= kMaxCorruptRecords &&
        !segment->reclaim_failed) {
      return segment.get();
    }
  }
  return nullptr;
}

void Tier::MaybeReclaimLocked(DeferredCalls& deferred) {
  if (recovering_ > 0 || closing_ || reclaim_ != nullptr || choosing_ ||
      RefusalLocked() != WriteOutcome::kWritten) {
    return;
  }
  ShrinkLocked(deferred);
  const bool room_wanted = (AvailableLocked() < WantedAvailable(IsLarge()) || ExcessLocked() > 0) &&
                           !CandidatesLocked().empty();
  if (!room_wanted && ToRetireLocked() == nullptr) {
    return;
  }
  choosing_ = true;
  RunJobLocked(
      Priority::kNormal, [this] { ChooseJob(); }, deferred);
}

void Tier::ChooseJob() {
  std::vector<SegmentView> views;
  {
    absl::MutexLock lock(&mutex_);
    views = CandidatesLocked();
  }
  size_t chosen = 0;
  if (parts_.judge != nullptr && !views.empty()) {
    chosen = std::min(parts_.judge->ChooseVictim(views), views.size() - 1);
  } else if (!views.empty()) {
    const auto least = [](const SegmentView& a, const SegmentView& b) {
      return std::pair(a.live_bytes, a.epoch) < std::pair(b.live_bytes, b.epoch);
    };
    chosen =
        static_cast<size_t>(std::min_element(views.begin(), views.end(), least) - views.begin());
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  choosing_ = false;
  Segment* victim = ToRetireLocked();
  const bool retires = victim != nullptr;
  if (!retires && !views.empty()) {
    victim = segments_.at(views[chosen].number).get();
  }
  if (victim == nullptr || victim->stage != Stage::kSealed || closing_) {
    PumpAllLocked(deferred);
    MaybeEndCloseLocked(deferred);
    return;
  }
  victim->stage = Stage::kReclaiming;
  reclaim_ = std::make_shared<Reclaim>();
  reclaim_->victim = victim;
  reclaim_->retires = retires;
  reclaim_->live_share =
      static_cast<double>(victim->live_pages) / static_cast<double>(victim->end_page);
  RunJobLocked(
      Priority::kLow, [this, reclaim = reclaim_] { ReclaimJob(reclaim); }, deferred);
}

absl::Status Tier::ListRecords(Segment& segment, std::vector<IndexedRecord>* records) const {
  ScanResult scan;
  absl::Status status = ScanSegment({segment.file.get(), uuid(), segment.number, segment.epoch,
                                     folder_->superblock().segment_bytes, 1},
                                    &scan);
  *records = std::move(scan.records);
  if (scan.by_footer) {
    return status;
  }
  // A damaged header hides what lies behind it, but not from the table.
  const auto is_block = [](const IndexedRecord& record) {
    return record.kind == static_cast<uint8_t>(RecordKind::kBlock);
  };
  records->erase(std::remove_if(records->begin(), records->end(), is_block), records->end());
  for (const auto& [fingerprint, place] : table_.InSegment(segment.number)) {
    records->push_back({fingerprint, place.checksum, place.sequence, place.segment, place.page,
                        place.payload_bytes, static_cast<uint8_t>(RecordKind::kBlock),
                        static_cast<uint8_t>(place.pages - 1 - PagesOf(place.payload_bytes))});
  }
  return status;
}

void Tier::ReclaimJob(const std::shared_ptr<Reclaim>& reclaim) {
  Segment& victim = *reclaim->victim;
  if (!reclaim->scanned) {
    const absl::Status status = ListRecords(victim, &reclaim->records);
    reclaim->scanned = true;
    if (!status.ok()) {
      absl::MutexLock lock(&mutex_);
      NoteFaultLocked(status);
      reclaim->must_stay = true;  // it may hold tombstones
      reclaim->next = reclaim->records.size();
    }
  }
  for (;;) {
    IndexedRecord record;
    {
      DeferredCalls deferred;
      absl::MutexLock lock(&mutex_);
      if (closing_) {
        reclaim->must_stay = true;
        reclaim->next = reclaim->records.size();
      }
      if (reclaim->next == reclaim->records.size() || reclaim->in_flight >= kMaxRewritesInFlight) {
        reclaim->job_runs = false;
        MaybeEndReclaimLocked(reclaim, deferred);
        return;
      }
      record = reclaim->records[reclaim->next++];
      RecordPlace place;
      if (!WantedLocked(*reclaim, record, &place)) {
        continue;
      }
    }
    ReclaimRecord(reclaim, record);
  }
}

bool Tier::WantedLocked(const Reclaim& reclaim,
                        const IndexedRecord& record,
                        RecordPlace* place) const {
  switch (static_cast<RecordKind>(record.kind)) {
    case RecordKind::kBlock: {
      const std::optional<RecordPlace> held = table_.Find(record.fingerprint);
      if (!held.has_value() || held->segment != record.segment || held->page != record.page) {
        return false;
      }
      *place = *held;
      return true;
    }
    case RecordKind::kTombstones:
      // What it hides lies in segments that were begun before it, and may be found there again
      // until their files are overwritten.
      return std::any_of(segments_.begin(), segments_.end(), [&](const auto& entry) {
        const Segment& other = *entry.second;
        return &other != reclaim.victim && other.epoch != 0 && other.epoch < record.sequence;
      });
    case RecordKind::kNote:
      return std::any_of(notes_.begin(), notes_.end(), [&](const auto& entry) {
        return entry.second.segment == record.segment && entry.second.page == record.page;
      });
  }
  return false;
}

bool Tier::ReadForRewrite(Reclaim& reclaim, const IndexedRecord& record, Append* append) {
  const Segment& victim = *reclaim.victim;
  File& file = *victim.file;
  const uint64_t offset = uint64_t{record.page} * kPageBytes;
  const uint64_t record_bytes = (1 + uint64_t{PagesOf(record.payload_bytes)}) * kPageBytes;
  RecordHeader header;
  const auto read_header = [&](AlignedBuffer& into) {
    return ReadFully(file, offset, into.span()).ok() &&
           DecodeRecordHeader(into.span().first(kPageBytes), &header) == HeaderFault::kNone &&
           header.segment_epoch == victim.epoch && header.page == record.page &&
           header.sequence == record.sequence && header.payload_bytes == record.payload_bytes;
  };
  AlignedBuffer page(kPageBytes);
  if (!read_header(page)) {
    return false;
  }
  append->kind = header.kind;
  append->identity = OwnedIdentity(
      BlockIdentity{header.namespace_digest, header.generation, header.salt, header.key});
  append->parent = std::string(header.parent);
  append->metadata = std::string(header.metadata);
  append->metadata_bytes = header.metadata_bytes;
  append->metadata_checksum = header.metadata_checksum;
  append->first_token = header.first_token;
  append->tokens = header.tokens;
  append->payload_bytes = header.payload_bytes;
  append->checksum = header.checksum;
  append->pages = RecordPages(header.payload_bytes, header.metadata_bytes);
  const RecordPlace place = table_.Find(record.fingerprint).value_or(RecordPlace());
  if (header.kind == RecordKind::kBlock && !reclaim.retires &&
      !parts_.judge->Keep({append->identity.view(), append->parent, append->first_token,
                           LowerBlock{header.payload_bytes, header.checksum, 0}, UnusedShare(place),
                           reclaim.live_share})) {
    return false;
  }
  reclaim.rewritten_pages += append->pages;
  append->own = AlignedBuffer(record_bytes);
  append->record = append->own.span();
  if (!read_header(append->own) || !(PayloadChecksum(append->record.subspan(
                                         kPageBytes, header.payload_bytes)) == header.checksum)) {
    return false;
  }
  if (ExtraPages(header.metadata_bytes) == 0) {
    return true;
  }
  append->extra = AlignedBuffer(header.metadata_bytes);
  return ReadFully(file, offset + record_bytes, append->extra.span()).ok() &&
         PayloadChecksum(append->extra.span().first(header.metadata_bytes)) ==
             header.metadata_checksum;
}

void Tier::ReclaimRecord(const std::shared_ptr<Reclaim>& reclaim, const IndexedRecord& record) {
  // Not even its header is read where the answer is known.
  const uint32_t least_pages = 1 + PagesOf(record.payload_bytes) + record.extra_pages;
  if (record.kind == static_cast<uint8_t>(RecordKind::kBlock) && !reclaim->retires) {
    if (parts_.judge == nullptr) {
      return;
    }
    if (static_cast<double>(reclaim->rewritten_pages + least_pages) >
        options_.max_rewritten_share * static_cast<double>(segment_pages_)) {
      absl::MutexLock lock(&mutex_);
      ++figures_.records_over_share;
      return;
    }
  }
  auto append = std::make_unique<Append>();
  if (!ReadForRewrite(*reclaim, record, append.get())) {
    // Not worth it, or damaged: what a damaged record said is lost already. What a tombstone hid
    // comes back at the earliest with a later recovery.
    return;
  }
  append->fingerprint = record.fingerprint;
  // Its own, so that a tombstone hides what it hid, and no more.
  append->sequence = record.sequence;
  append->is_rewrite = true;
  append->done = [this, reclaim, kind = append->kind](WriteOutcome outcome,
                                                      const LowerBlock& /*block*/) {
    Rewritten(reclaim, kind, outcome);
  };
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  ++reclaim->in_flight;
  ++transfers_;  // until Rewritten
  if (append->kind == RecordKind::kBlock && !WantedLocked(*reclaim, record, &append->old_place)) {
    EndAppendLocked(std::move(append), WriteOutcome::kDeleted, deferred);
    return;
  }
  const uint32_t writer = append->kind == RecordKind::kBlock ? RescueWriterLocked() : own_writer_;
  EnqueueLocked(writer, std::move(append), deferred);
}

uint32_t Tier::RescueWriterLocked() const {
  const Writer& rescue = writers_[rescue_writer_];
  const bool may_open = rescue.opening || AvailableLocked() > 1;
  return rescue.segment != nullptr || may_open ? rescue_writer_ : own_writer_;
}

void Tier::Rewritten(const std::shared_ptr<Reclaim>& reclaim,
                     RecordKind kind,
                     WriteOutcome outcome) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  reclaim->must_stay =
      reclaim->must_stay || (kind != RecordKind::kBlock && outcome != WriteOutcome::kWritten);
  figures_.rewrites_without_room +=
      kind == RecordKind::kBlock && outcome == WriteOutcome::kNoSpace ? 1 : 0;
  --reclaim->in_flight;
  if (!reclaim->job_runs && reclaim->next < reclaim->records.size()) {
    reclaim->job_runs = true;
    RunJobLocked(
        Priority::kLow, [this, reclaim] { ReclaimJob(reclaim); }, deferred);
  }
  MaybeEndReclaimLocked(reclaim, deferred);
  --transfers_;
}

void Tier::MaybeEndReclaimLocked(const std::shared_ptr<Reclaim>& reclaim, DeferredCalls& deferred) {
  if (reclaim_ != reclaim || reclaim->ending || reclaim->job_runs || reclaim->in_flight > 0 ||
      reclaim->next < reclaim->records.size()) {
    return;
  }
  if (reclaim->must_stay) {
    EndReclaimLocked(reclaim, absl::UnavailableError("what has to stay found no room"), deferred);
    return;
  }
  reclaim->ending = true;
  ++jobs_;  // until the copies are durable: only then may the originals go
  sync_waiting_.emplace_back([this, reclaim](const absl::Status& status) {
    DeferredCalls later;
    absl::MutexLock lock(&mutex_);
    if (status.ok()) {
      const uint64_t epoch = NextSequenceLocked();
      RunJobLocked(
          Priority::kNormal, [this, reclaim, epoch] { EmptyJob(reclaim, epoch); }, later);
    } else {
      EndReclaimLocked(reclaim, status, later);
    }
    --jobs_;
  });
  StartSyncLocked(deferred);
}

void Tier::EmptyJob(const std::shared_ptr<Reclaim>& reclaim, uint64_t epoch) {
  // Durably empty before the table forgets it: a block that a lookup does not find, and a Delete
  // therefore leaves no tombstone for, must not come back with the next recovery.
  Segment& victim = *reclaim->victim;
  Unnamed unnamed = Unnamed::kNone;
  std::vector<NamedBlock> lost = ReadNames(*reclaim, &unnamed);
  const absl::Status status =
      folder_->BeginSegment(*victim.file, victim.number, SegmentRole::kBlocks, epoch);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (status.ok()) {
    LetGoLocked(*reclaim);
    for (NamedBlock& block : lost) {
      NoteChangedLocked(std::move(block));
    }
    if (unnamed == Unnamed::kMore) {
      NoteUnnamedLocked();
    }
    victim.epoch = epoch;
    ++figures_.reclaimed_segments;
    figures_.bytes_written += kPageBytes;
  } else {
    NoteFaultLocked(status);
    if (!reclaim->retires) {
      BackOffLocked(status);  // one bad spot is known already, and says nothing of the rest
    }
  }
  EndReclaimLocked(reclaim, status, deferred);
}

void Tier::EndReclaimLocked(const std::shared_ptr<Reclaim>& reclaim,
                            const absl::Status& status,
                            DeferredCalls& deferred) {
  reclaim_ = nullptr;
  if (status.ok() && reclaim->retires) {
    reclaim->victim->stage = Stage::kRetired;
    forgotten_.push_back(reclaim->victim->number);
  } else if (status.ok()) {
    FreeLocked(*reclaim->victim, deferred);
  } else {
    reclaim->victim->stage = Stage::kSealed;
    reclaim->victim->reclaim_failed = true;
  }
  if (ExcessLocked() > 0) {
    MaybeReclaimLocked(deferred);  // writes wait for all of it
  }
  PumpAllLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

void Tier::LetGoLocked(const Reclaim& reclaim) {
  for (const IndexedRecord& record : reclaim.records) {
    RecordPlace place;
    if (record.kind == static_cast<uint8_t>(RecordKind::kBlock) &&
        WantedLocked(reclaim, record, &place) && table_.RemoveIf(record.fingerprint, place)) {
      ForgetPlaceLocked(place);
      ++figures_.records_reclaimed;
    }
  }
  Segment& victim = *reclaim.victim;
  if (victim.live_records > 0) {
    // The index knew records that the segment does not list any more.
    NoteUnnamedLocked();
    table_.RemoveSegment(victim.number);
    figures_.records_reclaimed += victim.live_records;
    victim.live_records = 0;
    victim.live_pages = 0;
  }
}

void Tier::FreeLocked(Segment& segment, DeferredCalls& deferred) {
  segment.free_when_unpinned = segment.pins > 0;
  if (segment.free_when_unpinned) {
    segment.stage = Stage::kReclaiming;
    return;
  }
  segment.stage = Stage::kFree;
  segment.entries = {};
  ForgetReclaimFailuresLocked();
  forgotten_.push_back(segment.number);
  ShrinkLocked(deferred);
  PumpAllLocked(deferred);
}

}  // namespace terrace
