#include "tiers/segment/record_check.h"

#include <cstdint>

#include "absl/types/span.h"

#include "tiers/segment/payload_hash.h"
#include "tiers/vocab/check.h"

namespace terrace {

RecordFault CheckHeader(absl::Span<const char> page, const RecordClaim& claim, RecordHeader* out) {
  if (DecodeRecordHeader(page, out) != HeaderFault::kNone) {
    return RecordFault::kHeader;
  }
  const IndexedRecord& record = claim.record;
  const bool same =
      out->tier_uuid == claim.tier_uuid && out->segment == record.segment &&
      out->segment_epoch == claim.segment_epoch && out->page == record.page &&
      out->sequence == record.sequence && static_cast<uint8_t>(out->kind) == record.kind &&
      out->payload_bytes == record.payload_bytes &&
      ExtraPages(out->metadata_bytes) == record.extra_pages && out->checksum == record.checksum;
  return same ? RecordFault::kNone : RecordFault::kStale;
}

RecordFault CheckRecord(absl::Span<const char> whole, const RecordClaim& claim, RecordHeader* out) {
  TERRACE_CHECK(whole.size() == RecordBytes(claim.record));
  if (const RecordFault fault = CheckHeader(whole.first(kPageBytes), claim, out);
      fault != RecordFault::kNone) {
    return fault;
  }
  if (!(PayloadChecksum(whole.subspan(kPageBytes, out->payload_bytes)) == out->checksum)) {
    return RecordFault::kPayload;
  }
  if (claim.record.extra_pages == 0) {
    return RecordFault::kNone;  // what metadata there is lies in the header, and is covered by it
  }
  const absl::Span<const char> metadata =
      whole.subspan((1 + uint64_t{PagesOf(out->payload_bytes)}) * kPageBytes, out->metadata_bytes);
  return PayloadChecksum(metadata) == out->metadata_checksum ? RecordFault::kNone
                                                             : RecordFault::kMetadata;
}

}  // namespace terrace
