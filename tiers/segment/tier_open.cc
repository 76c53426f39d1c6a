// Segments begin and end: files are made or used again, heads and footers written.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/tier.h"

namespace terrace {
namespace {

// Looks for a segment to open ahead are that share of a segment apart.
constexpr uint32_t kAheadLooks = 32;

// A single failure may be one bad spot; more of them in a row are the drive's.
constexpr uint32_t kMaxFaultsInARow = 3;

}  // namespace

uint32_t Tier::MaxSegments() const {
  return static_cast<uint32_t>(options_.capacity_bytes / folder_->superblock().segment_bytes);
}

uint32_t Tier::AvailableLocked() const {
  uint32_t available = 0;
  for (const auto& [number, segment] : segments_) {
    available += segment->stage == Stage::kFree ? 1 : 0;
  }
  const auto made = static_cast<uint32_t>(segments_.size());
  if (made < MaxSegments() && parts_.clock->Now() >= full_until_) {
    available += MaxSegments() - made;
  }
  return available;
}

uint32_t Tier::ExcessLocked() const {
  const auto made = static_cast<uint32_t>(segments_.size());
  return made > MaxSegments() ? made - MaxSegments() : 0;
}

void Tier::ShrinkLocked(DeferredCalls& deferred) {
  // One free segment stays for what a reclaim rescues.
  uint32_t excess = ExcessLocked();
  if (excess == 0 || closing_ || recovering_ > 0) {
    return;
  }
  uint32_t spare = 0;
  for (const auto& [number, segment] : segments_) {
    spare += segment->stage == Stage::kFree ? 1 : 0;
    excess -= segment->stage == Stage::kRemoving ? 1 : 0;
  }
  for (auto at = segments_.rbegin(); at != segments_.rend() && excess > 0 && spare > 1; ++at) {
    if (at->second->stage == Stage::kFree && at->second->pins == 0) {
      at->second->stage = Stage::kRemoving;
      --excess;
      --spare;
      RunJobLocked(
          Priority::kLow, [this, number = at->first] { RemoveJob(number); }, deferred);
    }
  }
}

void Tier::RemoveJob(uint32_t number) {
  absl::Status status;
  {
    absl::MutexLock folder_lock(&folder_mutex_);
    status = folder_->RemoveSegment(number);
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (status.ok()) {
    ++figures_.removed_segments;
    segments_.erase(number);
  } else {
    // Tried again in the next life; in this one nobody needs it.
    NoteFaultLocked(status);
    segments_.at(number)->stage = Stage::kRetired;
  }
  MaybeReclaimLocked(deferred);
  PumpAllLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

bool Tier::AnySealingLocked() const {
  return std::any_of(segments_.begin(), segments_.end(),
                     [](const auto& entry) { return entry.second->stage == Stage::kSealing; });
}

bool Tier::StartOpenLocked(uint32_t writer, DeferredCalls& deferred) {
  if (RefusalLocked() != WriteOutcome::kWritten) {
    EndWaitingLocked(writer, RefusalLocked(), deferred);
    return true;
  }
  // What recovery has not scanned may have to be freed first; see there.
  MaybeReclaimLocked(deferred);
  // The last one is for what the tier itself writes: without it a reclaim that has to keep
  // something could not make room.
  const uint32_t needed = writer == own_writer_ ? 1 : 2;
  if (AvailableLocked() < needed || (writer < own_writer_ && ExcessLocked() > 0)) {
    return false;
  }
  OpenOneLocked(writer, deferred);
  return true;
}

void Tier::MaybeOpenAheadLocked(uint32_t writer, DeferredCalls& deferred) {
  Writer& of = writers_[writer];
  if (writer >= own_writer_ || of.segment == nullptr || of.ahead != nullptr || of.opening ||
      of.segment->next_page < of.ahead_from_page || !IsLarge()) {
    return;
  }
  // A look goes over all segments, so a few a segment and not one a record.
  of.ahead_from_page = of.segment->next_page + segment_pages_ / kAheadLooks;
  // Two more stay, as StartOpenLocked wants them for another writer.
  if (AvailableLocked() < 3 || ExcessLocked() > 0 || RefusalLocked() != WriteOutcome::kWritten ||
      parts_.clock->Now() < not_ahead_until_) {
    return;
  }
  OpenOneLocked(writer, deferred);
}

void Tier::OpenOneLocked(uint32_t writer, DeferredCalls& deferred) {
  Segment* segment = nullptr;
  for (const auto& [number, candidate] : segments_) {
    if (candidate->stage == Stage::kFree) {
      segment = candidate.get();
      break;
    }
  }
  if (segment == nullptr) {
    uint32_t number = 0;
    while (segments_.contains(number)) {
      ++number;
    }
    segments_[number] = std::make_unique<Segment>();
    segment = segments_[number].get();
    segment->number = number;
  }
  segment->stage = Stage::kOpening;
  writers_[writer].opening = true;
  const uint64_t epoch = NextSequenceLocked();
  RunJobLocked(
      Priority::kHigh, [this, writer, segment, epoch] { OpenJob(writer, segment, epoch); },
      deferred);
}

void Tier::LeaveAheadLocked(uint32_t writer, DeferredCalls& deferred) {
  if (Segment* segment = std::exchange(writers_[writer].ahead, nullptr); segment != nullptr) {
    FreeLocked(*segment, deferred);
  }
}

void Tier::OpenJob(uint32_t writer, Segment* segment, uint64_t epoch) {
  // The segment is kOpening: nobody else touches its file.
  const SegmentRole role = writer == own_writer_ ? SegmentRole::kOwn : SegmentRole::kBlocks;
  absl::Status status;
  std::shared_ptr<File> file = segment->file;
  if (file == nullptr) {
    absl::MutexLock folder_lock(&folder_mutex_);
    absl::StatusOr<std::shared_ptr<File>> made =
        folder_->MakeSegment(segment->number, options_.free_reserve_bytes);
    status = made.status();
    if (made.ok()) {
      file = *std::move(made);
    }
  }
  if (status.ok()) {
    status = folder_->BeginSegment(*file, segment->number, role, epoch);
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  segment->file = std::move(file);
  segment->epoch = status.ok() ? epoch : segment->epoch;
  segment->role = role;
  OpenedLocked(writer, segment, status, deferred);
}

void Tier::OpenedLocked(uint32_t writer,
                        Segment* segment,
                        const absl::Status& status,
                        DeferredCalls& deferred) {
  writers_[writer].opening = false;
  if (!status.ok()) {
    NoteFaultLocked(status);
    if (segment->file == nullptr) {
      // A file that is there although nobody here made it is left alone, and its number with it.
      if (absl::IsAlreadyExists(status)) {
        segment->stage = Stage::kUnproven;
      } else {
        segments_.erase(segment->number);
        full_until_ = parts_.clock->Now() + options_.retry_interval;
      }
    } else {
      segment->stage = Stage::kFree;
    }
    if (writers_[writer].segment != nullptr) {
      // Nobody waits for it yet; if it is the drive, the writes say so themselves.
      not_ahead_until_ = parts_.clock->Now() + options_.retry_interval;
    } else if (absl::IsResourceExhausted(status)) {
      // Not tried again before somebody writes again.
      EndWaitingLocked(writer, WriteOutcome::kNoSpace, deferred);
    } else if (!absl::IsAlreadyExists(status)) {
      faults_in_a_row_ = kMaxFaultsInARow;
      BackOffLocked(status);
    }
    PumpAllLocked(deferred);
    MaybeEndCloseLocked(deferred);
    return;
  }
  segment->end_page = 1;
  segment->synced_page = 1;
  segment->next_page = 1;
  segment->placed_records = 0;
  segment->corrupt_records = 0;
  segment->tombstone_pages = 0;
  segment->newest_tombstone = 0;
  segment->entries.clear();
  segment->indexed_entries = 0;
  segment->failed = false;
  segment->footer_begun = false;
  figures_.bytes_written += kPageBytes;
  segment->stage = Stage::kAhead;
  writers_[writer].ahead = segment;
  if (closing_) {
    LeaveAheadLocked(writer, deferred);
    MaybeEndCloseLocked(deferred);
  }
  PumpLocked(writer, deferred);
}

void Tier::BackOffLocked(const absl::Status& status) {
  const absl::Duration until = parts_.clock->Now() + options_.retry_interval;
  if (absl::IsPermissionDenied(status)) {
    read_only_until_ = until;
  } else if (absl::IsResourceExhausted(status)) {
    full_until_ = until;
  } else if (++faults_in_a_row_ >= kMaxFaultsInARow) {
    faulty_until_ = until;
  }
}

bool Tier::FitsLocked(const Segment& segment, uint32_t pages) const {
  return uint64_t{segment.next_page} + pages + FooterPages(segment.placed_records + 1) <=
         segment_pages_;
}

void Tier::DetachLocked(Segment& segment, DeferredCalls& deferred) {
  if (segment.stage != Stage::kOpen) {
    return;
  }
  segment.stage = Stage::kSealing;
  for (Writer& writer : writers_) {
    writer.segment = writer.segment == &segment ? nullptr : writer.segment;
  }
  MaybeWriteFooterLocked(segment, deferred);
}

void Tier::MaybeWriteFooterLocked(Segment& segment, DeferredCalls& deferred) {
  if (segment.stage != Stage::kSealing || segment.footer_begun || !segment.batches.empty() ||
      !segment.placed.empty()) {
    return;
  }
  segment.footer_begun = true;
  RunJobLocked(
      Priority::kNormal,
      [this, sealed = &segment, entries = segment.entries, end_page = segment.end_page] {
        FooterJob(sealed, entries, end_page);
      },
      deferred);
}

void Tier::FooterJob(Segment* segment,
                     const std::vector<IndexedRecord>& entries,
                     uint32_t end_page) {
  const uint32_t pages = FooterPages(entries.size());
  const AlignedBuffer footer(uint64_t{pages} * kPageBytes);
  const absl::Span<char> entry_pages = footer.span().first(uint64_t{pages - 1} * kPageBytes);
  EncodeEntries(entries, entry_pages);
  SegmentTrailer trailer;
  trailer.tier_uuid = uuid();
  trailer.number = segment->number;
  trailer.role = segment->role;
  trailer.epoch = segment->epoch;
  trailer.entries = static_cast<uint32_t>(entries.size());
  trailer.entries_page = segment_pages_ - pages;
  trailer.end_page = end_page;
  trailer.entries_checksum = PayloadChecksum(entry_pages);
  EncodeTrailer(trailer, footer.span().subspan(entry_pages.size()));
  // The records before the footer, so that it never lists what a power loss took.
  absl::Status status = segment->file->Sync();
  const bool synced = status.ok();
  if (status.ok()) {
    status = WriteFully(*segment->file, uint64_t{trailer.entries_page} * kPageBytes, footer.span());
  }
  if (status.ok()) {
    status = segment->file->Sync();
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (synced) {
    segment->synced_page = std::max(segment->synced_page, end_page);
    figures_.bytes_written += footer.size();
  } else {
    ++figures_.sync_faults;
    DropUnsyncedLocked(*segment);
  }
  if (!status.ok()) {
    // Without a footer it is found again by its headers.
    NoteFaultLocked(status);
    BackOffLocked(status);
  }
  SealedLocked(*segment, deferred);
}

void Tier::SealedLocked(Segment& segment, DeferredCalls& deferred) {
  segment.stage = Stage::kSealed;
  if (segment.entries.empty()) {
    FreeLocked(segment, deferred);
  }
  WriteIndexLocked(deferred);
  if (parts_.index == nullptr || index_lost_) {
    segment.entries = {};
  }
  PumpAllLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

}  // namespace terrace
