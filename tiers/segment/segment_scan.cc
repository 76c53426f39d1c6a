#include "tiers/segment/segment_scan.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "tiers/os/file_system.h"
#include "tiers/segment/payload_hash.h"
#include "tiers/segment/record_format.h"
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

// Headers one after the other. Where records are small a read brings many of them: a transfer of
// 256 KiB takes about as long as three of a page.
class HeaderPages {
 public:
  HeaderPages(File& file, uint32_t pages) : file_(file), pages_(pages) {}

  // OUT_OF_RANGE: the file ends before it. *page is valid until the next call.
  absl::Status Read(uint32_t at, absl::Span<const char>* page) {
    if (at < first_ || at >= first_ + count_) {
      const uint32_t stride = at - last_;
      uint32_t wanted = last_ > 0 && stride <= kWindowPages / 4 ? kWindowPages : 1;
      wanted = std::min(wanted, pages_ - at);
      absl::Status status = Fetch(at, wanted);
      if (wanted > 1 && absl::IsOutOfRange(status)) {
        status = Fetch(at, 1);  // a file that was cut off
      }
      if (!status.ok()) {
        return status;
      }
    }
    last_ = at;
    *page = window_.span().subspan(uint64_t{at - first_} * kPageBytes, kPageBytes);
    return absl::OkStatus();
  }

 private:
  static constexpr uint32_t kWindowPages = 64;

  absl::Status Fetch(uint32_t at, uint32_t count) {
    count_ = 0;
    absl::Status status = ReadFully(file_, uint64_t{at} * kPageBytes,
                                    window_.span().first(uint64_t{count} * kPageBytes));
    if (status.ok()) {
      first_ = at;
      count_ = count;
    }
    return status;
  }

  File& file_;
  const uint32_t pages_;
  const AlignedBuffer window_{uint64_t{kWindowPages} * kPageBytes};
  uint32_t first_ = 0;  // in the window
  uint32_t count_ = 0;
  uint32_t last_ = 0;  // that was asked for; 0: none
};

absl::Status ScanHeaders(const ScanRequest& request, ScanResult* out) {
  const auto pages = static_cast<uint32_t>(request.segment_bytes / kPageBytes);
  HeaderPages headers(*request.file, pages);
  uint32_t at = request.first_page;
  while (at < pages) {
    absl::Span<const char> page;
    absl::Status status = headers.Read(at, &page);
    if (!status.ok()) {
      if (!absl::IsOutOfRange(status)) {
        return status;
      }
      break;
    }
    RecordHeader header;
    if (DecodeRecordHeader(page, &header) != HeaderFault::kNone ||
        !(header.tier_uuid == request.tier_uuid) || header.segment != request.number ||
        header.segment_epoch != request.epoch || header.page != at) {
      break;
    }
    const uint32_t record_pages = RecordPages(header.payload_bytes, header.metadata_bytes);
    if (record_pages > pages - at) {
      break;
    }
    IndexedRecord record;
    record.fingerprint = IdentityFingerprint(header.namespace_digest, header.generation,
                                             header.salt, header.key, request.tier_uuid.lo);
    record.checksum = header.checksum;
    record.sequence = header.sequence;
    record.segment = header.segment;
    record.page = at;
    record.payload_bytes = header.payload_bytes;
    record.kind = static_cast<uint8_t>(header.kind);
    record.extra_pages = static_cast<uint8_t>(ExtraPages(header.metadata_bytes));
    out->records.push_back(record);
    at += record_pages;
  }
  out->end_page = at;
  return absl::OkStatus();
}

}  // namespace

absl::Status ScanSegment(const ScanRequest& request, ScanResult* out) {
  *out = ScanResult();
  absl::Status status = ScanFooter(request, out);
  if (!status.ok() || out->by_footer) {
    return status;
  }
  return ScanHeaders(request, out);
}

}  // namespace terrace
