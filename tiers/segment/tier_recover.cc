// Recovery: what the segments of earlier lives hold is found again, segment by segment, while the
// tier serves.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_check.h"
#include "tiers/segment/tier.h"

namespace terrace {
namespace {

// So many segments without a footer are read in full: those that a crash leaves open, in a few
// lives that end one after the other. More of them mean that footers were damaged, not that their
// records were being written; then headers have to do.
constexpr uint32_t kMaxVerifiedTails = 16;
constexpr uint32_t kVerifiedWindowPages = 256;
constexpr uint32_t kOwnWindowPages = 64;

// What an index says is looked at before it is believed, and then only as a place to look.
bool MakesSense(const IndexedRecord& record, const SegmentPosition& position) {
  const uint64_t pages = 1 + uint64_t{PagesOf(record.payload_bytes)} + record.extra_pages;
  return record.segment == position.segment && record.page >= 1 &&
         record.payload_bytes <= kMaxPayloadBytes && record.page + pages <= position.complete_pages;
}

}  // namespace

void Tier::RecoverJob(Segment* segment, const SegmentPosition& position) {
  bool wanted = false;
  {
    absl::MutexLock lock(&mutex_);
    wanted = !closing_;
  }
  Found found;
  if (wanted) {
    found = FindRecords(*segment, position);
  } else {
    found.unreadable = true;
  }
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  RecoveredLocked(*segment, std::move(found), deferred);
}

Tier::Found Tier::FindRecords(Segment& segment, const SegmentPosition& position) {
  Found found;
  uint32_t first_page = 1;
  if (parts_.index != nullptr && position.epoch == segment.epoch && position.complete_pages >= 1 &&
      position.complete_pages <= segment_pages_) {
    bool sound = true;
    const absl::Status loaded =
        parts_.index->Load(segment.number, [&](const IndexedRecord& record) {
          sound = sound && MakesSense(record, position);
          found.records.push_back(record);
        });
    if (loaded.ok() && sound) {
      first_page = position.complete_pages;
      found.by_index = found.records.size();
      found.end_page = first_page;
    } else {
      found.records.clear();
    }
  }
  const bool complete = position.sealed && first_page > 1;
  if (!complete) {
    ScanResult scan;
    const absl::Status status =
        ScanSegment({segment.file.get(), uuid(), segment.number, segment.epoch,
                     folder_->superblock().segment_bytes, first_page},
                    &scan);
    found.unreadable = !status.ok();
    found.by_footer = scan.by_footer;
    found.end_page = std::max(found.end_page, scan.end_page);
    if (scan.by_footer) {
      // It was written after its records were found whole; the index may have been told before.
      found.records.clear();
      found.by_index = 0;
    }
    found.records.insert(found.records.end(), scan.records.begin(), scan.records.end());
  } else {
    found.by_footer = true;
  }
  if (!found.by_footer && !found.unreadable && verified_tails_.fetch_add(1) < kMaxVerifiedTails) {
    const size_t listed = found.records.size();
    VerifyTail(segment, &found.records);
    // An index that lists what is torn is told anew.
    found.by_index = found.records.size() == listed ? found.by_index : 0;
  }
  // There may be thousands of deletions, and a start waits for all of them.
  PagesInOrder pages(*segment.file, segment_pages_, kOwnWindowPages);
  for (const IndexedRecord& record : found.records) {
    if (record.kind != static_cast<uint8_t>(RecordKind::kBlock)) {
      ReadOwnRecord(segment, record, pages, &found);
    }
  }
  return found;
}

void Tier::VerifyTail(Segment& segment, std::vector<IndexedRecord>* records) const {
  // A power loss may have left the header of a record and torn its payload. Such a record would
  // hide an earlier, whole one of the same block, and the footer that follows would seal it in.
  PagesInOrder pages(*segment.file, segment_pages_, kVerifiedWindowPages);
  std::vector<IndexedRecord> whole;
  for (const IndexedRecord& record : *records) {
    absl::Span<const char> read;
    RecordHeader header;
    if (pages.Read(record.page, static_cast<uint32_t>(RecordBytes(record) / kPageBytes), &read)
            .ok() &&
        CheckRecord(read, {uuid(), segment.epoch, record}, &header) == RecordFault::kNone) {
      whole.push_back(record);
    }
  }
  *records = std::move(whole);
}

void Tier::ReadOwnRecord(const Segment& segment,
                         const IndexedRecord& record,
                         PagesInOrder& pages,
                         Found* found) const {
  absl::Span<const char> whole;
  RecordHeader header;
  if (!pages.Read(record.page, 1 + PagesOf(record.payload_bytes), &whole).ok() ||
      DecodeRecordHeader(whole, &header) != HeaderFault::kNone || !(header.tier_uuid == uuid()) ||
      header.segment_epoch != segment.epoch || header.segment != segment.number ||
      header.page != record.page || header.payload_bytes != record.payload_bytes) {
    return;
  }
  const absl::Span<const char> payload = whole.subspan(kPageBytes, header.payload_bytes);
  if (!(PayloadChecksum(payload) == header.checksum)) {
    return;
  }
  if (header.kind == RecordKind::kNote) {
    NoteState note;
    note.value = std::string(payload.data(), payload.size());
    note.sequence = header.sequence;
    note.segment = segment.number;
    note.page = record.page;
    found->notes.emplace_back(std::string(header.key), std::move(note));
    return;
  }
  std::vector<OwnedIdentity> identities;
  if (header.kind == RecordKind::kTombstones && DecodeTombstones(payload, &identities)) {
    std::vector<Digest128> fingerprints;
    fingerprints.reserve(identities.size());
    for (const OwnedIdentity& identity : identities) {
      fingerprints.push_back(FingerprintOf(identity.view()));
    }
    found->tombstones.emplace_back(header.sequence, std::move(fingerprints));
  }
}

void Tier::RecoveredLocked(Segment& segment, Found found, DeferredCalls& deferred) {
  segment.end_page = found.end_page;
  segment.synced_page = found.end_page;
  segment.next_page = found.end_page;
  if (found.unreadable) {
    // Nothing is known of it, so it is neither read nor used again in this life.
    segment.stage = Stage::kUnproven;
    found = Found();
  }
  ApplyFoundLocked(found);
  figures_.recovered_by_index += found.by_index;
  (found.by_footer ? figures_.recovered_by_footer : figures_.recovered_by_header) +=
      found.records.size() - found.by_index;
  segment.entries = std::move(found.records);
  segment.placed_records = static_cast<uint32_t>(segment.entries.size());
  segment.indexed_entries = static_cast<uint32_t>(found.by_index);
  if (found.by_index == 0) {
    forgotten_.push_back(segment.number);  // it may list an earlier use
  }
  if (--recovering_ == 0) {
    tombstones_.clear();
    NoteUnnamedLocked();
  }
  if (segment.stage == Stage::kUnproven) {
    segment.entries = {};
  } else if (found.by_footer || segment.entries.empty()) {
    SealedLocked(segment, deferred);
  } else {
    // Its writer died: what follows is a footer, and nothing is appended any more.
    segment.stage = Stage::kSealing;
    segment.footer_begun = false;
    MaybeWriteFooterLocked(segment, deferred);
  }
  PumpAllLocked(deferred);
  MaybeEndCloseLocked(deferred);
}

void Tier::ApplyFoundLocked(const Found& found) {
  for (const auto& [sequence, fingerprints] : found.tombstones) {
    for (const Digest128& fingerprint : fingerprints) {
      uint64_t& latest = tombstones_[fingerprint];
      latest = std::max(latest, sequence);
      const std::optional<RecordPlace> place = table_.Find(fingerprint);
      if (place.has_value() && place->sequence < latest && table_.RemoveIf(fingerprint, *place)) {
        ForgetPlaceLocked(*place);
      }
    }
  }
  for (const auto& [name, note] : found.notes) {
    NoteState& held = notes_[name];
    if (note.sequence >= held.sequence) {
      held = note;
    }
  }
  for (const IndexedRecord& record : found.records) {
    if (record.kind == static_cast<uint8_t>(RecordKind::kTombstones)) {
      Segment& segment = *segments_.at(record.segment);
      segment.tombstone_pages += static_cast<uint32_t>(RecordBytes(record) / kPageBytes);
      segment.newest_tombstone = std::max(segment.newest_tombstone, record.sequence);
    }
    if (record.kind != static_cast<uint8_t>(RecordKind::kBlock)) {
      continue;
    }
    const auto tombstone = tombstones_.find(record.fingerprint);
    if (tombstone != tombstones_.end() && tombstone->second > record.sequence) {
      continue;
    }
    RecordPlace place;
    place.checksum = record.checksum;
    place.sequence = record.sequence;
    place.segment = record.segment;
    place.page = record.page;
    place.payload_bytes = record.payload_bytes;
    place.pages = 1 + PagesOf(record.payload_bytes) + record.extra_pages;
    std::optional<RecordPlace> replaced;
    if (table_.InsertLater(record.fingerprint, place, &replaced)) {
      CountPlaceLocked(place);
    }
    if (replaced.has_value()) {
      ForgetPlaceLocked(*replaced);
    }
  }
}

}  // namespace terrace
