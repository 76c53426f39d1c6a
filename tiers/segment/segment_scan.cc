#include "tiers/segment/segment_scan.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
#include "tiers/segment/sealed_record_format.h"
#include "tiers/segment/segment_format.h"

namespace terrace {
namespace {

// OK with out->by_footer = false: there is no sound footer.
absl::Status ScanFooter(const ScanRequest& request, ScanResult* out) {
  const auto pages = static_cast<uint32_t>(request.segment_bytes / kPageBytes);
  const AlignedBuffer page(kPageBytes);
  absl::Status status = ReadFully(*request.file, uint64_t{pages - 1} * kPageBytes, page.span());
  if (!status.ok()) {
    return absl::IsOutOfRange(status) ? absl::OkStatus() : status;
  }
  SegmentTrailer trailer;
  if (DecodeTrailer(page.span(), &trailer) != HeaderFault::kNone ||
      !(trailer.tier_uuid == request.tier_uuid) || trailer.number != request.number ||
      trailer.epoch != request.epoch || trailer.entries > pages ||
      trailer.entries_page + uint64_t{FooterPages(trailer.entries)} != pages) {
    return absl::OkStatus();
  }
  const AlignedBuffer entries(uint64_t{FooterPages(trailer.entries) - 1} * kPageBytes);
  status = ReadFully(*request.file, uint64_t{trailer.entries_page} * kPageBytes, entries.span());
  if (!status.ok()) {
    return absl::IsOutOfRange(status) ? absl::OkStatus() : status;
  }
  std::vector<IndexedRecord> records;
  if (!(PayloadChecksum(entries.span()) == trailer.entries_checksum) ||
      !DecodeEntries(entries.span(), trailer, &records)) {
    return absl::OkStatus();
  }
  out->records = std::move(records);
  out->end_page = trailer.end_page;
  out->by_footer = true;
  return absl::OkStatus();
}

bool IsPlain(const ScanRequest& request, absl::Span<const char> page, IndexedRecord* out) {
  RecordHeader header;
  if (DecodeRecordHeader(page, &header) != HeaderFault::kNone ||
      !(header.tier_uuid == request.tier_uuid) || header.segment != request.number ||
      header.segment_epoch != request.epoch) {
    return false;
  }
  out->fingerprint = IdentityFingerprint(header.namespace_digest, header.generation, header.salt,
                                         header.key, request.tier_uuid.lo);
  out->checksum = header.checksum;
  out->sequence = header.sequence;
  out->page = header.page;
  out->payload_bytes = header.payload_bytes;
  out->kind = static_cast<uint8_t>(header.kind);
  out->extra_pages = static_cast<uint8_t>(ExtraPages(header.metadata_bytes));
  return true;
}

bool IsSealed(const ScanRequest& request, absl::Span<const char> page, IndexedRecord* out) {
  SealedHeader header;
  if (DecodeSealedHeader(page, &header) != HeaderFault::kNone ||
      !(header.tier_uuid == request.tier_uuid) || header.segment != request.number ||
      header.segment_epoch != request.epoch) {
    return false;
  }
  out->fingerprint = header.fingerprint;
  out->checksum = header.listed_checksum;
  out->sequence = header.sequence;
  out->page = header.page;
  out->payload_bytes = header.payload_bytes;
  out->kind = static_cast<uint8_t>(RecordKind::kBlock);
  out->extra_pages = static_cast<uint8_t>(ExtraPages(header.metadata_bytes));
  return true;
}

// Pages of the record that begins at `at`; 0: none of this segment does.
uint32_t RecordAt(const ScanRequest& request,
                  absl::Span<const char> page,
                  uint32_t at,
                  IndexedRecord* out) {
  const bool found = request.sealed ? IsSealed(request, page, out) : IsPlain(request, page, out);
  if (!found || out->page != at) {
    return 0;
  }
  out->segment = request.number;
  return 1 + PagesOf(out->payload_bytes) + out->extra_pages;
}

absl::Status ScanHeaders(const ScanRequest& request, ScanResult* out) {
  const auto pages = static_cast<uint32_t>(request.segment_bytes / kPageBytes);
  // A transfer of 256 KiB takes about as long as three of a page.
  PagesInOrder headers(*request.file, pages, 64);
  uint32_t at = request.first_page;
  while (at < pages) {
    absl::Span<const char> page;
    absl::Status status = headers.Read(at, 1, &page);
    if (!status.ok()) {
      if (!absl::IsOutOfRange(status)) {
        return status;
      }
      break;
    }
    IndexedRecord record;
    const uint32_t record_pages = RecordAt(request, page, at, &record);
    if (record_pages == 0 || record_pages > pages - at) {
      break;
    }
    out->records.push_back(record);
    at += record_pages;
  }
  out->end_page = at;
  return absl::OkStatus();
}

}  // namespace

absl::Status PagesInOrder::Read(uint32_t at, uint32_t count, absl::Span<const char>* out) {
  if (at >= pages_ || count > pages_ - at) {
    return absl::OutOfRangeError("behind the segment's end");
  }
  if (at < first_ || uint64_t{at} + count > uint64_t{first_} + count_) {
    // Within a window of small records there are four of them at least.
    const bool near = asked_ && at - last_ <= window_pages_ / 4 && count <= window_pages_ / 4;
    const uint32_t wanted = std::min(near ? window_pages_ : count, pages_ - at);
    absl::Status status = Fetch(at, wanted);
    if (wanted > count && !status.ok()) {
      status = Fetch(at, count);  // the file was cut off behind it, or a spot is bad
    }
    if (!status.ok()) {
      return status;
    }
  }
  asked_ = true;
  last_ = at;
  *out = window_.span().subspan(uint64_t{at - first_} * kPageBytes, uint64_t{count} * kPageBytes);
  return absl::OkStatus();
}

absl::Status PagesInOrder::Fetch(uint32_t at, uint32_t count) {
  count_ = 0;
  const uint64_t bytes = uint64_t{count} * kPageBytes;
  if (window_.size() < bytes) {
    window_ = AlignedBuffer(bytes);
  }
  absl::Status status = ReadFully(file_, uint64_t{at} * kPageBytes, window_.span().first(bytes));
  if (status.ok()) {
    first_ = at;
    count_ = count;
  }
  return status;
}

absl::Status ScanSegment(const ScanRequest& request, ScanResult* out) {
  *out = ScanResult();
  absl::Status status = ScanFooter(request, out);
  if (!status.ok() || out->by_footer) {
    return status;
  }
  return ScanHeaders(request, out);
}

}  // namespace terrace
