// The format of a record whose identity nobody reads who has no key. Pure; what is sealed, and how,
// is for who writes it (daemon/protection).
//
//   record   = header page, payload padded with zeros to 4096, metadata pages
//   header   = 4096 bytes, little-endian:
//     offset size
//          0    8  magic "TRRCSLD\n"
//          8    2  version, 1
//         10    1  zero
//         11    1  extra pages: pages of metadata behind the payload, 0 to 3
//         12    4  CRC-32C of the page, these four bytes as zeros
//         16   16  UUID of the tier
//         32    8  epoch of the segment
//         40    8  sequence
//         48    4  number of the segment
//         52    4  page in the segment at which the record begins
//         56    4  payload_bytes
//         60    4  metadata_bytes
//         64   16  XXH3-128 of the payload as it lies in the segment
//         80   16  fingerprint, as footers list it
//         96   16  checksum of the payload, as footers list it
//        112   32  salt: random, of this record alone
//        144   16  tag
//        160 3936  sealed text
//
//   sealed text, opened:
//          0    8  first token
//          8    4  tokens
//         12    2  parent_bytes
//         14    2  zeros
//         16   64  parent's key, then zeros
//         80   16  tag of the metadata pages; zeros where there are none
//         96 3568  metadata where it fits (extra pages = 0), then zeros
//       3664       zeros
//
// Key, salt of the identity, namespace and generation are nowhere in it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

#include "tiers/segment/record_format.h"
#include "tiers/vocab/block_key.h"

namespace terrace {

inline constexpr uint16_t kSealedRecordVersion = 1;
inline constexpr uint32_t kSealedTextAt = 160;
inline constexpr uint32_t kSealedTextBytes = kPageBytes - kSealedTextAt;

struct SealedHeader {
  Digest128 tier_uuid;
  uint64_t segment_epoch = 0;
  uint64_t sequence = 0;
  uint32_t segment = 0;
  uint32_t page = 0;
  uint32_t payload_bytes = 0;
  uint32_t metadata_bytes = 0;
  Digest128 stored_checksum;
  Digest128 fingerprint;
  Digest128 listed_checksum;
  std::array<char, 32> salt{};
  std::array<char, 16> tag{};
};

// Writes all but the sealed text, which lies in the page already. The CRC is of the whole page.
void EncodeSealedHeader(const SealedHeader& header, absl::Span<char> page);
// Never reads beyond the page; *out is complete only with kNone.
HeaderFault DecodeSealedHeader(absl::Span<const char> page, SealedHeader* out);
// What of the header a tag covers beside the sealed text: its first 160 bytes, with zeros for the
// CRC, the checksum of the stored payload and the tag, which follow from the rest.
std::array<char, kSealedTextAt> CoveredHeader(const SealedHeader& header);

struct SealedText {
  uint64_t first_token = 0;
  uint32_t tokens = 0;
  std::string_view parent;
  std::array<char, 16> metadata_tag{};
  std::string_view metadata;  // "" where it lies behind the payload
};
// kSealedTextBytes of it.
void EncodeSealedText(const SealedText& text, absl::Span<char> out);

}  // namespace terrace
