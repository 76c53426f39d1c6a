// Whether what lies at a record's place is that record. Pure: whoever reads has the bytes already.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

#include "tiers/segment/record_format.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

// What a footer, an index or the header before says of a record.
struct RecordClaim {
  Digest128 tier_uuid;
  uint64_t segment_epoch = 0;
  IndexedRecord record;
};

enum class RecordFault : uint8_t {
  kNone = 0,
  kHeader = 1,  // it cannot be read as one
  kStale = 2,   // sound, and of another record, place or time
  kPayload = 3,
  kMetadata = 4,
};

// Bytes of a record as it lies in its segment.
constexpr uint64_t RecordBytes(const IndexedRecord& record) {
  return (1 + uint64_t{PagesOf(record.payload_bytes)} + record.extra_pages) * kPageBytes;
}

// `page`: the header's. *out is complete with kNone and kStale.
RecordFault CheckHeader(absl::Span<const char> page, const RecordClaim& claim, RecordHeader* out);

// `whole`: RecordBytes(claim.record). Hashes payload and metadata.
RecordFault CheckRecord(absl::Span<const char> whole, const RecordClaim& claim, RecordHeader* out);

}  // namespace terrace
