// The format of a segment file, around its records. Pure.
//
//   segment  = head page, records, unused pages, footer
//   footer   = entries padded with zeros to 4096, trailer page; it ends with the file
//   head     = 4096 bytes, little-endian:
//          0    8  magic "TRRCSEG\n"
//          8    2  version, 1
//         10    2  zeros
//         12    4  CRC-32C of the page, these four bytes as zeros
//         16   16  UUID of the tier
//         32    4  number of the segment
//         36    1  role: 0 blocks; 1 what the tier itself writes: tombstones, notes, rescued blocks
//         37    3  zeros
//         40    8  epoch: another each time the file is used again
//         48    8  bytes of the file
//         56       zeros
//   trailer  = 4096 bytes:
//          0   48  as the head, with magic "TRRCEND\n"
//         48    4  entries
//         52    4  first page of the entries
//         56    4  first page behind the last record
//         60    4  zeros
//         64   16  XXH3-128 of the entries with their padding
//         80       zeros
//   entry    = 56 bytes:
//          0   16  fingerprint of the identity (payload_hash.h, seeded with the UUID's lo)
//         16   16  XXH3-128 of the payload
//         32    8  sequence
//         40    4  page at which the record begins
//         44    4  payload_bytes
//         48    1  kind
//         49    1  extra pages
//         50    6  zeros
//
// A footer whose epoch is not the head's is left from an earlier use and means nothing.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

#include "tiers/segment/record_format.h"
#include "tiers/vocab/block_index.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint16_t kSegmentVersion = 1;
inline constexpr uint32_t kFooterEntryBytes = 56;

// What a segment is written for. A recovery reads the tier's own segments before anything else, so
// that nothing deleted is found again.
enum class SegmentRole : uint8_t { kBlocks = 0, kOwn = 1 };

struct SegmentHead {
  Digest128 tier_uuid;
  uint32_t number = 0;
  SegmentRole role = SegmentRole::kBlocks;
  uint64_t epoch = 0;
  uint64_t segment_bytes = 0;
};
void EncodeSegmentHead(const SegmentHead& head, absl::Span<char> page);
// kField: another version than this one's, or a field out of range.
HeaderFault DecodeSegmentHead(absl::Span<const char> page, SegmentHead* out);

struct SegmentTrailer {
  Digest128 tier_uuid;
  uint32_t number = 0;
  SegmentRole role = SegmentRole::kBlocks;
  uint64_t epoch = 0;
  uint32_t entries = 0;
  uint32_t entries_page = 0;
  uint32_t end_page = 0;
  Digest128 entries_checksum;
};
void EncodeTrailer(const SegmentTrailer& trailer, absl::Span<char> page);
HeaderFault DecodeTrailer(absl::Span<const char> page, SegmentTrailer* out);

// Pages of a footer of so many entries, the trailer included.
constexpr uint32_t FooterPages(uint64_t entries) {
  return PagesOf(entries * kFooterEntryBytes) + 1;
}

// Entries and padding: FooterPages(entries.size()) - 1 pages.
void EncodeEntries(absl::Span<const IndexedRecord> entries, absl::Span<char> pages);
// `pages` as read, with the checksum compared already. False: an entry makes no sense.
bool DecodeEntries(absl::Span<const char> pages,
                   const SegmentTrailer& trailer,
                   std::vector<IndexedRecord>* out);

}  // namespace terrace
