// Writes: records wait for a place, lie in batches behind each other, and become visible in the
// order of the segment.
//
// In order, because recovery follows headers from the front: a record that was reported written may
// not lie behind one that was not.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/segment_format.h"
#include "tiers/segment/tier.h"
#include "tiers/vocab/check.h"

namespace terrace {
namespace {

WriteOutcome OutcomeOf(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) {
    return WriteOutcome::kNoSpace;
  }
  return absl::IsPermissionDenied(status) ? WriteOutcome::kReadOnly : WriteOutcome::kFault;
}

Digest128 ChecksumOf(std::string_view bytes) {
  return PayloadChecksum({bytes.data(), bytes.size()});
}

void AddPieces(const Append& append, IoPieces* pieces) {
  pieces->push_back(append.record);
  if (append.extra.size() > 0) {
    pieces->push_back(append.extra.span());
  }
}

// What a batch writes, made complete: the header, and zeros behind the payload.
void Complete(const Append& append, const Digest128& tier_uuid, const Segment& segment) {
  RecordHeader header;
  header.kind = append.kind;
  header.tier_uuid = tier_uuid;
  header.segment_epoch = segment.epoch;
  header.sequence = append.sequence;
  header.segment = segment.number;
  header.page = append.page;
  header.payload_bytes = append.payload_bytes;
  header.checksum = append.checksum;
  header.metadata_bytes = append.metadata_bytes;
  header.metadata_checksum = append.metadata_checksum;
  header.metadata = append.extra.size() > 0 ? std::string_view() : append.metadata;
  header.namespace_digest = append.identity.namespace_digest;
  header.generation = append.identity.generation;
  header.salt = append.identity.salt;
  header.key = append.identity.key;
  header.parent = append.parent;
  header.first_token = append.first_token;
  header.tokens = append.tokens;
  EncodeRecordHeader(header, append.record.first(kPageBytes));
  const absl::Span<char> padding = append.record.subspan(kPageBytes + append.payload_bytes);
  std::fill(padding.begin(), padding.end(), '\0');
}

RecordPlace PlaceOf(const Segment& segment, const Append& append) {
  RecordPlace place;
  place.checksum = append.checksum;
  place.sequence = append.sequence;
  place.segment = segment.number;
  place.page = append.page;
  place.payload_bytes = append.payload_bytes;
  place.pages = append.pages;
  return place;
}

void TakeMetadata(std::string_view metadata, Append* append) {
  append->metadata_bytes = static_cast<uint32_t>(metadata.size());
  if (!metadata.empty()) {
    append->metadata_checksum = ChecksumOf(metadata);
  }
  if (ExtraPages(append->metadata_bytes) > 0) {
    append->extra = AlignedBuffer(metadata.size());
    std::memcpy(append->extra.bytes(), metadata.data(), metadata.size());
  } else {
    append->metadata = std::string(metadata);
  }
}

}  // namespace

WriteOutcome Tier::RefusalLocked() const {
  const absl::Duration now = parts_.clock->Now();
  if (closing_) {
    return WriteOutcome::kClosed;
  }
  if (now < read_only_until_) {
    return WriteOutcome::kReadOnly;
  }
  return detached_ || now < faulty_until_ ? WriteOutcome::kFault : WriteOutcome::kWritten;
}

void Tier::Write(const WriteRequest& request,
                 std::function<void(WriteOutcome, const LowerBlock&)> done) {
  const uint64_t record_bytes = kPageBytes + uint64_t{PagesOf(request.payload_bytes)} * kPageBytes;
  TERRACE_CHECK(request.slot.size() >= record_bytes && request.payload_bytes > 0 &&
                request.payload_bytes <= options_.max_payload_bytes &&
                request.metadata.size() <= kMaxMetadataBytes);
  auto append = std::make_unique<Append>();
  append->identity = OwnedIdentity(request.identity);
  append->parent = std::string(request.parent);
  append->first_token = request.first_token;
  append->tokens = request.tokens;
  append->payload_bytes = request.payload_bytes;
  append->checksum = request.checksum;
  append->record = request.slot.first(record_bytes);
  append->deadline = request.deadline;
  append->fingerprint = FingerprintOf(request.identity);
  append->pages =
      RecordPages(request.payload_bytes, static_cast<uint32_t>(request.metadata.size()));
  append->done = std::move(done);
  TakeMetadata(request.metadata, append.get());
  const uint32_t writer = std::min(static_cast<uint32_t>(request.heat), options_.heats - 1);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  WriteOutcome refusal = RefusalLocked();
  if (refusal == WriteOutcome::kWritten &&
      (table_.Find(append->fingerprint).has_value() || writing_.contains(append->fingerprint))) {
    refusal = WriteOutcome::kHeld;
  } else if (refusal == WriteOutcome::kWritten && writes_ >= options_.max_writes) {
    refusal = WriteOutcome::kBusy;
  }
  if (refusal != WriteOutcome::kWritten) {
    deferred.Add([callback = std::move(append->done), refusal] { callback(refusal, {}); });
    return;
  }
  ++writes_;
  writing_[append->fingerprint] = append.get();
  EnqueueLocked(writer, std::move(append), deferred);
}

void Tier::EnqueueLocked(uint32_t writer, std::unique_ptr<Append> append, DeferredCalls& deferred) {
  writers_[writer].waiting.push_back(std::move(append));
  PumpLocked(writer, deferred);
}

void Tier::PumpLocked(uint32_t writer, DeferredCalls& deferred) {
  Writer& to = writers_[writer];
  while (!to.waiting.empty()) {
    if (to.segment == nullptr && to.ahead != nullptr) {
      to.segment = std::exchange(to.ahead, nullptr);
      to.ahead_from_page = segment_pages_ - segment_pages_ / kAheadShare;
      to.segment->stage = Stage::kOpen;
    }
    if (to.segment == nullptr) {
      if (!to.opening && !StartOpenLocked(writer, deferred)) {
        // Room may come from a reclaim that runs, unless it is that one which waits here, or from
        // one of a segment that is about to be sealed.
        const bool room_may_come =
            reclaim_ != nullptr || choosing_ || recovering_ > 0 || AnySealingLocked();
        if (!room_may_come || (writer >= own_writer_ && ReclaimWaitsLocked())) {
          EndWaitingLocked(writer, WriteOutcome::kNoSpace, deferred);
        }
      }
      return;
    }
    Segment& segment = *to.segment;
    if (!FitsLocked(segment, to.waiting.front()->pages)) {
      DetachLocked(segment, deferred);
      continue;
    }
    std::unique_ptr<Append> append = std::move(to.waiting.front());
    to.waiting.pop_front();
    PlaceLocked(segment, std::move(append), deferred);
    SubmitBatchesLocked(segment, deferred);
    MaybeOpenAheadLocked(writer, deferred);
  }
}

bool Tier::PlaceLocked(Segment& segment, std::unique_ptr<Append> append, DeferredCalls& deferred) {
  if (append->deleted) {
    EndAppendLocked(std::move(append), WriteOutcome::kDeleted, deferred);
    return false;
  }
  if (append->is_rewrite && append->kind == RecordKind::kBlock) {
    const std::optional<RecordPlace> held = table_.Find(append->fingerprint);
    if (!held.has_value() || !held->SameRecord(append->old_place)) {
      EndAppendLocked(std::move(append), WriteOutcome::kDeleted, deferred);
      return false;
    }
  }
  if (append->sequence == 0) {
    append->sequence = NextSequenceLocked();
  }
  append->segment = segment.number;
  append->page = segment.next_page;
  segment.next_page += append->pages;
  appended_pages_.fetch_add(append->pages, std::memory_order_relaxed);
  ++segment.placed_records;
  segment.placed.push_back(std::move(append));
  return true;
}

void Tier::SubmitBatchesLocked(Segment& segment, DeferredCalls& deferred) {
  while (!segment.placed.empty() && segment.batches_in_flight < options_.write_depth) {
    auto batch = std::make_shared<Batch>();
    batch->segment = &segment;
    size_t pieces = 0;
    while (!segment.placed.empty()) {
      const Append& next = *segment.placed.front();
      const size_t more = next.extra.size() > 0 ? 2 : 1;
      const uint64_t bytes = uint64_t{next.pages} * kPageBytes;
      if (!batch->appends.empty() &&
          (batch->bytes + bytes > options_.batch_bytes || pieces + more > kMaxIoPieces)) {
        break;
      }
      pieces += more;
      batch->bytes += bytes;
      batch->appends.push_back(std::move(segment.placed.front()));
      segment.placed.pop_front();
    }
    segment.batches.push_back(batch);
    ++segment.batches_in_flight;
    ++transfers_;
    deferred.Add([this, batch] { SubmitBatch(batch); });
  }
}

void Tier::SubmitBatch(const std::shared_ptr<Batch>& batch) {
  IoRequest request;
  request.kind = IoKind::kWrite;
  request.file = batch->segment->file.get();
  request.offset = uint64_t{batch->appends.front()->page} * kPageBytes;
  request.priority = Priority::kLow;  // whoever reads is waiting
  for (const std::unique_ptr<Append>& append : batch->appends) {
    Complete(*append, uuid(), *batch->segment);
    AddPieces(*append, &request.pieces);
  }
  const absl::StatusOr<uint64_t> token = parts_.io->Submit(
      std::move(request),
      [this, batch](const IoCompletion& completion) { BatchEnded(batch, completion.status); });
  if (!token.ok()) {
    BatchEnded(batch, absl::InternalError(token.status().message()));
  }
}

void Tier::BatchEnded(const std::shared_ptr<Batch>& batch, absl::Status status) {
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  Segment& segment = *batch->segment;
  --segment.batches_in_flight;
  batch->ended = true;
  batch->status = std::move(status);
  AdvanceLocked(segment, deferred);
  PumpAllLocked(deferred);
  MaybeEndCloseLocked(deferred);
  --transfers_;
}

void Tier::AdvanceLocked(Segment& segment, DeferredCalls& deferred) {
  while (!segment.batches.empty() && segment.batches.front()->ended) {
    const std::shared_ptr<Batch> batch = std::move(segment.batches.front());
    segment.batches.pop_front();
    const bool sound = batch->status.ok() && !segment.failed;
    if (!batch->status.ok()) {
      ++figures_.write_faults;
      NoteFaultLocked(batch->status);
      BackOffLocked(batch->status);
      segment.failed = true;
    } else if (sound) {
      faults_in_a_row_ = 0;
      figures_.bytes_written += batch->bytes;
    }
    const WriteOutcome failure =
        batch->status.ok() ? WriteOutcome::kFault : OutcomeOf(batch->status);
    for (std::unique_ptr<Append>& append : batch->appends) {
      sound ? CommitLocked(segment, std::move(append), deferred)
            : EndAppendLocked(std::move(append), failure, deferred);
    }
  }
  if (segment.failed) {
    while (!segment.placed.empty()) {
      std::unique_ptr<Append> append = std::move(segment.placed.front());
      segment.placed.pop_front();
      EndAppendLocked(std::move(append), WriteOutcome::kFault, deferred);
    }
    DetachLocked(segment, deferred);
  }
  SubmitBatchesLocked(segment, deferred);
  MaybeWriteFooterLocked(segment, deferred);
}

void Tier::CommitLocked(Segment& segment, std::unique_ptr<Append> append, DeferredCalls& deferred) {
  RecordPlace place = PlaceOf(segment, *append);
  place.used_at = LogPosition();
  segment.end_page = append->page + append->pages;
  segment.entries.push_back({append->fingerprint, append->checksum, append->sequence,
                             segment.number, append->page, append->payload_bytes,
                             static_cast<uint8_t>(append->kind),
                             static_cast<uint8_t>(ExtraPages(append->metadata_bytes))});
  WriteOutcome outcome = WriteOutcome::kWritten;
  if (append->kind == RecordKind::kTombstones) {
    segment.tombstone_pages += append->pages;
    segment.newest_tombstone = std::max(segment.newest_tombstone, append->sequence);
  } else if (append->kind == RecordKind::kNote) {
    NoteState& note = notes_[append->identity.key];
    if (append->sequence >= note.sequence) {
      note.sequence = append->sequence;
      note.value.assign(append->record.data() + kPageBytes, append->payload_bytes);
      note.segment = segment.number;
      note.page = append->page;
    }
  } else if (append->kind == RecordKind::kBlock && append->is_rewrite) {
    if (table_.Move(append->fingerprint, append->old_place, place)) {
      ForgetPlaceLocked(append->old_place);
      CountPlaceLocked(place);
      NoteChangedLocked({append->identity.namespace_digest, append->identity.generation,
                         append->identity.salt, append->identity.key, append->parent,
                         append->first_token});
      ++figures_.records_rewritten;
    } else {
      outcome = WriteOutcome::kDeleted;
    }
  } else if (append->kind == RecordKind::kBlock && append->deleted) {
    outcome = WriteOutcome::kDeleted;
  } else if (append->kind == RecordKind::kBlock) {
    std::optional<RecordPlace> replaced;
    if (table_.InsertLater(append->fingerprint, place, &replaced)) {
      CountPlaceLocked(place);
    }
    if (replaced.has_value()) {
      ForgetPlaceLocked(*replaced);
    }
    ++figures_.writes;
    figures_.payload_bytes_written += append->payload_bytes;
  }
  EndAppendLocked(std::move(append), outcome, deferred);
}

void Tier::EndAppendLocked(std::unique_ptr<Append> append,
                           WriteOutcome outcome,
                           DeferredCalls& deferred) {
  const bool callers = append->kind == RecordKind::kBlock && !append->is_rewrite;
  if (callers) {
    --writes_;
    writing_.erase(append->fingerprint);
  }
  if (outcome != WriteOutcome::kWritten && append->page != 0) {
    DoubtLocked(append->fingerprint);
  }
  // In a shared_ptr only because std::function copies; nobody else holds it.
  deferred.Add([ended = std::shared_ptr<Append>(std::move(append)), outcome] {
    LowerBlock block;
    block.payload_bytes = ended->payload_bytes;
    block.checksum = ended->checksum;
    block.location = LocationOf(ended->segment, ended->page);
    ended->done(outcome, block);
  });
}

void Tier::EndWaitingLocked(uint32_t writer, WriteOutcome outcome, DeferredCalls& deferred) {
  std::deque<std::unique_ptr<Append>> waiting;
  waiting.swap(writers_[writer].waiting);
  for (std::unique_ptr<Append>& append : waiting) {
    EndAppendLocked(std::move(append), outcome, deferred);
  }
}

void Tier::ExpireWaitingLocked(DeferredCalls& deferred) {
  const absl::Duration now = parts_.clock->Now();
  for (Writer& writer : writers_) {
    std::deque<std::unique_ptr<Append>> kept;
    for (std::unique_ptr<Append>& append : writer.waiting) {
      if (append->deadline <= now) {
        EndAppendLocked(std::move(append), WriteOutcome::kDeadline, deferred);
      } else {
        kept.push_back(std::move(append));
      }
    }
    writer.waiting = std::move(kept);
  }
}

void Tier::DoubtLocked(const Digest128& fingerprint) {
  if (doubtful_.size() >= kMaxDoubtful) {
    doubt_all_ = true;
    return;
  }
  doubtful_.insert(fingerprint);
}

std::unique_ptr<Append> Tier::MakeOwnRecord(RecordKind kind,
                                            std::string_view key,
                                            std::string_view payload) const {
  auto append = std::make_unique<Append>();
  append->kind = kind;
  append->identity.key = std::string(key);
  append->payload_bytes = static_cast<uint32_t>(payload.size());
  append->own = AlignedBuffer(kPageBytes + payload.size());
  append->record = append->own.span();
  if (!payload.empty()) {
    std::memcpy(append->record.data() + kPageBytes, payload.data(), payload.size());
  }
  append->checksum = ChecksumOf(payload);
  append->pages = RecordPages(append->payload_bytes, 0);
  append->fingerprint = FingerprintOf(append->identity.view());
  return append;
}

void Tier::Delete(absl::Span<const BlockIdentity> identities,
                  std::function<void(WriteOutcome, uint32_t)> done) {
  TERRACE_CHECK(identities.size() <= kMaxDeletes);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  uint32_t deleted = 0;
  std::vector<OwnedIdentity> buried;
  std::vector<Digest128> fingerprints;
  const uint64_t sequence = NextSequenceLocked();
  for (const BlockIdentity& identity : identities) {
    const Digest128 fingerprint = FingerprintOf(identity);
    const std::optional<RecordPlace> place = table_.Find(fingerprint);
    const bool held = place.has_value() && table_.RemoveIf(fingerprint, *place);
    if (held) {
      ForgetPlaceLocked(*place);
    }
    const auto writing = writing_.find(fingerprint);
    if (writing != writing_.end()) {
      writing->second->deleted = true;
    }
    deleted += held || writing != writing_.end() ? 1 : 0;
    if (recovering_ > 0) {
      tombstones_[fingerprint] = sequence;
    }
    if (held || writing != writing_.end() || recovering_ > 0 || doubt_all_ ||
        doubtful_.contains(fingerprint)) {
      buried.emplace_back(identity);
      fingerprints.push_back(fingerprint);
    }
  }
  const WriteOutcome refusal = buried.empty() ? WriteOutcome::kWritten : RefusalLocked();
  if (buried.empty() || refusal != WriteOutcome::kWritten) {
    for (const Digest128& fingerprint : fingerprints) {
      DoubtLocked(fingerprint);
    }
    deferred.Add([done = std::move(done), refusal, deleted] { done(refusal, deleted); });
    return;
  }
  std::unique_ptr<Append> append =
      MakeOwnRecord(RecordKind::kTombstones, "", EncodeTombstones(buried));
  // Now, so that what is written after this call outlives the tombstone.
  append->sequence = sequence;
  append->done = [this, done = std::move(done), deleted, fingerprints = std::move(fingerprints)](
                     WriteOutcome outcome, const LowerBlock& /*block*/) {
    done(outcome, deleted);
    absl::MutexLock relock(&mutex_);
    if (outcome != WriteOutcome::kWritten) {
      for (const Digest128& fingerprint : fingerprints) {
        DoubtLocked(fingerprint);
      }
    }
    --transfers_;
  };
  ++transfers_;  // until the callback above
  EnqueueLocked(own_writer_, std::move(append), deferred);
}

void Tier::PutNote(std::string_view name,
                   std::string_view value,
                   std::function<void(WriteOutcome)> done) {
  TERRACE_CHECK(!name.empty() && name.size() <= kMaxKeyBytes &&
                value.size() <= kMaxWrappedNoteBytes);
  std::unique_ptr<Append> append = MakeOwnRecord(RecordKind::kNote, name, value);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  WriteOutcome refusal = RefusalLocked();
  if (refusal == WriteOutcome::kWritten && notes_.size() >= kMaxNotes &&
      !notes_.contains(std::string(name))) {
    refusal = WriteOutcome::kBusy;
  }
  if (refusal != WriteOutcome::kWritten) {
    deferred.Add([done = std::move(done), refusal] { done(refusal); });
    return;
  }
  append->sequence = NextSequenceLocked();
  append->done = [done = std::move(done)](WriteOutcome outcome, const LowerBlock& /*block*/) {
    done(outcome);
  };
  EnqueueLocked(own_writer_, std::move(append), deferred);
}

}  // namespace terrace
