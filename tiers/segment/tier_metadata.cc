// What was written with a block beside its payload: the header's page, then the pages behind the
// payload where there are any.
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

struct MetadataRead {
  OwnedIdentity identity;
  Digest128 fingerprint;
  RecordPlace place;
  Segment* segment = nullptr;
  uint64_t epoch = 0;
  std::shared_ptr<File> file;  // and its segment's
  AlignedBuffer page;
  AlignedBuffer extra;  // empty until the header says that there is some
  RecordHeader header;  // text borrowed from `page`
  absl::Duration deadline;
  std::function<void(ReadOutcome, const RecordMetadata&)> done;
};

void Tier::ReadMetadata(const BlockIdentity& identity,
                        absl::Duration deadline,
                        std::function<void(ReadOutcome, const RecordMetadata&)> done) {
  auto read = std::make_shared<MetadataRead>();
  read->identity = OwnedIdentity(identity);
  read->fingerprint = FingerprintOf(identity);
  read->page = AlignedBuffer(kPageBytes);
  read->deadline = deadline;
  read->done = std::move(done);
  ReadOutcome refused = ReadOutcome::kVerified;
  {
    absl::MutexLock lock(&mutex_);
    const std::optional<RecordPlace> place = table_.Find(read->fingerprint);
    if (!place.has_value()) {
      refused = ReadOutcome::kGone;
    } else if (!serving_.load() || reads_in_flight_ >= options_.max_reads) {
      refused = ReadOutcome::kFault;
    } else {
      read->place = *place;
      read->segment = segments_.at(place->segment).get();
      read->epoch = read->segment->epoch;
      read->file = read->segment->file;
      ++read->segment->pins;
      ++reads_in_flight_;
      ++transfers_;
    }
  }
  refused == ReadOutcome::kVerified ? SubmitMetadata(read) : read->done(refused, {});
}

void Tier::SubmitMetadata(const std::shared_ptr<MetadataRead>& read) {
  const bool header_first = read->extra.size() == 0;
  const uint32_t page =
      read->place.page + (header_first ? 0 : 1 + PagesOf(read->place.payload_bytes));
  IoRequest request;
  request.kind = IoKind::kRead;
  request.file = read->file.get();
  request.offset = uint64_t{page} * kPageBytes;
  request.pieces = {header_first ? read->page.span() : read->extra.span()};
  request.priority = Priority::kLow;
  request.deadline = read->deadline;
  const absl::StatusOr<uint64_t> token = parts_.io->Submit(
      std::move(request),
      [this, read](const IoCompletion& completion) { MetadataEnded(read, completion); });
  if (!token.ok()) {
    EndMetadata(read, ReadOutcome::kFault);
  }
}

void Tier::MetadataEnded(const std::shared_ptr<MetadataRead>& read,
                         const IoCompletion& completion) {
  if (absl::IsDeadlineExceeded(completion.status)) {
    EndMetadata(read, ReadOutcome::kDeadline);
    return;
  }
  if (!completion.status.ok()) {
    {
      absl::MutexLock lock(&mutex_);
      ++figures_.read_faults;
      NoteFaultLocked(completion.status);
      ReadFailedLocked(*read->segment);
    }
    EndMetadata(read, ReadOutcome::kFault);
    return;
  }
  if (read->extra.size() == 0) {
    const RecordPlace& place = read->place;
    IndexedRecord claimed;
    claimed.checksum = place.checksum;
    claimed.sequence = place.sequence;
    claimed.segment = place.segment;
    claimed.page = place.page;
    claimed.payload_bytes = place.payload_bytes;
    claimed.kind = static_cast<uint8_t>(RecordKind::kBlock);
    claimed.extra_pages = static_cast<uint8_t>(place.pages - 1 - PagesOf(place.payload_bytes));
    RecordFault fault =
        completion.bytes < kPageBytes
            ? RecordFault::kHeader
            : CheckHeader(read->page.span(), {uuid(), read->epoch, claimed}, &read->header);
    const BlockIdentity wanted = read->identity.view();
    if (fault == RecordFault::kNone &&
        !(read->header.namespace_digest == wanted.namespace_digest &&
          read->header.generation == wanted.generation && read->header.salt == wanted.salt &&
          read->header.key == wanted.key)) {
      EndMetadata(read, ReadOutcome::kGone);
      return;
    }
    if (fault != RecordFault::kNone) {
      {
        absl::MutexLock lock(&mutex_);
        CountFaultLocked(fault);
        QuarantineLocked(*read->segment, read->fingerprint, place, &read->identity);
      }
      EndMetadata(read, ReadOutcome::kCorrupt);
      return;
    }
    if (ExtraPages(read->header.metadata_bytes) > 0) {
      read->extra = AlignedBuffer(read->header.metadata_bytes);
      SubmitMetadata(read);
      return;
    }
  } else if (completion.bytes < read->extra.size() ||
             !(PayloadChecksum(read->extra.span().first(read->header.metadata_bytes)) ==
               read->header.metadata_checksum)) {
    {
      absl::MutexLock lock(&mutex_);
      CountFaultLocked(RecordFault::kMetadata);
      QuarantineLocked(*read->segment, read->fingerprint, read->place, &read->identity);
    }
    EndMetadata(read, ReadOutcome::kCorrupt);
    return;
  }
  EndMetadata(read, ReadOutcome::kVerified);
}

void Tier::EndMetadata(const std::shared_ptr<MetadataRead>& read, ReadOutcome outcome) {
  RecordMetadata metadata;
  if (outcome == ReadOutcome::kVerified) {
    metadata.parent = std::string(read->header.parent);
    metadata.first_token = read->header.first_token;
    metadata.tokens = read->header.tokens;
    metadata.metadata = read->extra.size() == 0
                            ? std::string(read->header.metadata)
                            : std::string(read->extra.bytes(), read->header.metadata_bytes);
  }
  read->done(outcome, metadata);
  DeferredCalls deferred;
  absl::MutexLock lock(&mutex_);
  if (outcome == ReadOutcome::kVerified) {
    ReadSucceededLocked();
  }
  --reads_in_flight_;
  UnpinLocked(*read->segment, deferred);
  --transfers_;
}

}  // namespace terrace
