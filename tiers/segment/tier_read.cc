// Reads: one transfer a record, then header and payload are checked.
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/segment/tier.h"

namespace terrace {
namespace {

constexpr uint32_t kMaxAttempts = 2;
constexpr double kNewestShare = 0.1;  // of the moving average
// A read that has not ended after so long when its deadline comes is the medium's failure, not the
// caller's impatience.
constexpr absl::Duration kHangs = absl::Seconds(1);

enum class Finding : uint8_t { kSound, kAnotherIdentity, kStale, kBadHeader, kBadPayload };

}  // namespace

struct ReadOperation {
  uint64_t token = 0;
  OwnedIdentity identity;
  Digest128 fingerprint;
  RecordPlace place;
  Segment* segment = nullptr;
  uint64_t epoch = 0;
  std::shared_ptr<File> file;  // and its segment's
  AlignedBuffer bounce;        // the header's page, where the caller has no room for it
  absl::Span<char> header;
  absl::Span<char> destination;
  absl::Duration deadline;
  absl::Duration begun;
  Priority priority = Priority::kNormal;
  uint32_t attempts = 0;
  std::function<void(ReadOutcome)> done;
};

namespace {

RecordFault FaultOf(Finding finding) {
  switch (finding) {
    case Finding::kBadHeader:
      return RecordFault::kHeader;
    case Finding::kBadPayload:
      return RecordFault::kPayload;
    case Finding::kStale:
      return RecordFault::kStale;
    case Finding::kSound:
    case Finding::kAnotherIdentity:
      break;
  }
  return RecordFault::kNone;
}

Finding Inspect(const ReadOperation& read, const Digest128& tier_uuid, uint64_t bytes) {
  RecordHeader header;
  if (bytes < kPageBytes || DecodeRecordHeader(read.header, &header) != HeaderFault::kNone) {
    return Finding::kBadHeader;
  }
  if (!(header.tier_uuid == tier_uuid) || header.segment != read.place.segment ||
      header.segment_epoch != read.epoch || header.page != read.place.page ||
      header.sequence != read.place.sequence || header.kind != RecordKind::kBlock) {
    return Finding::kStale;
  }
  if (!(header.namespace_digest == read.identity.namespace_digest) ||
      header.generation != read.identity.generation || header.salt != read.identity.salt ||
      header.key != read.identity.key) {
    return Finding::kAnotherIdentity;
  }
  if (header.payload_bytes != read.place.payload_bytes ||
      !(header.checksum == read.place.checksum)) {
    return Finding::kStale;
  }
  const absl::Span<const char> payload = read.destination.first(header.payload_bytes);
  return bytes >= kPageBytes + uint64_t{header.payload_bytes} &&
                 PayloadChecksum(payload) == header.checksum
             ? Finding::kSound
             : Finding::kBadPayload;
}

}  // namespace

bool Tier::Holds(const BlockIdentity& identity) const {
  return table_.Find(FingerprintOf(identity)).has_value();
}

bool Tier::NoteUse(const BlockIdentity& identity) {
  return table_.Use(FingerprintOf(identity), LogPosition()).has_value();
}

bool Tier::Lookup(const BlockIdentity& identity, LowerBlock* out) {
  const std::optional<RecordPlace> place =
      serving_.load() ? table_.Find(FingerprintOf(identity)) : std::nullopt;
  if (!place.has_value()) {
    return false;
  }
  out->payload_bytes = place->payload_bytes;
  out->checksum = place->checksum;
  out->location = LocationOf(place->segment, place->page);
  return true;
}

uint64_t Tier::Read(const ReadRequest& request, std::function<void(ReadOutcome)> done) {
  auto read = std::make_shared<ReadOperation>();
  read->identity = OwnedIdentity(request.identity);
  read->fingerprint = FingerprintOf(request.identity);
  read->destination = request.destination;
  read->deadline = request.deadline;
  read->priority = request.priority;
  read->begun = parts_.clock->Now();
  read->done = std::move(done);
  if (request.header_page_in_front) {
    read->header = {request.destination.data() - kPageBytes, kPageBytes};
  } else {
    read->bounce = AlignedBuffer(kPageBytes);
    read->header = read->bounce.span();
  }
  ReadOutcome refused = ReadOutcome::kVerified;
  {
    absl::MutexLock lock(&mutex_);
    read->token = ++last_token_;
    // Where the caller looked it up the record may not lie any more: reclaim moves records.
    const std::optional<RecordPlace> place = table_.Use(read->fingerprint, LogPosition());
    if (!place.has_value() || place->payload_bytes != request.block.payload_bytes ||
        !(place->checksum == request.block.checksum)) {
      refused = ReadOutcome::kGone;
    } else if (reads_suspended_) {
      refused = ReadOutcome::kFault;
      ++figures_.reads_refused;
    } else if (detached_ || closing_ || reads_in_flight_ >= options_.max_reads ||
               request.destination.size() < uint64_t{PagesOf(place->payload_bytes)} * kPageBytes) {
      refused = ReadOutcome::kFault;
      ++figures_.read_faults;
    } else {
      read->place = *place;
      read->segment = segments_.at(place->segment).get();
      read->epoch = read->segment->epoch;
      read->file = read->segment->file;
      read->destination =
          request.destination.first(uint64_t{PagesOf(place->payload_bytes)} * kPageBytes);
      ++read->segment->pins;
      ++reads_in_flight_;
      ++transfers_;
      bytes_in_flight_ += read->destination.size();
      io_tokens_[read->token] = 0;
    }
  }
  if (refused != ReadOutcome::kVerified) {
    read->done(refused);
  } else {
    SubmitRead(read);
  }
  return read->token;
}

void Tier::SubmitRead(const std::shared_ptr<ReadOperation>& read) {
  IoRequest request;
  request.kind = IoKind::kRead;
  request.file = read->file.get();
  request.offset = uint64_t{read->place.page} * kPageBytes;
  request.deadline = read->deadline;
  request.priority = read->priority;
  ++read->attempts;
  if (read->bounce.size() == 0) {
    request.pieces = {{read->header.data(), kPageBytes + read->destination.size()}};
  } else {
    request.pieces = {read->header, read->destination};
  }
  const absl::StatusOr<uint64_t> token = parts_.io->Submit(
      std::move(request),
      [this, read](const IoCompletion& completion) { ReadEnded(read, completion); });
  if (!token.ok()) {
    EndRead(read, ReadOutcome::kFault);
    return;
  }
  absl::MutexLock lock(&mutex_);
  // Absent: it has ended already.
  if (const auto found = io_tokens_.find(read->token); found != io_tokens_.end()) {
    found->second = *token;
  }
}

void Tier::Cancel(uint64_t token) {
  uint64_t io_token = 0;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = io_tokens_.find(token);
    io_token = found == io_tokens_.end() ? 0 : found->second;
  }
  if (io_token != 0) {
    parts_.io->Cancel(io_token);
  }
}

void Tier::ReadEnded(const std::shared_ptr<ReadOperation>& read, const IoCompletion& completion) {
  if (absl::IsDeadlineExceeded(completion.status)) {
    if (parts_.clock->Now() - read->begun >= kHangs) {
      absl::MutexLock lock(&mutex_);
      ReadFailedLocked(*read->segment);
    }
    EndRead(read, ReadOutcome::kDeadline);
  } else if (absl::IsCancelled(completion.status)) {
    EndRead(read, ReadOutcome::kCancelled);
  } else if (!completion.status.ok()) {
    const bool again = read->attempts < kMaxAttempts;  // a medium may fail once
    {
      absl::MutexLock lock(&mutex_);
      ++figures_.read_faults;
      figures_.last_fault = std::string(completion.status.message());
      if (!again) {
        ReadFailedLocked(*read->segment);
      }
    }
    again ? SubmitRead(read) : EndRead(read, ReadOutcome::kFault);
  } else if (read->place.payload_bytes <= options_.hash_inline_bytes) {
    VerifyRead(read, completion.bytes);
  } else {
    parts_.hashing->Run(read->priority,
                        [this, read, bytes = completion.bytes] { VerifyRead(read, bytes); });
  }
}

void Tier::VerifyRead(const std::shared_ptr<ReadOperation>& read, uint64_t bytes) {
  const Finding finding = Inspect(*read, uuid(), bytes);
  if (finding == Finding::kSound) {
    EndRead(read, ReadOutcome::kVerified);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (finding != Finding::kAnotherIdentity) {
      CountFaultLocked(FaultOf(finding));
      QuarantineLocked(*read->segment, read->fingerprint, read->place, &read->identity);
    }
  }
  EndRead(read, finding == Finding::kAnotherIdentity ? ReadOutcome::kGone : ReadOutcome::kCorrupt);
}

void Tier::CountFaultLocked(RecordFault fault) {
  figures_.corrupt_headers += fault == RecordFault::kHeader ? 1 : 0;
  figures_.stale_records += fault == RecordFault::kStale ? 1 : 0;
  figures_.corrupt_payloads +=
      fault == RecordFault::kPayload || fault == RecordFault::kMetadata ? 1 : 0;
}

bool Tier::QuarantineLocked(Segment& segment,
                            const Digest128& fingerprint,
                            const RecordPlace& place,
                            const OwnedIdentity* name) {
  if (!table_.RemoveIf(fingerprint, place)) {
    return false;  // found damaged by another read, moved or deleted
  }
  ForgetPlaceLocked(place);
  DoubtLocked(fingerprint);
  ++segment.corrupt_records;
  if (name == nullptr) {
    NoteUnnamedLocked();
  } else {
    NoteChangedLocked(
        {name->namespace_digest, name->generation, name->salt, name->key, /*parent=*/"", 0});
  }
  return true;
}

void Tier::EndRead(const std::shared_ptr<ReadOperation>& read, ReadOutcome outcome) {
  const uint64_t bytes = read->destination.size();
  std::function<void(ReadOutcome)> done = std::move(read->done);
  // Before the tier is told, which may be all that its end waits for.
  done(outcome);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  const absl::Duration took = parts_.clock->Now() - read->begun;
  if (outcome == ReadOutcome::kVerified) {
    ReadSucceededLocked();
    ++figures_.reads;
    figures_.read_bytes += read->place.payload_bytes;
    if (took > absl::ZeroDuration()) {
      // All that was in flight shared the medium meanwhile.
      const double rate = static_cast<double>(bytes_in_flight_) / absl::ToDoubleSeconds(took);
      bytes_per_second_ = bytes_per_second_ == 0
                              ? rate
                              : bytes_per_second_ + kNewestShare * (rate - bytes_per_second_);
    }
  }
  io_tokens_.erase(read->token);
  bytes_in_flight_ -= bytes;
  --reads_in_flight_;
  UnpinLocked(*read->segment, deferred);
  --transfers_;
}

void Tier::UnpinLocked(Segment& segment, DeferredCalls& deferred) {
  --segment.pins;
  if (segment.pins == 0 && segment.free_when_unpinned) {
    FreeLocked(segment, deferred);
  }
}

absl::Duration Tier::EstimateRead(uint64_t bytes) const {
  absl::MutexLock lock(&mutex_);
  if (bytes_per_second_ == 0) {
    return absl::ZeroDuration();
  }
  return absl::Seconds(static_cast<double>(bytes_in_flight_ + bytes) / bytes_per_second_);
}

}  // namespace terrace
